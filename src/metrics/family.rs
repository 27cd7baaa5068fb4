//! What a family of figures is, and how it is read.
//!
//! Promises: what is not known at a moment is left out, and is no 0. Must not: know which families there are.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::counters::{Monitor, ShardGauge, Tally};
use crate::metrics::histogram::{Counted, Histogram};

/// A family of figures.
#[derive(Debug)]
pub(super) struct Family {
    /// As it is asked for, but for what its kind adds: `_total`, `_info`, `_bucket`.
    pub(super) name: &'static str,
    pub(super) kind: FigureKind,
    /// The names of its labels.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    pub(super) source: FigureSource,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FigureKind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Where a family's figures come from.
#[derive(Debug)]
pub(super) enum FigureSource {
    /// A counter of each shard.
    Shards(fn(&ShardGauge) -> &AtomicU64),
    Tally(fn(&Monitor) -> &Tally),
    Histogram(fn(&Monitor) -> &Histogram),
    /// One number, if it is known.
    One(fn(&Monitor) -> Option<FigureValue>),
    Many(fn(&Monitor) -> Vec<LabelledFigure>),
}

/// One line, or those of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LabelledFigure {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) figure: FigureValue,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum FigureValue {
    Count(u64),
    Whole(i64),
    Seconds(f64),
    Counted(Counted),
}

impl FigureValue {
    /// A gauge cannot show more than half of all numbers of 64 bits, which is enough for what it counts.
    pub(super) fn whole(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl Family {
    /// What is known at this moment.
    pub(super) fn read(&self, monitor: &Monitor) -> Vec<LabelledFigure> {
        let alone = |figure| vec![LabelledFigure { labels: Vec::new(), figure }];
        match &self.source {
            FigureSource::Shards(read) => {
                let shards = monitor.shards();
                let sample = |(shard, gauge): (usize, _)| LabelledFigure {
                    labels: vec![("shard", shard.to_string())],
                    figure: self.number(read(gauge).load(Ordering::Relaxed)),
                };
                shards.iter().map(|gauge| &**gauge).enumerate().map(sample).collect()
            }
            FigureSource::Tally(read) => {
                let counts = read(monitor).counts().into_iter();
                let label = self.labels.first().expect("a tally has a label");
                counts
                    .map(|(value, count)| LabelledFigure {
                        labels: vec![(*label, value)],
                        figure: FigureValue::Count(count),
                    })
                    .collect()
            }
            FigureSource::Histogram(read) => alone(FigureValue::Counted(read(monitor).counted())),
            FigureSource::One(read) => read(monitor).map(alone).unwrap_or_default(),
            FigureSource::Many(read) => read(monitor),
        }
    }

    fn number(&self, number: u64) -> FigureValue {
        if self.kind == FigureKind::Counter {
            FigureValue::Count(number)
        } else {
            FigureValue::whole(number)
        }
    }
}

pub(super) const fn family(
    name: &'static str,
    kind: FigureKind,
    labels: &'static [&'static str],
    help: &'static str,
    source: FigureSource,
) -> Family {
    Family { name, kind, labels, help, source }
}
