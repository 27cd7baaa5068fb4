//! What the loop is told by others.
//!
//! Promises: the signal to end is seen whichever way it comes. Must not: decide when the stream can end.
//! Fails: when nobody is left who could tell anything.

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::assignment::Holdings;

/// What the loop is told by others.
#[derive(Debug)]
pub(super) struct Orders {
    /// Becomes true when the stream is to end.
    pub(super) stop: watch::Receiver<bool>,
    /// All buckets, in hand.
    pub(super) holdings: Holdings,
}

impl Orders {
    /// By the signal to stop, or because others poll already: they get the buckets once everything has
    /// landed, as in any planned move.
    pub(super) fn are_to_end(&mut self) -> bool {
        *self.stop.borrow() || self.holdings.is_revoked()
    }

    /// Waits until something new is told. It may be dropped while it waits.
    pub(super) async fn changed(&mut self) -> Result<()> {
        tokio::select! {
            changed = self.stop.changed() => changed,
            changed = self.holdings.changed() => changed,
        }
        .map_err(|_| gone())
    }
}

/// Whoever the loop works for has ended.
pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the session of the log's reader has ended")
}
