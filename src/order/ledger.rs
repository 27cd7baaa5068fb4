//! What is in flight, and how far that lets the cursors move.
//!
//! Promises: a page's place comes out only when every record of the page and of all pages before it
//! was acknowledged; what is in flight is counted in bytes and batches against a limit.
//! Must not: know Kafka, SQL or a clock, or what a place is: a cursor group with its cursor for a table, a
//! position in the log for a slot. Fails: an acknowledgement of something that is not in flight, or
//! a page closed twice, is a broken invariant and panics.
//!
//! ```text
//!  open_page ─► add_batch* ─► close_page(place)           pages, in the order of claiming
//!                   │
//!            acknowledge(batch) ... in any order
//!                   ▼
//!              next_finished ─► (place, events)            only from the front
//! ```

use std::collections::VecDeque;

use hashbrown::HashMap;

/// Names a batch for the way to Kafka and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// How much may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of events, with what each costs as well.
    pub bytes: usize,
    /// Batches.
    pub batches: usize,
}

/// More pages than these are not opened behind one that waits.
const PAGES_MAX: usize = 4_096;

#[derive(Debug)]
struct LedgerPage<P> {
    /// Its number; of several that became one, that of the last.
    number: u64,
    batches_open: usize,
    events: u64,
    parked: u64,
    /// What is reached once the page is done; none while the page is still being read.
    place: Option<P>,
}

impl<P> LedgerPage<P> {
    fn is_finished(&self) -> bool {
        self.batches_open == 0 && self.place.is_some()
    }
}

#[derive(Debug)]
struct InFlight {
    page: u64,
    bytes: usize,
}

/// A page that is done, from the front of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished<P> {
    /// What is reached now.
    pub place: P,
    /// How many events the page had.
    pub events: u64,
    /// How many of them were parked and not published.
    pub parked: u64,
}

/// The pages and batches of one shard that are on their way.
#[derive(Debug)]
pub struct Ledger<P> {
    limit: Limit,
    pages: VecDeque<LedgerPage<P>>,
    /// Whether nobody needs to hear of the first place who hears of the second.
    is_covered: fn(&P, &P) -> bool,
    opened: u64,
    finished: u64,
    batches: HashMap<BatchNumber, InFlight>,
    next_batch: u64,
    bytes: usize,
    /// Of pages that were not taken out yet.
    events: u64,
}

impl<P> Ledger<P> {
    /// An empty ledger.
    pub fn new(limit: Limit) -> Self {
        Self::merging(limit, |_, _| false)
    }

    /// The same, in which finished pages that wait for one before them become one, where the place of the
    /// later one covers that of the earlier: while a record is stuck, pages do not pile up.
    pub fn merging(limit: Limit, is_covered: fn(&P, &P) -> bool) -> Self {
        assert!(limit.bytes > 0 && limit.batches > 0, "a limit of nothing lets nothing through");
        Self {
            limit,
            pages: VecDeque::new(),
            is_covered,
            opened: 0,
            finished: 0,
            batches: HashMap::new(),
            next_batch: 0,
            bytes: 0,
            events: 0,
        }
    }

    /// Opens a page behind all others. The page before must be closed.
    pub fn open_page(&mut self) {
        assert!(
            self.pages.back().is_none_or(|page| page.place.is_some()),
            "one page is read at a time"
        );
        let number = self.opened;
        self.opened += 1;
        self.pages.push_back(LedgerPage {
            number,
            batches_open: 0,
            events: 0,
            parked: 0,
            place: None,
        });
    }

    /// From here on so many bytes may be in flight.
    pub fn set_bytes_max(&mut self, bytes: usize) {
        assert!(bytes > 0, "a limit of nothing lets nothing through");
        self.limit.bytes = bytes;
    }

    /// Whether another batch may be sent.
    pub fn has_room(&self) -> bool {
        self.bytes < self.limit.bytes && self.batches.len() < self.limit.batches
    }

    /// Whether another page may be opened.
    pub fn has_page_room(&self) -> bool {
        self.pages.len() < PAGES_MAX
    }

    /// Puts a batch of the open page in flight.
    pub fn add_batch(&mut self, events: u64, bytes: usize) -> BatchNumber {
        let page = self.pages.back_mut().expect("a batch belongs to an open page");
        assert!(page.place.is_none(), "a closed page takes no batch");
        assert!(events > 0, "a batch without events is never reported");
        page.batches_open += 1;
        page.events += events;
        self.events += events;
        let number = BatchNumber(self.next_batch);
        self.next_batch += 1;
        self.bytes += bytes;
        let page = self.opened - 1;
        self.batches.insert(number, InFlight { page, bytes });
        number
    }

