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

use crate::metrics::overlong::OverlongTransaction;
use crate::order::ledger::Finished;
use crate::shard::transaction_budget::{GivenUp, SharedBudget};

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
    /// How much one may have in flight.
    budget: SharedBudget,
    /// The open one, from its first batch on.
    open: Option<FilledTransaction>,
    /// What has landed since the last one was told to end.
    landed: Vec<Finished<P>>,
    ending: Option<EndingTransaction<P>>,
    /// So many pages are committed.
    pages: u64,
}

/// One in which something was sent.
#[derive(Clone, Copy, Debug)]
struct FilledTransaction {
    began: Instant,
    /// Bytes that were sent in it.
    sent: usize,
    /// The most of them that were in flight.
    peak: usize,
}

#[derive(Debug)]
struct EndingTransaction<P> {
    /// None where nothing was sent in it but cursors.
    open: Option<FilledTransaction>,
    landed: Vec<Finished<P>>,
    pages: u64,
}

impl<P> ShardTransactions<P> {
    pub(super) fn new(intervals: Intervals, budget: SharedBudget) -> Self {
        let (supply, landed) = (Supply::Unbroken, Vec::new());
        Self { intervals, supply, budget, open: None, landed, ending: None, pages: 0 }
    }

    /// A batch of so many bytes is sent; so many are in flight with it.
    pub(super) fn note_sent(&mut self, bytes: usize, in_flight: usize, now: Instant) {
        if self.open.is_none() {
            self.supply = Supply::Unbroken;
        }
        let nothing = FilledTransaction { began: now, sent: 0, peak: 0 };
        let open = self.open.get_or_insert(nothing);
        open.sent += bytes;
        open.peak = open.peak.max(in_flight);
    }

    /// So many bytes may be in flight.
    pub(super) fn bytes_max(&self) -> usize {
        self.budget.with(|budget| budget.bytes())
    }

    /// The source has nothing more at the moment.
    pub(super) fn note_ran_out(&mut self) {
        self.supply = Supply::RanOut;
    }

    /// Whether nothing is open, and nothing is about to end: what passes over nothing can be handed on.
    pub(super) fn are_none(&self) -> bool {
        self.open.is_none() && self.ending.is_none()
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
        self.open.map(|open| open.began + interval)
    }

    /// Whether it is time to end the open one.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.ending.is_none() && self.due_at().is_some_and(|due| due <= now)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
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
        let landed = std::mem::take(&mut self.landed);
        self.ending = Some(EndingTransaction { open: self.open.take(), landed, pages });
    }

    /// Whether Kafka was slow of late.
    pub(super) fn are_reduced(&self) -> bool {
        self.budget.with(|budget| budget.is_reduced())
    }

    /// It has ended: what is to be handed on.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<Finished<P>> {
        let EndingTransaction { open, landed, pages } =
            self.ending.take().expect("what ends was told to");
        if let Some(FilledTransaction { began, peak, .. }) = open {
            let took = now.saturating_duration_since(began);
            self.budget.with(|budget| budget.note_ended(took, peak));
        }
        self.pages = pages;
        landed
    }

    /// The producer has failed with so much in flight. Whether the oldest transaction that has not ended took longer
    /// than it may.
    pub(super) fn give_up(&self, in_flight: usize, now: Instant) -> Option<OverlongTransaction> {
        let ending = self.ending.as_ref().and_then(|ending| ending.open);
        // What is in flight behind one that ends is of the next one.
        let (open, in_flight) =
            ending.map(|open| (open, 0)).or(self.open.map(|open| (open, in_flight)))?;
        let (sent, taken) = (open.sent, open.sent.saturating_sub(in_flight));
        let after = now.saturating_duration_since(open.began);
        self.budget.with(|budget| budget.note_given_up(GivenUp { sent, taken, after }))
    }

    /// So many pages are committed.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::transaction_budget::TransactionBudget;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn budget() -> SharedBudget {
        SharedBudget::new(TransactionBudget::new(1_000, TIMEOUT))
    }

    fn page(place: u32) -> Finished<u32> {
        Finished { place, events: 1, parked: 0 }
    }

    #[test]
    fn a_page_is_handed_on_when_its_transaction_has_ended() {
        let (interval, now) = (Duration::from_millis(100), Instant::now());
        let intervals = Intervals { live: interval, backlog: interval };
        let mut transactions = ShardTransactions::new(intervals, budget());
        assert!(transactions.are_none() && transactions.due_at().is_none());
        transactions.pass(3);
        transactions.note_sent(1, 1, now);
        transactions.note_sent(1, 1, now + interval);
        transactions.land(page(1));
        assert!(!transactions.are_none() && !transactions.are_due(now));
        assert!(transactions.are_due(now + interval), "the first batch counts");
        transactions.end(5);
        assert_eq!((transactions.pages(), transactions.is_open()), (3, false));
        transactions.note_sent(1, 1, now);
        transactions.land(page(2));
        assert!(!transactions.are_due(now + interval), "one is about to end");
        assert_eq!(transactions.take_ended(now), [page(1)]);
        assert_eq!(transactions.pages(), 5);
        assert_eq!(transactions.landed(), [page(2)], "it is of the next one");
        assert!(transactions.are_due(now + interval) && !transactions.are_none());
    }

    #[test]
    fn as_long_as_more_waits_transactions_are_longer() {
        let (live, backlog) = (Duration::from_millis(100), Duration::from_millis(500));
        let mut transactions = ShardTransactions::<u32>::new(Intervals { live, backlog }, budget());
        let now = Instant::now();
        transactions.note_ran_out();
        transactions.note_sent(1, 1, now);
        assert_eq!(transactions.due_at(), Some(now + backlog), "that was before");
        transactions.note_sent(1, 1, now + live);
        transactions.note_ran_out();
        transactions.note_sent(1, 1, now + live * 2);
        assert_eq!(transactions.due_at(), Some(now + live));
        transactions.end(1);
        transactions.note_sent(1, 1, now + backlog);
        assert_eq!(transactions.due_at(), Some(now + backlog * 2), "it is another one");
    }

    #[test]
    fn what_is_given_up_late_has_less_in_flight_the_next_time() {
        let (live, now) = (Duration::from_millis(100), Instant::now());
        let intervals = Intervals { live, backlog: live };
        let begin = |budget: &SharedBudget| {
            let mut transactions = ShardTransactions::<u32>::new(intervals, budget.clone());
            transactions.note_sent(600, 600, now);
            transactions.note_sent(400, 1_000, now + live);
            transactions
        };
        let open = budget();
        let transactions = begin(&open);
        assert_eq!(transactions.give_up(1_000, now + live), None, "it failed soon");
        let overlong = Some(OverlongTransaction { bytes: 1_000, seconds: 20 });
        assert_eq!(transactions.give_up(200, now + TIMEOUT), overlong);
        assert_eq!(transactions.bytes_max(), 200, "800 were taken in the whole time");
        let ending = budget();
        let mut transactions = begin(&ending);
        transactions.end(1);
        transactions.note_sent(7, 7, now + TIMEOUT);
        assert_eq!(transactions.give_up(7, now + TIMEOUT), overlong, "its cursors were not taken");
        assert_eq!(transactions.bytes_max(), 250);
        let mut transactions = ShardTransactions::<u32>::new(intervals, budget());
        assert_eq!(transactions.give_up(0, now), None);
        transactions.end(1);
        assert_eq!(transactions.give_up(0, now + TIMEOUT), None, "nothing was sent");
    }
}
