//! A batch on its way: what of it still waits, and how old it is by then.
//!
//! Promises: costs a comparison per event, and a look at the clocks per batch. Its events count at the age of its oldest:
//! what is told is never better than the truth. Must not: know what is in it.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::metrics::counters::ShardGauge;
use crate::metrics::histogram::micros;
use crate::order::ledger::BatchNumber;
use crate::publish::signals::Countdown;

/// Before all times that PostgreSQL knows, but for the one that is infinitely early, lies this much.
const EARLIEST_MICROS: i64 = -211_813_488_000_000_000;

/// Where brokers have put a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AppendedAt {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A batch on its way: how many of its records wait for an acknowledgement.
#[derive(Debug)]
pub struct InFlightBatch {
    number: BatchNumber,
    waiting: Countdown,
    events: u32,
    /// How many of them were set aside.
    set_aside: AtomicU32,
    /// The earliest time of its events.
    oldest_micros: AtomicI64,
    sent: Instant,
    /// Where its records are, for whoever asks; nobody does where they are events.
    appended: Option<Mutex<Vec<AppendedAt>>>,
}

impl InFlightBatch {
    /// So many events that are about to be sent.
    pub(super) fn new(number: BatchNumber, events: u32, now: Instant) -> Self {
        Self {
            number,
            waiting: Countdown::new(events),
            events,
            set_aside: AtomicU32::new(0),
            oldest_micros: AtomicI64::new(i64::MAX),
            sent: now,
            appended: None,
        }
    }

    /// The same, and it is noted where they are.
    pub(super) fn that_is_located(self) -> Self {
        Self { appended: Some(Mutex::default()), ..self }
    }

    /// Takes note of where a record is.
    pub(super) fn note_appended(&self, at: AppendedAt) {
        if let Some(appended) = &self.appended {
            appended.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        }
    }

    /// Where those are that were acknowledged.
    pub(super) fn appended(&self) -> Vec<AppendedAt> {
        let noted = |appended: &Mutex<Vec<_>>| {
            appended.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.appended.as_ref().map(noted).unwrap_or_default()
    }

    /// The ledger's number for it.
    pub(super) fn number(&self) -> BatchNumber {
        self.number
    }

    /// Takes note of an event's time. One that is infinite says nothing. Only one thread sends.
    pub(super) fn note_created(&self, created_at_micros: i64) {
        if created_at_micros < self.oldest_micros.load(Ordering::Relaxed)
            && created_at_micros > EARLIEST_MICROS
        {
            self.oldest_micros.store(created_at_micros, Ordering::Relaxed);
        }
    }

    /// Takes note of events that were set aside, before they count as acknowledged.
    pub(super) fn note_set_aside(&self, count: usize) {
        let count = u32::try_from(count).expect("a batch has a bounded number of rows");
        self.set_aside.store(count, Ordering::Relaxed);
    }

    /// Takes note of one acknowledged record; true for the last one.
    pub(super) fn acknowledge(&self) -> bool {
        self.waiting.count()
    }

    /// Whether nothing of it waits.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_over()
    }

    /// Counts how long it took, at its last acknowledgement.
    pub(super) fn measure(&self, gauge: &ShardGauge, now: Instant) {
        let published = self.events.saturating_sub(self.set_aside.load(Ordering::Relaxed));
        if published == 0 {
            return;
        }
        let figures = &gauge.instance;
        gauge.acknowledged.fetch_add(1, Ordering::Relaxed);
        let took = now.saturating_duration_since(self.sent).as_micros();
        figures.publish.record(micros(took), 1);
        let oldest = self.oldest_micros.load(Ordering::Relaxed);
        if oldest != i64::MAX {
            let database_now =
                now_micros().saturating_add(figures.database_ahead_micros.load(Ordering::Relaxed));
            let age = database_now.saturating_sub(oldest).max(0).unsigned_abs();
            figures.event_age.record(age, published.into());
        }
    }
}

/// By the clock of this machine.
fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(created: &[i64], set_aside: usize) -> ShardGauge {
        let (gauge, sent) = (ShardGauge::default(), Instant::now());
        gauge.instance.database_ahead_micros.store(3_000_000, Ordering::Relaxed);
        let events = u32::try_from(created.len()).expect("a few");
        let batch = InFlightBatch::new(BatchNumber(7), events, sent);
        created.iter().for_each(|at| batch.note_created(*at));
        batch.note_set_aside(set_aside);
        batch.measure(&gauge, sent + Duration::from_millis(20));
        gauge
    }

    #[test]
    fn events_count_at_the_age_of_the_oldest_by_the_clock_of_the_database() {
        let now = now_micros();
        let gauge = measured(&[now - 1_000, now - 4_000_000, i64::MIN, i64::MAX], 1);
        let (age, publish) = (gauge.instance.event_age.counted(), gauge.instance.publish.counted());
        assert_eq!(age.count, 3, "one was set aside");
        assert!((age.sum_seconds / 3.0 - 7.0).abs() < 0.5, "{}", age.sum_seconds);
        assert_eq!((publish.count, publish.sum_seconds), (1, 0.02));
        assert_eq!(gauge.acknowledged.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_lies_ahead_has_no_age_and_what_was_set_aside_was_not_published() {
        let age = measured(&[now_micros() + 3_600_000_000], 0).instance.event_age.counted();
        assert_eq!((age.count, age.sum_seconds), (1, 0.0));
        let gauge = measured(&[0, 0], 2);
        assert_eq!(gauge.instance.publish.counted().count, 0);
        assert_eq!(gauge.acknowledged.load(Ordering::Relaxed), 0);
    }
}
