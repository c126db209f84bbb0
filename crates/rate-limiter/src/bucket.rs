//! One token bucket.

use std::time::Duration;

use crate::Bucket;

/// Tokens are counted in billionths, of which a nanosecond brings `per_second`: nothing is ever rounded away.
const NANO: i128 = 1_000_000_000;

/// The deepest debt: that of the largest request.
pub(crate) const MIN_LEVEL: i128 = -to_level(u64::MAX);

/// A bucket with what is in it.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    per_second: i128,
    /// Full, in nano-tokens.
    full: i128,
    /// What there can be at most: at the beginning.
    most: i128,
    /// Nano-tokens; negative in debt.
    level: i128,
}

impl TokenBucket {
    /// A full bucket, with what there is once on top.
    pub(crate) fn new(config: Bucket) -> Self {
        let full = to_level(config.burst);
        let most = full + to_level(config.once);
        Self {
            per_second: i128::from(config.per_second.max(1)),
            full,
            most,
            level: most,
        }
    }

    pub(crate) fn level(&self) -> i128 {
        self.level
    }

    /// The highest level that there can be.
    pub(crate) fn most(&self) -> i128 {
        self.most
    }

    /// Sets a level, which must be from [`MIN_LEVEL`] to [`most`](Self::most).
    pub(crate) fn set_level(&mut self, level: i128) {
        self.level = level;
    }

    pub(crate) fn fill(&mut self, elapsed: Duration) {
        let nanos = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX);
        let more = self.per_second.saturating_mul(nanos);
        // What there is once runs over, but nothing comes to it.
        if self.level < self.full {
            self.level = self.level.saturating_add(more).min(self.full);
        }
    }

    /// How long until `cost` tokens can be taken; zero if now.
    pub(crate) fn wait(&self, cost: u64) -> Duration {
        // What costs nothing waits for nobody's debt.
        if cost == 0 {
            return Duration::ZERO;
        }
        // More than a full bucket cannot be waited for.
        let missing = to_level(cost).min(self.full).saturating_sub(self.level);
        if missing <= 0 {
            return Duration::ZERO;
        }
        // Rounded up, so that waiting just so long is enough. Neither sum nor quotient can overflow: `missing` is
        // below 2^95, `per_second` from 1 to 2^64.
        duration((missing + self.per_second - 1) / self.per_second)
    }

    /// Takes `cost` tokens, into debt if need be.
    pub(crate) fn take(&mut self, cost: u64) {
        self.level = self.level.saturating_sub(to_level(cost)).max(MIN_LEVEL);
    }
}

const fn to_level(tokens: u64) -> i128 {
    tokens as i128 * NANO
}

fn duration(nanos: i128) -> Duration {
    let seconds = u64::try_from(nanos / NANO).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % NANO).unwrap_or(0);
    Duration::new(seconds, rest)
}
