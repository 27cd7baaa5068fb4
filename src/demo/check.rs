//! The check: what the shop wrote against what the consumer saw.
//!
//! Promises: a record is judged only when the fate of its transaction is known. A record can arrive
//! before the writer has the answer to its commit; it is then held, with all later records of its
//! key, so that the order of arrival stays what it was. What is still held at the end was written
//! by nobody. Must not: read a table or a topic itself.
//!
//! Ages run from the moment before the commit is sent to the moment the consumer has the record, on
//! one monotonic clock. They contain the commit itself.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::demo::ages::{AgePercentiles, Ages};
use crate::event::EventId;
use postrider_testkit::audit::{Auditor, Fate, Verdict};

/// How many of the last records are kept to be shown.
const SHOWN_RECORDS: usize = 5;
/// The verdict costs time for each event so far: at most this share of the time goes into it.
const VERDICT_SHARE: u32 = 20;

/// An event as its writer knows it.
#[derive(Clone, Debug)]
pub(super) struct WrittenEvent {
    pub(super) id: EventId,
    pub(super) aggregate_id: String,
    /// Rises along the aggregate, in the order of commit.
    pub(super) number: u64,
}

/// A transaction that came to its end.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) events: Vec<WrittenEvent>,
    pub(super) fate: Fate,
    /// When its commit or rollback was sent.
    pub(super) sent_at: Instant,
}

/// A record as the consumer got it.
#[derive(Clone, Debug)]
pub(super) struct SeenRecord {
    /// From the header; a record without one has an id that nobody wrote.
    pub(super) id: EventId,
    pub(super) partition: i32,
    pub(super) seen_at: Instant,
    pub(super) shown: ShownRecord,
}

/// The parts of a record that people look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShownRecord {
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) kind: String,
    pub(super) value: String,
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) committed_transactions: u64,
    pub(super) committed_events: u64,
    pub(super) rolled_back_transactions: u64,
    pub(super) rolled_back_events: u64,
    /// Committed events that have arrived; repeats are not counted.
    pub(super) delivered_events: u64,
    /// Committed events that have not arrived yet.
    pub(super) backlog_events: u64,
    /// Records that wait for the fate of their transaction.
    pub(super) held_records: u64,
}

/// The check, shared by writers, consumer and view.
#[derive(Debug)]
pub(super) struct Check(Mutex<CheckState>);

#[derive(Debug)]
struct CheckState {
    auditor: Auditor<EventId>,
    /// Events whose fate is known.
    known: HashSet<EventId>,
    /// Committed and not arrived: when the commit was sent.
    awaited: HashMap<EventId, Instant>,
    /// By key, in the order of arrival.
    held: HashMap<String, VecDeque<SeenRecord>>,
    totals: Totals,
    ages: Ages,
    shown: VecDeque<ShownRecord>,
    verdict: Verdict,
    verdict_due: Instant,
}

/// What there is to be seen at one moment.
#[derive(Clone, Debug)]
pub(super) struct DemoMoment {
    pub(super) totals: Totals,
    pub(super) verdict: Verdict,
    pub(super) recent: AgePercentiles,
    pub(super) shown: Vec<ShownRecord>,
}

impl Check {
    /// Ages of events committed before `ages_from` are not counted: everything is cold then.
    pub(super) fn new(ages_from: Instant) -> Self {
        Self(Mutex::new(CheckState {
            auditor: Auditor::new(),
            known: HashSet::new(),
            awaited: HashMap::new(),
            held: HashMap::new(),
            totals: Totals::default(),
            ages: Ages::new(ages_from),
            shown: VecDeque::new(),
            verdict: Verdict::default(),
            verdict_due: ages_from,
        }))
    }

    /// A writer knows how its transaction ended.
    pub(super) fn transaction_ended(&self, ending: &Ending) {
        self.state().transaction_ended(ending);
    }

    /// The consumer got a record.
    pub(super) fn record_seen(&self, record: SeenRecord) {
        self.state().record_seen(record);
    }

    /// What there is to be seen now; the verdict may be a little older.
    pub(super) fn look(&self, now: Instant) -> DemoMoment {
        let mut state = self.state();
        if now >= state.verdict_due {
            let begin = Instant::now();
            state.verdict = state.auditor.verdict();
            let pause = (begin.elapsed() * VERDICT_SHARE).max(Duration::from_millis(150));
            state.verdict_due = now + pause;
        }
        DemoMoment {
            totals: state.totals_now(),
            verdict: state.verdict,
            recent: state.ages.recent(now),
            shown: state.shown.iter().cloned().collect(),
        }
    }

    /// Committed events that have not arrived yet.
    pub(super) fn backlog_events(&self) -> u64 {
        self.state().awaited.len() as u64
    }

    /// The last word, when writers and consumer have ended.
    pub(super) fn conclude(&self) -> (Totals, Verdict, AgePercentiles) {
        let mut state = self.state();
        for (key, records) in std::mem::take(&mut state.held) {
            for record in records {
                state.auditor.saw(record.id, &key, record.partition);
            }
        }
        (state.totals_now(), state.auditor.verdict(), state.ages.total())
    }

