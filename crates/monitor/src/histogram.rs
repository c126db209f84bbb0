//! How long things take, counted by powers of two.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Bounds of buckets: 1 µs, 2 µs, and so on to 2^24 µs, which are 17 s; the last bucket has what takes longer.
const BOUNDS: u32 = 25;

/// Counts how long something took, while others read.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS as usize + 1],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS as usize + 1],
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// One more took so long.
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        // The power of two that is not below it.
        let bound = micros
            .saturating_sub(1)
            .checked_ilog2()
            .map_or(0, |log| log + 1);
        let index = usize::try_from(bound.min(BOUNDS)).unwrap_or(0);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn metrics(&self) -> LatencyMetrics {
        let counts = self
            .buckets
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let counts: Vec<u64> = counts.collect();
        LatencyMetrics {
            count: counts.iter().sum(),
            sum_us: self.sum_ns.load(Ordering::Relaxed) / 1000,
            buckets: (0..BOUNDS)
                .map(|bound| Some(1 << bound))
                .chain([None])
                .zip(counts)
                .collect(),
        }
    }
}

/// How long things took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LatencyMetrics {
    /// How many.
    pub count: u64,
    /// How long all of them, in microseconds.
    pub sum_us: u64,
    /// How many took at most so many microseconds, and longer than the bound before; the last has no bound.
    pub buckets: Vec<(Option<u64>, u64)>,
}

impl LatencyMetrics {
    /// A time in microseconds that so many thousandths of all did not take longer than: a bound of a bucket. Nothing if
    /// there were none, or it is beyond all bounds.
    pub fn quantile(&self, thousandths: u64) -> Option<u64> {
        let wanted = u128::from(self.count) * u128::from(thousandths.min(1000));
        let mut seen: u128 = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += u128::from(*count) * 1000;
            seen >= wanted && seen > 0
        });
        bucket.and_then(|(bound, _)| *bound)
    }

    /// Writes it as Prometheus reads a histogram. `labels` are those of all lines, such as `device="0"`, or nothing.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_prometheus(&self, out: &mut impl Write, name: &str, labels: &str) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut seen: u64 = 0;
        for (bound, count) in &self.buckets {
            seen = seen.saturating_add(*count);
            write!(out, "{name}_bucket{{{labels}{comma}le=\"")?;
            match bound {
                Some(bound) => write!(out, "{}", Seconds(*bound))?,
                None => out.write_str("+Inf")?,
            }
            writeln!(out, "\"}} {seen}")?;
        }
        writeln!(out, "{name}_sum{{{labels}}} {}", Seconds(self.sum_us))?;
        writeln!(out, "{name}_count{{{labels}}} {}", self.count)
    }
}

/// Microseconds, written as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_bucket_whose_bound_they_do_not_exceed() {
        for (nanos, bound) in [
            (0, Some(1)),
            (1_000, Some(1)),
            (1_001, Some(2)),
            (2_000, Some(2)),
            (2_001, Some(4)),
            (4_001, Some(8)),
            (16_777_216_000, Some(1 << 24)),
            (16_777_216_001, None),
            (u64::MAX, None),
        ] {
            let histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let buckets = histogram.metrics().buckets;
            let (found, _) = buckets.iter().find(|(_, count)| *count == 1).unwrap();
            assert_eq!(*found, bound, "{nanos}");
        }
        Histogram::default().record(Duration::MAX);
    }

    #[test]
    fn quantiles_are_bounds() {
        let histogram = Histogram::default();
        assert_eq!(histogram.metrics().quantile(500), None);
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros));
        }
        let metrics = histogram.metrics();
        assert_eq!((metrics.count, metrics.sum_us), (100, 5050));
        let quantile = |thousandths| metrics.quantile(thousandths);
        assert_eq!((quantile(0), quantile(500)), (Some(1), Some(64)));
        assert_eq!((quantile(640), quantile(641)), (Some(64), Some(128)));
        assert_eq!(quantile(9999), Some(128));
    }

    #[test]
    fn prometheus_gets_cumulative_buckets_in_seconds() {
        let histogram = Histogram::default();
        for micros in [1, 3, 20_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut text = String::new();
        let metrics = histogram.metrics();
        metrics.write_prometheus(&mut text, "x", "a=\"b\"").unwrap();
        for line in [
            "x_bucket{a=\"b\",le=\"0.000001\"} 1",
            "x_bucket{a=\"b\",le=\"0.000004\"} 2",
            "x_bucket{a=\"b\",le=\"16.777216\"} 2",
            "x_bucket{a=\"b\",le=\"+Inf\"} 3",
            "x_sum{a=\"b\"} 20.000004",
            "x_count{a=\"b\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
