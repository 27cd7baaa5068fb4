//! How often a duration was how long.
//!
//! Promises: to count one costs two or three additions, without a lock; what was counted never gets less.
//! Must not: read a clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The upper ends of the buckets, in seconds; one without an end follows. The ages that are promised (p50 some 5 to
/// 50 ms, p99 100 ms) lie between several of them, and so does an outage.
pub const BOUNDS_SECONDS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 3_600.0,
];

/// The same in microseconds.
const BOUNDS_MICROS: [u64; BOUNDS_SECONDS.len()] = [
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
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];

/// Counts by bucket, and the sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The upper end of each bucket and what fell into it alone; the last has no end.
    pub buckets: Vec<(f64, u64)>,
    /// How many were counted.
    pub count: u64,
    /// Of all of them together.
    pub sum_seconds: f64,
}

/// A duration as it is counted, from what its `as_micros` gives.
pub fn micros(duration_micros: u128) -> u64 {
    u64::try_from(duration_micros).unwrap_or(u64::MAX)
}

impl Histogram {
    /// So many took so long.
    pub fn record(&self, micros: u64, count: u64) {
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let ends = BOUNDS_SECONDS.iter().copied().chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        let sum_seconds = self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        Counted { count: buckets.iter().map(|(_, count)| count).sum(), buckets, sum_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_falls_into_the_bucket_that_ends_at_or_behind_it() {
        let histogram = Histogram::default();
        for (micros, count) in [(0, 1), (1_000, 2), (1_001, 4), (3_600_000_000, 8), (u64::MAX, 0)] {
            histogram.record(micros, count);
        }
        histogram.record(3_600_000_001, 16);
        let counted = histogram.counted();
        assert_eq!(counted.buckets[..2], [(0.001, 3), (0.0025, 4)]);
        assert_eq!(counted.buckets[16..], [(3_600.0, 8), (f64::INFINITY, 16)]);
        assert_eq!(counted.count, 31);
        let sum = 0.002 + 0.004_004 + 8.0 * 3_600.0 + 16.0 * 3_600.000_001;
        assert!((counted.sum_seconds - sum).abs() < 1e-6, "{}", counted.sum_seconds);
    }

    #[test]
    fn the_bounds_are_the_same_in_both_units() {
        for (seconds, micros) in BOUNDS_SECONDS.iter().zip(BOUNDS_MICROS) {
            assert!((seconds * 1e6 - micros as f64).abs() < 1e-3);
        }
        assert!(BOUNDS_MICROS.is_sorted());
    }
}