    /// Closes the open page: all its batches are in flight, and this is what is reached once they
    /// are acknowledged.
    pub fn close_page(&mut self, place: P) {
        let page = self.pages.back_mut().expect("a page is open");
        let before = page.place.replace(place);
        assert!(before.is_none(), "a page is closed once");
        self.merge(self.pages.len() - 1);
    }

    /// Takes a batch out of flight: Kafka has acknowledged each of its records.
    pub fn acknowledge(&mut self, number: BatchNumber) {
        self.acknowledge_but(number, 0);
    }

    /// Takes a batch out of flight of which some events were parked and the others acknowledged.
    pub fn acknowledge_but(&mut self, number: BatchNumber, parked: u64) {
        let batch = self.batches.remove(&number).expect("only what is in flight is acknowledged");
        self.bytes = self.bytes.checked_sub(batch.bytes).expect("it was counted when it was sent");
        debug_assert!(
            self.bytes == 0 || !self.batches.is_empty(),
            "nothing in flight has no bytes"
        );
        let index = self.pages.partition_point(|page| page.number < batch.page);
        let page = &mut self.pages[index];
        assert_eq!(
            page.number, batch.page,
            "a page with a batch in flight is not merged into another"
        );
        assert!(page.batches_open > 0, "a batch is counted in its page");
        page.batches_open -= 1;
        page.parked += parked;
        assert!(page.parked <= page.events, "only what was sent can be parked");
        self.merge(index);
    }

    /// Makes one page of this one and its neighbours, as far as they are finished. The one at the front is
    /// left alone: it is about to be taken out.
    fn merge(&mut self, index: usize) {
        if index + 1 < self.pages.len() {
            self.merge_into_next(index);
        }
        let mut before = index;
        // One that has taken in its neighbour may cover the next one, too.
        while before > 0 && self.merge_into_next(before - 1) {
            before -= 1;
        }
    }

    fn merge_into_next(&mut self, index: usize) -> bool {
        let (earlier, later) = (&self.pages[index], &self.pages[index + 1]);
        let (Some(place), Some(next)) = (&earlier.place, &later.place) else { return false };
        debug_assert!(earlier.number < later.number, "pages lie in the order of their opening");
        let are_done = earlier.is_finished() && later.is_finished();
        if index == 0 || !are_done || !(self.is_covered)(place, next) {
            return false;
        }
        let LedgerPage { events, parked, .. } = self.pages.remove(index).expect("it is there");
        let page = &mut self.pages[index];
        page.events += events;
        page.parked += parked;
        true
    }

    /// The batch that was sent before all others in flight.
    pub fn oldest(&self) -> Option<BatchNumber> {
        self.batches.keys().min().copied()
    }

    /// The next page that is done, if the one at the front is.
    pub fn next_finished(&mut self) -> Option<Finished<P>> {
        if !self.is_front_finished() {
            return None;
        }
        let page = self.pages.pop_front()?;
        assert!(page.number >= self.finished, "pages come out in the order of their opening");
        self.finished = page.number + 1;
        self.events -= page.events;
        debug_assert!(
            self.finished < self.opened || self.batches.is_empty(),
            "the last page takes the last batch with it"
        );
        Some(Finished { place: page.place?, events: page.events, parked: page.parked })
    }

    /// How many pages were opened, ever.
    pub fn pages_opened(&self) -> u64 {
        self.opened
    }

    /// How many of them were taken out again, in their order.
    pub fn pages_finished(&self) -> u64 {
        self.finished
    }

    /// Whether [`Ledger::next_finished`] would give something.
    pub fn is_front_finished(&self) -> bool {
        self.pages.front().is_some_and(LedgerPage::is_finished)
    }

