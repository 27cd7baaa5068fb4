//! A session that reads the log: one instance does, the others stand by.
//!
//! Promises: the slot is confirmed only up to what is saved, and that only up to what Kafka has; a stream that ends
//! again and again at one place is told of. Must not: know what an event says.
//! Fails: with the first error of either side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};

use crate::capture::adopted::registry::AdoptionStore;
use crate::capture::log::decode::lacked_publication;
use crate::capture::log::durability::DurabilityBarrier;
use crate::capture::mode::Mode;
use crate::capture::mode_change::messages_lost;
use crate::capture::slot::Gap;
use crate::capture::table::past_ticks;
use crate::capture::table::ticker::{Audience, Cadence, ForeignRows, Ticker};
use crate::control::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::health::SessionState;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::postgres::{Connection, DatabaseConfig, Lsn, connect, with_timeout};
use crate::publish::kafka::config::{ArrivalPattern, ProducerConfig};
use crate::relay::adopted_tables::Adoption;
use crate::relay::assigner::Share;
use crate::relay::assigner::shard_lines::ShardLines;
use crate::relay::copy_preparation::prepare;
use crate::relay::exactly::ExactlyOnce;
use crate::relay::held::HeldSession;
use crate::relay::instance::Instance;
use crate::relay::log_saver::LogSaver;
use crate::relay::log_task::{LogTask, LogTicks};
use crate::relay::mode_watch::spawn_mode_watch;
use crate::relay::plan::{Beginning, EventCopies, Stream};
use crate::relay::publishers::Publishers;
use crate::relay::replays::spawn_replays;
use crate::relay::slot_monitor::watch_slot;
use crate::relay::stream_proof::StreamProof;
use crate::relay::stuck::stands_still;
use crate::relay::tasks::{Ended, Opened, SessionTasks, Tasks, stay};
use crate::shard::log_loop::ProgressLine;

/// Ticks on their way to the reader.
const TICKS_MAX: usize = 64;
/// How seldom the place is saved while nothing comes: ticks are the places where it can be.
const TICK_INTERVAL_MAX: Duration = Duration::from_millis(250);

impl Instance {
    /// Reads the log, until told to stop or until it does not bring everything any more.
    pub(super) async fn log_session(
        &self,
        opened: Opened,
        stream: Stream,
        producer: &ProducerConfig,
    ) -> Result<()> {
        let (mode, copies) = (opened.way.mode, stream.copies);
        let prepared = HeldSession::default();
        let opened = match mode {
            Mode::Message => self.begin_messages(opened, &stream).await?,
            Mode::Poll | Mode::Wal => opened,
        };
        let (begins, slot) = (opened.state.delivered, stream.keeper.name().to_owned());
        let streamed = Box::pin(self.stream(opened, stream, producer, &prepared)).await;
        let streamed = match streamed {
            Ok(()) => {
                // Saved is a place where the stream can begin that goes with the copy.
                self.held.put(prepared.take());
                Ok(())
            }
            Err(error) => Err(self.as_tables_are(error).await),
        };
        if let Err(error) = &streamed {
            self.note_end_of_stream(begins, error);
            let lacks_rows = error.kind() == ErrorKind::SlotUnusable || lacked_publication(error);
            self.lacks_rows.fetch_or(lacks_rows, Ordering::Relaxed);
        }
        let is_stuck = self.stuck_at(begins).is_some();
        let stands_still_for_good = copies == EventCopies::InLogAlone && is_stuck;
        streamed.map_err(|error| match mode {
            Mode::Message if lacked_publication(&error) => {
                messages_lost(Gap::Publication, mode).with_source(error)
            }
            _ if stands_still_for_good => stands_still(&slot, begins, mode, error),
            Mode::Poll | Mode::Wal | Mode::Message => error,
        })
    }

    /// Makes a slot where there is none; what was written before it is never read. The plug-in asks for a
    /// publication, whatever it brings.
    async fn begin_messages(&self, opened: Opened, stream: &Stream) -> Result<Opened> {
        let (keeper, database) = (&stream.keeper, &self.config.database);
        let opened = match stream.beginning {
            Beginning::GoOn => opened,
            Beginning::MakeSlot | Beginning::Cover => {
                let begun = async {
                    if stream.beginning == Beginning::MakeSlot {
                        keeper.make().await?;
                    }
                    keeper.cover().await?;
                    keeper.state().await
                };
                let state = stay(&opened.control, database, begun).await?;
                tracing::warn!(
                    slot = keeper.name(),
                    "messages are read from the log alone: they cannot be replayed, and what a lost slot had \
                     kept is lost"
                );
                Opened { state, ..opened }
            }
        };
        with_timeout(database, "look at the publication", keeper.make_publication()).await?;
        Ok(opened)
    }

