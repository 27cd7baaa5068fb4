//! When each transaction was committed, kept for a while in bounded memory.
//!
//! Promises: a commit that is found is the right one. Must not: lock; writers and the auditor meet
//! here for every transaction. Fails: never; a commit that is not there yet, or was overwritten by a
//! much later one, says so.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots for all writers together: 16 MB.
const SLOTS: usize = 1 << 21;

/// Bits of a slot that hold the time; 2^40 µs are twelve days.
const TIME_BITS: u32 = 40;

/// What is known of a transaction's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The server's answer came so many microseconds after the start.
    At(u64),
    /// The answer has not come yet: the record was faster.
    NotYet,
    /// Too long ago: its slot was needed.
    Forgotten,
}

/// The commits of all writers.
#[derive(Debug)]
pub(crate) struct CommitLog {
    slots: Vec<AtomicU64>,
    per_writer: usize,
}

impl CommitLog {
    /// A log for so many writers.
    pub(crate) fn new(writers: u16) -> Self {
        let per_writer = SLOTS / usize::from(writers).next_power_of_two();
        let slots = (0..per_writer * usize::from(writers)).map(|_| AtomicU64::new(0)).collect();
        Self { slots, per_writer }
    }

    fn slot(&self, writer: u16, transaction: u32) -> Option<&AtomicU64> {
        let inside = transaction as usize % self.per_writer;
        self.slots.get(usize::from(writer) * self.per_writer + inside)
    }

    /// Notes a commit; transactions of a writer count from 1.
    pub(crate) fn note(&self, writer: u16, transaction: u32, at_us: u64) {
        let time = at_us & ((1 << TIME_BITS) - 1);
        if let Some(slot) = self.slot(writer, transaction) {
            slot.store((tag(transaction) << TIME_BITS) | time, Ordering::Relaxed);
        }
    }

    /// Looks a commit up.
    pub(crate) fn find(&self, writer: u16, transaction: u32) -> Commit {
        let Some(slot) = self.slot(writer, transaction) else { return Commit::Forgotten };
        let found = slot.load(Ordering::Relaxed);
        let (held, wanted) = (found >> TIME_BITS, tag(transaction));
        if held == wanted {
            Commit::At(found & ((1 << TIME_BITS) - 1))
        } else if found == 0 || is_earlier(held, wanted) {
            Commit::NotYet
        } else {
            Commit::Forgotten
        }
    }
}

/// The low bits of a transaction's number, which fit beside the time.
fn tag(transaction: u32) -> u64 {
    u64::from(transaction) & ((1 << (64 - TIME_BITS)) - 1)
}

/// Whether one tag comes before another, on the ring of 24-bit numbers.
fn is_earlier(held: u64, wanted: u64) -> bool {
    let ahead = wanted.wrapping_sub(held) & ((1 << (64 - TIME_BITS)) - 1);
    ahead < 1 << (63 - TIME_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_commit_is_found_and_others_are_told_apart() {
        let log = CommitLog::new(3);
        assert_eq!(log.find(2, 1), Commit::NotYet);
        log.note(2, 1, 5_000);
        assert_eq!(log.find(2, 1), Commit::At(5_000));
        assert_eq!(log.find(1, 1), Commit::NotYet);
        assert_eq!(log.find(7, 1), Commit::Forgotten);
    }

    #[test]
    fn a_place_that_was_used_again_is_forgotten_for_the_old_and_not_yet_for_the_new() {
        let log = CommitLog::new(1);
        let later = 1 + SLOTS as u32;
        log.note(0, 1, 10);
        assert_eq!(log.find(0, later), Commit::NotYet);
        log.note(0, later, 20);
        assert_eq!(log.find(0, later), Commit::At(20));
        assert_eq!(log.find(0, 1), Commit::Forgotten);
    }
}
