//! A clock that all threads look at, and that must not go back.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// What was seen of the clock.
#[derive(Default)]
pub struct Clock {
    latest: AtomicU64,
    longest: AtomicU64,
    back: AtomicU64,
}

impl Clock {
    /// Looks at the clock.
    pub fn look(&self) {
        // What any thread has seen before this one looks is past.
        let latest = self.latest.load(Ordering::SeqCst);
        let now = nanoseconds(ClockId::CLOCK_MONOTONIC);
        if now < latest {
            self.back.fetch_add(1, Ordering::SeqCst);
        } else if latest != 0 {
            self.longest.fetch_max(now - latest, Ordering::SeqCst);
        }
        self.latest.fetch_max(now, Ordering::SeqCst);
    }

    /// What there is to say, and the longest time anew.
    pub fn report(&self) -> String {
        const MS: u64 = 1_000_000;
        format!(
            "monotonic={} real={} longest={} back={}",
            nanoseconds(ClockId::CLOCK_MONOTONIC) / MS,
            nanoseconds(ClockId::CLOCK_REALTIME) / MS,
            self.longest.swap(0, Ordering::SeqCst) / MS,
            self.back.load(Ordering::SeqCst)
        )
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else {
        return 0;
    };
    let (seconds, rest) = (time.tv_sec(), time.tv_nsec());
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(rest).unwrap_or(0)
}
