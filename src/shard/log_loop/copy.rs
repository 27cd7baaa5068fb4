//! What comes before the stream: rows of adopted tables that it does not bring.
//!
//! Promises: the stream goes on only when all of them are acknowledged or parked, and noted. Must not: know
//! a table. Fails: with the first error of either side; the copy then begins anew, with a new slot.

use crate::capture::adopted::copy::{AdoptedCopy, CopyItem};
use crate::error::Result;
use crate::event::{Arrival, Standing};
use crate::shard::log_loop::{Reader, SETTLE_ITEMS, gone, sleep_until};

/// Whether there is nothing left to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    All,
    /// The word to stop came before.
    Not,
}

impl Reader {
    pub(super) async fn copy(&mut self) -> Result<Copied> {
        let Some(mut copy) = self.table.as_mut().and_then(|table| table.adopted.copy.take()) else {
            return Ok(Copied::All);
        };
        self.wait_until_durable(self.begins).await?;
        loop {
            let row = self.next_copied(&mut copy).await?;
            if self.is_told_to_end() {
                copy.give_up().await?;
                return Ok(Copied::Not);
            }
            let Some((item, arrival)) = row else { break };
            match item {
                CopyItem::Event(event) => self.gather(event, Standing::Committed(arrival)).await?,
                CopyItem::Part(part) => self.take_part(part, Some(arrival)).await?,
            }
            self.items += 1;
            if self.items >= SETTLE_ITEMS {
                self.settle().await?;
            }
            self.feed_back_when_due().await?;
        }
        self.end_page(None).await?;
        self.wait_until_landed().await?;
        let proven = match &mut self.table {
            Some(table) => {
                table.proven.add(copy.take_ids());
                table.proven.land(0, copy.snapshot())
            }
            None => Vec::new(),
        };
        let passed = copy.finish(&proven, self.store.epoch_of_all()?).await?;
        if let Some(table) = &mut self.table {
            table.adopted.passed.iter_mut().for_each(|before| *before = passed.clone());
        }
        Ok(Copied::All)
    }

    /// The next row of the copy, or none at its end or when the word to stop comes. The first row may take
    /// hours, while the server sorts: it hears from us on the stream meanwhile.
    async fn next_copied(&mut self, copy: &mut AdoptedCopy) -> Result<Option<(CopyItem, Arrival)>> {
        loop {
            let send_at = self.send_at;
            tokio::select! {
                biased;
                row = copy.next() => return row,
                () = self.wake.notified() => self.settle().await?,
                () = sleep_until(send_at) => self.send_all().await?,
                () = tokio::time::sleep_until(self.feedback_at.into()) => self.feed_back().await?,
                changed = self.stop.changed() => changed.map_err(|_| gone())?,
                changed = self.holdings.changed() => changed.map_err(|_| gone())?,
            }
            if self.is_told_to_end() {
                return Ok(None);
            }
        }
    }
}
