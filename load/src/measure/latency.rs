//! Latencies by stage, as histograms.
//!
//! Promises: an event's path is cut at what an outsider can see: intended, begun, committed, stamped
//! by the broker (or by the relay), consumed; a stage never hides another's delay. Must not: read a
//! clock. Fails: never; what is longer than an hour counts as an hour.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::measure::clock::RecordClock;

/// The longest latency that a histogram tells from longer ones: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// A part of an event's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PathStage {
    /// From the intended time of sending to the record in the consumer's hands.
    Total,
    /// From the intended time to the begin of the transaction: the generator or the database is late.
    Schedule,
    /// From the begin of the transaction to the answer to its commit.
    Insert,
    /// From the answer to the commit to the record's stamp.
    CommitToStamp,
    /// From the record's stamp to the consumer.
    StampToConsume,
    /// From the answer to the commit to the consumer.
    CommitToConsume,
}

impl PathStage {
    /// All stages, in the order of the report.
    pub(crate) const ALL: [Self; 6] = [
        Self::Total,
        Self::Schedule,
        Self::Insert,
        Self::CommitToStamp,
        Self::StampToConsume,
        Self::CommitToConsume,
    ];

    /// The name in thresholds and in summary.json.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Schedule => "schedule",
            Self::Insert => "insert",
            Self::CommitToStamp => "commit_to_stamp",
            Self::StampToConsume => "stamp_to_consume",
            Self::CommitToConsume => "commit_to_consume",
        }
    }

    /// The words for people; what a stamp is depends on whose clock made it.
    pub(crate) const fn title(self, clock: Option<RecordClock>) -> &'static str {
        let by_relay = matches!(clock, Some(RecordClock::Create));
        match self {
            Self::Total => "intended to consumed",
            Self::Schedule => "  intended to begun",
            Self::Insert => "  begun to committed",
            Self::CommitToStamp if by_relay => "  committed to sent by the relay",
            Self::CommitToStamp => "  committed to appended",
            Self::StampToConsume if by_relay => "  sent by the relay to consumed",
            Self::StampToConsume => "  appended to consumed",
            Self::CommitToConsume => "committed to consumed",
        }
    }

    /// The stage of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// One histogram of microseconds for each stage.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histograms: [Histogram<u64>; 6],
}

impl Latencies {
    /// Empty histograms of three significant digits.
    pub(crate) fn new() -> Self {
        let empty =
            Histogram::new_with_max(LONGEST_US, 3).expect("an hour and three digits are valid");
        Self { histograms: std::array::from_fn(|_| empty.clone()) }
    }

    /// Counts `count` events that took so long in this stage.
    pub(crate) fn record(&mut self, stage: PathStage, microseconds: u64, count: u64) {
        self.histograms[stage as usize].saturating_record_n(microseconds.max(1), count);
    }

    /// The histogram of a stage.
    pub(crate) fn of(&self, stage: PathStage) -> &Histogram<u64> {
        &self.histograms[stage as usize]
    }

    /// Adds another's counts to these.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.add(theirs).expect("both have the same range");
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for histogram in &mut self.histograms {
            histogram.reset();
        }
    }

    /// The figures of a stage.
    pub(crate) fn percentiles(&self, stage: PathStage) -> Percentiles {
        Percentiles::of(self.of(stage))
    }
}

/// A stage in figures, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many events were counted.
    pub(crate) count: u64,
    /// The mean.
    pub(crate) mean_ms: f64,
    /// Half of the events took at most so long.
    pub(crate) p50_ms: f64,
    /// 90 %.
    pub(crate) p90_ms: f64,
    /// 99 %.
    pub(crate) p99_ms: f64,
    /// 99.9 %.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1_000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_found_by_their_names() {
        for (at, stage) in PathStage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
            assert_eq!(PathStage::named(stage.name()), Some(stage));
        }
        assert_eq!(PathStage::named("p99"), None);
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::new();
        latencies.record(PathStage::Insert, 1_000, 99);
        latencies.record(PathStage::Insert, 50_000, 1);
        let figures = latencies.percentiles(PathStage::Insert);
        assert_eq!(figures.count, 100);
        assert!((figures.p50_ms - 1.0).abs() < 0.01 && (figures.max_ms - 50.0).abs() < 0.1);
        assert_eq!(latencies.percentiles(PathStage::Total), Percentiles::default());
    }

    #[test]
    fn sums_and_clears() {
        let (mut sum, mut second) = (Latencies::new(), Latencies::new());
        second.record(PathStage::Total, LONGEST_US * 2, 3);
        sum.add(&second);
        sum.add(&second);
        second.clear();
        assert_eq!((sum.of(PathStage::Total).len(), second.of(PathStage::Total).len()), (6, 0));
    }
}
