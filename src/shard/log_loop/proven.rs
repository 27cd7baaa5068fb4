//! Transactions of which rows of adopted tables were published.
//!
//! Promises: whatever is handed out was published: streamed as a transaction's own id, not that of a savepoint
//! inside one, or copied; what is kept is bounded. Must not: know a table or a connection.
//!
//! A snapshot lists the transactions that it lacks, but not their subtransactions. So above the lowest that
//! is lacking, an id that is not listed proves nothing; that the stream brought it does.

use std::collections::{BTreeSet, VecDeque};

use crate::order::snapshot::{Snapshot, TransactionId};

/// So many are kept, the latest: one long transaction beside many short ones shall not make each save
/// dear. Of those that are forgotten rows may be published again after a lost slot.
const KEPT_MAX: usize = 4_096;

/// What the stream has brought, and what of it is published.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// Since the last tick.
    recent: Vec<TransactionId>,
    /// Between the tick before and this one.
    marks: VecDeque<(u64, Vec<TransactionId>)>,
    kept: BTreeSet<TransactionId>,
}

impl Proven {
    /// Goes on with those that were known before.
    pub(super) fn new(known: impl IntoIterator<Item = TransactionId>) -> Self {
        Self { kept: known.into_iter().collect(), ..Self::default() }
    }

    /// A row of this transaction has come.
    pub(super) fn bring(&mut self, transaction: TransactionId) {
        if self.recent.last() != Some(&transaction) {
            self.recent.push(transaction);
        }
    }

    /// Rows with these ids were copied, and are published. They may be those of savepoints.
    pub(super) fn add(&mut self, ids: Vec<TransactionId>) {
        self.kept.extend(ids);
    }

    /// The commit of a tick has come.
    pub(super) fn mark(&mut self, tick: u64) {
        if !self.recent.is_empty() {
            self.marks.push_back((tick, std::mem::take(&mut self.recent)));
        }
    }

    /// Everything before this tick is published: those of its transactions that its snapshot alone does not
    /// prove.
    pub(super) fn land(&mut self, tick: u64, passed: &Snapshot) -> Vec<TransactionId> {
        let landed = self.marks.partition_point(|(marked, _)| *marked <= tick);
        self.kept.extend(self.marks.drain(..landed).flat_map(|(_, brought)| brought));
        self.kept = self.kept.split_off(&passed.xmin());
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
        self.kept.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect(text)
    }

    #[test]
    fn only_what_is_published_and_above_the_lowest_that_is_lacking_is_proven() {
        let mut proven = Proven::new([5, 11]);
        [12, 12, 14].into_iter().for_each(|id| proven.bring(id));
        proven.mark(20);
        proven.bring(21);
        assert_eq!(proven.land(19, &snapshot("10:20:10")), [11], "12 is not published yet");
        assert_eq!(proven.land(20, &snapshot("10:20:10")), [11, 12, 14], "21 came behind the tick");
        proven.mark(30);
        assert_eq!(proven.land(30, &snapshot("13:30:13")), [14, 21]);
        assert_eq!(proven.land(40, &snapshot("40:40:")), [0; 0]);
    }

    #[test]
    fn the_latest_are_kept() {
        let count = KEPT_MAX as u64 + 10;
        let mut proven = Proven::new([]);
        (100..100 + count).for_each(|id| proven.bring(id));
        proven.mark(1_000_000);
        let kept = proven.land(1_000_000, &snapshot("50:1000000:50"));
        assert_eq!((kept.len(), kept.first()), (KEPT_MAX, Some(&110)));
    }
}
