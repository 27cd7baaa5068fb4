//! A session that reads the log: one instance does, the others stand by.
//!
//! Promises: the stream begins only where nothing is missing before it; a gap is closed from the table
//! first, where there is one; the slot is confirmed only up to what is saved, and that only up to what
//! Kafka has. Must not: know what an event says.
//! Fails: with the first error of either side. Messages whose slot is lost are lost, and are said to be.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use crate::capture::adopted::copy::SlotSession;
use crate::capture::adopted::mapping::ValueForm;
use crate::capture::adopted::registry::AdoptionStore;
use crate::capture::log::decode::{
    AdoptedTables, LogCapture, Reading, Source, lacked_publication, unusable,
};
use crate::capture::log::durability::Fence;
use crate::capture::log::texts::learn;
use crate::capture::mode::{KnownSlot, Mode, read_state};
use crate::capture::mode_change::messages_lost;
use crate::capture::slot::{Gap, SlotKeeper};
use crate::capture::table::ticker::{Audience, Cadence, ForeignRows, Ticker};
use crate::control::cursors::{CursorStore, pause_after_save};
use crate::control::parked::Parked;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::ShardGauge;
use crate::order::cursor::{Cohort, CohortCursor};
use crate::order::ledger::Finished;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::postgres::{Connection, DatabaseConfig, Lsn, connect, connect_walsender, patiently};
use crate::publish::kafka::config::{Arrival, ProducerConfig};
use crate::relay::Relay;
use crate::relay::adopted_tables::{Adoption, can_copy};
use crate::relay::assigner::ShardBerth;
use crate::relay::poll_session::{Ended, Opened, Tasks};
use crate::relay::shard_supervisor::Kafka;
use crate::relay::slot_monitor::{look_for_gaps, watch_slot};
use crate::relay::slot_recovery::{Healing, may_pass};
use crate::relay::stuck::stands_still;
use crate::shard::log_loop::{AdoptedCourse, Course, Landing, Reader, ReaderWiring, TableCourse};

/// How often an instance that stands by tries to become the reader.
pub(super) const STAND_BY_INTERVAL: Duration = Duration::from_millis(500);
/// Ticks on their way to the reader.
const TICKS_MAX: usize = 64;
/// How seldom the place is saved while nothing comes: ticks are the places where it can be.
const TICK_INTERVAL_MAX: Duration = Duration::from_millis(250);

impl Relay {
    pub(super) async fn log_session(
        &self,
        opened: Opened,
        producer: &ProducerConfig,
        started: &mut bool,
    ) -> Result<()> {
        let mode = opened.way.mode;
        *started = true;
        self.monitor.set_working(true);
        if !self.become_reader(&opened, mode).await? {
            return Ok(());
        }
        let lock = opened.control;
        let connection = connect(&self.config.database, "slot").await?;
        let name = self.config.outbox.clone();
        let keeper = SlotKeeper::open(connection, &self.config.database, name, mode).await?;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (state, held, gap) = patiently(&self.config.database, "look at the slot", async {
            let state = keeper.state().await?;
            let held = held.filter(|held| state.slot.as_ref().is_some_and(|slot| held.made(slot)));
            let gap = match can_copy(keeper.adopted(), &state, &held) {
                false => Some(Gap::Uncopied),
                true => keeper.gap(&state).await?,
            };
            Ok((state, held, gap))
        })
        .await?;
        if state.way() != opened.way {
            // Changed before the lock was ours: from here on it might make a slot in place of another's.
            return Ok(());
        }
        let opened = Opened { control: lock, state, ..opened };
        // What is nowhere but in the log, or may be gone from its table, is not given up for one event.
        let may_leave_it = mode == Mode::Wal && keeper.adopted().is_empty();
        let gap = gap.or_else(|| {
            (may_leave_it && self.is_stuck(opened.state.delivered)).then_some(Gap::Stuck)
        });
        let opened = match (gap, mode) {
            (None, Mode::Message) => opened,
            (None, Mode::Wal | Mode::Poll) if is_let_in(&keeper).await? => opened,
            (gap, Mode::Wal | Mode::Poll) => {
                let known = opened.state.slot.clone();
                let held = Arc::clone(&self.held);
                let healing = Healing { keeper, gap, known, held };
                // It is too large to lie in this one.
                let polling = self.claim_session(opened, producer, Some(healing), started);
                return Box::pin(polling).await;
            }
            (Some(gap @ (Gap::New | Gap::Uncovered)), Mode::Message) => {
                self.begin_messages(opened, &keeper, gap).await?
            }
            (Some(gap), Mode::Message) => return Err(messages_lost(gap, mode)),
        };
        if mode == Mode::Message {
            // The plug-in asks for a publication, whatever it brings.
            patiently(&self.config.database, "look at the publication", keeper.make_publication())
                .await?;
        }
        let (begins, slot) = (opened.state.delivered, keeper.name().to_owned());
        let streamed = Box::pin(self.stream(opened, keeper, held, producer)).await;
        if let Err(error) = &streamed {
            self.stuck.lock().unwrap_or_else(PoisonError::into_inner).note(begins, error);
        }
        let stands_still_for_good = !may_leave_it && self.is_stuck(begins);
        streamed.map_err(|error| match mode {
            Mode::Message if lacked_publication(&error) => {
                messages_lost(Gap::Publication, mode).with_source(error)
            }
            _ if stands_still_for_good => stands_still(&slot, begins, mode, error),
            Mode::Poll | Mode::Wal | Mode::Message => error,
        })
    }

