//! What all sessions have: what they begin with, and the tasks that run side by side until one fails.
//!
//! Promises: a session that was told to stop saves every cursor and leaves the tier; of one that has failed,
//! no task is left to meet the next. Must not: know how events are read.
//! Fails: with the first error of any task.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::capture::mode::{CaptureState, Way, read_state};
use crate::control::cursors::CursorStore;
use crate::control::lease::{Lease, Terms};
use crate::control::parked::Parked;
use crate::control::retention::{OwnBuckets, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::postgres::{Connection, DatabaseConfig, connect, with_timeout};
use crate::publish::send_deadline::SendDeadline;
use crate::relay::assigner::ownership::Ownership;
use crate::relay::assigner::shard_lines::ShardLines;
use crate::relay::assigner::{Assigner, Share};
use crate::relay::instance::Instance;

/// How long is paused after trouble, by a session as by a shard.
pub(super) const TROUBLE: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How often an instance that stands by tries to become the reader, and one that waits gives a sign of life.
pub(super) const STAND_BY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the figures are logged.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// Which task of a session came to its end.
pub(super) enum Ended {
    /// One that the others can do without.
    Helper,
    /// A shard, or the log's reader.
    Shard,
}

pub(super) type Tasks = JoinSet<Result<Ended>>;

/// What every session begins with.
pub(super) struct Opened {
    pub(super) outbox: Outbox,
    pub(super) store: Arc<CursorStore>,
    pub(super) latest: Arc<Tick>,
    pub(super) state: CaptureState,
    /// How the session reads. Others may change the way at any moment: `state` may be read again, this not.
    pub(super) way: Way,
    /// A session for whatever concerns the capture.
    pub(super) control: Connection,
}

/// An instance's place in the tier, and the tasks that keep it.
pub(super) struct SessionTasks {
    pub(super) tasks: Tasks,
    pub(super) send_deadline: Arc<SendDeadline>,
    pub(super) parked: Arc<Parked>,
    /// Becomes true when the session is to end well.
    pub(super) stop: watch::Receiver<bool>,
    stop_sender: Arc<watch::Sender<bool>>,
    assigner: Assigner,
    shards: usize,
    store: Arc<CursorStore>,
    database: DatabaseConfig,
}

impl SessionTasks {
    /// Joins the tier, for the shards at the other ends of these lines.
    pub(super) async fn join(
        instance: &Instance,
        outbox: &Outbox,
        store: &Arc<CursorStore>,
        lines: ShardLines,
        share: Share,
    ) -> Result<Self> {
        let (database, shards) = (instance.config.database.clone(), lines.count());
        let (parked, lease) = join_tier(instance, outbox, shards).await?;
        let (own_sender, own) = watch::channel(OwnBuckets::new());
        let window = instance.config.replay_window;
        let (seconds, asks) = (outbox.generation_seconds, parked.asks().clone());
        let retention = Retention::new(database.clone(), seconds, own, asks, window);
        let retention = retention.with_figures(Arc::clone(instance.monitor.figures()));
        let mut tasks = Tasks::new();
        tasks.spawn(async move { match retention.run().await {} });
        tasks.spawn(log_figures(Arc::clone(&instance.monitor)));
        let (send_deadline, store) = (Arc::new(SendDeadline::ended()), Arc::clone(store));
        let ownership = Ownership::new(lease.name(), Arc::clone(&store), own_sender);
        let assigner =
            Assigner::new(instance, lease, ownership, lines, share, Arc::clone(&send_deadline));
        let (stop_sender, stop) = watch::channel(*instance.stop.borrow());
        let stop_sender = Arc::new(stop_sender);
        Ok(Self {
            tasks,
            send_deadline,
            parked,
            stop,
            stop_sender,
            assigner,
            shards,
            store,
            database,
        })
    }

    /// By which a task can end the session well.
    pub(super) fn end(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.stop_sender)
    }

    /// Works until all shards have ended well or something has failed; then ends everything.
    pub(super) async fn work(mut self) -> Result<()> {
        let ended = tokio::select! {
            ended = wait_for_shards(&mut self.tasks, self.shards) => ended,
            error = self.assigner.run(&self.stop) => Err(error),
        };
        // Nothing of this session, its producers least of all, is left to meet the next.
        self.tasks.shutdown().await;
        ended?;
        with_timeout(&self.database, "leave the relay tier", async {
            self.store.save_all().await?;
            self.assigner.leave().await
        })
        .await
    }
}

async fn join_tier(
    instance: &Instance,
    outbox: &Outbox,
    shards: usize,
) -> Result<(Arc<Parked>, Lease)> {
    let config = &instance.config;
    let parked = connect(&config.database, "parked").await?;
    let lease = connect(&config.database, "lease").await?;
    let terms = Terms::new(config.lease_seconds);
    with_timeout(&config.database, "join the relay tier", async {
        let parked = Arc::new(Parked::open(parked, outbox, config.max_event_bytes).await?);
        Ok((parked, Lease::join(lease, &instance.name, shards, terms).await?))
    })
    .await
}

/// Waits until all shards have ended well, or anything has failed.
async fn wait_for_shards(tasks: &mut Tasks, shards: usize) -> Result<()> {
    let mut running = shards;
    while running > 0 {
        let ended = tasks.join_next().await.expect("shards are running");
        match ended.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?? {
            Ended::Shard => running -= 1,
            Ended::Helper => {}
        }
    }
    Ok(())
}

async fn log_figures(monitor: Arc<Monitor>) -> Result<Ended> {
    let mut before = monitor.published();
    loop {
        tokio::time::sleep(FIGURES_INTERVAL).await;
        let published = monitor.published();
        if published > before {
            let rate = (published - before) / FIGURES_INTERVAL.as_secs();
            let in_flight_bytes = monitor.in_flight_bytes();
            tracing::info!(published, events_per_second = rate, in_flight_bytes, "publishing");
        }
        before = published;
    }
}

/// Does what may take long, and is not silent meanwhile: others would take it for gone. The work says nothing on
/// `control` itself: where that fails in a transaction, what is said here would fail with it.
pub(super) async fn stay<T>(
    control: &Connection,
    database: &DatabaseConfig,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(STAND_BY_INTERVAL) => {
                with_timeout(database, "read how events are captured", read_state(control)).await?;
            }
        }
    }
}
