//! Where time comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Tells the time since some moment that does not change.
pub trait Clock: Send {
    /// The time now.
    fn now(&self) -> Duration;
}

/// The host's `CLOCK_MONOTONIC`: what it says is what a timer on that clock can be set to.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    /// The time since the host started; it stands still while the host sleeps.
    fn now(&self) -> Duration {
        // Linux has always had this clock. Without it time stands still: requests wait, nothing breaks.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    }
}

/// A clock that stands until it is moved, for tests and fuzzers. Clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves to `now`, forwards or back; the greatest time is 584 years.
    pub fn set(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// Moves forwards by `time`.
    pub fn advance(&self, time: Duration) {
        self.set(self.now().saturating_add(time));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forwards() {
        let first = MonotonicClock.now();
        assert!(first > Duration::ZERO);
        assert!(MonotonicClock.now() >= first);

        let clock = ManualClock::default();
        clock.clone().advance(Duration::from_millis(3));
        assert_eq!(clock.now(), Duration::from_millis(3));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }
}
