//! One session: everything between two troubles with PostgreSQL, or two changes of the capture.
//!
//! Promises: all parts of a session end before the next begins; a session that was told to stop saves
//! every cursor and leaves the tier. Must not: know what an event says, or who owns what.
//! Fails: with the first error that concerns all shards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::capture::mode::{CaptureState, Mode, Way, read_state};
use crate::capture::table::past_ticks::{Remembered, remember_tick};
use crate::capture::table::ticker::{Audience, ForeignRows, Ticker};
use crate::control::cursors::{CursorStore, pause_after_save};
use crate::control::lease::{Lease, Terms};
use crate::control::migrate;
use crate::control::parked::Parked;
use crate::control::retention::{OwnBuckets, Retention, Ring};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::Monitor;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::postgres::{Connection, DatabaseConfig, connect, patiently};
use crate::publish::kafka::config::{Arrival, ProducerConfig, lingering};
use crate::publish::send_deadline::Permit;
use crate::relay::Relay;
use crate::relay::assigner::{Berth, Berths, ShardBerth, Steward};
use crate::relay::log_session::stay;
use crate::relay::mode_watch::{Turn, agree, watch_mode};
use crate::relay::shard_supervisor::{Kafka, ShardContext, supervise};
use crate::relay::slot_recovery::{Healing, heal};

/// How often the figures are logged.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// Which task of a session came to its end.
pub(super) enum Ended {
    /// One that the others can do without.
    Aide,
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
    /// How the session reads. Others may change the way at any moment: `state` may be read anew, this not.
    pub(super) way: Way,
    /// A session for whatever concerns the capture.
    pub(super) control: Connection,
}

/// An instance's place in the tier, and the tasks that keep it.
pub(super) struct Crew {
    pub(super) tasks: Tasks,
    pub(super) steward: Steward,
    pub(super) permit: Arc<Permit>,
    pub(super) parked: Arc<Parked>,
    /// Becomes true when the session is to end well.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) stop_sender: Arc<watch::Sender<bool>>,
    store: Arc<CursorStore>,
    database: DatabaseConfig,
}

impl Relay {
    /// One session: from the look at the outbox to the first error that concerns all shards.
    pub(super) async fn session(
        &self,
        producer: &ProducerConfig,
        started_before: bool,
        started: &mut bool,
    ) -> Result<()> {
        let mut opened = self.open().await?;
        let database = &self.config.database;
        let agreed = agree(&opened, database, self.config.capture, started_before);
        opened.state = stay(&opened.control, database, Box::pin(agreed)).await?;
        opened.way = opened.state.way();
        // Both are too large to lie in this one.
        match opened.way.mode {
            Mode::Poll => Box::pin(self.claim_session(opened, producer, None, started)).await,
            Mode::Wal | Mode::Message => {
                Box::pin(self.log_session(opened, producer, started)).await
            }
        }
    }

    async fn open(&self) -> Result<Opened> {
        let database = &self.config.database;
        let connection = connect(database, "cursors").await?;
        let control = connect(database, "capture").await?;
        patiently(database, "look at the outbox", async {
            let outbox = migrate::load(connection.client(), &self.config.outbox).await?;
            let store = Arc::new(CursorStore::open(connection, self.config.on_promotion).await?);
            let latest = store.latest_tick().await?;
            let state = read_state(&control).await?;
            let way = state.way();
            Ok(Opened { outbox, store, latest, state, way, control })
        })
        .await
    }

    /// Polls the table, until told to stop or until the slot can take over.
    pub(super) async fn claim_session(
        &self,
        opened: Opened,
        producer: &ProducerConfig,
        healing: Option<Healing>,
        started: &mut bool,
    ) -> Result<()> {
        let Opened { outbox, store, latest, way, control, .. } = opened;
        // What was saved before the absence, before it is overtaken. Of rows that the log brings it says nothing.
        if way.mode == Mode::Poll && remember_tick(&control).await? == Remembered::Refused {
            tracing::warn!(
                remedy = "run sql/roles.sql again, as the role that migrates",
                "the role may not write postrider.past_tick: `postrider check` finds fewer of the rows that no \
                 cursor will reach"
            );
        }
        let shards = self.shard_count(&outbox)?;
        let (database, cadence) = (&self.config.database, self.config.cadence);
        let ticker =
            Ticker::connect(database, &outbox, cadence, Arc::clone(&latest), ForeignRows::Refused)
                .await?;
        let (mut crew, berthed) = self.crew(&outbox, &store, shards).await?;
        *started = true;
        self.monitor.set_working(true);

        let (tick_sender, ticks) = watch::channel(latest);
        let nudge = Arc::new(Notify::new());
        let (audience, nudged) = (Audience::Latest(tick_sender), Arc::clone(&nudge));
        crew.tasks.spawn(async move { ticker.run(audience, nudged).await.map(|()| Ended::Aide) });
        let (saved, interval) = (Arc::clone(&store), self.config.save_interval);
        crew.tasks.spawn(save_regularly(saved, interval));
        self.watch(&mut crew, way, control);
        if healing.is_none() {
            self.give_up_held();
        }
        if let Some(healing) = healing {
            let nudge = Arc::clone(&nudge);
            crew.tasks.spawn(heal(healing, Arc::clone(&store), nudge, crew.end()));
        }
        let context = Arc::new(ShardContext {
            config: self.config.clone(),
            kafka: self.kafka(producer, Arrival::Pages, &crew),
            outbox,
            shards,
            store,
            parked: Arc::clone(&crew.parked),
            ticks,
            nudge,
            stop: crew.stop.clone(),
        });
        for (index, berth) in berthed.into_iter().enumerate() {
            let gauge = self.monitor.shard(index);
            crew.tasks.spawn(supervise(Arc::clone(&context), index, berth, gauge));
        }
        drop(context);
        crew.work(shards).await
    }