    /// Whether nothing is in flight and no page is open.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Batches in flight.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Events whose page is not done.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger<u32> {
        Ledger::new(Limit { bytes: 100, batches: 3 })
    }

    #[test]
    fn a_page_waits_for_its_last_batch_and_for_its_end() {
        let mut ledger = ledger();
        ledger.open_page();
        let first = ledger.add_batch(10, 10);
        let second = ledger.add_batch(5, 10);
        ledger.acknowledge(second);
        ledger.acknowledge(first);
        assert_eq!(ledger.next_finished(), None, "the page may get another batch");
        ledger.close_page(7);
        let finished = ledger.next_finished().unwrap();
        assert_eq!((finished.place, finished.events), (7, 15));
        assert_eq!((ledger.pages_opened(), ledger.pages_finished()), (1, 1));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_later_page_waits_for_the_earlier() {
        let mut ledger = ledger();
        ledger.open_page();
        let first = ledger.add_batch(1, 10);
        ledger.close_page(1);
        ledger.open_page();
        let second = ledger.add_batch(1, 10);
        ledger.close_page(2);
        ledger.open_page();
        ledger.close_page(3);
        ledger.acknowledge(second);
        assert_eq!(ledger.next_finished(), None);
        ledger.acknowledge(first);
        let places: Vec<u32> =
            std::iter::from_fn(|| ledger.next_finished()).map(|finished| finished.place).collect();
        assert_eq!(places, [1, 2, 3]);
    }

    #[test]
    fn parked_events_are_told_apart_and_the_oldest_batch_is_known() {
        let mut ledger = ledger();
        ledger.open_page();
        let first = ledger.add_batch(4, 10);
        let second = ledger.add_batch(4, 10);
        ledger.close_page(1);
        assert_eq!(ledger.oldest(), Some(first));
        ledger.acknowledge(first);
        assert_eq!(ledger.oldest(), Some(second));
        ledger.acknowledge_but(second, 3);
        let finished = ledger.next_finished().unwrap();
        assert_eq!((finished.events, finished.parked, ledger.oldest()), (8, 3, None));
    }

    #[test]
    fn room_ends_with_bytes_and_with_batches() {
        let mut ledger = ledger();
        ledger.open_page();
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
    fn pages_that_wait_behind_another_become_one() {
        let limit = Limit { bytes: 100, batches: 3 };
        // Even places cover odd ones.
        let mut ledger = Ledger::merging(limit, |_, later: &u32| later.is_multiple_of(2));
        let page = |ledger: &mut Ledger<u32>, place, has_batch: bool| {
            ledger.open_page();
            let batch = has_batch.then(|| ledger.add_batch(1, 1));
            ledger.close_page(place);
            batch
        };
        let stuck = page(&mut ledger, 0, true).unwrap();
        for place in 1..=10_000 {
            let batch = page(&mut ledger, place, place % 3 == 0);
            batch.into_iter().for_each(|batch| ledger.acknowledge_but(batch, 1));
        }
        assert!(ledger.pages.len() <= 3, "{}", ledger.pages.len());
        let last = page(&mut ledger, 10_001, true).unwrap();
        assert_eq!((ledger.pages_opened(), ledger.pages_finished()), (10_002, 0));
        ledger.acknowledge(stuck);
        let all: Vec<Finished<u32>> = std::iter::from_fn(|| ledger.next_finished()).collect();
        assert_eq!(all.last().unwrap().place, 10_000);
        assert_eq!(all.iter().map(|page| page.events).sum::<u64>(), 1 + 3_333);
        assert_eq!(all.iter().map(|page| page.parked).sum::<u64>(), 3_333);
        assert_eq!(ledger.pages_finished(), 10_001);
        ledger.acknowledge(last);
        assert_eq!(ledger.next_finished().unwrap().place, 10_001);
        assert_eq!(ledger.pages_finished(), ledger.pages_opened());
    }

    #[test]
    fn pages_that_cannot_become_one_are_bounded() {
        let mut ledger = ledger();
        let mut pages = 0;
        while ledger.has_page_room() {
            ledger.open_page();
            if pages == 0 {
                ledger.add_batch(1, 1);
            }
            ledger.close_page(pages);
            pages += 1;
        }
        assert_eq!(pages as usize, PAGES_MAX);
    }

    #[test]
    #[should_panic(expected = "in flight")]
    fn an_unknown_acknowledgement_is_a_broken_invariant() {
        ledger().acknowledge(BatchNumber(0));
    }

    #[test]
    #[should_panic(expected = "without events")]
    fn a_batch_without_events_is_a_broken_invariant() {
        let mut ledger = ledger();
        ledger.open_page();
        ledger.add_batch(0, 0);
    }

    #[test]
    #[should_panic(expected = "closed once")]
    fn a_page_that_is_closed_twice_is_a_broken_invariant() {
        let mut ledger = ledger();
        ledger.open_page();
        ledger.close_page(1);
        ledger.close_page(2);
    }
}
