//! The exact auditor: remembers every event.
//!
//! Promises: given what was written and what was consumed, every lost, invented, rolled back,
//! disordered or misplaced event is counted. Must not: know where either history comes from.

use std::fmt;
use std::hash::Hash;

use hashbrown::HashMap;

use crate::audit::verdict::Verdict;

/// How the transaction of an event ended, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was committed: the event must arrive.
    Committed,
    /// It was rolled back: the event must not arrive.
    RolledBack,
    /// The writer lost its connection in the commit: the event may arrive.
    Unknown,
}

#[derive(Debug)]
struct Written {
    aggregate: usize,
    number: u64,
    fate: Fate,
    seen: bool,
}

#[derive(Debug, Default)]
struct Aggregate {
    /// The highest number seen.
    last: Option<u64>,
    partition: Option<i32>,
}

/// Both histories, compared as they come.
///
/// `Id` is what tells events apart.
#[derive(Debug)]
pub struct Auditor<Id> {
    written: HashMap<Id, Written>,
    names: HashMap<String, usize>,
    aggregates: Vec<Aggregate>,
    seen: Verdict,
}

impl<Id> Default for Auditor<Id> {
    fn default() -> Self {
        Self {
            written: HashMap::new(),
            names: HashMap::new(),
            aggregates: Vec::new(),
            seen: Verdict::default(),
        }
    }
}

impl<Id: Copy + Eq + Hash + fmt::Debug> Auditor<Id> {
    /// An auditor that knows of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An event was written. `number` rises along its aggregate, in the order of commit.
    ///
    /// # Panics
    /// When the id was written before.
    pub fn wrote(&mut self, id: Id, aggregate_id: &str, number: u64, fate: Fate) {
        let aggregate = self.aggregate(aggregate_id);
        let written = Written { aggregate, number, fate, seen: false };
        let before = self.written.insert(id, written);
        assert!(before.is_none(), "an event's id is its own: {id:?}");
    }

    /// A record was consumed, in the order of its partition.
    pub fn saw(&mut self, id: Id, key: &str, partition: i32) {
        let Some(written) = self.written.get_mut(&id) else {
            self.seen.invented += 1;
            return;
        };
        if self.names.get(key) != Some(&written.aggregate) {
            self.seen.invented += 1;
            return;
        }
        if std::mem::replace(&mut written.seen, true) {
            self.seen.repeats += 1;
            return;
        }
        if written.fate == Fate::RolledBack {
            self.seen.rolled_back += 1;
        }
        let aggregate = &mut self.aggregates[written.aggregate];
        if aggregate.last.is_some_and(|last| last > written.number) {
            self.seen.out_of_order += 1;
        }
        if *aggregate.partition.get_or_insert(partition) != partition {
            self.seen.misplaced += 1;
        }
        aggregate.last = aggregate.last.max(Some(written.number));
    }

    /// How many events have to arrive, and how many of them have.
    pub fn verdict(&self) -> Verdict {
        let committed = || self.written.values().filter(|event| event.fate == Fate::Committed);
        let delivered = committed().filter(|event| event.seen).count() as u64;
        let committed = committed().count() as u64;
        Verdict { committed, delivered, missing: committed - delivered, ..self.seen }
    }

    fn aggregate(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        self.aggregates.push(Aggregate::default());
        self.names.insert(name.to_owned(), self.aggregates.len() - 1);
        self.aggregates.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Auditor<u8> {
        let mut auditor = Auditor::new();
        for number in 1..=3 {
            auditor.wrote(number, "a", u64::from(number), Fate::Committed);
        }
        auditor.wrote(4, "b", 1, Fate::RolledBack);
        auditor.wrote(5, "b", 2, Fate::Unknown);
        auditor
    }

    fn seen(order: &[(u8, &str, i32)]) -> Verdict {
        let mut auditor = written();
        for (number, key, partition) in order {
            auditor.saw(*number, key, *partition);
        }
        auditor.verdict()
    }

    #[test]
    fn a_clean_history_holds() {
        let verdict = seen(&[(1, "a", 0), (2, "a", 0), (3, "a", 0)]);
        assert!(verdict.holds_without_repeats(), "{verdict}");
        let verdict =
            seen(&[(5, "b", 3), (1, "a", 0), (2, "a", 0), (1, "a", 0), (2, "a", 0), (3, "a", 0)]);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.repeats, verdict.delivered), (2, 3));
    }

    #[test]
    fn each_fault_is_found() {
        assert_eq!(seen(&[(1, "a", 0), (3, "a", 0)]).missing, 1);
        assert_eq!(seen(&[(1, "a", 0), (3, "a", 0), (2, "a", 0)]).out_of_order, 1);
        assert_eq!(seen(&[(4, "b", 0)]).rolled_back, 1);
        assert_eq!(seen(&[(9, "a", 0)]).invented, 1);
        assert_eq!(seen(&[(1, "b", 0)]).invented, 1, "another aggregate's key");
        assert_eq!(seen(&[(1, "a", 0), (2, "a", 1)]).misplaced, 1);
    }
}
