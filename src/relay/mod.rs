//! The relay: one instance's sessions, shards and their supervision.
//!
//! Promises: whatever fails, work goes on from the saved cursors; a stop lets what is in flight land
//! and saves the cursors. Must not: know what an event says.
//! Fails: at the start with any error; later only with errors whose disposition is to stop.
//!
//! ```text
//!  run ─► session ─► lock, take cursors ─► ticker ─┐
//!          ▲  │                                    ├─► shards (each started again by itself after
//!          │  ├─► saver, every --save-interval     │   trouble with Kafka)
//!          │  └─► retention
//!          └── a pause after trouble with PostgreSQL, a new session, cursors read again
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::capture::poll::Poller;
use crate::capture::ticker::Ticker;
use crate::config::Config;
use crate::cursor::Cursor;
use crate::cursors::{self, CursorStore, History};
use crate::encode::Encoder;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::migrate;
use crate::monitor::{Monitor, ShardGauge};
use crate::outbox::Outbox;
use crate::postgres::{Connection, connect};
use crate::publish::Publisher;
use crate::publish::kafka::{self, KafkaProducer, WARNING_PAUSE, Warnings};
use crate::publish::settings::{self, ProducerConfig};
use crate::retention::{OwnBucket, Retention, Ring};
use crate::shard::{BATCHES_MAX, Shard, ShardLimits, Wiring};
use crate::tick::Tick;

/// The first pause after trouble; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often an instance that stands by looks whether it is its turn.
const STANDBY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the figures are logged.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// Relays until `shutdown` is ready, then lets what is in flight land.
///
/// # Errors
/// Any error at the start; afterwards those that no retry can mend, and
/// [`ErrorKind::ShutdownTimeout`].
pub async fn run(
    config: Config,
    monitor: Arc<Monitor>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop_sender, stop) = watch::channel(false);
    let warnings = Arc::new(Warnings::new(WARNING_PAUSE));
    let relay = Relay { config, monitor, warnings, stop };
    let mut work = pin!(relay.run());
    tokio::select! {
        ended = &mut work => return ended,
        () = shutdown => {}
    }
    tracing::info!("stopping: no more is claimed, what is in flight lands first");
    stop_sender.send_replace(true);
    let timeout = relay.config.shutdown_timeout;
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::ShutdownTimeout,
            format!("what was in flight was not acknowledged within {timeout:?}"),
        )
        .with_remedy("nothing is lost: unacknowledged events are sent again by the next start"))
    })
}

struct Relay {
    config: Config,
    monitor: Arc<Monitor>,
    warnings: Arc<Warnings>,
    stop: watch::Receiver<bool>,
}

/// The pauses between attempts.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Self(PAUSE_MIN)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

impl Relay {
    async fn run(&self) -> Result<()> {
        let producer_config = self.producer_config()?;
        self.check_kafka(&producer_config).await?;
        let mut pauses = Pauses::new();
        let mut started = false;
        while !*self.stop.borrow() {
            let mut session_started = false;
            let ended = self.session(&producer_config, &mut session_started).await;
            if session_started {
                (started, pauses) = (true, Pauses::new());
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(error) if !started || is_final(&error) => return Err(error),
                Err(error) => self.pause(&error, pauses.next()).await,
            }
        }
        Ok(())
    }

    fn producer_config(&self) -> Result<ProducerConfig> {
        settings::producer_config(&self.config.kafka.brokers, &self.config.kafka.properties)
    }

    /// A broker must answer at the start; a topic that is the same for all events must be there.
    async fn check_kafka(&self, config: &ProducerConfig) -> Result<()> {
        let (config, topic) = (
            config.clone(),
            self.config.kafka.topic.is_fixed().then(|| self.config.kafka.topic.to_string()),
        );
        tokio::task::spawn_blocking(move || kafka::check(&config, topic.as_deref()))
            .await
            .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?
    }

