//! One look at the running demo: everything that a view shows.
//!
//! Promises: rates are those of the last second. Must not: draw.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::demo::ages::AgePercentiles;
use crate::demo::check::{DemoMoment, ShownRecord, Totals};
use postrider_testkit::audit::Verdict;

/// Rates are taken over this time.
const WINDOW: Duration = Duration::from_secs(1);
/// How many past rates are kept to be drawn.
const HISTORY: usize = 120;

/// What the demo is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DemoPhase {
    /// The shop writes.
    Writing,
    /// The shop is closed; the relay works off what is left.
    Draining,
    /// The relay stops and the last records are read.
    Stopping,
}

/// The figures of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardFigures {
    pub(super) published: u64,
    pub(super) per_second: u64,
}

/// Everything that a view shows.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) servers: String,
    pub(super) phase: DemoPhase,
    pub(super) elapsed: Duration,
    pub(super) planned: Duration,
    /// Events per second that were asked for.
    pub(super) target_rate: u64,
    /// Events per second that were committed.
    pub(super) rate_in: u64,
    /// Events per second that arrived.
    pub(super) rate_out: u64,
    pub(super) history_in: Vec<u64>,
    pub(super) history_out: Vec<u64>,
    /// How far the shop is behind its schedule.
    pub(super) late: Duration,
    pub(super) totals: Totals,
    pub(super) verdict: Verdict,
    pub(super) ages: AgePercentiles,
    pub(super) shards: Vec<ShardFigures>,
    pub(super) records: Vec<ShownRecord>,
    /// The last warning of the relay.
    pub(super) warning: Option<String>,
}

#[derive(Debug)]
struct RateSample {
    at: Instant,
    committed: u64,
    delivered: u64,
    shards: Vec<u64>,
}

/// The rates at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) committed: u64,
    pub(super) delivered: u64,
    pub(super) shards: Vec<ShardFigures>,
}

/// Makes rates of totals.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    samples: VecDeque<RateSample>,
    history_in: VecDeque<u64>,
    history_out: VecDeque<u64>,
    peak_delivered: u64,
}

impl RateMeter {
    /// Takes note of the totals and gives the rates of the last second.
    pub(super) fn observe(&mut self, now: Instant, findings: &DemoMoment, shards: &[u64]) -> Rates {
        self.samples.push_back(RateSample {
            at: now,
            committed: findings.totals.committed_events,
            delivered: findings.totals.delivered_events,
            shards: shards.to_vec(),
        });
        while self.samples.get(1).is_some_and(|second| now - second.at >= WINDOW) {
            self.samples.pop_front();
        }
        let rates = self.rates();
        if now - self.samples[0].at >= WINDOW {
            self.peak_delivered = self.peak_delivered.max(rates.delivered);
        }
        remember(&mut self.history_in, rates.committed);
        remember(&mut self.history_out, rates.delivered);
        rates
    }

    /// The highest rate of arrival over a whole second.
    pub(super) fn peak_delivered(&self) -> u64 {
        self.peak_delivered
    }

    /// The past rates, committed and delivered, the latest last.
    pub(super) fn history(&self) -> (Vec<u64>, Vec<u64>) {
        (self.history_in.iter().copied().collect(), self.history_out.iter().copied().collect())
    }

    fn rates(&self) -> Rates {
        let (first, last) = (&self.samples[0], &self.samples[self.samples.len() - 1]);
        let seconds = (last.at - first.at).as_secs_f64().max(0.001);
        let rate = |before: u64, after: u64| (after.saturating_sub(before) as f64 / seconds) as u64;
        let shard = |(index, published): (usize, &u64)| ShardFigures {
            published: *published,
            per_second: rate(first.shards.get(index).copied().unwrap_or(0), *published),
        };
        Rates {
            committed: rate(first.committed, last.committed),
            delivered: rate(first.delivered, last.delivered),
            shards: last.shards.iter().enumerate().map(shard).collect(),
        }
    }
}

fn remember(history: &mut VecDeque<u64>, rate: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(rate);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A busy picture, for the views' tests.
    pub(in super::super) fn picture() -> Picture {
        let record = ShownRecord {
            topic: "outbox.event.order".to_owned(),
            key: "order-1042".to_owned(),
            kind: "OrderPlaced".to_owned(),
            value: r#"{"order":1042,"customer":17}"#.repeat(5),
        };
        Picture {
            servers: "PostgreSQL 15.18, Apache Kafka 4.1.1".to_owned(),
            phase: DemoPhase::Writing,
            elapsed: Duration::from_millis(7_300),
            planned: Duration::from_secs(20),
            target_rate: 2_000,
            rate_in: 1_904,
            rate_out: 1_911,
            history_in: vec![0, 1_000, 1_904],
            history_out: vec![0, 900, 1_911],
            late: Duration::ZERO,
            totals: Totals { committed_events: 13_900, backlog_events: 88, ..Totals::default() },
            verdict: Verdict { committed: 13_900, delivered: 13_812, ..Verdict::default() },
            ages: AgePercentiles {
                p50: Duration::from_micros(11_300),
                p99: Duration::from_millis(42),
                count: 9_000,
            },
            shards: vec![
                ShardFigures { published: 7_000, per_second: 1_000 },
                ShardFigures { published: 6_812, per_second: 911 },
            ],
            records: vec![record; 5],
            warning: None,
        }
    }

    #[test]
    fn rates_are_those_of_the_last_second() {
        let begin = Instant::now();
        let mut meter = RateMeter::default();
        let mut last = Rates::default();
        for step in 0..=20_u64 {
            let delivered_events = step * 100 + if step > 10 { (step - 10) * 100 } else { 0 };
            let totals =
                Totals { committed_events: step * 100, delivered_events, ..Totals::default() };
            let findings = DemoMoment {
                totals,
                verdict: Verdict::default(),
                recent: AgePercentiles::default(),
                shown: Vec::new(),
            };
            let now = begin + Duration::from_millis(step * 200);
            last = meter.observe(now, &findings, &[step * 50]);
        }
        assert_eq!((last.committed, last.delivered), (500, 1000));
        assert_eq!(last.shards, [ShardFigures { published: 1000, per_second: 250 }]);
        assert_eq!(meter.peak_delivered(), 1000);
    }
}
