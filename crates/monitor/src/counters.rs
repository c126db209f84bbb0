//! What is counted while a machine runs.
//!
//! Counters are there from the start, as parts of the control: nothing is allocated or started for them. Each is added
//! to by an instruction, in no order with anything else, so that some of those that are read together may be a little
//! later than others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use goldcrest_vcpu::{Exit, VcpuError};

use crate::cpu::Board;
use crate::{DeviceMetrics, Histogram, Metrics};

/// One more.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Why guest code was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    PortRead,
    PortWrite,
    MemoryRead,
    MemoryWrite,
    EndOfInterrupt,
    ExternalInterrupt,
    Kicked,
    Halted,
    Shutdown,
    SystemEvent,
    Failed,
}

/// Their names, in the order of [`Reason`].
const REASONS: [&str; 11] = [
    "port_read",
    "port_write",
    "memory_read",
    "memory_write",
    "end_of_interrupt",
    "external_interrupt",
    "kicked",
    "halted",
    "shutdown",
    "system_event",
    "failed",
];

impl Reason {
    /// Of the end of a run; none if an access was, which is counted where it is served.
    pub(crate) fn of(ran: &Result<Exit, VcpuError>) -> Option<Self> {
        Some(match ran {
            Ok(Exit::Requested) => return None,
            Ok(Exit::Kicked) => Self::Kicked,
            Ok(Exit::Halted) => Self::Halted,
            Ok(Exit::Shutdown) => Self::Shutdown,
            Ok(Exit::SystemEvent(_)) => Self::SystemEvent,
            Ok(_) | Err(_) => Self::Failed,
        })
    }
}

/// Of a machine, also after resets.
#[derive(Default)]
pub(crate) struct Counters {
    exits: [AtomicU64; REASONS.len()],
    pub(crate) pauses: Pauses,
    starts: AtomicU64,
    /// Of machines that have ended: accesses to ports and to memory, and doorbells.
    misses: [AtomicU64; 3],
    begun: OnceLock<Instant>,
    /// Somebody has asked for metrics: what costs something is measured, too.
    asked: Arc<AtomicBool>,
    machine: Mutex<Parts>,
}

/// What is there of the machine.
#[derive(Default)]
struct Parts {
    board: Weak<Board>,
    devices: Vec<Arc<DeviceCounters>>,
}

impl Counters {
    #[inline]
    pub(crate) fn exit(&self, reason: Reason) {
        if let Some(counter) = self.exits.get(reason as usize) {
            count(counter);
        }
    }

    /// A machine is made. What is counted of it goes on from the one before.
    pub(crate) fn begin(&self, board: &Arc<Board>) {
        self.begun.get_or_init(Instant::now);
        count(&self.starts);
        self.lock().board = Arc::downgrade(board);
    }

