//! What comes before the stream: rows of adopted tables that it does not bring.
//!
//! Promises: the stream goes on only when all of them are acknowledged or parked, and noted. Must not: know
//! a table. Fails: with the first error of either side; the copy then begins anew, with a new slot.

use super::Reader;
use crate::error::Result;
use crate::event::Standing;

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
        while let Some(events) = copy.next().await? {
            for event in events {
                self.gather(event, Standing::Written).await?;
            }
            self.settle().await?;
            if self.is_told_to_end() {
                return Ok(Copied::Not);
            }
            self.feed_back_when_due().await?;
        }
        self.end_page(None).await?;
        self.wait_until_landed().await?;
        let passed = copy.finish(self.store.epoch_of_all()?).await?;
        if let Some(table) = &mut self.table {
            table.adopted.passed.iter_mut().for_each(|before| *before = passed.clone());
        }
        Ok(Copied::All)
    }
}