    fn is_stuck(&self, place: Option<Lsn>) -> bool {
        let stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.is_at(place)
    }

    async fn stream(
        &self,
        opened: Opened,
        keeper: SlotKeeper,
        held: Option<SlotSession>,
        producer: &ProducerConfig,
    ) -> Result<()> {
        let Opened { outbox, store, latest, state, way, control } = opened;
        let shards = self.publisher_count(&outbox)?;
        let (mut crew, mut berthed) = self.crew(&outbox, &store, 1).await?;
        crew.steward.want_all();
        self.watch(&mut crew, way, control);
        let (landed_sender, landed) = watch::channel(None);
        let (saved_sender, saved) = watch::channel(Lsn(0));
        let known = state.slot.ok_or_else(|| {
            Error::new(ErrorKind::SlotUnusable, "the slot was given up meanwhile")
        })?;
        let keeper = Arc::new(keeper);
        let adoption = Adoption::open(&self.config.database, &keeper, held).await?;
        let buckets: Vec<Bucket> = (0..outbox.buckets).map(Bucket).collect();
        let saver = Saver {
            keeper: Arc::clone(&keeper),
            store: Arc::clone(&store),
            known: known.clone(),
            adoption: adoption.as_ref().map(|adoption| Arc::clone(&adoption.store)),
            cohort: buckets.iter().copied().collect(),
            interval: self.config.save_interval,
        };
        crew.tasks.spawn(saver.run(landed, saved_sender));
        crew.tasks.spawn(watch_slot(Arc::clone(&keeper), known, Arc::clone(&self.monitor)));
        let ticks = match way.mode {
            Mode::Message => None,
            Mode::Poll | Mode::Wal => {
                Some(self.spawn_ticker(&mut crew.tasks, &outbox, latest).await?)
            }
        };
        let fence = self.spawn_fence(&mut crew.tasks).await?;
        let berth = berthed.pop().expect("there is one berth");
        let task = ReaderTask {
            database: self.config.database.clone(),
            in_flight_bytes: self.config.max_in_flight_bytes,
            event_bytes_max: usize::try_from(self.config.max_event_bytes).unwrap_or(usize::MAX),
            outbox,
            adoption,
            shards,
            keeper,
            fence,
            store,
            parked: Arc::clone(&crew.parked),
            gauge: self.monitor.shard(0),
            stop: crew.stop.clone(),
            buckets,
            berth,
            kafka: self.kafka(producer, Arrival::Stream, &crew),
        };
        crew.tasks.spawn(task.run(Course { landed: landed_sender, saved }, ticks));
        crew.work(1).await
    }

