//! One session: everything between two troubles with PostgreSQL, or two changes of the capture.
//!
//! Promises: all parts of a session end before the next begins; it does what its plan says, and nothing of another.
//! Must not: know what an event says, or who owns what. Fails: with the first error that concerns all shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::capture::mode::{Flow, Mode, read_state};
use crate::capture::slot::reader_lock::unlock;
use crate::control::cursors::CursorStore;
use crate::control::migrate;
use crate::control::migrate::{LaterMigrations, LoadedOutbox};
use crate::error::Result;
use crate::metrics::health::SessionState;
use crate::outbox::Outbox;
use crate::postgres::{Connection, connect, with_timeout};
use crate::publish::kafka::config::ProducerConfig;
use crate::relay::agreement::{agree, insist};
use crate::relay::instance::Instance;
use crate::relay::plan::{ReaderLock, SessionPlan};
use crate::relay::stages::{Progress, SessionStage};
use crate::relay::stand_by::StandByEnd;
use crate::relay::tasks::Opened;

/// The lock, or none where the log is not read any more.
async fn still_wanted(opened: &Opened, lock: ReaderLock) -> Result<ReaderLock> {
    let reads_log = opened.way.mode != Mode::Poll && opened.way.flow == Flow::Running;
    if lock == ReaderLock::Unknown || reads_log {
        return Ok(lock);
    }
    unlock(&opened.control).await?;
    Ok(ReaderLock::Unknown)
}

impl Instance {
    /// One session: from the look at the outbox to the first error that concerns all shards.
    pub(super) async fn session(
        &self,
        producer: &ProducerConfig,
        progress: Progress,
        stage: &mut SessionStage,
    ) -> Result<()> {
        let kept = self.held_lock.take();
        let lock = if kept.is_some() { ReaderLock::Ours } else { ReaderLock::Unknown };
        let mut opened = self.open(kept).await?;
        let database = &self.config.database;
        let agreed = agree(&opened, database, self.config.capture, progress);
        opened.state = Box::pin(agreed).await?;
        opened.way = opened.state.way();
        insist(self.config.delivery, opened.way.delivery)?;
        self.introduce(&opened);
        let lock = still_wanted(&opened, lock).await?;
        let mut plan = self.plan(opened, lock).await?;
        loop {
            // The sessions are too large to lie in this one.
            plan = match plan {
                SessionPlan::StandBy(opened) => {
                    *stage = SessionStage::StandingBy;
                    self.monitor.set_session(SessionState::StandingBy);
                    match self.stand_by(&opened).await? {
                        StandByEnd::Ours => self.plan(opened, ReaderLock::Ours).await?,
                        StandByEnd::Over => SessionPlan::End,
                    }
                }
                SessionPlan::Paused(opened) => {
                    *stage = SessionStage::Paused;
                    return self.wait_for_resume(opened).await;
                }
                SessionPlan::Poll(opened) => {
                    return Box::pin(self.poll_session(opened, producer, None, stage)).await;
                }
                SessionPlan::PollWhileRecovering(opened, recovery) => {
                    let recovery = Some(*recovery);
                    Box::pin(self.poll_session(opened, producer, recovery, stage)).await?;
                    // What the log lacked is published: a change that comes from here on may have kept out nothing.
                    self.lacks_rows.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                SessionPlan::Stream(opened, stream) => {
                    *stage = SessionStage::Streaming;
                    return Box::pin(self.log_session(opened, *stream, producer)).await;
                }
                SessionPlan::End => return Ok(()),
            }
        }
    }

    /// Tells operators who works here, and how.
    fn introduce(&self, opened: &Opened) {
        let (capture, timeline) = (opened.way.mode.name(), opened.store.timeline());
        let delivery = opened.way.delivery.name();
        self.monitor.set_instance(|instance| {
            capture.clone_into(&mut instance.capture);
            delivery.clone_into(&mut instance.delivery);
            instance.timeline = Some(timeline);
        });
    }

    /// The outbox. Whoever has worked with it bears what a later version adds to the schema: it was there when that
    /// came, and a lost session is no reason to end while instances are replaced one by one. Whoever begins bears it, if
    /// the later version says that it may.
    async fn load(&self, connection: &Connection) -> Result<Outbox> {
        let later = match self.has_worked.load(Ordering::Relaxed) {
            true => LaterMigrations::Borne,
            false => LaterMigrations::AsTold,
        };
        let loaded = migrate::load_with(connection.client(), &self.config.outbox, later).await?;
        self.has_worked.store(true, Ordering::Relaxed);
        let LoadedOutbox { outbox, later_migration } = loaded;
        if let Some(migration) = later_migration
            && let Some(unsaid) = self.warnings.note("a later schema", Instant::now())
        {
            tracing::warn!(
                migration,
                unsaid,
                remedy = "replace this instance by one of that version",
                "the schema was raised by a later version: this instance works with it"
            );
        }
        Ok(outbox)
    }

    /// `control` is one that the session before has kept.
    async fn open(&self, control: Option<Connection>) -> Result<Opened> {
        let database = &self.config.database;
        let connection = connect(database, "cursors").await?;
        let control = match control {
            Some(control) => control,
            None => connect(database, "capture").await?,
        };
        with_timeout(database, "look at the outbox", async {
            let outbox = self.load(&connection).await?;
            let store = CursorStore::open(connection, self.config.on_promotion).await?;
            let store = Arc::new(store.with_figures(Arc::clone(self.monitor.figures())));
            let latest = store.latest_tick().await?;
            let state = read_state(&control).await?;
            let way = state.way();
            Ok(Opened { outbox, store, latest, state, way, control })
        })
        .await
    }
}
