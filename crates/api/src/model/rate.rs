//! Rate limits.

use goldcrest_rate_limiter::{Bucket, RateConfig};
use serde::{Deserialize, Serialize};

/// Limits of bytes and of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(default)]
    pub bandwidth: Option<TokenBucket>,
    /// Operations.
    #[serde(default)]
    pub ops: Option<TokenBucket>,
}

/// A bucket of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// How many it holds. With 0 there is no limit.
    pub size: u64,
    /// How many more there are once, at the start.
    #[serde(default)]
    pub one_time_burst: Option<u64>,
    /// The time in which an empty bucket is filled, in milliseconds. With 0 there is no limit.
    pub refill_time: u64,
}

impl TokenBucket {
    /// The same as a rate; none if it is no limit. Less than one token per second is not possible.
    pub fn bucket(&self) -> Option<Bucket> {
        if self.size == 0 || self.refill_time == 0 {
            return None;
        }
        let per_second = u128::from(self.size) * 1000 / u128::from(self.refill_time);
        Some(Bucket {
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX).max(1),
            burst: self.size,
            once: self.one_time_burst.unwrap_or(0),
        })
    }
}

impl RateLimiter {
    /// The same as rates.
    pub fn config(&self) -> RateConfig {
        RateConfig {
            bytes: self.bandwidth.as_ref().and_then(TokenBucket::bucket),
            operations: self.ops.as_ref().and_then(TokenBucket::bucket),
        }
    }

    /// What this becomes when `update` names some of it.
    #[must_use]
    pub fn updated(&self, update: &Self) -> Self {
        Self {
            bandwidth: update.bandwidth.or(self.bandwidth),
            ops: update.ops.or(self.ops),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_rate_and_a_burst() {
        let bucket = |size, refill_time| TokenBucket {
            size,
            one_time_burst: None,
            refill_time,
        };
        let rate = |size, refill| {
            bucket(size, refill)
                .bucket()
                .map(|b| (b.per_second, b.burst))
        };
        assert_eq!(rate(1000, 100), Some((10_000, 1000)));
        assert_eq!(rate(1, 10_000), Some((1, 1)));
        assert_eq!(rate(u64::MAX, 1), Some((u64::MAX, u64::MAX)));
        assert_eq!((rate(0, 100), rate(100, 0)), (None, None));
        let once = TokenBucket {
            one_time_burst: Some(7),
            ..bucket(1, 1)
        };
        assert_eq!(once.bucket().map(|bucket| bucket.once), Some(7));
    }
}
