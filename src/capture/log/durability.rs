//! Holds back what the log brings until it is as durable as the server makes commits.
//!
//! Promises: where commits wait for a standby, a place is passed only when the standby has all before it, so
//! that its promotion takes back nothing that was published; where they do not, everything has passed.
//! Must not: be asked for each event. Fails: with the connection's error.
//!
//! Why: the server sends of its log what is on its own disk. A poller's tick is a commit and waits for the
//! standby; here a commit of our own does that, whenever the stream is ahead of the last one.
//!
//! Source: PostgreSQL documentation, "Synchronous Replication".

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::Result;
use crate::postgres::{Connection, Lsn, Sql, classify};

const WANTED: &str = include_str!("../../../sql/queries/fence_wanted.sql");
static FENCE: Sql = Sql::of(include_str!("../../../sql/queries/fence.sql"));
/// How often it is looked at whether commits wait for a standby.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Where nothing is to be waited for.
const EVERYWHERE: Lsn = Lsn(u64::MAX);

/// How far the log has passed; the reader's end.
#[derive(Clone, Debug, Default)]
pub struct DurabilityBarrier {
    place: Arc<AtomicU64>,
    asked: Arc<Notify>,
    passed: Arc<Notify>,
}

impl DurabilityBarrier {
    /// Whether a commit at this place has passed.
    pub fn has_passed(&self, commit: Lsn) -> bool {
        commit.0 < self.place.load(Ordering::Acquire)
    }

    /// Asks how far the log has passed, and waits for an answer.
    pub async fn ask(&self) {
        self.asked.notify_one();
        self.passed.notified().await;
    }

    fn let_pass(&self, place: Lsn) {
        self.place.store(place.0, Ordering::Release);
        self.passed.notify_one();
    }

    /// Answers, by a session of its own.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn keep(self, connection: Connection) -> Result<Infallible> {
        let failed = |cause| classify("learn how durable the log is", cause);
        let client = connection.client();
        let wanted = client.prepare(WANTED).await.map_err(failed)?;
        let barrier = client.prepare(FENCE.text()).await.map_err(failed)?;
        loop {
            let waits: bool = client.query_one(&wanted, &[]).await.map_err(failed)?.get(0);
            let next_look = tokio::time::Instant::now() + LOOK_INTERVAL;
            if !waits {
                self.let_pass(EVERYWHERE);
                tokio::time::sleep_until(next_look).await;
                continue;
            }
            if self.place.load(Ordering::Acquire) == EVERYWHERE.0 {
                // It has just begun to wait: of nothing is it known yet.
                self.let_pass(Lsn(0));
            }
            while tokio::time::timeout_at(next_look, self.asked.notified()).await.is_ok() {
                self.let_pass(client.query_one(&barrier, &[]).await.map_err(failed)?.get(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_passed_before_the_first_answer() {
        let barrier = DurabilityBarrier::default();
        assert!(!barrier.has_passed(Lsn(0)));
        barrier.let_pass(Lsn(7));
        assert!(
            barrier.has_passed(Lsn(6)) && !barrier.has_passed(Lsn(7)),
            "a commit at it is behind it"
        );
        barrier.let_pass(EVERYWHERE);
        assert!(barrier.has_passed(Lsn(u64::MAX - 1)));
    }
}
