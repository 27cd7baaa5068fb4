//! The transaction that the stream brings just now.
//!
//! Promises: its events are counted as the log has them, whichever of them are published. Must not: read the
//! stream. Fails: never; what belongs to no transaction is a broken invariant of the decoder, and panics.
//!
//! ```text
//!   Between ── begin ──► Open ─────── commit ──► Between
//!              └───────► Delivered ── commit ──┘      it lies before the place at which the stream began
//! ```

use crate::capture::log::decode::Lsn;
use crate::event::LogPosition;
use crate::order::control_record::RecordedPlace;
use crate::order::snapshot::TransactionId;

/// How far the transaction at hand is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TransactionStage {
    /// Its commit has come, or none has begun yet.
    #[default]
    Between,
    /// Its events come.
    Open,
    /// Its events come, and were delivered before this stream began.
    Delivered,
}

/// Whose a transaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Writer,
    /// A ticker's.
    Tick,
}

/// The transaction at hand, or the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transaction {
    pub(super) xid: u32,
    /// Where its commit lies.
    pub(super) commit: Lsn,
    pub(super) stage: TransactionStage,
    pub(super) kind: Kind,
    /// Its whole id, once a row has told it.
    pub(super) txid: Option<TransactionId>,
    /// How many events it has brought.
    events: u32,
}

impl Transaction {
    /// One that has just begun, in a stream that begins at a place.
    pub(super) fn begin(xid: u32, commit: Lsn, begins: Lsn) -> Self {
        let stage =
            if commit < begins { TransactionStage::Delivered } else { TransactionStage::Open };
        Self { xid, commit, stage, ..Self::default() }
    }

    /// Whether its commit has not come yet.
    pub(super) fn is_open(&self) -> bool {
        self.stage != TransactionStage::Between
    }

    /// Where its next event stands in the log.
    pub(super) fn next_log_position(&mut self) -> LogPosition {
        assert!(self.is_open(), "an event is of a transaction");
        let log_position = LogPosition { commit_lsn: self.commit.0, index: self.events };
        self.events = self.events.saturating_add(1);
        log_position
    }

    /// Behind the events that came until now.
    pub(super) fn place(&self) -> RecordedPlace {
        RecordedPlace { commit: self.commit.0, events: self.events.into() }
    }

    /// Its commit has come.
    pub(super) fn end(&mut self) {
        self.stage = TransactionStage::Between;
    }
}

/// What rows say of their transactions. Anybody may write anything into a column; the log knows better.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claims {
    is_said: bool,
}

impl Claims {
    /// Says once that a row names another transaction than the one that brought it.
    pub(super) fn note(&mut self, claimed: TransactionId, real: TransactionId, seq: i64) {
        if claimed == real || std::mem::replace(&mut self.is_said, true) {
            return;
        }
        tracing::warn!(
            seq,
            claimed,
            real,
            remedy = "write no txid: let the outbox's default stand; rows that were loaded need `postrider \
                      migrate reanchor` before the table is polled",
            "a row of the outbox names another transaction than its own; the log's counts"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_until_the_commit_and_those_before_the_beginning_are_delivered() {
        let mut transaction = Transaction::default();
        assert!(!transaction.is_open(), "none has begun");
        for (begins, stage) in [
            (Lsn(49), TransactionStage::Open),
            (Lsn(50), TransactionStage::Open),
            (Lsn(51), TransactionStage::Delivered),
        ] {
            transaction = Transaction::begin(7, Lsn(50), begins);
            assert_eq!((transaction.stage, transaction.kind), (stage, Kind::Writer));
            let places = [0, 1].map(|_| transaction.next_log_position());
            assert_eq!(places, [0, 1].map(|index| LogPosition { commit_lsn: 50, index }));
            transaction.end();
            assert!(!transaction.is_open());
        }
    }

    #[test]
    #[should_panic(expected = "of a transaction")]
    fn an_event_behind_the_commit_is_a_broken_invariant() {
        let mut transaction = Transaction::begin(7, Lsn(50), Lsn(1));
        transaction.end();
        transaction.next_log_position();
    }
}
