//! What comes before the stream: rows of adopted tables that it does not bring.
//!
//! Promises: the stream goes on only when all of them are acknowledged or parked, and noted. Must not: know
//! a table. Fails: with the first error of either side; the copy then begins anew, with a new slot.

use std::time::Instant;

use super::Reader;
use crate::error::{Error, Result};
use crate::event::Bucket;

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
        while let Some(events) = copy.next().await? {
            for event in events {
                self.gather(event).await?;
            }
            self.settle().await?;
            if *self.stop.borrow() || self.holdings.is_revoked() {
                return Ok(Copied::Not);
            }
            if self.feedback_at <= Instant::now() {
                self.feed_back().await?;
            }
        }
        self.end_page(None).await?;
        self.wait_until_landed().await?;
        let owned = self.store.owned();
        let epoch = owned.iter().find(|(bucket, _)| *bucket == Bucket(0)).map(|(_, epoch)| *epoch);
        let passed = copy.finish(epoch.ok_or_else(Error::fenced)?).await?;
        if let Some(table) = &mut self.table {
            table.adopted.passed.iter_mut().for_each(|before| *before = passed.clone());
        }
        Ok(Copied::All)
    }
}
