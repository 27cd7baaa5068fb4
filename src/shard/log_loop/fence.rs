//! The wait until what the log brings is durable.
//!
//! Promises: what was read before is not held up, and the server hears from us meanwhile. Must not: ask for
//! each event. Fails: as [`Reader::run`].

use crate::capture::log::decode::Lsn;
use crate::error::Result;
use crate::shard::log_loop::Reader;

impl Reader {
    /// Waits until a commit at this place is as durable as the server makes commits.
    pub(super) async fn wait_until_durable(&mut self, commit: Lsn) -> Result<()> {
        if self.fence.has_passed(commit) {
            return Ok(());
        }
        self.send_all().await?;
        while !self.fence.has_passed(commit) {
            self.settle().await?;
            self.feed_back_when_due().await?;
            tokio::select! {
                () = self.fence.ask() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(self.feedback_at.into()) => {}
            }
        }
        Ok(())
    }
}
