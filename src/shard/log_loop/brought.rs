//! Which rows of the outbox a stream has brought, for whoever proves by the table that it has brought all.
//!
//! Promises: a row that came since the last saved place is in it, or it says that it does not know. Must not: lock for
//! each row; know a connection. Fails: never; ticks that nobody saves are told apart no more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::capture::log::decode::Lsn;
use crate::event::Bucket;
use crate::order::cursor::Cursor;
use crate::order::seq_ranges::SeqRanges;
use crate::order::snapshot::TransactionId;

/// So many ticks are told apart; those behind them are forgotten with the last.
const MARKS_MAX: usize = 1_024;

/// The line between the reader and whoever proves.
#[derive(Clone, Debug, Default)]
pub struct BroughtRows(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    /// Where the buckets stood when the stream began.
    begins: HashMap<Bucket, Cursor>,
    /// What came up to each tick.
    marks: VecDeque<(Lsn, SeqRanges)>,
}

impl BroughtRows {
    /// The stream brings what these cursors have not passed.
    pub fn begin(&self, cursors: impl IntoIterator<Item = (Bucket, Cursor)>) {
        let begins = cursors.into_iter().collect();
        *self.lock() = Marks { begins, marks: VecDeque::new() };
    }

    /// These rows came up to a tick's commit.
    pub fn mark(&self, end: Lsn, rows: SeqRanges) {
        if rows.is_empty() {
            return;
        }
        let mut kept = self.lock();
        let is_full = kept.marks.len() >= MARKS_MAX;
        match kept.marks.back_mut().filter(|_| is_full) {
            Some((last, brought)) => {
                *last = end;
                brought.extend(&rows);
            }
            None => kept.marks.push_back((end, rows)),
        }
    }

    /// All of them since what was forgotten, as a multirange of PostgreSQL's; none where there are too many ranges.
    pub fn multirange(&self) -> Option<String> {
        let mut all = SeqRanges::default();
        self.lock().marks.iter().for_each(|(_, rows)| all.extend(rows));
        all.multirange()
    }

    /// Whether a row was published before the stream began.
    pub fn was_passed(&self, bucket: Bucket, transaction: TransactionId, seq: i64) -> bool {
        let kept = self.lock();
        kept.begins.get(&bucket).is_some_and(|cursor| cursor.has_passed(transaction, seq))
    }

    /// What came up to this place is saved.
    pub fn forget(&self, saved: Lsn) {
        let mut kept = self.lock();
        let forgotten = kept.marks.partition_point(|(end, _)| *end <= saved);
        kept.marks.drain(..forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: std::ops::Range<i64>) -> SeqRanges {
        let mut rows = SeqRanges::default();
        numbers.for_each(|seq| rows.insert(seq));
        rows
    }

    #[test]
    fn what_is_saved_is_forgotten() {
        let brought = BroughtRows::default();
        brought.mark(Lsn(10), rows(1..5));
        brought.mark(Lsn(20), rows(0..0));
        brought.mark(Lsn(30), rows(8..9));
        brought.forget(Lsn(9));
        assert_eq!(brought.multirange().unwrap(), "{[1,4],[8,8]}");
        brought.forget(Lsn(29));
        assert_eq!(brought.multirange().unwrap(), "{[8,8]}");
        brought.forget(Lsn(30));
        assert_eq!(brought.multirange().unwrap(), "{}");
    }

    #[test]
    fn ticks_without_an_end_take_no_room() {
        let brought = BroughtRows::default();
        let count = i64::try_from(MARKS_MAX).unwrap() * 3;
        for number in 0..count {
            brought.mark(Lsn(number.unsigned_abs() + 1), rows(number..number + 1));
        }
        assert_eq!(brought.lock().marks.len(), MARKS_MAX);
        brought.forget(Lsn(count.unsigned_abs() - 1));
        assert_eq!(brought.multirange().unwrap(), format!("{{[{},{}]}}", MARKS_MAX - 1, count - 1));
    }
}