    /// Makes a slot where there is none; what was written before it is never read.
    async fn begin_messages(
        &self,
        opened: Opened,
        keeper: &SlotKeeper,
        gap: Gap,
    ) -> Result<Opened> {
        let begun = async {
            if gap == Gap::New {
                keeper.make().await?;
            }
            keeper.cover().await?;
            keeper.state().await
        };
        let state = stay(&opened.control, &self.config.database, begun).await?;
        tracing::warn!(
            slot = keeper.name(),
            "messages are read from the log alone: they cannot be replayed, and what a lost slot had \
             kept is lost"
        );
        Ok(Opened { state, ..opened })
    }

    async fn spawn_fence(&self, tasks: &mut Tasks) -> Result<Fence> {
        let (fence, connection) =
            (Fence::default(), connect(&self.config.database, "fence").await?);
        let kept = fence.clone().keep(connection);
        tasks.spawn(async move { match kept.await? {} });
        Ok(fence)
    }

    async fn spawn_ticker(
        &self,
        tasks: &mut Tasks,
        outbox: &Outbox,
        latest: Arc<Tick>,
    ) -> Result<Ticks> {
        // Latency does not depend on ticks here: they only say where a place can be saved.
        let min = self.config.save_interval;
        let cadence = Cadence { min, max: min.max(TICK_INTERVAL_MAX) };
        let ticker =
            Ticker::connect(&self.config.database, outbox, cadence, latest, ForeignRows::Told)
                .await?;
        let (sender, ticks) = mpsc::channel(TICKS_MAX);
        let nudge = Arc::new(Notify::new());
        let nudged = Arc::clone(&nudge);
        tasks.spawn(async move {
            ticker.run(Audience::Every(sender), nudged).await.map(|()| Ended::Aide)
        });
        Ok(Ticks { ticks, nudge })
    }
}

/// The ticks of this session.
struct Ticks {
    ticks: mpsc::Receiver<Arc<Tick>>,
    nudge: Arc<Notify>,
}

/// Everything that a reader needs once all buckets are its own.
struct ReaderTask {
    database: DatabaseConfig,
    in_flight_bytes: usize,
    /// A larger row is parked without being read.
    event_bytes_max: usize,
    outbox: Outbox,
    adoption: Option<Adoption>,
    shards: usize,
    keeper: Arc<SlotKeeper>,
    fence: Fence,
    store: Arc<CursorStore>,
    parked: Arc<Parked>,
    gauge: Arc<ShardGauge>,
    stop: watch::Receiver<bool>,
    buckets: Vec<Bucket>,
    berth: ShardBerth,
    kafka: Kafka,
}

impl ReaderTask {
    async fn run(mut self, course: Course, ticks: Option<Ticks>) -> Result<Ended> {
        let (mut holdings, mut stop) = (self.berth.holdings(), self.stop.clone());
        let all: BTreeSet<Bucket> = self.buckets.iter().copied().collect();
        tokio::select! {
            taken = holdings.take_all(&all) => taken.map_err(|_| {
                Error::new(ErrorKind::Internal, "the steward of the log's reader has ended")
            })?,
            _ = stop.wait_for(|stop| *stop) => return Ok(Ended::Shard),
        }
        // Whoever had the buckets before can move nothing from here on.
        let state = self.keeper.state().await?;
        if let Some(gap) = self.keeper.gap(&state).await? {
            return Err(Error::new(ErrorKind::SlotUnusable, gap.words()));
        }
        let begins = state.delivered.expect("without a gap it was noted what is delivered");
        let (table, source) = match ticks {
            None => (None, Source::Messages),
            Some(Ticks { ticks, nudge }) => {
                let cursors = self.store.load(&self.buckets).await?;
                let (adopted, tables) = match self.adoption.take() {
                    None => (AdoptedCourse::default(), AdoptedTables::default()),
                    Some(adoption) => {
                        let store = Arc::clone(&adoption.store);
                        let course = adoption.course(&self.keeper, &state, self.event_bytes_max);
                        let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
                        tokio::select! {
                            course = course => course.map_err(unusable)?,
                            // The count of a table's rows may take as long as its owner likes.
                            () = stopped => {
                                store.end_reading().await?;
                                return Ok(Ended::Shard);
                            }
                        }
                    }
                };
                let near = self.keeper.near().await?;
                let course = TableCourse { cursors, near, ticks, nudge, adopted };
                (Some(course), Source::Table(self.outbox.clone(), tables))
            }
        };
        self.keeper.free().await?;
        let capture = self.start_stream(begins, source).await?;
        tracing::info!(slot = self.keeper.name(), shards = self.shards, "reading the log");
        let wake = Arc::new(Notify::new());
        let publishers = (0..self.shards)
            .map(|shard| self.kafka.publisher(&shard.to_string(), &wake))
            .collect::<Result<Vec<_>>>()?;
        let wiring = ReaderWiring {
            capture,
            fence: self.fence,
            begins,
            publishers,
            store: self.store,
            parked: self.parked,
            warnings: self.kafka.warnings,
            holdings,
            buckets: self.buckets,
            stop: self.stop,
            course,
            table,
            gauge: self.gauge,
        };
        Reader::new(wiring, self.in_flight_bytes).run().await.map(|()| Ended::Shard)
    }

