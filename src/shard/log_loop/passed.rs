//! Whether an event of the stream was published before.
//!
//! Promises: the log says which transaction an event is of, whatever its row says. Must not: decide what becomes of it.
//! Fails: never.

use crate::capture::log::decode::LoggedEvent;
use crate::capture::log::flawed::Origin;
use crate::shard::log_loop::Reader;

impl Reader {
    /// Whether its transaction was published before this stream began.
    pub(super) fn is_passed_row(&mut self, event: &LoggedEvent) -> bool {
        let (Some(table), Origin::Row(bucket, claimed)) = (&self.table, event.origin()) else {
            return self.is_passed(event.origin());
        };
        let txid = table.whole(self.transaction.xid);
        self.transaction.txid = Some(txid);
        self.claims.note(claimed, txid, event);
        table.has_passed(bucket, txid, event.seq())
    }

    /// The same for what is no row of the outbox.
    pub(super) fn is_passed(&mut self, origin: Origin) -> bool {
        let (Some(table), Origin::Adopted(number)) = (&mut self.table, origin) else {
            return false;
        };
        let txid = table.whole(self.transaction.xid);
        self.transaction.txid = Some(txid);
        table.proven.bring(txid);
        table.has_passed_adopted(number, txid)
    }
}
