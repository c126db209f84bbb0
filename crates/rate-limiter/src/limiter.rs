//! The limiter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bucket::{MIN_LEVEL, TokenBucket};
use crate::{RateConfig, RateError};

/// Limits bytes and operations.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
    /// Up to when the buckets are filled.
    filled: Duration,
}

/// What is saved of a [`RateLimiter`]: what its buckets hold, in billionths of a token, negative in debt. It says
/// nothing of the clock, which is another one where it is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateState {
    /// The bucket of bytes.
    pub bytes: Option<i128>,
    /// The bucket of operations.
    pub operations: Option<i128>,
}

impl RateLimiter {
    /// A limiter with full buckets. `now` is the time since any moment, the same in every later call.
    pub fn new(config: RateConfig, now: Duration) -> Self {
        Self {
            bytes: config.bytes.map(TokenBucket::new),
            operations: config.operations.map(TokenBucket::new),
            filled: now,
        }
    }

    /// Whether anything is limited: if not, [`take`](Self::take) always succeeds, and `now` need not be known.
    pub fn is_limited(&self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }

    /// Takes tokens for `operations` that move `bytes`, or none at all.
    ///
    /// What is larger than a burst goes through when the bucket is full. A clock that goes back brings no tokens; they
    /// come again as it goes on from there.
    ///
    /// # Errors
    ///
    /// The time, on the clock of `now`, at which the same call succeeds unless others took tokens before.
    pub fn take(&mut self, now: Duration, operations: u64, bytes: u64) -> Result<(), Duration> {
        self.fill(now);
        let wait = |bucket: &Option<TokenBucket>, cost| {
            bucket.as_ref().map_or(Duration::ZERO, |b| b.wait(cost))
        };
        let wait = wait(&self.bytes, bytes).max(wait(&self.operations, operations));
        if wait > Duration::ZERO {
            return Err(now.saturating_add(wait));
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(operations);
        }
        Ok(())
    }

    /// The state at `now`.
    pub fn save(&self, now: Duration) -> RateState {
        let mut filled = self.clone();
        filled.fill(now);
        RateState {
            bytes: filled.bytes.as_ref().map(TokenBucket::level),
            operations: filled.operations.as_ref().map(TokenBucket::level),
        }
    }

    /// Puts a state back, as of `now`.
    ///
    /// # Errors
    ///
    /// [`RateError::Mismatch`] or [`RateError::Level`] if a limiter of this configuration cannot have had that state;
    /// nothing has changed then.
    pub fn restore(&mut self, state: RateState, now: Duration) -> Result<(), RateError> {
        let mut bytes = self.bytes.clone();
        let mut operations = self.operations.clone();
        restore_bucket(&mut bytes, state.bytes, "bytes")?;
        restore_bucket(&mut operations, state.operations, "operations")?;
        *self = Self {
            bytes,
            operations,
            filled: now,
        };
        Ok(())
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = now;
        for bucket in [&mut self.bytes, &mut self.operations]
            .into_iter()
            .flatten()
        {
            bucket.fill(elapsed);
        }
    }
}

