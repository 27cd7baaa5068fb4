//! The transaction that the stream brings just now.
//!
//! Promises: its events are counted as the log has them, whichever of them are published. Must not: read the
//! stream. Fails: never.

use crate::capture::log::decode::{LoggedEvent, Lsn};
use crate::event::Arrival;
use crate::order::snapshot::TransactionId;

/// The transaction at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transaction {
    pub(super) xid: u32,
    /// Where its commit lies.
    pub(super) commit: Lsn,
    /// How many events it has brought.
    events: u32,
    pub(super) is_open: bool,
    pub(super) is_tick: bool,
    /// It lies before the place at which the stream began.
    pub(super) is_delivered: bool,
    /// Its whole id, once a row has told it.
    pub(super) txid: Option<u64>,
}

impl Transaction {
    /// One that has just begun, in a stream that begins at a place.
    pub(super) fn begin(xid: u32, commit: Lsn, begins: Lsn) -> Self {
        Self { xid, commit, is_open: true, is_delivered: commit < begins, ..Self::default() }
    }

    /// Where its next event stands in the log.
    pub(super) fn next_arrival(&mut self) -> Arrival {
        let arrival = Arrival { commit_lsn: self.commit.0, index: self.events };
        self.events = self.events.saturating_add(1);
        arrival
    }
}

/// What rows say of their transactions. Anybody may write anything into a column; the log knows better.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claims {
    is_said: bool,
}

impl Claims {
    /// Says once that a row names another transaction than the one that brought it.
    pub(super) fn note(
        &mut self,
        claimed: TransactionId,
        real: TransactionId,
        event: &LoggedEvent,
    ) {
        if claimed == real || std::mem::replace(&mut self.is_said, true) {
            return;
        }
        tracing::warn!(
            seq = event.seq(),
            claimed,
            real,
            remedy = "write no txid: let the outbox's default stand; rows that were loaded need `postrider \
                      migrate reanchor` before the table is polled",
            "a row of the outbox names another transaction than its own; the log's counts"
        );
    }
}
