//! How much of what a guest causes is written: a guest must not be able to fill the host's disk.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// Lines of one kind at once.
const BURST: u32 = 10;
/// Then one in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was written lately, of each kind of event: there are as many kinds as there are places in the source.
#[derive(Default)]
pub(super) struct Limits(HashMap<Identifier, Kind>);

struct Kind {
    name: &'static str,
    /// How many may be written at once.
    left: u32,
    /// Until when that is counted.
    counted: Instant,
    left_out: u64,
}

impl Limits {
    /// Whether one more is written: how many were left out before it then.
    pub(super) fn admit(
        &mut self,
        place: Identifier,
        name: &'static str,
        now: Instant,
    ) -> Option<u64> {
        let kind = self.0.entry(place).or_insert_with(|| Kind {
            name,
            left: BURST,
            counted: now,
            left_out: 0,
        });
        kind.refill(now);
        match kind.left.checked_sub(1) {
            Some(left) => {
                kind.left = left;
                Some(std::mem::take(&mut kind.left_out))
            }
            None => {
                kind.left_out = kind.left_out.saturating_add(1);
                None
            }
        }
    }

    /// What was left out and not told: by its place in the source, and how many times.
    pub(super) fn untold(&mut self) -> Vec<(&'static str, u64)> {
        let kinds = self.0.values_mut();
        kinds
            .map(|kind| (kind.name, std::mem::take(&mut kind.left_out)))
            .filter(|(_, left_out)| *left_out > 0)
            .collect()
    }
}

impl Kind {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        let more = u32::try_from(passed.as_secs() / INTERVAL.as_secs()).unwrap_or(u32::MAX);
        if more == 0 {
            return;
        }
        self.left = self.left.saturating_add(more).min(BURST);
        self.counted = match self.left {
            BURST => now,
            _ => self.counted + INTERVAL * more,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Callsite;

    fn place() -> Identifier {
        struct Place;
        impl Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("nobody asks")
            }
        }
        static PLACE: Place = Place;
        Identifier(&PLACE)
    }

    #[test]
    fn ten_at_once_then_one_a_second_with_a_count_of_the_others() {
        let mut limits = Limits::default();
        let begun = Instant::now();
        let mut admit = |millis| {
            let now = begun + Duration::from_millis(millis);
            limits.admit(place(), "here", now)
        };
        for _ in 0..10 {
            assert_eq!(admit(0), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(admit(999), None);
        }
        assert_eq!(admit(1000), Some(1000));
        assert_eq!(admit(1500), None);
        assert_eq!(admit(2000), Some(1));
        assert_eq!(admit(2001), None);
        // After a while without any, there may be as many at once as before.
        for _ in 0..10 {
            assert!(admit(100_000).is_some());
        }
        assert_eq!(admit(100_000), None);
        assert_eq!(limits.untold(), [("here", 1)]);
        assert_eq!(limits.untold(), []);
    }
}
