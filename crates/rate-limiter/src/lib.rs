//! Limits what a device of a virtual machine moves: bytes per second, operations per second, each with a burst.
//!
//! A [`RateLimiter`] is a pair of token buckets. A bucket holds up to its burst of tokens and is filled at its rate;
//! what is moved takes tokens out. Time is an argument and never read inside, so that a fuzzer or a test that repeats
//! its calls gets the same answers; [`Clock`] is where those who run for real get it from.
//!
//! ```
//! use std::time::Duration;
//! use goldcrest_rate_limiter::{RateConfig, RateLimiter};
//!
//! // What a person writes: 1 MiB per second, at most 64 KiB of it at once.
//! let config: RateConfig = "1M/64K".parse()?;
//! let start = Duration::ZERO;
//! let mut limiter = RateLimiter::new(config, start);
//! assert_eq!(limiter.take(start, 1, 64 << 10), Ok(()));
//! // The bucket is empty; a sixty-fourth of a second fills 16 KiB.
//! let again = limiter.take(start, 1, 16 << 10).unwrap_err();
//! assert_eq!(again, Duration::from_nanos(15_625_000));
//! assert_eq!(limiter.take(again, 1, 16 << 10), Ok(()));
//! # Ok::<(), goldcrest_rate_limiter::RateError>(())
//! ```
//!
//! # The text
//!
//! [`RateConfig`] is parsed from `PART` or `PART+PART`: one limits bytes, the other operations, in either order.
//!
//! | part | means |
//! |---|---|
//! | `10M` | 10 MiB per second, and as much at once |
//! | `10M/20M` | 10 MiB per second, 20 MiB at once |
//! | `500ops` | 500 operations per second, and as many at once |
//! | `500ops/1000` | 500 operations per second, 1000 at once |
//!
//! Bytes are written as sizes are everywhere in Goldcrest: `K`, `M`, `G` and `T` count in powers of 1024.
//!
//! # A hostile guest
//!
//! All it chooses is the size of a request. One that is greater than the burst waits for a full bucket, then goes
//! through and leaves a debt, so that it neither starves nor gains; the debt keeps what follows waiting. Arithmetic
//! saturates; nothing is allocated.

mod bucket;
mod clock;
mod config;
mod error;
mod limiter;

pub use clock::{Clock, ManualClock, MonotonicClock};
pub use config::{Bucket, RateConfig};
pub use error::RateError;
pub use limiter::{RateLimiter, RateState};
