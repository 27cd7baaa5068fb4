//! How old events are when the consumer has them.
//!
//! Promises: values within 0.1 %, up to ten minutes. Must not: read a clock. Fails: never; an age
//! above ten minutes counts as ten minutes.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const LONGEST_MICROS: u64 = 600_000_000;
const DIGITS: u8 = 3;
/// "Recent" means these many seconds.
const RECENT_SECONDS: usize = 5;

/// Half of the events were younger than `p50`, all but one in a hundred younger than `p99`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AgePercentiles {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// How many ages it was made from; without any the others mean nothing.
    pub(super) count: u64,
}

/// The ages of all events, and of the recent ones.
#[derive(Debug)]
pub(super) struct Ages {
    from: Instant,
    total: Histogram<u64>,
    /// One per second, used in turn.
    recent: [Histogram<u64>; RECENT_SECONDS],
    second: u64,
}

impl Ages {
    /// Events that were committed before `from` are left out of the total.
    pub(super) fn new(from: Instant) -> Self {
        Self { from, total: empty(), recent: std::array::from_fn(|_| empty()), second: 0 }
    }

    /// An event was committed and seen.
    pub(super) fn record(&mut self, committed_at: Instant, seen_at: Instant) {
        let age = seen_at.saturating_duration_since(committed_at);
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        if committed_at >= self.from {
            self.total.saturating_record(micros);
        }
        self.turn_to(seen_at);
        self.recent[self.second as usize % RECENT_SECONDS].saturating_record(micros);
    }

    /// Of events seen in the last seconds.
    pub(super) fn recent(&mut self, now: Instant) -> AgePercentiles {
        self.turn_to(now);
        let mut all = empty();
        for second in &self.recent {
            all.add(second).expect("all have the same bounds");
        }
        percentiles(&all)
    }

    /// Of all events.
    pub(super) fn total(&self) -> AgePercentiles {
        percentiles(&self.total)
    }

    /// Empties the histograms of seconds that have passed.
    fn turn_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.from).as_secs();
        let steps = second.saturating_sub(self.second).min(RECENT_SECONDS as u64);
        for step in 0..steps {
            self.recent[(second - step) as usize % RECENT_SECONDS].reset();
        }
        self.second = self.second.max(second);
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("the bounds are constants")
}

fn percentiles(histogram: &Histogram<u64>) -> AgePercentiles {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    AgePercentiles { p50: at(0.5), p99: at(0.99), count: histogram.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_leaves_out_the_beginning_and_recent_forgets() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut ages = Ages::new(at(1000));
        ages.record(at(900), at(1900));
        ages.record(at(2000), at(2010));
        assert_eq!(ages.total().count, 1);
        assert_eq!(ages.total().p99.as_millis(), 10);
        assert_eq!(ages.recent(at(2020)).count, 2);
        assert!(ages.recent(at(2020)).p99.as_millis() >= 1000);
        ages.record(at(7000), at(7020));
        assert_eq!(ages.recent(at(7020)).count, 1, "older than five seconds");
        assert_eq!(ages.recent(at(60_000)).count, 0);
    }
}
