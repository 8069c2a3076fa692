//! Durations in buckets, cheap enough to be observed for every request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets, in nanoseconds: 1, 2.5 and 5 of every power of ten from 1 microsecond to
/// 10 seconds. A read from memory takes 1 microsecond, and 10 seconds is when clients give up.
const BOUNDS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

const NANOS_PER_SECOND: f64 = 1e9;

/// The sum, and a count for each bucket, the last of which has no bound. The sum and the buckets of short
/// durations share a cache line, because most are short, and one that is not at hand costs as much as all else.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Histogram {
    nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

/// What histograms have observed, added up.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Observed {
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Histogram {
    /// So many that took so long.
    pub(super) fn observe(&self, took: Duration, count: u64) {
        // 584 years fit.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(count, Relaxed);
        }
        self.nanos.fetch_add(nanos.saturating_mul(count), Relaxed);
    }
}

impl Observed {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, counter) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += counter.load(Relaxed);
        }
        self.nanos += histogram.nanos.load(Relaxed);
    }

    /// How many durations there were.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.nanos as f64 / NANOS_PER_SECOND
    }

    /// The upper bound of each bucket in seconds, infinite for the last, and how many durations it has.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|nanos| *nanos as f64 / NANOS_PER_SECOND);
        bounds.chain([f64::INFINITY]).zip(self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        for nanos in [0, 1_000, 1_001, 2_500, 10_000_000_000, 10_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos), 1);
        }
        let mut observed = Observed::default();
        observed.add(&histogram);
        let filled: Vec<_> = observed.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            filled,
            [(1e-6, 2), (2.5e-6, 2), (10.0, 1), (f64::INFINITY, 1)]
        );
        assert_eq!(observed.count(), 6);
        assert_eq!(observed.seconds(), 20.000_004_502);
    }
}