fn restore_bucket(
    bucket: &mut Option<TokenBucket>,
    level: Option<i128>,
    what: &'static str,
) -> Result<(), RateError> {
    match (bucket, level) {
        (None, None) => Ok(()),
        (Some(bucket), Some(level)) if (MIN_LEVEL..=bucket.most()).contains(&level) => {
            bucket.set_level(level);
            Ok(())
        }
        (Some(bucket), Some(level)) => Err(RateError::Level {
            what,
            level,
            min: MIN_LEVEL,
            max: bucket.most(),
        }),
        _ => Err(RateError::Mismatch { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bucket;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(text: &str) -> RateLimiter {
        RateLimiter::new(text.parse().unwrap(), Duration::ZERO)
    }

    #[test]
    fn both_limits_hold_and_a_refusal_takes_nothing() {
        let mut limiter = limiter("1000/1000+10ops/2");
        assert_eq!(limiter.take(Duration::ZERO, 1, 600), Ok(()));
        // Bytes say 200 ms, operations have one left.
        let at = Duration::from_millis(200);
        assert_eq!(limiter.take(Duration::ZERO, 1, 600), Err(at));
        assert_eq!(limiter.take(Duration::ZERO, 1, 400), Ok(()));
        // Operations say 100 ms; what moves no bytes does not wait for them.
        assert_eq!(limiter.take(Duration::ZERO, 1, 0), Err(at / 2));
        assert_eq!(limiter.take(at / 2, 1, 0), Ok(()));
    }

    #[test]
    fn an_oversize_request_goes_through_once_and_is_paid_for() {
        let mut limiter = limiter("100/10");
        assert_eq!(limiter.take(Duration::ZERO, 1, 1), Ok(()));
        let full = Duration::from_millis(10);
        assert_eq!(limiter.take(Duration::ZERO, 1, 1000), Err(full));
        assert_eq!(limiter.take(full, 1, 1000), Ok(()));
        // 990 in debt, and one to have.
        assert_eq!(limiter.take(full, 1, 1), Err(full + SECOND * 991 / 100));
    }

    #[test]
    fn fractions_are_kept() {
        let mut limiter = limiter("3ops/1");
        let mut granted = 0;
        for tenth in 0..=10_000 {
            granted += u32::from(limiter.take(SECOND * tenth / 10, 1, 0).is_ok());
        }
        // One at the start; then every fourth tenth is the first with a whole token, every tenth keeps its rest.
        assert_eq!(granted, 1 + 2500);
        let mut exact = RateLimiter::new("7ops/7".parse().unwrap(), Duration::ZERO);
        assert_eq!(exact.take(Duration::ZERO, 7, 0), Ok(()));
        for n in 1..=7_000 {
            let at = exact.take(SECOND * (n - 1) / 7, 1, 0).unwrap_err();
            assert_eq!(exact.take(at, 1, 0), Ok(()), "{n}");
        }
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_brings_nothing_and_does_no_harm() {
        let mut limiter = RateLimiter::new("1ops".parse().unwrap(), SECOND * 100);
        assert_eq!(limiter.take(SECOND * 100, 1, 0), Ok(()));
        assert_eq!(limiter.take(SECOND * 100, 1, 0), Err(SECOND * 101));
        assert_eq!(limiter.take(SECOND * 50, 1, 0), Err(SECOND * 51));
        assert_eq!(limiter.take(SECOND * 51, 1, 0), Ok(()));
    }

    #[test]
    fn what_there_is_once_does_not_come_again() {
        let bucket = Bucket {
            per_second: 10,
            burst: 10,
            once: 5,
        };
        let config = RateConfig {
            operations: Some(bucket),
            ..RateConfig::default()
        };
        let mut limiter = RateLimiter::new(config, Duration::ZERO);
        // Time brings nothing to a bucket that is fuller than full.
        assert_eq!(limiter.take(SECOND * 9, 12, 0), Ok(()));
        let saved = limiter.save(SECOND * 9);
        assert_eq!(limiter.take(SECOND * 9, 3, 0), Ok(()));
        assert!(limiter.take(SECOND * 9, 1, 0).is_err());
        assert_eq!(limiter.take(SECOND * 99, 10, 0), Ok(()));
        assert!(limiter.take(SECOND * 99, 1, 0).is_err());
        let mut other = RateLimiter::new(config, Duration::ZERO);
        other.restore(saved, Duration::ZERO).unwrap();
        assert_eq!(other.take(Duration::ZERO, 3, 0), Ok(()));
        let fresh = RateLimiter::new(config, Duration::ZERO).save(Duration::ZERO);
        assert_eq!(other.restore(fresh, Duration::ZERO), Ok(()));
        assert_eq!(other.take(Duration::ZERO, 15, 0), Ok(()));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for per_second in [0, 1, u64::MAX] {
            for burst in [0, 1, u64::MAX] {
                let bucket = Some(Bucket {
                    per_second,
                    burst,
                    once: burst,
                });
                let config = RateConfig {
                    bytes: bucket,
                    operations: bucket,
                };
                let mut limiter = RateLimiter::new(config, Duration::MAX);
                for now in [Duration::MAX, Duration::ZERO, Duration::MAX] {
                    for _ in 0..3 {
                        let _ = limiter.take(now, u64::MAX, u64::MAX);
                    }
                }
                let saved = limiter.save(Duration::MAX);
                assert_eq!(limiter.restore(saved, Duration::ZERO), Ok(()));
            }
        }
    }

    #[test]
    fn a_state_that_cannot_be_is_refused_and_changes_nothing() {
        let mut limiter = limiter("5/10+1ops");
        let state = |bytes, operations| RateState { bytes, operations };
        let before = limiter.save(Duration::ZERO);
        for bad in [
            state(None, Some(0)),
            state(Some(0), None),
            state(Some(10_000_000_001), Some(0)),
            state(Some(0), Some(1_000_000_001)),
            state(Some(i128::MIN), Some(0)),
        ] {
            assert!(limiter.restore(bad, SECOND).is_err(), "{bad:?}");
            assert_eq!(limiter.save(Duration::ZERO), before);
        }
        let empty = state(Some(-5_000_000_000), Some(1_000_000_000));
        limiter.restore(empty, SECOND * 7).unwrap();
        assert_eq!(limiter.take(SECOND * 7, 1, 5), Err(SECOND * 9));
    }

    proptest! {
        /// Whatever is asked for, whenever: what is granted is bounded by time, burst and one oversize request.
        #[test]
        fn never_more_than_rate_and_burst(
            per_second in 1_u64..1_000_000, burst in 1_u64..1_000_000,
            steps in proptest::collection::vec((-2_000_000_000_i64..2_000_000_000, 0_u64..2_000_000), 1..100),
        ) {
            let config = RateConfig { bytes: Some(Bucket { per_second, burst, once: 0 }), operations: None };
            let mut now = 10_000_000_000_i64;
            let at = |now: i64| Duration::from_nanos(u64::try_from(now).unwrap());
            let mut limiter = RateLimiter::new(config, at(now));
            let (mut granted, mut oversize, mut forwards) = (0_u128, 0, 0);
            for (step, bytes) in steps {
                let before = now;
                now = now.saturating_add(step).max(0);
                forwards += u128::try_from(now - before).unwrap_or(0);
                if limiter.take(at(now), 1, bytes).is_ok() {
                    granted += u128::from(bytes);
                    oversize = oversize.max(u128::from(bytes.saturating_sub(burst)));
                }
                let limit = u128::from(per_second) * forwards / 1_000_000_000 + u128::from(burst);
                prop_assert!(granted <= limit + oversize, "{granted} > {limit} + {oversize}");
            }
        }

        /// Waiting as long as was said is enough, and a nanosecond less is not.
        #[test]
        fn never_starves(
            per_second in 1_u64.., burst in 1_u64..,
            requests in proptest::collection::vec((1_u64..100, 0_u64..), 1..20),
        ) {
            let bucket = Some(Bucket { per_second, burst, once: 0 });
            let config = RateConfig { bytes: bucket, operations: bucket };
            let mut now = Duration::ZERO;
            let mut limiter = RateLimiter::new(config, now);
            for (operations, bytes) in requests {
                if let Err(at) = limiter.take(now, operations, bytes) {
                    prop_assert!(at > now);
                    let early = at - Duration::from_nanos(1);
                    prop_assert_eq!(limiter.clone().take(early, operations, bytes), Err(at));
                    prop_assert_eq!(limiter.take(at, operations, bytes), Ok(()));
                    now = at;
                }
            }
        }
    }
}
