//! Where the log brought a parked event, as `postrider.parked` keeps it.
//!
//! Promises: what is read is what was written. Must not: know why an event is parked.
//!
//! Commits lie at multiples of eight bytes, so the lowest bit of a commit's place is free. It is set for a row of the
//! outbox: such a row keeps its `seq` for consumers, while the `seq` of anything else that the log brings means
//! nothing outside. Of a row that was parked by an earlier version this is not known; it goes without.

use tokio_postgres::Row;

use crate::capture::adopted::row::PLACE_BASE;
use crate::event::{LogPosition, SeqSource};
use crate::postgres::Lsn;

/// Added to the commit of a row of the outbox.
const ROW_MARK: u64 = 1;
/// The bits of a place that a commit leaves free.
const FREE_BITS: u64 = 7;

/// The columns `commit_lsn` and `commit_index`; both null for an event that was read from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredArrival(Option<LogPosition>);

impl StoredArrival {
    pub(super) fn new(log_position: Option<LogPosition>, source: SeqSource) -> Self {
        let mark = |log_position: LogPosition| match source {
            // A copy arrives where no commit lies.
            SeqSource::Table if log_position.commit_lsn & FREE_BITS == 0 => {
                LogPosition { commit_lsn: log_position.commit_lsn | ROW_MARK, ..log_position }
            }
            SeqSource::Table | SeqSource::Log => log_position,
        };
        Self(log_position.map(mark))
    }

    pub(super) fn read(row: &Row) -> Self {
        let (commit, index): (Option<Lsn>, Option<i64>) =
            (row.get("commit_lsn"), row.get("commit_index"));
        Self(commit.zip(index).map(|(commit, index)| LogPosition {
            commit_lsn: commit.0,
            index: u32::try_from(index).expect("the table checks it"),
        }))
    }

    pub(super) fn commit(&self) -> Option<Lsn> {
        self.0.map(|log_position| Lsn(log_position.commit_lsn))
    }

    pub(super) fn index(&self) -> Option<i64> {
        self.0.map(|log_position| log_position.index.into())
    }

    fn is_marked(log_position: LogPosition) -> bool {
        log_position.commit_lsn & FREE_BITS == ROW_MARK
    }

    /// Where the log brought it.
    pub(super) fn log_position(self) -> Option<LogPosition> {
        let commit_lsn = |log_position: LogPosition| match Self::is_marked(log_position) {
            true => log_position.commit_lsn & !FREE_BITS,
            false => log_position.commit_lsn,
        };
        self.0.map(|log_position| LogPosition {
            commit_lsn: commit_lsn(log_position),
            ..log_position
        })
    }

    /// What gave the event with this `seq` that number.
    pub(super) fn seq_source(self, seq: i64) -> SeqSource {
        match self.0 {
            // Those of adopted tables, which lose their arrivals when the cursors are set again.
            None if seq >= PLACE_BASE => SeqSource::Log,
            None => SeqSource::Table,
            Some(log_position) if Self::is_marked(log_position) => SeqSource::Table,
            Some(_) => SeqSource::Log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let commit = LogPosition { commit_lsn: 0x16b_3748, index: 9 };
        let copy = LogPosition { commit_lsn: commit.commit_lsn - 1, index: 0 };
        for (log_position, source, kept) in [
            (Some(commit), SeqSource::Table, commit.commit_lsn + 1),
            (Some(commit), SeqSource::Log, commit.commit_lsn),
            (Some(copy), SeqSource::Log, copy.commit_lsn),
        ] {
            let stored = StoredArrival::new(log_position, source);
            assert_eq!(stored.commit().expect("it is kept").0, kept);
            assert_eq!((stored.log_position(), stored.seq_source(7)), (log_position, source));
        }
        let polled = StoredArrival::new(None, SeqSource::Table);
        assert_eq!((polled.commit(), polled.index(), polled.log_position()), (None, None, None));
        assert_eq!(polled.seq_source(PLACE_BASE - 1), SeqSource::Table);
        assert_eq!(polled.seq_source(PLACE_BASE), SeqSource::Log, "of an adopted table");
    }
}