    async fn stream(
        &self,
        opened: Opened,
        stream: Stream,
        producer: &ProducerConfig,
        prepared: &HeldSession,
    ) -> Result<()> {
        let Opened { outbox, store, latest, state, way, control } = opened;
        let known = state.slot.ok_or_else(slot_was_given_up)?;
        remember(&self.config.database).await?;
        let shards = self.publisher_count(&outbox)?;
        let (own, count) = ((way, state.database), outbox.buckets);
        let exactly = ExactlyOnce::of(self, &store, own, producer, count).await?;
        let (lines, assignment) = ShardLines::to_reader();
        let mut session_tasks =
            SessionTasks::join(self, &outbox, &store, lines, Share::All).await?;
        self.monitor.set_session(SessionState::Working);
        let control = Arc::new(Mutex::new(control));
        spawn_mode_watch(self, &mut session_tasks, way, Arc::clone(&control));
        if let Some(exactly) = &exactly {
            exactly.spawn_watch(&mut session_tasks.tasks);
        }
        let keeper = Arc::new(stream.keeper);
        let adoption = Adoption::open(&self.config.database, &keeper, stream.held).await?;
        let adopted = adoption.as_ref().map(|adoption| Arc::clone(&adoption.store));
        let ticks = self.spawn_ticker(&mut session_tasks.tasks, way.mode, &outbox, latest).await?;
        let nudge = ticks.as_ref().map(|ticks| Arc::clone(&ticks.nudge));
        let read = (Arc::clone(&keeper), known);
        let proof = Arc::new(StreamProof::new(&self.config.database, &outbox, read, nudge));
        let progress_line =
            self.spawn_saver(&mut session_tasks.tasks, &outbox, &proof, &store, adopted);
        let confirms_up_to = stream.preparation.as_ref().and(state.delivered);
        let (watched, monitor) = (Arc::clone(&keeper), Arc::clone(&self.monitor));
        session_tasks.tasks.spawn(watch_slot(watched, Arc::clone(&proof), monitor));
        if let (Some(preparation), Some(ticks)) = (stream.preparation, &ticks) {
            let (store, nudge) = (Arc::clone(&store), Arc::clone(&ticks.nudge));
            let end = session_tasks.end();
            session_tasks.tasks.spawn(prepare(*preparation, store, nudge, end, prepared.clone()));
        }
        let payload = outbox.payload;
        if let Some(ticks) = &ticks {
            // Where there is a table.
            spawn_replays(self, &mut session_tasks, (&outbox, &store), producer, &ticks.nudge);
        }
        let task = LogTask {
            config: self.config.clone(),
            buckets: buckets(&outbox).collect(),
            outbox,
            adoption,
            confirms_up_to,
            shards,
            keeper,
            proof,
            barrier: self.spawn_barrier(&mut session_tasks.tasks).await?,
            store,
            parked: Arc::clone(&session_tasks.parked),
            gauge: self.monitor.shard(0),
            stop: session_tasks.stop.clone(),
            assignment,
            publishers: Publishers::new(
                self,
                payload,
                producer,
                ArrivalPattern::Stream,
                &session_tasks.send_deadline,
            ),
            exactly,
            delivery_term: way.delivery.term(),
            values: self.values(),
        };
        session_tasks.tasks.spawn(task.run(progress_line, ticks));
        session_tasks.work().await?;
        self.keep_lock(prepared, control);
        Ok(())
    }

    /// Whoever prepared a copy makes it: others would prepare it once more.
    fn keep_lock(&self, prepared: &HeldSession, control: Arc<Mutex<Connection>>) {
        if let (true, Some(lock)) = (prepared.is_some(), Arc::into_inner(control)) {
            self.held_lock.put(lock.into_inner());
        }
    }

    fn spawn_saver(
        &self,
        tasks: &mut Tasks,
        outbox: &Outbox,
        proof: &Arc<StreamProof>,
        store: &Arc<CursorStore>,
        adoption: Option<Arc<AdoptionStore>>,
    ) -> ProgressLine {
        let (landed_sender, landed) = watch::channel(None);
        let (saved_sender, saved) = watch::channel(Lsn(0));
        let saver = LogSaver {
            keeper: Arc::clone(&proof.keeper),
            store: Arc::clone(store),
            proof: Arc::clone(proof),
            adoption,
            cursor_group: buckets(outbox).collect(),
            interval: self.config.save_interval,
        };
        tasks.spawn(saver.run(landed, saved_sender));
        ProgressLine { landed: landed_sender, saved }
    }

    async fn spawn_barrier(&self, tasks: &mut Tasks) -> Result<DurabilityBarrier> {
        let (barrier, connection) =
            (DurabilityBarrier::default(), connect(&self.config.database, "fence").await?);
        let kept = barrier.clone().keep(connection);
        tasks.spawn(async move { match kept.await? {} });
        Ok(barrier)
    }

    /// None where there is no table.
    async fn spawn_ticker(
        &self,
        tasks: &mut Tasks,
        mode: Mode,
        outbox: &Outbox,
        latest: Arc<Tick>,
    ) -> Result<Option<LogTicks>> {
        if mode == Mode::Message {
            return Ok(None);
        }
        // Latency does not depend on ticks here: they only say where a place can be saved.
        let min = self.config.save_interval;
        let cadence = Cadence { min, max: min.max(TICK_INTERVAL_MAX) };
        let ticker =
            Ticker::connect(&self.config.database, outbox, cadence, latest, ForeignRows::Told)
                .await?
                .with_figures(Arc::clone(self.monitor.figures()));
        let (sender, ticks) = mpsc::channel(TICKS_MAX);
        let nudge = Arc::new(Notify::new());
        let nudged = Arc::clone(&nudge);
        tasks.spawn(async move {
            ticker.run(Audience::Every(sender), nudged).await.map(|()| Ended::Helper)
        });
        Ok(Some(LogTicks { ticks, nudge }))
    }
}

/// The control session keeps the lock of the one reader, in a transaction that may not write.
async fn remember(database: &DatabaseConfig) -> Result<()> {
    let memory = connect(database, "ticker").await?;
    let remembered = past_ticks::remember_log(&memory);
    with_timeout(database, "remember that the log is read", remembered).await.map(drop)
}

fn buckets(outbox: &Outbox) -> impl Iterator<Item = Bucket> {
    (0..outbox.buckets).map(Bucket)
}

fn slot_was_given_up() -> Error {
    Error::new(ErrorKind::SlotUnusable, "the slot was given up meanwhile")
}