    async fn pause(&self, error: &Error, pause: Duration) {
        if let Some(unsaid) = self.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                pause_ms = pause.as_millis() as u64,
                unsaid,
                "the session ended; going back to the saved cursors after a pause"
            );
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }

    /// One session: from the instance lock to the first error that concerns all shards.
    async fn session(&self, producer: &ProducerConfig, started: &mut bool) -> Result<()> {
        let connection = connect(&self.config.database, "relay").await?;
        History::read(&connection).await?;
        let outbox = migrate::load(connection.client(), &self.config.outbox).await?;
        if !self.wait_for_lock(&connection).await? {
            return Ok(());
        }
        let shards = self.shard_count(&outbox)?;
        let store = Arc::new(CursorStore::take(connection, &owner()).await?);
        let cursors = store.load().await?;
        let latest = cursors::latest_tick(&cursors);
        let ticker = Ticker::connect(
            &self.config.database,
            &outbox,
            self.config.cadence,
            Arc::clone(&latest),
        )
        .await?;
        let (tick_sender, ticks) = watch::channel(latest);
        let retention = Retention::new(
            self.config.database.clone(),
            ring(&outbox, &cursors, &store),
            self.config.replay_window,
        );
        let context = Arc::new(ShardContext {
            config: self.config.clone(),
            producer: producer.clone(),
            outbox,
            shards,
            store: Arc::clone(&store),
            ticks,
            warnings: Arc::clone(&self.warnings),
            stop: self.stop.clone(),
        });
        *started = true;
        tracing::info!(shards, buckets = context.outbox.buckets, "relaying");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { ticker.run(tick_sender).await.map(|()| Ended::Ticker) });
        tasks.spawn(save_regularly(Arc::clone(&store), self.config.save_interval));
        tasks.spawn(async move { match retention.run().await {} });
        tasks.spawn(log_figures(Arc::clone(&self.monitor)));
        for index in 0..shards {
            let gauge = self.monitor.shard(index);
            tasks.spawn(supervise(Arc::clone(&context), index, gauge));
        }
        drop(context);
        let ended = wait_for_shards(&mut tasks, shards).await;
        // Nothing of this session, its lock and its producers least of all, is left to meet the next.
        tasks.shutdown().await;
        ended?;
        store.save_all().await
    }

    /// Waits for the instance lock; false when the word to stop came first.
    async fn wait_for_lock(&self, connection: &Connection) -> Result<bool> {
        let mut stop = self.stop.clone();
        let mut told = false;
        while !cursors::try_lock(connection).await? {
            if !told {
                tracing::info!("another instance works on this outbox; standing by");
                told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(STANDBY_INTERVAL) => {}
                _ = stop.changed() => return Ok(false),
            }
        }
        Ok(true)
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

/// What retention cleans: all buckets that this instance has taken.
fn ring(outbox: &Outbox, cursors: &[(Bucket, Cursor)], store: &CursorStore) -> Ring {
    let own = |bucket: Bucket| OwnBucket {
        bucket,
        table: outbox.bucket_table(bucket),
        epoch: store.epoch(bucket),
    };
    Ring {
        generation_seconds: outbox.generation_seconds,
        buckets: cursors.iter().map(|(bucket, _)| own(*bucket)).collect(),
    }
}

/// Which task of a session came to its end.
enum Ended {
    Ticker,
    Shard,
}

/// Waits until all shards have ended well, or anything has failed.
async fn wait_for_shards(tasks: &mut JoinSet<Result<Ended>>, shards: usize) -> Result<()> {
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

/// Everything that a shard needs to be started again.
struct ShardContext {
    config: Config,
    producer: ProducerConfig,
    outbox: Outbox,
    shards: usize,
    store: Arc<CursorStore>,
    ticks: watch::Receiver<Arc<Tick>>,
    warnings: Arc<Warnings>,
    stop: watch::Receiver<bool>,
}

/// Runs one shard; after trouble with Kafka starts it again from its saved cursors.
async fn supervise(
    context: Arc<ShardContext>,
    index: usize,
    gauge: Arc<ShardGauge>,
) -> Result<Ended> {
    let mut pauses = Pauses::new();
    loop {
        let before = gauge.published.load(Ordering::Relaxed);
        let error = match context.start_shard(index, Arc::clone(&gauge)).await {
            Ok(()) => return Ok(Ended::Shard),
            Err(error) if concerns_one_shard(&error) => error,
            Err(error) => return Err(error),
        };
        if *context.stop.borrow() {
            return Err(error);
        }
        if gauge.published.load(Ordering::Relaxed) > before {
            pauses = Pauses::new();
        }
        let pause = pauses.next();
        // All shards share what was said: what one met is the others' trouble, too.
        if let Some(unsaid) = context.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                shard = index,
                cause = error.message(),
                remedy = error.remedy(),
                pause_ms = pause.as_millis() as u64,
                unsaid,
                "the producer is replaced; the shard goes back to its saved cursors"
            );
        }
        let mut stop = context.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return Ok(Ended::Shard),
        }
    }
}

impl ShardContext {
    async fn start_shard(&self, index: usize, gauge: Arc<ShardGauge>) -> Result<()> {
        self.store.save_all().await?;
        let cursors = self.own(index, self.store.load().await?);
        let name = index.to_string();
        let poller = Poller::connect(&self.config.database, &self.outbox, &name).await?;
        let encoder = Encoder::new(self.config.kafka.topic.clone())
            .with_created_at(self.config.kafka.created_at_header);
        let publisher = Publisher::start(&name, BATCHES_MAX, encoder, |reports| {
            let timestamp = self.config.kafka.record_timestamp;
            let warnings = Arc::clone(&self.warnings);
            KafkaProducer::new(&name, &self.producer, timestamp, reports, warnings)
        })?;
        let limits = ShardLimits {
            page_rows: self.config.page_rows,
            in_flight_bytes: (self.config.max_in_flight_bytes / self.shards).max(1),
        };
        let wiring = Wiring {
            poller,
            publisher,
            store: Arc::clone(&self.store),
            ticks: self.ticks.clone(),
            stop: self.stop.clone(),
            gauge,
        };
        Shard::new(wiring, cursors, limits).run().await
    }

    /// The buckets of one shard: dealt out in turn.
    fn own(&self, index: usize, cursors: Vec<(Bucket, Cursor)>) -> Vec<(Bucket, Cursor)> {
        cursors
            .into_iter()
            .filter(|(bucket, _)| usize::from(bucket.0) % self.shards == index)
            .collect()
    }
}

/// Trouble with Kafka ends one shard's producer; the session with PostgreSQL goes on.
fn concerns_one_shard(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::KafkaUnavailable | ErrorKind::TopicUnavailable | ErrorKind::DeliveryUncertain
    )
}

/// Whether the process ends for it.
fn is_final(error: &Error) -> bool {
    match error.kind().disposition() {
        Disposition::Retry | Disposition::StepDown => false,
        Disposition::Park | Disposition::Stop => true,
    }
}

/// Names this instance in `postrider.cursor`.
fn owner() -> String {
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|_| "localhost".to_owned());
    format!("{}:{}", host.trim(), std::process::id())
}
