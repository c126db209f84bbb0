//! What is written of what happens: a log of requests, and metrics.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use goldcrest_monitor::Metrics;
use nix::fcntl::OFlag;
use serde_json::json;

use crate::controller::Answer;
use crate::model::{Level, Logger};
use crate::{ApiError, Fault};

/// The log and the metrics. Without a file, nothing is written.
#[derive(Debug, Default)]
pub struct Journal {
    log: Option<Log>,
    metrics: Option<File>,
    counts: Counts,
}

#[derive(Debug)]
struct Log {
    /// What each line names.
    id: String,
    file: File,
    level: Level,
    show_level: bool,
}

/// What was counted since the last flush, as with Firecracker.
#[derive(Debug, Default)]
struct Counts {
    get: Count,
    put: Count,
    patch: Count,
    lost_logs: u64,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    fails: u64,
}

impl Journal {
    /// Writes the log as a client or a person wants it.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the file cannot be opened.
    pub fn set_logger(&mut self, id: &str, logger: &Logger) -> Result<(), Fault> {
        let file = match &logger.log_path {
            Some(path) => Some(open(path, "log")?),
            None => None,
        };
        match (file, &mut self.log) {
            (Some(file), log) => {
                *log = Some(Log {
                    id: id.to_owned(),
                    file,
                    level: logger.level.unwrap_or_default(),
                    show_level: logger.show_level.unwrap_or(false),
                });
            }
            (None, Some(log)) => {
                log.level = logger.level.unwrap_or(log.level);
                log.show_level = logger.show_level.unwrap_or(log.show_level);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Has metrics written to a file.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot be opened, or another one is in use.
    pub fn set_metrics(&mut self, path: &Path) -> Result<(), Fault> {
        if self.metrics.is_some() {
            return Err(Fault::new("metrics have a file already"));
        }
        self.metrics = Some(open(path, "metrics")?);
        Ok(())
    }

    /// A request was answered.
    pub fn request(&mut self, method: &str, path: &str, result: &Result<Answer, ApiError>) {
        let count = match method {
            "GET" => &mut self.counts.get,
            "PUT" => &mut self.counts.put,
            _ => &mut self.counts.patch,
        };
        count.requests = count.requests.saturating_add(1);
        match result {
            Ok(_) => self.say(Level::Info, || format!("{method} {}: done", quoted(path))),
            Err(error) => {
                count.fails = count.fails.saturating_add(1);
                self.say(Level::Error, || {
                    format!("{method} {}: {error}", quoted(path))
                });
            }
        }
    }

    /// Writes a line to the log, if it is important enough.
    pub fn say(&mut self, level: Level, line: impl FnOnce() -> String) {
        let Some(log) = &mut self.log else {
            return;
        };
        if level > log.level {
            return;
        }
        let level = match log.show_level {
            true => format!(":{level:?}"),
            false => String::new(),
        };
        let now = since_epoch();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        let text = format!("{seconds}.{micros:06} [{}{level}] {}\n", log.id, line());
        // A pipe that nobody reads holds nobody up.
        if log.file.write_all(text.as_bytes()).is_err() {
            self.counts.lost_logs = self.counts.lost_logs.saturating_add(1);
        }
    }

    /// Writes a line of metrics, and counts anew.
    ///
    /// # Errors
    ///
    /// [`Fault`] if there is no file, or it cannot be written.
    pub fn flush_metrics(
        &mut self,
        uptime: Option<Duration>,
        machine: &Metrics,
    ) -> Result<(), Fault> {
        let Some(file) = &mut self.metrics else {
            return Err(Fault::new(
                "metrics have no file: say where they go first (PUT /metrics)",
            ));
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Counts {
            get,
            put,
            patch,
            lost_logs,
        } = &self.counts;
        let requests = |count: &Count| json!({ "count": count.requests, "fails": count.fails });
        let line = json!({
            "utc_timestamp_ms": millis(since_epoch()),
            "uptime_ms": uptime.map(millis),
            "get_api_requests": requests(get),
            "put_api_requests": requests(put),
            "patch_api_requests": requests(patch),
            "logger": { "missed_log_count": lost_logs },
            "machine": machine,
        });
        file.write_all(format!("{line}\n").as_bytes())
            .map_err(|error| Fault::new(format!("cannot write the metrics: {error}")))?;
        self.counts = Counts::default();
        Ok(())
    }
}

/// Opens a file or a pipe without waiting for a reader.
fn open(path: &Path, what: &str) -> Result<File, Fault> {
    // Read, too: a pipe is opened for writing alone when it has a reader only.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| {
            Fault::new(format!(
                "cannot open the {what} {}: {error}",
                path.display()
            ))
        })
}

/// A path as it is, but on one line.
fn quoted(path: &str) -> String {
    path.escape_default().take(200).collect()
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
    fn lines_are_written_from_their_level_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut journal = Journal::default();
        journal.say(Level::Error, || unreachable!("there is no file"));
        let logger = Logger {
            log_path: Some(path.clone()),
            level: Some(Level::Error),
            show_level: Some(true),
            ..Logger::default()
        };
        journal.set_logger("one", &logger).unwrap();
        journal.request("GET", "/", &Ok(Answer::Done));
        journal.request("GET", "/a\nb", &Err(ApiError::Body));
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.ends_with(" [one:Error] GET /a\\nb: a GET has no body\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn metrics_count_since_the_last_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        let mut journal = Journal::default();
        let machine = Metrics::default();
        assert!(journal.flush_metrics(None, &machine).is_err());
        journal.set_metrics(&path).unwrap();
        assert!(journal.set_metrics(&path).is_err());
        journal.request("PUT", "/", &Err(ApiError::Body));
        journal.request("PUT", "/", &Ok(Answer::Done));
        let second = Some(Duration::from_secs(1));
        journal.flush_metrics(second, &machine).unwrap();
        journal.flush_metrics(None, &machine).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines[0]["put_api_requests"],
            json!({ "count": 2, "fails": 1 })
        );
        assert_eq!(lines[0]["uptime_ms"], 1000);
        assert_eq!(lines[1]["put_api_requests"]["count"], 0);
    }
}