    /// The machine has ended: what it has counted by itself is kept. Nobody but its owner has it from here on.
    pub(crate) fn end(&self, board: &Board) {
        let mut parts = self.lock();
        parts.board = Weak::new();
        for (counter, more) in self.misses.iter().zip(board.misses()) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Of a device by its place, the same after a reset.
    pub(crate) fn device(&self, index: usize, name: &str) -> Arc<DeviceCounters> {
        let mut parts = self.lock();
        match parts.devices.get(index) {
            Some(device) if device.name == name => device.clone(),
            _ => {
                let device = Arc::new(DeviceCounters {
                    name: name.into(),
                    asked: self.asked.clone(),
                    ..DeviceCounters::default()
                });
                parts.devices.truncate(index);
                parts.devices.push(device.clone());
                device
            }
        }
    }

    /// All of them, as they are.
    pub(crate) fn metrics(&self) -> Metrics {
        self.asked.store(true, Ordering::Relaxed);
        let parts = self.lock();
        // Not for longer than the lock is held: whoever ends the machine must be the last to have it.
        let live = parts.board.upgrade().map_or([0; 3], |board| board.misses());
        let [port, memory, doorbell] = &self.misses;
        let [live_port, live_memory, live_doorbell] = live;
        let exits = REASONS.into_iter().zip(self.exits.iter().map(get));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let uptime = self.begun.get().map_or(Duration::ZERO, Instant::elapsed);
        Metrics {
            time_ms: millis(since_epoch.unwrap_or_default()),
            uptime_ms: millis(uptime),
            starts: get(&self.starts),
            exits: exits.collect(),
            pauses: get(&self.pauses.count),
            paused_us: get(&self.pauses.micros),
            port_misses: get(port).saturating_add(live_port),
            memory_misses: get(memory).saturating_add(live_memory),
            doorbell_rejected: get(doorbell).saturating_add(live_doorbell),
            devices: parts
                .devices
                .iter()
                .map(|device| device.metrics())
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How often and how long the machine was paused.
#[derive(Default)]
pub(crate) struct Pauses {
    count: AtomicU64,
    micros: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl Pauses {
    /// A pause is asked for.
    pub(crate) fn begin(&self) {
        count(&self.count);
        *self.since() = Some(Instant::now());
    }

    /// It is over.
    pub(crate) fn end(&self) {
        let lasted = self
            .since()
            .take()
            .map_or(0, |since| since.elapsed().as_micros());
        let micros = u64::try_from(lasted).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a virtio device.
#[derive(Default)]
pub(crate) struct DeviceCounters {
    name: String,
    pub(crate) notifications: AtomicU64,
    /// Notifications that were left to the loop.
    pub(crate) left: AtomicU64,
    /// Turns of the loop with the device.
    pub(crate) turns: AtomicU64,
    /// Chains, bytes read, bytes written, misuses, failures.
    done: [AtomicU64; 5],
    asked: Arc<AtomicBool>,
    latency: Histogram,
}

impl DeviceCounters {
    /// A request begins: now, if it is to be known how long it takes.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.asked.load(Ordering::Relaxed).then(Instant::now)
    }

    /// A request that began then is over.
    pub(crate) fn end(&self, begun: Option<Instant>) {
        if let Some(begun) = begun {
            self.latency.record(begun.elapsed());
        }
    }

    /// Adds what has come to `before`.
    pub(crate) fn add(&self, before: &[u64; 5], now: &[u64; 5]) {
        for (counter, (before, now)) in self.done.iter().zip(before.iter().zip(now)) {
            if before != now {
                counter.fetch_add(now.wrapping_sub(*before), Ordering::Relaxed);
            }
        }
    }

    /// What it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn metrics(&self) -> DeviceMetrics {
        let [requests, read, written, misuses, failures] = &self.done;
        DeviceMetrics {
            name: self.name.clone(),
            notifications: get(&self.notifications),
            left: get(&self.left),
            turns: get(&self.turns),
            requests: get(requests),
            bytes_read: get(read),
            bytes_written: get(written),
            misuses: get(misuses),
            failures: get(failures),
            latency: Some(self.latency.metrics()).filter(|latency| latency.count > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_and_a_name() {
        let counters = Counters::default();
        for (reason, name, times) in [
            (Reason::PortRead, "port_read", 1),
            (Reason::EndOfInterrupt, "end_of_interrupt", 2),
            (Reason::Failed, "failed", 3),
        ] {
            (0..times).for_each(|_| counters.exit(reason));
            assert_eq!(counters.metrics().exits.get(name), Some(&times));
        }
        assert_eq!(counters.metrics().exits.len(), REASONS.len());
        assert_eq!(Reason::Failed as usize, REASONS.len() - 1);
    }

    #[test]
    fn a_device_goes_on_counting_after_a_reset() {
        let counters = Counters::default();
        let first = counters.device(0, "net a");
        first.add(&[0; 5], &[5, 100, 7, 1, 0]);
        count(&first.notifications);
        let again = counters.device(0, "net a");
        again.add(&[0; 5], &[2, 0, 0, 0, 1]);
        count(&counters.device(1, "rng").turns);
        let devices = counters.metrics().devices;
        let [net, rng] = &devices[..] else {
            panic!("{devices:?}");
        };
        assert_eq!(
            (net.requests, net.bytes_read, net.bytes_written),
            (7, 100, 7)
        );
        assert_eq!((net.notifications, net.misuses, net.failures), (1, 1, 1));
        assert_eq!((rng.name.as_str(), rng.turns), ("rng", 1));
        // Another machine by the same control.
        counters.device(0, "disk");
        assert_eq!(counters.metrics().devices.len(), 1);
    }

    #[test]
    fn requests_are_timed_once_somebody_has_asked() {
        let counters = Counters::default();
        let disk = counters.device(0, "disk");
        assert!(disk.begin().is_none());
        disk.end(None);
        assert_eq!(counters.metrics().devices[0].latency, None);
        let begun = disk.begin();
        assert!(begun.is_some());
        disk.end(begun);
        let latency = counters.metrics().devices[0].latency.clone();
        assert_eq!(latency.unwrap().count, 1);
    }

    #[test]
    fn pauses_are_counted_with_the_time_that_they_take() {
        let control = crate::Control::default();
        control.resume();
        for _ in 0..2 {
            control.pause();
            control.pause();
            std::thread::sleep(Duration::from_millis(2));
            control.resume();
        }
        let metrics = control.metrics();
        assert_eq!(metrics.pauses, 2);
        assert!(metrics.paused_us >= 4000, "{metrics:?}");
    }
}
