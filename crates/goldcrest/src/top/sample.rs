//! What machines are and do, from one look to the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use serde_json::Value;

use super::ask;
use super::process::{self, Process};

/// How long a machine may take to answer, and how long all of them may.
const PATIENCE: Duration = Duration::from_millis(300);
const ALL: Duration = Duration::from_secs(2);

/// A machine as it is shown. What is not known is nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) state: Option<String>,
    pub(super) cpus: Option<u64>,
    /// Of one of the host's processors.
    pub(super) cpu_percent: Option<f64>,
    pub(super) resident_bytes: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) exits_per_second: Option<f64>,
    pub(super) disk_bytes_per_second: Option<f64>,
    pub(super) net_bytes_per_second: Option<f64>,
}

/// A look at a machine.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    process: Process,
    answers: Option<Answers>,
}

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
struct Answers {
    id: Option<String>,
    state: Option<String>,
    cpus: Option<u64>,
    memory: Option<u64>,
    /// Exits, bytes of disks, bytes of network cards, if all that was told.
    counts: Option<[u64; 3]>,
}

/// The last two looks at all machines.
#[derive(Debug, Default)]
pub(super) struct Samples {
    before: HashMap<(i32, u64), Sample>,
    now: Vec<Sample>,
}

impl Samples {
    /// Looks at all machines.
    pub(super) fn take(&mut self) {
        let key = |sample: &Sample| (sample.process.pid, sample.process.began);
        let last = self.now.drain(..).map(|sample| (key(&sample), sample));
        self.before = last.collect();
        let until = Instant::now() + ALL;
        let looks = process::all().into_iter().map(|process| Sample {
            at: Instant::now(),
            answers: answers(&process, until.min(Instant::now() + PATIENCE)),
            process,
        });
        self.now = looks.collect();
    }

    /// What is known of them.
    pub(super) fn rows(&self) -> Vec<Row> {
        let page = number(SysconfVar::PAGE_SIZE);
        let ticks = number(SysconfVar::CLK_TCK);
        let rows = self.now.iter().map(|now| {
            let key = (now.process.pid, now.process.began);
            row(now, self.before.get(&key), page, ticks)
        });
        rows.collect()
    }
}

/// One of the system's numbers. Linux has had these values for ever, should it not tell.
fn number(which: SysconfVar) -> u64 {
    let known = if which == SysconfVar::CLK_TCK {
        100
    } else {
        4096
    };
    let told = sysconf(which).ok().flatten();
    told.and_then(|number| u64::try_from(number).ok())
        .filter(|number| *number > 0)
        .unwrap_or(known)
}

fn answers(process: &Process, deadline: Instant) -> Option<Answers> {
    let socket = process.machine.socket.as_deref()?;
    let ask = |question| ask::get(socket, process.pid, question, deadline);
    let status = ask("/goldcrest/v1/status")?;
    let text = |name: &str| Some(status.get(name)?.as_str()?.to_owned());
    let machine = ask("/machine-config").unwrap_or_default();
    let metrics = ask("/goldcrest/v1/metrics/json");
    let mib = machine.get("mem_size_mib").and_then(Value::as_u64);
    Some(Answers {
        id: text("id"),
        state: text("state"),
        cpus: machine.get("vcpu_count").and_then(Value::as_u64),
        memory: mib.and_then(|mib| mib.checked_mul(1 << 20)),
        counts: metrics.as_ref().and_then(counts),
    })
}

/// Exits, and bytes of disks and of network cards.
fn counts(metrics: &Value) -> Option<[u64; 3]> {
    let exits = metrics.get("exits")?.as_object()?.values();
    let exits = exits.filter_map(Value::as_u64).fold(0, u64::saturating_add);
    let devices = metrics.get("devices")?.as_array()?;
    let bytes = |kind: &str| {
        let is_it = |device: &&Value| {
            let name = device.get("name").and_then(Value::as_str);
            name.is_some_and(|name| name.starts_with(kind))
        };
        let fields = devices
            .iter()
            .filter(is_it)
            .flat_map(|device| [device.get("bytes_read"), device.get("bytes_written")]);
        let bytes = fields.flatten().filter_map(Value::as_u64);
        bytes.fold(0, u64::saturating_add)
    };
    Some([exits, bytes("disk"), bytes("net")])
}

