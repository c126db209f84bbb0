//! What a person sets.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::RateError;

/// What is limited. The default limits nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateConfig {
    /// Bytes.
    pub bytes: Option<Bucket>,
    /// Operations.
    pub operations: Option<Bucket>,
}

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// How many per second. 0 counts as 1: a limit slows down, it never stops.
    pub per_second: u64,
    /// How many at once, after enough time without any. What is larger waits for all of it.
    pub burst: u64,
    /// How many more at once, at the beginning: once they are taken, they do not come again.
    pub once: u64,
}

impl Bucket {
    /// A rate whose burst is one second's worth.
    pub const fn per_second(per_second: u64) -> Self {
        Self {
            per_second,
            burst: per_second,
            once: 0,
        }
    }
}

impl FromStr for RateConfig {
    type Err = RateError;

    /// Parses a rate as the [crate's documentation](crate) describes it.
    ///
    /// # Errors
    ///
    /// [`RateError::Parse`], [`RateError::Zero`] or [`RateError::Twice`].
    fn from_str(text: &str) -> Result<Self, RateError> {
        let mut config = Self::default();
        for part in text.split('+') {
            let (what, place, bucket) = match parse_part(part, text)? {
                Part::Bytes(bucket) => ("bytes", &mut config.bytes, bucket),
                Part::Operations(bucket) => ("operations", &mut config.operations, bucket),
            };
            if place.replace(bucket).is_some() {
                return Err(RateError::Twice {
                    text: text.to_owned(),
                    what,
                });
            }
        }
        Ok(config)
    }
}

impl fmt::Display for RateConfig {
    /// Writes what [`from_str`](Self::from_str) reads, in bytes; nothing where nothing is limited. What there is once has
    /// no form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bytes) = &self.bytes {
            write!(f, "{}/{}", bytes.per_second, bytes.burst)?;
        }
        if self.bytes.is_some() && self.operations.is_some() {
            f.write_str("+")?;
        }
        if let Some(operations) = &self.operations {
            write!(f, "{}ops/{}", operations.per_second, operations.burst)?;
        }
        Ok(())
    }
}

enum Part {
    Bytes(Bucket),
    Operations(Bucket),
}

fn parse_part(part: &str, text: &str) -> Result<Part, RateError> {
    let (rate, burst) = match part.split_once('/') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (part, None),
    };
    match rate.strip_suffix("ops") {
        Some(rate) => {
            parse_bucket(rate, burst, text, |number| number.parse().ok()).map(Part::Operations)
        }
        None => parse_bucket(rate, burst, text, parse_size).map(Part::Bytes),
    }
}

fn parse_bucket(
    rate: &str,
    burst: Option<&str>,
    text: &str,
    number: fn(&str) -> Option<u64>,
) -> Result<Bucket, RateError> {
    let positive = |from: &str| match number(from) {
        Some(0) => Err(RateError::Zero(text.to_owned())),
        Some(number) => Ok(number),
        None => Err(RateError::Parse(text.to_owned())),
    };
    let per_second = positive(rate)?;
    Ok(Bucket {
        per_second,
        burst: burst.map_or(Ok(per_second), positive)?,
        once: 0,
    })
}

/// A size as `goldcrest_memory::parse_size` takes it: `10M` is 10 · 2^20.
fn parse_size(text: &str) -> Option<u64> {
    let binary = match text.chars().last()? {
        'k' | 'K' | 'm' | 'M' | 'g' | 'G' | 't' | 'T' | 'p' | 'P' => format!("{text}iB"),
        _ => text.to_owned(),
    };
    binary.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(per_second: u64, burst: u64) -> Option<Bucket> {
        Some(Bucket {
            per_second,
            burst,
            once: 0,
        })
    }

    #[test]
    fn texts_are_rates() {
        let mib = 1 << 20;
        for (text, bytes, operations) in [
            ("10M", bucket(10 * mib, 10 * mib), None),
            ("10MiB/1.5M", bucket(10 * mib, 3 * mib / 2), None),
            ("500ops", None, bucket(500, 500)),
            ("500ops/7", None, bucket(500, 7)),
            ("1M+5ops", bucket(mib, mib), bucket(5, 5)),
            ("5ops/6+4096/1k", bucket(4096, 1024), bucket(5, 6)),
        ] {
            let config = RateConfig { bytes, operations };
            assert_eq!(text.parse(), Ok(config), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused_with_an_example() {
        for text in [
            "",
            "+",
            "M",
            "10M+",
            "ops",
            "1.5ops",
            "-1",
            "10M/",
            "10M/2/3",
            "10M/5ops",
            "5ops/1k",
            "10M 5ops",
            "99999999999999999999ops",
        ] {
            let error = text.parse::<RateConfig>().unwrap_err();
            assert_eq!(error, RateError::Parse(text.to_owned()));
            assert!(error.to_string().contains("for example 10M"), "{error}");
        }
        for text in ["0", "0M", "1M/0", "0ops", "5ops/0"] {
            let error = text.parse::<RateConfig>().unwrap_err();
            assert_eq!(error, RateError::Zero(text.to_owned()));
        }
        for (text, what) in [("1M+2M", "bytes"), ("1ops+1M+2ops", "operations")] {
            let error = text.parse::<RateConfig>().unwrap_err().to_string();
            assert!(error.contains(&format!("limits {what} twice")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(
            bytes in proptest::option::of((1_u64.., 1_u64..)),
            operations in proptest::option::of((1_u64.., 1_u64..)),
        ) {
            let make = |(per_second, burst)| Bucket { per_second, burst, once: 0 };
            let config = RateConfig { bytes: bytes.map(make), operations: operations.map(make) };
            prop_assume!(config != RateConfig::default());
            prop_assert_eq!(config.to_string().parse(), Ok(config));
        }

        #[test]
        fn any_text_is_refused_without_panic(text in ".*") {
            let _ = text.parse::<RateConfig>();
        }
    }
}
