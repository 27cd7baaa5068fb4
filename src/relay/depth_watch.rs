//! Looks now and then how much waits in the own buckets, for figures.
//!
//! Promises: takes a hundredth of the time at most, and relaying goes on without it. Must not: end the session.
//! Fails: never; what cannot be seen is not told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::mode::Mode;
use crate::control::cursors::CursorStore;
use crate::control::depth::{DepthLook, OutboxRows};
use crate::error::Result;
use crate::event::Bucket;
use crate::metrics::counters::Monitor;
use crate::metrics::seen::SeenBacklog;
use crate::postgres::DatabaseConfig;
use crate::relay::instance::Instance;
use crate::relay::tasks::{Ended, SessionTasks};

/// The pause between two looks, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// And at most.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The pause behind a look is at least so many times as long as the look was.
const PAUSE_PER_LOOK: u32 = 100;
/// Before the first look the buckets are taken.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What is looked at, and by whom it is shown.
struct DepthWatch {
    database: DatabaseConfig,
    store: Arc<CursorStore>,
    monitor: Arc<Monitor>,
    mode: Mode,
}

/// Looks until the session ends.
pub(super) fn spawn_depth_watch(
    instance: &Instance,
    session_tasks: &mut SessionTasks,
    store: &Arc<CursorStore>,
    mode: Mode,
) {
    let (database, monitor) = (instance.config.database.clone(), Arc::clone(&instance.monitor));
    let watch = DepthWatch { database, store: Arc::clone(store), monitor, mode };
    session_tasks.tasks.spawn(watch.run());
}

impl DepthWatch {
    async fn run(self) -> Result<Ended> {
        let mut session = None;
        tokio::time::sleep(FIRST_PAUSE).await;
        loop {
            let began = Instant::now();
            let own = self.store.owned().into_iter().map(|(bucket, _)| bucket).collect();
            let seen = self.look(&mut session, own).await;
            if let Err(cause) = &seen {
                // The others of the session meet the same, and tell it.
                tracing::debug!(cause = cause.message(), "the backlog cannot be seen");
                session = None;
            }
            self.monitor.set_seen(seen.ok());
            let pause = (began.elapsed() * PAUSE_PER_LOOK).clamp(LOOK_INTERVAL, LOOK_INTERVAL_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, session: &mut Option<DepthLook>, own: Vec<Bucket>) -> Result<SeenBacklog> {
        let rows = match self.mode {
            Mode::Poll | Mode::Wal => OutboxRows::Events,
            Mode::Message => OutboxRows::Nothing,
        };
        let session = match session {
            Some(session) => session,
            None => session.insert(DepthLook::open(&self.database).await?),
        };
        session.look(&own, rows).await
    }
}