fn row(now: &Sample, before: Option<&Sample>, page: u64, ticks: u64) -> Row {
    let Process {
        pid,
        pages,
        machine,
        ..
    } = &now.process;
    let answers = now.answers.clone().unwrap_or_default();
    let seconds = before.map(|before| now.at.saturating_duration_since(before.at).as_secs_f64());
    let rate = |now: u64, before: u64| {
        let seconds = seconds.filter(|seconds| *seconds > 0.0)?;
        Some(now.saturating_sub(before) as f64 / seconds)
    };
    let used = before.and_then(|before| rate(now.process.ticks, before.process.ticks));
    let last = before.and_then(|before| before.answers.as_ref()?.counts);
    let rates = answers.counts.zip(last).map(|(now, last)| {
        let [exits, disk, net] = now;
        let [exits_before, disk_before, net_before] = last;
        (
            rate(exits, exits_before),
            rate(disk, disk_before),
            rate(net, net_before),
        )
    });
    let (exits, disk, net) = rates.unwrap_or_default();
    Row {
        pid: *pid,
        name: answers.id.unwrap_or_else(|| machine.name.clone()),
        state: answers.state,
        cpus: answers.cpus.or(machine.cpus),
        cpu_percent: used.map(|used| used * 100.0 / ticks as f64),
        resident_bytes: pages.saturating_mul(page),
        memory_bytes: answers.memory.or(machine.memory),
        exits_per_second: exits,
        disk_bytes_per_second: disk,
        net_bytes_per_second: net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told_is_added_up_and_lies_do_no_harm() {
        let metrics = json!({
            "exits": { "port_read": 5, "port_write": u64::MAX, "kicked": "x" },
            "devices": [
                { "name": "disk a", "bytes_read": 1, "bytes_written": 2 },
                { "name": "net tap0", "bytes_read": 4, "bytes_written": -8 },
                { "name": "disk b", "bytes_read": 16 },
                { "name": 7, "bytes_read": 32 }, 3,
            ],
        });
        assert_eq!(counts(&metrics), Some([u64::MAX, 19, 4]));
        for lie in [
            json!(null),
            json!([]),
            json!({ "exits": [], "devices": [] }),
            json!({ "exits": {} }),
        ] {
            assert_eq!(counts(&lie), None, "{lie}");
        }
    }

    #[test]
    fn rates_are_of_the_time_between_looks() {
        let at = Instant::now();
        let process = |ticks| Process {
            pid: 7,
            began: 1,
            ticks,
            pages: 10,
            machine: process::Machine {
                name: "a".into(),
                ..Default::default()
            },
        };
        let told = |counts| {
            Some(Answers {
                counts: Some(counts),
                ..Answers::default()
            })
        };
        let before = Sample {
            at,
            process: process(100),
            answers: told([100, 0, 50]),
        };
        let now = Sample {
            at: at + Duration::from_secs(2),
            process: process(150),
            answers: told([300, 4096, 0]),
        };
        let first = row(&before, None, 4096, 100);
        assert_eq!((first.cpu_percent, first.exits_per_second), (None, None));
        assert_eq!((first.name.as_str(), first.resident_bytes), ("a", 40_960));
        let next = row(&now, Some(&before), 4096, 100);
        assert_eq!(next.cpu_percent, Some(25.0));
        assert_eq!(next.exits_per_second, Some(100.0));
        assert_eq!(next.disk_bytes_per_second, Some(2048.0));
        // Counters of another machine by the same process.
        assert_eq!(next.net_bytes_per_second, Some(0.0));
    }
}
