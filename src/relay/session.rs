//! One session: everything between two troubles with PostgreSQL.
//!
//! Promises: all parts of a session end before the next begins; a session that was told to stop saves
//! every cursor and leaves the tier. Must not: know what an event says, or who owns what.
//! Fails: with the first error that concerns all shards.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Relay;
use super::steward::{Berth, Berths, Steward};
use super::supervise::{ShardContext, supervise};
use crate::capture::ticker::Ticker;
use crate::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::lease::{Lease, Terms};
use crate::migrate;
use crate::monitor::Monitor;
use crate::outbox::Outbox;
use crate::parked::Parked;
use crate::postgres::connect;
use crate::publish::permit::Permit;
use crate::publish::settings::ProducerConfig;
use crate::retention::{OwnBuckets, Retention, Ring};

/// How often the figures are logged.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// Which task of a session came to its end.
pub(super) enum Ended {
    Ticker,
    Shard,
}

type Tasks = JoinSet<Result<Ended>>;

impl Relay {
    /// One session: from the look at the outbox to the first error that concerns all shards.
    pub(super) async fn session(
        &self,
        producer: &ProducerConfig,
        started: &mut bool,
    ) -> Result<()> {
        let connection = connect(&self.config.database, "cursors").await?;
        let outbox = migrate::load(connection.client(), &self.config.outbox).await?;
        let store = Arc::new(CursorStore::open(connection, self.config.on_promotion).await?);
        let latest = store.latest_tick().await?;
        let shards = self.shard_count(&outbox)?;
        let database = &self.config.database;
        let ticker =
            Ticker::connect(database, &outbox, self.config.cadence, Arc::clone(&latest)).await?;
        let terms = Terms::new(self.config.lease_seconds);
        let parked = Arc::new(Parked::open(connect(database, "parked").await?, &outbox).await?);
        let lease =
            Lease::join(connect(database, "lease").await?, &self.name, shards, terms).await?;
        *started = true;

        let (tick_sender, ticks) = watch::channel(latest);
        let (own_sender, own) = watch::channel(OwnBuckets::new());
        let (permit, moved) = (Arc::new(Permit::ended()), Arc::new(Notify::new()));
        let (berths, berthed): (Vec<Berth>, Vec<_>) =
            (0..shards).map(|_| Berth::new(&moved)).unzip();
        let retention =
            Retention::new(database.clone(), ring(&outbox), own, self.config.replay_window);
        let context = Arc::new(ShardContext {
            config: self.config.clone(),
            producer: producer.clone(),
            outbox,
            shards,
            store: Arc::clone(&store),
            parked,
            lessons: Arc::clone(&self.lessons),
            permit: Arc::clone(&permit),
            ticks,
            warnings: Arc::clone(&self.warnings),
            stop: self.stop.clone(),
        });
        let mut tasks = Tasks::new();
        tasks.spawn(async move { ticker.run(tick_sender).await.map(|()| Ended::Ticker) });
        tasks.spawn(save_regularly(Arc::clone(&store), self.config.save_interval));
        tasks.spawn(async move { match retention.run().await {} });
        tasks.spawn(log_figures(Arc::clone(&self.monitor)));
        for (index, berth) in berthed.into_iter().enumerate() {
            let gauge = self.monitor.shard(index);
            tasks.spawn(supervise(Arc::clone(&context), index, berth, gauge));
        }
        drop(context);
        let berths = Berths { berths, moved };
        let mut steward =
            Steward::new(lease, terms, &self.name, Arc::clone(&store), berths, permit, own_sender);
        let ended = tokio::select! {
            ended = wait_for_shards(&mut tasks, shards) => ended,
            error = steward.run(&self.stop) => Err(error),
        };
        // Nothing of this session, its producers least of all, is left to meet the next.
        tasks.shutdown().await;
        ended?;
        store.save_all().await?;
        steward.leave().await
    }

    /// As asked for, or one per core and at most one per bucket.
    fn shard_count(&self, outbox: &Outbox) -> Result<usize> {
        let buckets = usize::from(outbox.buckets);
        let Some(asked) = self.config.shards.map(|shards| usize::from(shards.get())) else {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            return Ok(cores.min(buckets));
        };
        if asked <= buckets {
            return Ok(asked);
        }
        Err(Error::new(
            ErrorKind::Config,
            format!("{asked} shards cannot share the {buckets} buckets of this outbox"),
        )
        .with_remedy(format!("set --shards to {buckets} at most, or leave it out")))
    }
}

/// What retention cleans.
fn ring(outbox: &Outbox) -> Ring {
    let table = |bucket| (Bucket(bucket), outbox.bucket_table(Bucket(bucket)));
    Ring {
        generation_seconds: outbox.generation_seconds,
        tables: (0..outbox.buckets).map(table).collect(),
    }
}

/// Waits until all shards have ended well, or anything has failed.
async fn wait_for_shards(tasks: &mut Tasks, shards: usize) -> Result<()> {
    let mut running = shards;
    while running > 0 {
        let ended = tasks.join_next().await.expect("shards are running");
        match ended.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?? {
            Ended::Shard => running -= 1,
            Ended::Ticker => {}
        }
    }
    Ok(())
}

async fn save_regularly(store: Arc<CursorStore>, interval: Duration) -> Result<Ended> {
    loop {
        tokio::time::sleep(interval).await;
        store.save().await?;
    }
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
