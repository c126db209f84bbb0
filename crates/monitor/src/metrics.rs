//! What a machine has done, as others read it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use crate::LatencyMetrics;

/// What a machine has done since its control was made, also before resets. All counts grow, but for the times they wrap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// When this was so, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Since the machine was made first, in milliseconds.
    pub uptime_ms: u64,
    /// How often it was made: once, and once more for each reset that made it anew.
    pub starts: u64,
    /// How often guest code was left, by the reason: an access that a device serves (`port_read`, `port_write`,
    /// `memory_read`, `memory_write`), interrupts (`end_of_interrupt`, `external_interrupt`), `kicked` by the monitor, and
    /// what ends a machine (`halted`, `shutdown`, `system_event`, `failed`). Accesses of string instructions count one by
    /// one.
    pub exits: BTreeMap<&'static str, u64>,
    /// How often it was paused.
    pub pauses: u64,
    /// How long in all, without the pause that there is now, in microseconds.
    pub paused_us: u64,
    /// Accesses to ports where no device is.
    pub port_misses: u64,
    /// Accesses to addresses where neither RAM nor a device is.
    pub memory_misses: u64,
    /// Console requests by doorbell that named memory that does not exist.
    pub doorbell_rejected: u64,
    /// The virtio devices, in their order.
    pub devices: Vec<DeviceMetrics>,
}

/// What a virtio device has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceMetrics {
    /// What it is: its kind, and most often on what it is.
    pub name: String,
    /// How often its driver has notified it.
    pub notifications: u64,
    /// Of these, those that were left to the devices' loop, so that it serves several at once.
    pub left: u64,
    /// How often the loop had a turn with it.
    pub turns: u64,
    /// Requests, or buffers, that were given back to the driver.
    pub requests: u64,
    /// Bytes of the driver's that the device was given to read, headers included.
    pub bytes_read: u64,
    /// Bytes that it has written for the driver, headers included.
    pub bytes_written: u64,
    /// How often the driver did what it must not.
    pub misuses: u64,
    /// How often the device came to need a reset.
    pub failures: u64,
    /// How long the host took for the requests of a disk that came after somebody had asked for metrics; nothing if there
    /// were none, or it is no disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyMetrics>,
}

impl Metrics {
    /// As an object of JSON, on one line without its end.
    pub fn json(&self) -> String {
        // Plain numbers, strings and maps of strings always can be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As Prometheus reads it: its text format, version 0.0.4.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        // A string takes all.
        let _ = self.write_prometheus(&mut text);
        text
    }

    fn write_prometheus(&self, out: &mut String) -> fmt::Result {
        head(
            out,
            "uptime_seconds",
            "gauge",
            "Time since the machine was made.",
        )?;
        writeln!(
            out,
            "{PREFIX}uptime_seconds {}",
            Thousandths(self.uptime_ms)
        )?;
        for (name, help, value) in [
            ("starts", "Times that the machine was made.", self.starts),
            ("pauses", "Times that the machine was paused.", self.pauses),
            (
                "doorbell_rejected",
                "Console requests in memory that does not exist.",
                self.doorbell_rejected,
            ),
        ] {
            head(out, &format!("{name}_total"), "counter", help)?;
            writeln!(out, "{PREFIX}{name}_total {value}")?;
        }
        head(
            out,
            "paused_seconds_total",
            "counter",
            "Time in pauses that are over.",
        )?;
        let paused = Thousandths(self.paused_us / 1000);
        writeln!(out, "{PREFIX}paused_seconds_total {paused}")?;
        head(
            out,
            "bus_misses_total",
            "counter",
            "Accesses that no device is for.",
        )?;
        for (bus, value) in [("port", self.port_misses), ("memory", self.memory_misses)] {
            writeln!(out, "{PREFIX}bus_misses_total{{bus=\"{bus}\"}} {value}")?;
        }
        head(
            out,
            "exits_total",
            "counter",
            "Times that guest code was left.",
        )?;
        for (reason, value) in &self.exits {
            writeln!(out, "{PREFIX}exits_total{{reason=\"{reason}\"}} {value}")?;
        }
        self.write_devices(out)
    }