    async fn start_stream(&self, begins: Lsn, source: Source) -> Result<LogCapture> {
        let mut session = connect_walsender(&self.database, "reader").await?;
        let form = match &source {
            Source::Table(_, adopted) => adopted.form,
            Source::Messages => ValueForm::Binary,
        };
        let encoding = learn(&mut session).await?;
        let start = self.keeper.start_command(begins, form);
        let stream = session.stream(&start).await.map_err(unusable)?;
        Ok(LogCapture::new(
            stream,
            source,
            Reading { encoding, event_bytes_max: self.event_bytes_max },
        ))
    }
}

/// Whether the server lets a reader in now.
async fn is_let_in(keeper: &SlotKeeper) -> Result<bool> {
    match keeper.knock().await {
        Ok(()) => Ok(true),
        Err(error) if may_pass(&error) && keeper.is_connected() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Does what may take long, and is not silent meanwhile: others would take it for gone.
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
                patiently(database, "read how events are captured", read_state(control)).await?;
            }
        }
    }
}

/// Saves how far the stream has led.
struct Saver {
    keeper: Arc<SlotKeeper>,
    store: Arc<CursorStore>,
    known: KnownSlot,
    /// Where there are adopted tables.
    adoption: Option<Arc<AdoptionStore>>,
    cohort: Cohort,
    interval: Duration,
}

impl Saver {
    async fn run(
        self,
        mut landed: watch::Receiver<Option<Landing>>,
        saved: watch::Sender<Lsn>,
    ) -> Result<Ended> {
        while landed.changed().await.is_ok() {
            let landing = landed.borrow_and_update().clone();
            let began = Instant::now();
            if let Some(landing) = landing {
                let place = landing.place;
                self.save(landing).await?;
                saved.send_replace(place);
            }
            tokio::time::sleep(pause_after_save(self.interval, began.elapsed())).await;
        }
        Ok(Ended::Aide)
    }

    /// In this order: a publication that lacked the outbox for a while has let rows pass unseen, the
    /// cursors must not. What is saved is on disk before the slot learns of it.
    async fn save(&self, landing: Landing) -> Result<()> {
        let Landing { place: landed, cursor, proven } = landing;
        look_for_gaps(&self.keeper, &self.known).await?;
        let epoch = self.store.epoch_of_all()?;
        if let Some(cursor) = cursor {
            let passed = cursor.from().clone();
            let place = CohortCursor { cohort: Arc::clone(&self.cohort), cursor };
            self.store.note(&Finished { place, events: 1, parked: 0 });
            self.store.save_all().await?;
            if let Some(adoption) = &self.adoption {
                adoption.save(&passed, &proven, epoch).await?;
            }
        }
        self.keeper.deliver(landed, epoch).await
    }
}