    /// Ends the session well when the process is to stop, or the way of reading was changed.
    pub(super) fn watch(&self, crew: &mut Crew, way: Way, control: Connection) {
        let turn = Turn { way, stop: self.stop.clone(), end: crew.end() };
        crew.tasks.spawn(watch_mode(turn, control));
    }

    /// What the publishers of a session share.
    pub(super) fn kafka(&self, producer: &ProducerConfig, arrival: Arrival, crew: &Crew) -> Kafka {
        Kafka {
            config: self.config.kafka.clone(),
            producer: lingering(producer, arrival),
            permit: Arc::clone(&crew.permit),
            warnings: Arc::clone(&self.warnings),
            lessons: Arc::clone(&self.lessons),
        }
    }

    /// Joins the tier, with a line to each of so many shards.
    pub(super) async fn crew(
        &self,
        outbox: &Outbox,
        store: &Arc<CursorStore>,
        shards: usize,
    ) -> Result<(Crew, Vec<ShardBerth>)> {
        let database = &self.config.database;
        let terms = Terms::new(self.config.lease_seconds);
        let parked = connect(database, "parked").await?;
        let lease = connect(database, "lease").await?;
        let (parked, lease) = patiently(database, "join the relay tier", async {
            let parked = Arc::new(Parked::open(parked, outbox, self.config.max_event_bytes).await?);
            Ok((parked, Lease::join(lease, &self.name, shards, terms).await?))
        })
        .await?;
        let (own_sender, own) = watch::channel(OwnBuckets::new());
        let (permit, moved) = (Arc::new(Permit::ended()), Arc::new(Notify::new()));
        let (berths, berthed): (Vec<Berth>, Vec<_>) =
            (0..shards).map(|_| Berth::new(&moved)).unzip();
        let retention =
            Retention::new(database.clone(), ring(outbox), own, self.config.replay_window);
        let mut tasks = Tasks::new();
        tasks.spawn(async move { match retention.run().await {} });
        tasks.spawn(log_figures(Arc::clone(&self.monitor)));
        let (keeper, held) = (Arc::clone(store), Arc::clone(&permit));
        let berths = Berths { berths, moved };
        let steward = Steward::new(lease, terms, &self.name, keeper, berths, held, own_sender);
        let (stop_sender, stop) = watch::channel(*self.stop.borrow());
        let (stop_sender, store) = (Arc::new(stop_sender), Arc::clone(store));
        let database = database.clone();
        let crew = Crew { tasks, steward, permit, parked, stop, stop_sender, store, database };
        Ok((crew, berthed))
    }

    /// As asked for, or one: it keeps up with a stream, and more of them only wake more threads.
    pub(super) fn publisher_count(&self, outbox: &Outbox) -> Result<usize> {
        if self.config.shards.is_some() { self.shard_count(outbox) } else { Ok(1) }
    }

    /// As asked for, or one per core and at most one per bucket.
    pub(super) fn shard_count(&self, outbox: &Outbox) -> Result<usize> {
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

impl Crew {
    /// By which a task can end the session well.
    pub(super) fn end(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.stop_sender)
    }

    /// Works until all shards have ended well or something has failed; then ends everything.
    pub(super) async fn work(mut self, shards: usize) -> Result<()> {
        let ended = tokio::select! {
            ended = wait_for_shards(&mut self.tasks, shards) => ended,
            error = self.steward.run(&self.stop) => Err(error),
        };
        // Nothing of this session, its producers least of all, is left to meet the next.
        self.tasks.shutdown().await;
        ended?;
        patiently(&self.database, "leave the relay tier", async {
            self.store.save_all().await?;
            self.steward.leave().await
        })
        .await
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
            Ended::Aide => {}
        }
    }
    Ok(())
}

async fn save_regularly(store: Arc<CursorStore>, interval: Duration) -> Result<Ended> {
    let mut pause = interval;
    loop {
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        store.save().await?;
        pause = pause_after_save(interval, began.elapsed());
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
