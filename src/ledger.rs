//! What is in flight, and how far that lets the cursors move.
//!
//! Promises: a cohort's cursor comes out only when every record of its page and of all pages before
//! it was acknowledged; what is in flight is counted in bytes and batches against a limit.
//! Must not: know Kafka, SQL or a clock. Fails: an acknowledgement of something that is not in
//! flight, or a page closed twice, is a broken invariant and panics.
//!
//! ```text
//!  open_page ─► add_batch* ─► close_page(cursor)          pages, in the order of claiming
//!                   │
//!            acknowledge(batch) ... in any order
//!                   ▼
//!              next_finished ─► (cohort, cursor)           only from the front
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::cursor::Cursor;
use crate::event::Bucket;

/// Buckets that are claimed together because their cursors are the same.
pub type Cohort = Arc<[Bucket]>;

/// Names a batch for the way to Kafka and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// How much may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of events, with what each costs besides.
    pub bytes: usize,
    /// Batches.
    pub batches: usize,
}

#[derive(Debug)]
struct Page {
    cohort: Cohort,
    batches_open: usize,
    events: u64,
    /// Where the cohort stands once the page is done; none while the page is still being read.
    after: Option<Cursor>,
}

impl Page {
    fn is_finished(&self) -> bool {
        self.batches_open == 0 && self.after.is_some()
    }
}

#[derive(Debug)]
struct InFlight {
    page: u64,
    bytes: usize,
}

/// A page that is done, from the front of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose page it was.
    pub cohort: Cohort,
    /// Where the cohort stands now.
    pub cursor: Cursor,
    /// How many events the page had.
    pub events: u64,
}

/// The pages and batches of one shard that are on their way.
#[derive(Debug)]
pub struct Ledger {
    limit: Limit,
    pages: VecDeque<Page>,
    /// Number of the page at the front.
    front: u64,
    batches: HashMap<BatchNumber, InFlight>,
    next_batch: u64,
    bytes: usize,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limit: Limit) -> Self {
        assert!(limit.bytes > 0 && limit.batches > 0, "a limit of nothing lets nothing through");
        Self {
            limit,
            pages: VecDeque::new(),
            front: 0,
            batches: HashMap::new(),
            next_batch: 0,
            bytes: 0,
        }
    }

    /// Opens a page behind all others. The page before must be closed.
    pub fn open_page(&mut self, cohort: &Cohort) {
        assert!(
            self.pages.back().is_none_or(|page| page.after.is_some()),
            "one page is read at a time"
        );
        self.pages.push_back(Page {
            cohort: Arc::clone(cohort),
            batches_open: 0,
            events: 0,
            after: None,
        });
    }

    /// Whether another batch may be sent.
    pub fn has_room(&self) -> bool {
        self.bytes < self.limit.bytes && self.batches.len() < self.limit.batches
    }

    /// Puts a batch of the open page in flight.
    pub fn add_batch(&mut self, events: u64, bytes: usize) -> BatchNumber {
        let page = self.pages.back_mut().expect("a batch belongs to an open page");
        assert!(page.after.is_none(), "a closed page takes no batch");
        page.batches_open += 1;
        page.events += events;
        let number = BatchNumber(self.next_batch);
        self.next_batch += 1;
        self.bytes += bytes;
        let page = self.front + self.pages.len() as u64 - 1;
        self.batches.insert(number, InFlight { page, bytes });
        number
    }

    /// Closes the open page: all its batches are in flight, and this is where the cohort stands
    /// once they are acknowledged.
    pub fn close_page(&mut self, after: Cursor) {
        let page = self.pages.back_mut().expect("a page is open");
        let before = page.after.replace(after);
        assert!(before.is_none(), "a page is closed once");
    }

    /// Takes a batch out of flight: Kafka has acknowledged each of its records.
    pub fn acknowledge(&mut self, number: BatchNumber) {
        let batch = self.batches.remove(&number).expect("only what is in flight is acknowledged");
        self.bytes -= batch.bytes;
        let index = usize::try_from(batch.page - self.front).expect("a page index fits");
        self.pages[index].batches_open -= 1;
    }

    /// The next page that is done, if the one at the front is.
    pub fn next_finished(&mut self) -> Option<Finished> {
        if !self.is_front_finished() {
            return None;
        }
        let page = self.pages.pop_front()?;
        self.front += 1;
        Some(Finished { cohort: page.cohort, cursor: page.after?, events: page.events })
    }

    /// Whether [`Ledger::next_finished`] would give something.
    pub fn is_front_finished(&self) -> bool {
        self.pages.front().is_some_and(Page::is_finished)
    }

    /// Whether nothing is in flight and no page is open.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Batches in flight.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Limit { bytes: 100, batches: 3 })
    }

    fn cohort() -> Cohort {
        Arc::from([Bucket(0), Bucket(3)])
    }

    fn cursor(position: i64) -> Cursor {
        let tick = crate::tick::Tick { ceiling: 1_000, ..crate::tick::Tick::first() };
        Cursor::restore(crate::snapshot::Snapshot::empty(), tick, position)
    }

    #[test]
    fn a_page_waits_for_its_last_batch_and_for_its_end() {
        let mut ledger = ledger();
        ledger.open_page(&cohort());
        let first = ledger.add_batch(10, 10);
        let second = ledger.add_batch(5, 10);
        ledger.acknowledge(second);
        ledger.acknowledge(first);
        assert_eq!(ledger.next_finished(), None, "the page may get another batch");
        ledger.close_page(cursor(7));
        let finished = ledger.next_finished().unwrap();
        assert_eq!((finished.cursor, finished.events), (cursor(7), 15));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_later_page_waits_for_the_earlier() {
        let mut ledger = ledger();
        ledger.open_page(&cohort());
        let first = ledger.add_batch(1, 10);
        ledger.close_page(cursor(1));
        ledger.open_page(&cohort());
        let second = ledger.add_batch(1, 10);
        ledger.close_page(cursor(2));
        ledger.open_page(&cohort());
        ledger.close_page(cursor(3));
        ledger.acknowledge(second);
        assert_eq!(ledger.next_finished(), None);
        ledger.acknowledge(first);
        let positions: Vec<i64> = std::iter::from_fn(|| ledger.next_finished())
            .map(|finished| finished.cursor.position())
            .collect();
        assert_eq!(positions, [1, 2, 3]);
    }

    #[test]
    fn room_ends_with_bytes_and_with_batches() {
        let mut ledger = ledger();
        ledger.open_page(&cohort());
        let large = ledger.add_batch(1, 1_000);
        assert!(!ledger.has_room());
        ledger.acknowledge(large);
        assert!(ledger.has_room());
        for _ in 0..3 {
            ledger.add_batch(1, 1);
        }
        assert!(!ledger.has_room());
    }

    #[test]
    #[should_panic(expected = "in flight")]
    fn an_unknown_acknowledgement_is_a_broken_invariant() {
        ledger().acknowledge(BatchNumber(0));
    }
}