    fn state(&self) -> MutexGuard<'_, CheckState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckState {
    fn transaction_ended(&mut self, ending: &Ending) {
        let events = ending.events.len() as u64;
        match ending.fate {
            Fate::Committed => {
                self.totals.committed_transactions += 1;
                self.totals.committed_events += events;
            }
            Fate::RolledBack => {
                self.totals.rolled_back_transactions += 1;
                self.totals.rolled_back_events += events;
            }
            Fate::Unknown => {}
        }
        for event in &ending.events {
            self.auditor.wrote(event.id, &event.aggregate_id, event.number, ending.fate);
            self.known.insert(event.id);
            if ending.fate == Fate::Committed {
                self.awaited.insert(event.id, ending.sent_at);
            }
        }
        for event in &ending.events {
            self.release(&event.aggregate_id);
        }
    }

    fn record_seen(&mut self, record: SeenRecord) {
        if self.shown.len() == SHOWN_RECORDS {
            self.shown.pop_front();
        }
        self.shown.push_back(record.shown.clone());
        let key = &record.shown.key;
        if !self.known.contains(&record.id) || self.held.contains_key(key) {
            self.held.entry(key.clone()).or_default().push_back(record);
        } else {
            self.judge(&record);
        }
    }

    /// Judges what was held of a key, up to the first record whose fate is still not known.
    fn release(&mut self, key: &str) {
        let Some(mut records) = self.held.remove(key) else { return };
        while records.front().is_some_and(|record| self.known.contains(&record.id)) {
            let record = records.pop_front().expect("there is a front");
            self.judge(&record);
        }
        if !records.is_empty() {
            self.held.insert(key.to_owned(), records);
        }
    }

    fn judge(&mut self, record: &SeenRecord) {
        self.auditor.saw(record.id, &record.shown.key, record.partition);
        if let Some(sent_at) = self.awaited.remove(&record.id) {
            self.totals.delivered_events += 1;
            self.ages.record(sent_at, record.seen_at);
        }
    }

    fn totals_now(&self) -> Totals {
        let held_records = self.held.values().map(|records| records.len() as u64).sum();
        Totals { backlog_events: self.awaited.len() as u64, held_records, ..self.totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(numbers: &[u8], fate: Fate) -> Ending {
        let event = |number: &u8| WrittenEvent {
            id: EventId([*number; 16]),
            aggregate_id: "order-1".to_owned(),
            number: u64::from(*number),
        };
        let events = numbers.iter().map(event).collect();
        Ending { events, fate, sent_at: Instant::now() }
    }

    fn record(number: u8) -> SeenRecord {
        let shown = ShownRecord { key: "order-1".to_owned(), ..ShownRecord::default() };
        SeenRecord { id: EventId([number; 16]), partition: 0, seen_at: Instant::now(), shown }
    }

    #[test]
    fn record_that_overtakes_its_writer_is_held() {
        let check = Check::new(Instant::now());
        check.record_seen(record(1));
        check.record_seen(record(2));
        check.transaction_ended(&ending(&[2], Fate::Committed));
        assert_eq!(check.look(Instant::now()).totals.held_records, 2, "2 waits behind 1");
        check.transaction_ended(&ending(&[1], Fate::Committed));
        let (totals, verdict, _) = check.conclude();
        assert!(verdict.holds_without_repeats(), "{verdict}");
        assert_eq!(
            (totals.delivered_events, totals.held_records, totals.backlog_events),
            (2, 0, 0)
        );
    }

    #[test]
    fn wrong_order_is_found_also_when_held() {
        let check = Check::new(Instant::now());
        check.record_seen(record(2));
        check.record_seen(record(1));
        check.transaction_ended(&ending(&[1], Fate::Committed));
        check.transaction_ended(&ending(&[2], Fate::Committed));
        assert_eq!(check.conclude().1.out_of_order, 1);
    }

    #[test]
    fn record_of_nobody_and_of_a_rollback_are_found() {
        let check = Check::new(Instant::now());
        check.record_seen(record(1));
        check.record_seen(record(9));
        check.transaction_ended(&ending(&[1], Fate::RolledBack));
        let (totals, verdict, _) = check.conclude();
        assert_eq!((verdict.rolled_back, verdict.invented), (1, 1));
        assert_eq!(totals.delivered_events, 0);
        assert!(!verdict.holds());
    }

    #[test]
    fn missing_event_stays_in_the_backlog() {
        let check = Check::new(Instant::now());
        check.transaction_ended(&ending(&[1, 2], Fate::Committed));
        check.record_seen(record(1));
        check.record_seen(record(1));
        let (totals, verdict, _) = check.conclude();
        assert_eq!((verdict.missing, verdict.repeats), (1, 1));
        assert_eq!((totals.backlog_events, totals.delivered_events), (1, 1));
    }
}
