//! What has landed and is not committed yet, where events are delivered exactly once.
//!
//! Promises: a page is handed on when the transaction has ended in which its events are, and not before; one
//! transaction at a time is about to end. What passes over nothing waits for nobody. Must not: send, or know what a
//! place is.
//!
//! ```text
//!   idle ── a batch is sent ──► open ── it is time, and all has landed ──► ending ── ended ──► handed on
//!                                 ▲                                            │
//!                                 └────────── batches of the next one ─────────┘
//! ```

use std::time::{Duration, Instant};

use crate::order::ledger::Finished;

/// How long transactions gather what is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    /// Where the source had nothing for a moment: others wait for what is in it.
    pub(super) live: Duration,
    /// Where more was waiting all the time: each end costs what could be sent meanwhile.
    pub(super) backlog: Duration,
}

/// Whether the source had nothing for a moment since the transaction was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    Unbroken,
    RanOut,
}

/// The transactions of one shard.
#[derive(Debug)]
pub(super) struct ShardTransactions<P> {
    intervals: Intervals,
    supply: Supply,
    /// When the first batch of the open one was sent.
    began: Option<Instant>,
    /// What has landed since the last one was told to end.
    landed: Vec<Finished<P>>,
    ending: Option<EndingTransaction<P>>,
    /// So many pages are committed.
    pages: u64,
}

#[derive(Debug)]
struct EndingTransaction<P> {
    landed: Vec<Finished<P>>,
    pages: u64,
}

impl<P> ShardTransactions<P> {
    pub(super) fn new(intervals: Intervals) -> Self {
        let (supply, landed) = (Supply::Unbroken, Vec::new());
        Self { intervals, supply, began: None, landed, ending: None, pages: 0 }
    }

    /// A batch is sent.
    pub(super) fn note_sent(&mut self, now: Instant) {
        if self.began.is_none() {
            (self.began, self.supply) = (Some(now), Supply::Unbroken);
        }
    }

    /// The source has nothing more at the moment.
    pub(super) fn note_ran_out(&mut self) {
        self.supply = Supply::RanOut;
    }

    /// Whether nothing is open, and nothing is about to end: what passes over nothing can be handed on.
    pub(super) fn are_none(&self) -> bool {
        self.began.is_none() && self.ending.is_none()
    }

    /// A page has landed.
    pub(super) fn land(&mut self, page: Finished<P>) {
        self.landed.push(page);
    }

    /// So many pages were handed on, as nothing is open.
    pub(super) fn pass(&mut self, pages: u64) {
        debug_assert!(self.are_none(), "nothing passes what is open");
        self.pages = pages;
    }

    /// When the open one is to end; none where nothing is open.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let interval = match self.supply {
            Supply::Unbroken => self.intervals.backlog,
            Supply::RanOut => self.intervals.live,
        };
        self.began.map(|began| began + interval)
    }

    /// Whether it is time to end the open one.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.ending.is_none() && self.due_at().is_some_and(|due| due <= now)
    }

    pub(super) fn is_open(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// What has landed of the open one.
    pub(super) fn landed(&self) -> &[Finished<P>] {
        &self.landed
    }

    /// The open one is told to end; so many pages have landed.
    pub(super) fn end(&mut self, pages: u64) {
        assert!(self.ending.is_none(), "one transaction at a time is about to end");
        self.began = None;
        self.ending = Some(EndingTransaction { landed: std::mem::take(&mut self.landed), pages });
    }

    /// It has ended: what is to be handed on.
    pub(super) fn take_ended(&mut self) -> Vec<Finished<P>> {
        let EndingTransaction { landed, pages } =
            self.ending.take().expect("what ends was told to");
        self.pages = pages;
        landed
    }

    /// So many pages are committed.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(place: u32) -> Finished<u32> {
        Finished { place, events: 1, parked: 0 }
    }

    #[test]
    fn a_page_is_handed_on_when_its_transaction_has_ended() {
        let (interval, now) = (Duration::from_millis(100), Instant::now());
        let mut transactions =
            ShardTransactions::new(Intervals { live: interval, backlog: interval });
        assert!(transactions.are_none() && transactions.due_at().is_none());
        transactions.pass(3);
        transactions.note_sent(now);
        transactions.note_sent(now + interval);
        transactions.land(page(1));
        assert!(!transactions.are_none() && !transactions.are_due(now));
        assert!(transactions.are_due(now + interval), "the first batch counts");
        transactions.end(5);
        assert_eq!((transactions.pages(), transactions.is_open()), (3, false));
        transactions.note_sent(now);
        transactions.land(page(2));
        assert!(!transactions.are_due(now + interval), "one is about to end");
        assert_eq!(transactions.take_ended(), [page(1)]);
        assert_eq!(transactions.pages(), 5);
        assert_eq!(transactions.landed(), [page(2)], "it is of the next one");
        assert!(transactions.are_due(now + interval) && !transactions.are_none());
    }

    #[test]
    fn as_long_as_more_waits_transactions_are_longer() {
        let (live, backlog) = (Duration::from_millis(100), Duration::from_millis(500));
        let mut transactions = ShardTransactions::<u32>::new(Intervals { live, backlog });
        let now = Instant::now();
        transactions.note_ran_out();
        transactions.note_sent(now);
        assert_eq!(transactions.due_at(), Some(now + backlog), "that was before");
        transactions.note_sent(now + live);
        transactions.note_ran_out();
        transactions.note_sent(now + live * 2);
        assert_eq!(transactions.due_at(), Some(now + live));
        transactions.end(1);
        transactions.note_sent(now + backlog);
        assert_eq!(transactions.due_at(), Some(now + backlog * 2), "it is another one");
    }
}