    fn write_devices(&self, out: &mut String) -> fmt::Result {
        type Value = fn(&DeviceMetrics) -> u64;
        let columns: [(&str, &str, Value); 8] = [
            ("notifications", "Notifications by the driver.", |device| {
                device.notifications
            }),
            (
                "left",
                "Notifications left to the devices' loop.",
                |device| device.left,
            ),
            ("turns", "Turns of the devices' loop.", |device| {
                device.turns
            }),
            ("requests", "Requests given back.", |device| device.requests),
            ("read_bytes", "Bytes given to the device.", |device| {
                device.bytes_read
            }),
            ("written_bytes", "Bytes written by the device.", |device| {
                device.bytes_written
            }),
            ("misuses", "What the driver must not do.", |device| {
                device.misuses
            }),
            (
                "failures",
                "Times that the device came to need a reset.",
                |device| device.failures,
            ),
        ];
        if self.devices.is_empty() {
            return Ok(());
        }
        for (name, help, value) in columns {
            head(out, &format!("device_{name}_total"), "counter", help)?;
            for (index, device) in self.devices.iter().enumerate() {
                let (label, value) = (Label(&device.name), value(device));
                writeln!(
                    out,
                    "{PREFIX}device_{name}_total{{device=\"{index}\",name=\"{label}\"}} {value}"
                )?;
            }
        }
        self.write_latencies(out)
    }

    fn write_latencies(&self, out: &mut String) -> fmt::Result {
        let devices = self.devices.iter().enumerate();
        let mut timed = devices
            .filter_map(|(index, device)| Some((index, &device.name, device.latency.as_ref()?)))
            .peekable();
        if timed.peek().is_none() {
            return Ok(());
        }
        let name = "device_request_seconds";
        head(
            out,
            name,
            "histogram",
            "Time that the host took for a request.",
        )?;
        for (index, device, latency) in timed {
            let labels = format!("device=\"{index}\",name=\"{}\"", Label(device));
            latency.write_prometheus(out, &format!("{PREFIX}{name}"), &labels)?;
        }
        Ok(())
    }
}

const PREFIX: &str = "goldcrest_";

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {PREFIX}{name} {help}")?;
    writeln!(out, "# TYPE {PREFIX}{name} {kind}")
}

/// A number of thousandths.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The value of a label, with what would end it.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics {
            time_ms: 1_700_000_000_123,
            uptime_ms: 1_050,
            starts: 1,
            exits: [("port_write", 7), ("kicked", 0)].into(),
            paused_us: 2_500_999,
            port_misses: 3,
            devices: vec![DeviceMetrics {
                name: "disk \"a\\b\"\n".into(),
                requests: 5,
                ..DeviceMetrics::default()
            }],
            ..Metrics::default()
        }
    }

    #[test]
    fn json_is_one_line_that_says_all() {
        let line = metrics().json();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time_ms"], 1_700_000_000_123_u64);
        assert_eq!(value["exits"]["port_write"], 7);
        assert_eq!(value["devices"][0]["name"], "disk \"a\\b\"\n");
        assert_eq!(value["devices"][0]["requests"], 5);
        assert_eq!(value.as_object().unwrap().len(), 10);
    }

    #[test]
    fn prometheus_gets_each_metric_with_its_type_and_escaped_labels() {
        let text = metrics().prometheus();
        for line in [
            "# TYPE goldcrest_uptime_seconds gauge",
            "goldcrest_uptime_seconds 1.050",
            "goldcrest_paused_seconds_total 2.500",
            "# TYPE goldcrest_exits_total counter",
            "goldcrest_exits_total{reason=\"port_write\"} 7",
            "goldcrest_bus_misses_total{bus=\"port\"} 3",
            "goldcrest_device_requests_total{device=\"0\",name=\"disk \\\"a\\\\b\\\"\\n\"} 5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(
                text.matches(&format!("# TYPE {name} ")).count(),
                1,
                "{line}"
            );
        }
    }
}
