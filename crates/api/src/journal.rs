//! What is told of requests: events for the log, and metrics.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use goldcrest_monitor::{Histogram, Metrics};
use nix::fcntl::OFlag;
use serde_json::{Value, json};

use crate::call::{ROUTES, route_of};
use crate::controller::Answer;
use crate::{ApiError, Fault};

/// What was counted of requests, and the file of metrics if there is one.
#[derive(Debug)]
pub struct Journal {
    metrics: Option<File>,
    counts: Counts,
    /// How long requests took, by their route; the last is of those that have none.
    latencies: Vec<Histogram>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            metrics: None,
            counts: Counts::default(),
            latencies: (0..=ROUTES.len()).map(|_| Histogram::default()).collect(),
        }
    }
}

/// What was counted since the last flush, as with Firecracker.
#[derive(Debug, Default)]
struct Counts {
    get: Count,
    put: Count,
    patch: Count,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    fails: u64,
}

impl Journal {
    /// Has metrics written to a file.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot be opened, or another one is in use.
    pub fn set_metrics(&mut self, path: &Path) -> Result<(), Fault> {
        if self.metrics.is_some() {
            return Err(Fault::new("metrics have a file already"));
        }
        self.metrics = Some(open(path)?);
        Ok(())
    }

    /// A request was answered, which took so long.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        result: &Result<Answer, ApiError>,
        took: Duration,
    ) {
        let route = route_of(method, path).unwrap_or(ROUTES.len());
        if let Some(histogram) = self.latencies.get(route) {
            histogram.record(took);
        }
        let count = match method {
            "GET" => &mut self.counts.get,
            "PUT" => &mut self.counts.put,
            _ => &mut self.counts.patch,
        };
        count.requests = count.requests.saturating_add(1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match result {
            Ok(answer) => {
                let status = answer.status();
                tracing::info!(method, path, status, micros, "request");
            }
            Err(error) => {
                count.fails = count.fails.saturating_add(1);
                let status = error.status();
                tracing::error!(method, path, status, micros, %error, "request refused");
            }
        }
    }

    /// How long requests took, as Prometheus reads it.
    pub fn prometheus(&self) -> String {
        const NAME: &str = "goldcrest_api_request_seconds";
        let mut text = format!(
            "# HELP {NAME} Time from a request that has arrived to its answer.\n# TYPE {NAME} histogram\n"
        );
        for (method, path, latency) in self.seen() {
            let labels = format!("method=\"{method}\",path=\"{path}\"");
            // A string takes all.
            let _ = latency.metrics().write_prometheus(&mut text, NAME, &labels);
        }
        text
    }

    /// Those that there were requests of.
    fn seen(&self) -> impl Iterator<Item = (&'static str, &'static str, &Histogram)> {
        let names = ROUTES.iter().map(|route| (route.method.name(), route.path));
        let all = names.chain([("", "")]).zip(&self.latencies);
        let all = all.map(|((method, path), latency)| (method, path, latency));
        all.filter(|(_, _, latency)| latency.metrics().count > 0)
    }

    /// Writes a line of metrics, and counts requests anew. `lost` is how many lines of the log there are not.
    ///
    /// # Errors
    ///
    /// [`Fault`] if there is no file, or it cannot be written.
    pub fn flush_metrics(
        &mut self,
        uptime: Option<Duration>,
        machine: &Metrics,
        lost: u64,
    ) -> Result<(), Fault> {
        let latencies: Vec<Value> = self
            .seen()
            .map(|(method, path, latency)| {
                json!({ "method": method, "path": path, "latency": latency.metrics() })
            })
            .collect();
        let Some(file) = &mut self.metrics else {
            return Err(Fault::new(
                "metrics have no file: say where they go first (PUT /metrics)",
            ));
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Counts { get, put, patch } = &self.counts;
        let requests = |count: &Count| json!({ "count": count.requests, "fails": count.fails });
        let line = json!({
            "utc_timestamp_ms": millis(since_epoch()),
            "uptime_ms": uptime.map(millis),
            "get_api_requests": requests(get),
            "put_api_requests": requests(put),
            "patch_api_requests": requests(patch),
            "logger": { "missed_log_count": lost },
            "api_latencies": latencies,
            "machine": machine,
        });
        file.write_all(format!("{line}\n").as_bytes())
            .map_err(|error| Fault::new(format!("cannot write the metrics: {error}")))?;
        self.counts = Counts::default();
        Ok(())
    }
}

/// Opens a file or a pipe without waiting for a reader.
fn open(path: &Path) -> Result<File, Fault> {
    // Read, too: a pipe is opened for writing alone when it has a reader only.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| {
            let path = path.display();
            Fault::new(format!("cannot open the metrics {path}: {error}"))
        })
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn metrics_count_since_the_last_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        let mut journal = Journal::default();
        let machine = Metrics::default();
        assert!(journal.flush_metrics(None, &machine, 0).is_err());
        journal.set_metrics(&path).unwrap();
        assert!(journal.set_metrics(&path).is_err());
        let took = Duration::from_micros(3);
        journal.request("PUT", "/nothing", &Err(ApiError::Body), took);
        journal.request("PUT", "/vsock", &Ok(Answer::Done), took);
        let second = Some(Duration::from_secs(1));
        journal.flush_metrics(second, &machine, 5).unwrap();
        journal.flush_metrics(None, &machine, 5).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines[0]["put_api_requests"],
            json!({ "count": 2, "fails": 1 })
        );
        assert_eq!(lines[0]["uptime_ms"], 1000);
        assert_eq!(lines[0]["logger"]["missed_log_count"], 5);
        assert_eq!(lines[1]["put_api_requests"]["count"], 0);
        let latencies = lines[1]["api_latencies"].as_array().unwrap();
        assert_eq!(latencies.len(), 2);
        assert_eq!(latencies[0]["path"], "/vsock");
        assert_eq!(latencies[0]["latency"]["sum_us"], 3);
        assert_eq!(latencies[1]["path"], "");
    }

    #[test]
    fn latencies_are_told_of_each_route_that_was_asked() {
        let mut journal = Journal::default();
        let took = Duration::from_micros(5);
        journal.request("PUT", "/drives/a", &Ok(Answer::Done), took);
        journal.request("PUT", "/drives/b\"\n", &Err(ApiError::Body), took);
        let text = journal.prometheus();
        let labels = "{method=\"PUT\",path=\"/drives/{drive_id}\"";
        assert!(text.contains(&format!("_count{labels}}} 2\n")), "{text}");
        assert!(
            text.contains(&format!("{labels},le=\"0.000008\"}} 2\n")),
            "{text}"
        );
        assert_eq!(text.matches("_count").count(), 1);
    }
}
