//! Histograms of durations, cheap enough to update for every request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in nanoseconds: 1, 2.5 and 5 times each power of ten from
/// 1 microsecond to 10 seconds. A read from memory takes 1 microsecond; clients give up after
/// 10 seconds.
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

/// The sum of all durations, and a count per bucket. The last bucket is unbounded.
///
/// The sum shares a cache line with the buckets of short durations: most durations are short, and a
/// cache miss costs as much as the rest of an update.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Histogram {
    nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

/// The totals of any number of histograms.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Observed {
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Histogram {
    /// Records `count` durations of `took` each.
    pub(super) fn observe(&self, took: Duration, count: u64) {
        // A u64 holds 584 years of nanoseconds.
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

    /// Number of durations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of the durations, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.nanos as f64 / NANOS_PER_SECOND
    }

    /// Upper bound in seconds and count of each bucket. The last bound is infinite.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|nanos| *nanos as f64 / NANOS_PER_SECOND);
        bounds.chain([f64::INFINITY]).zip(self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
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
