//! The task that reads the log, once all buckets are its own.
//!
//! Promises: the stream begins where the one before it ended, and only when whoever had the buckets can move nothing
//! any more. Must not: know what an event says. Fails: with the first error of either side; with
//! [`ErrorKind::SlotUnusable`] for a gap.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Notify, mpsc, watch};

use crate::capture::adopted::copy::AdoptedCopy;
use crate::capture::adopted::mapping::ValueForm;
use crate::capture::log::decode::{AdoptedTables, LogCapture, Source, StreamReading, unusable};
use crate::capture::log::durability::DurabilityBarrier;
use crate::capture::log::texts::learn;
use crate::capture::mode::CaptureState;
use crate::capture::slot::{Gap, SlotKeeper};
use crate::config::Config;
use crate::control::cursors::CursorStore;
use crate::control::parked::Parked;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::ShardGauge;
use crate::order::cursor::Cursor;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::postgres::{Lsn, connect_walsender};
use crate::publish::Publisher;
use crate::relay::adopted_tables::Adoption;
use crate::relay::assigner::shard_lines::Assignment;
use crate::relay::exactly::ExactlyOnce;
use crate::relay::publishers::Publishers;
use crate::relay::stream_proof::{StreamProof, StreamTrial};
use crate::relay::tasks::Ended;
use crate::schema;
use crate::shard::OutgoingRow;
use crate::shard::assignment::Holdings;
use crate::shard::log_loop::{
    AdoptedWiring, LogBeginning, LogReader, Premise, ProgressLine, ReaderWiring, TableWiring,
};

/// The one that reads the log.
const ONLY_SHARD: &str = "log";

/// The ticks of this session.
pub(super) struct LogTicks {
    pub(super) ticks: mpsc::Receiver<Arc<Tick>>,
    /// Asks for a tick at once.
    pub(super) nudge: Arc<Notify>,
}

/// Everything that a reader needs once all buckets are its own.
pub(super) struct LogTask {
    pub(super) config: Config,
    pub(super) outbox: Outbox,
    pub(super) adoption: Option<Adoption>,
    /// The server keeps what lies behind this, where a copy is prepared.
    pub(super) confirms_up_to: Option<Lsn>,
    pub(super) shards: usize,
    pub(super) keeper: Arc<SlotKeeper>,
    pub(super) proof: Arc<StreamProof>,
    pub(super) barrier: DurabilityBarrier,
    pub(super) store: Arc<CursorStore>,
    pub(super) parked: Arc<Parked>,
    pub(super) gauge: Arc<ShardGauge>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) assignment: Assignment,
    pub(super) publishers: Publishers,
    /// Where events are delivered exactly once.
    pub(super) exactly: Option<ExactlyOnce>,
    /// Since which switch events are delivered as they are.
    pub(super) delivery_term: i64,
    /// In which form values come at least, where tables are adopted.
    pub(super) values: ValueForm,
}

impl LogTask {
    pub(super) async fn run(
        mut self,
        progress_line: ProgressLine,
        ticks: Option<LogTicks>,
    ) -> Result<Ended> {
        let Some(holdings) = self.take_all_buckets().await? else { return Ok(Ended::Shard) };
        // Whoever had the buckets before can move nothing from here on.
        let (state, begins) = self.beginning().await?;
        let wake = Arc::new(Notify::new());
        if self.exactly.is_some() {
            // Kafka may give no answer while it is asked, and then this does not get on.
            self.gauge.has_work.store(true, Ordering::Relaxed);
        }
        let in_flight_bytes = self.config.max_in_flight_bytes;
        // A producer takes its id before it is looked whether the buckets are still ours.
        let publishers = self.start_publishers(&wake).await?;
        let found = match &self.exactly {
            None => {
                self.store.mark_term(&self.buckets, self.delivery_term).await?;
                None
            }
            Some(exactly) => Some(
                exactly.shard(ONLY_SHARD, in_flight_bytes).find(&self.store, &self.buckets).await?,
            ),
        };
        let present = self.store.present().await?;
        let committed = found.as_ref().and_then(|found| found.log(&present));
        let opened = self.open_source(&state, ticks).await?;
        let Some((mut table, source)) = opened else { return Ok(Ended::Shard) };
        if let (Some(found), Some(table)) = (&found, &mut table) {
            table.cursors = found.cursors(std::mem::take(&mut table.cursors), &present)?;
        }
        let copied_from = table.as_ref().and_then(|table| table.adopted.copy.as_ref());
        let copied_from = copied_from.map(AdoptedCopy::begins);
        // Behind a copy comes all that the cursors do not know, however far others have come.
        let committed = committed.filter(|_| copied_from.is_none());
        let begins = copied_from.unwrap_or_else(|| {
            committed.map_or(begins, |committed| begins.max(Lsn(committed.commit)))
        });
        self.keeper.free().await?;
        let cursors = table.as_ref().map(|table| table.cursors.as_slice());
        if self.rehearse(begins, &source, cursors).await? == StreamTrial::Stopped {
            return Ok(Ended::Shard);
        }
        let capture = self.start_stream(begins, source).await?;
        tracing::info!(slot = self.keeper.name(), shards = self.shards, "reading the log");
        let premise = brings_everything(&self.proof);
        let wiring = ReaderWiring {
            capture,
            barrier: self.barrier,
            begins,
            confirms_up_to: self.confirms_up_to,
            publishers,
            store: self.store,
            parked: self.parked,
            warnings: self.publishers.warnings,
            holdings,
            buckets: self.buckets,
            stop: self.stop,
            progress_line,
            table,
            gauge: self.gauge,
            exactly: found.zip(self.exactly.as_ref()).map(|(found, exactly)| LogBeginning {
                found,
                term: exactly.term(),
                taken_at: Lsn(present.lsn),
                committed,
                budget: exactly.budget(ONLY_SHARD, in_flight_bytes),
                premise,
            }),
        };
        let reader = LogReader::new(wiring, in_flight_bytes);
        reader.run().await.map(|()| Ended::Shard)
    }

    /// What the stream brings, and where its table stands; none when the session ends before.
    async fn open_source(
        &mut self,
        state: &CaptureState,
        ticks: Option<LogTicks>,
    ) -> Result<Option<(Option<TableWiring>, Source)>> {
        let Some(ticks) = ticks else { return Ok(Some((None, Source::Messages))) };
        let Some((table, tables)) = self.table_course(state, ticks).await? else {
            return Ok(None);
        };
        let parts = self.keeper.buckets_of_parts().await?;
        let source = Source::Table(self.outbox.clone(), parts, Box::new(tables));
        Ok(Some((Some(table), source)))
    }

    /// Reads the stream once before anything of it is sent, where it may lack rows.
    async fn rehearse(
        &mut self,
        begins: Lsn,
        source: &Source,
        cursors: Option<&[(Bucket, Cursor)]>,
    ) -> Result<StreamTrial> {
        let Some(cursors) = cursors else { return Ok(StreamTrial::Whole) };
        let Some(changed) = self.proof.changed().await? else { return Ok(StreamTrial::Whole) };
        let capture = self.start_stream(begins, source.clone()).await?;
        self.proof.rehearse(changed, capture, begins, cursors, &mut self.stop).await
    }

    /// One producer has one transaction: where events are delivered exactly once there is one.
    async fn start_publishers(&self, wake: &Arc<Notify>) -> Result<Vec<Publisher<OutgoingRow>>> {
        let Some(exactly) = &self.exactly else {
            let start = |shard: usize| self.publishers.start(shard, wake, None);
            return (0..self.shards).map(start).collect();
        };
        let (publishers, terms) = (self.publishers.clone(), exactly.terms(ONLY_SHARD));
        let wake = Arc::clone(wake);
        let started = tokio::task::spawn_blocking(move || publishers.start(0, &wake, Some(&terms)));
        let started =
            started.await.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
        Ok(vec![started?])
    }

    /// All buckets, in hand; none when the session ends before.
    async fn take_all_buckets(&mut self) -> Result<Option<Holdings>> {
        let mut holdings = self.assignment.holdings();
        let all: BTreeSet<Bucket> = self.buckets.iter().copied().collect();
        tokio::select! {
            taken = holdings.take_all(&all) => taken.map_err(|_| {
                Error::new(ErrorKind::Internal, "who assigns buckets to the log's reader has ended")
            })?,
            _ = self.stop.wait_for(|stop| *stop) => return Ok(None),
        }
        Ok(Some(holdings))
    }

    /// Where the stream begins.
    async fn beginning(&self) -> Result<(CaptureState, Lsn)> {
        let state = self.keeper.state().await?;
        let unusable = |gap: Gap| Error::new(ErrorKind::SlotUnusable, gap.words());
        if let Some(gap) = self.keeper.gap_beside_doubt(&state).await? {
            return Err(unusable(gap));
        }
        let begins = state.delivered.ok_or_else(|| unusable(Gap::Uncovered))?;
        Ok((state, begins))
    }

    /// Where the outbox's table and the adopted ones stand; none when the session ends before.
    async fn table_course(
        &mut self,
        state: &CaptureState,
        ticks: LogTicks,
    ) -> Result<Option<(TableWiring, AdoptedTables)>> {
        let cursors = self.store.load(&self.buckets).await?;
        let (adopted, tables) = match self.adoption.take() {
            None => (AdoptedWiring::default(), AdoptedTables::default()),
            Some(adoption) => {
                let (event_bytes_max, values) = (self.event_bytes_max(), self.values);
                let (store, mut stop) = (Arc::clone(&adoption.store), self.stop.clone());
                let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
                tokio::select! {
                    progress_line = adoption.wiring(&self.keeper, state, event_bytes_max, values) => {
                        progress_line.map_err(unusable)?
                    }
                    // The count of a table's rows may take as long as its owner likes.
                    () = stopped => {
                        store.end_reading().await?;
                        return Ok(None);
                    }
                }
            }
        };
        let near = self.keeper.near().await?;
        let LogTicks { ticks, nudge } = ticks;
        let brought = self.proof.brought.clone();
        Ok(Some((TableWiring { cursors, near, ticks, nudge, adopted, brought }, tables)))
    }

    /// A larger row is parked without being read.
    fn event_bytes_max(&self) -> usize {
        usize::try_from(self.config.max_event_bytes).unwrap_or(usize::MAX)
    }

    async fn start_stream(&self, begins: Lsn, source: Source) -> Result<LogCapture> {
        let mut session = connect_walsender(&self.config.database, "reader").await?;
        let form = match &source {
            Source::Table(_, _, adopted) => adopted.form,
            Source::Messages => ValueForm::Binary,
        };
        let encoding = learn(&mut session).await?;
        let start = self.keeper.start_command(begins, form);
        let stream = session.stream(&start).await.map_err(unusable)?;
        let (event_bytes_max, schema) = (self.event_bytes_max(), schema::chosen().clone());
        let reading = StreamReading { encoding, event_bytes_max, schema };
        Ok(LogCapture::new(stream, source, reading))
    }
}

/// Whether the stream has brought everything, wherever that is asked.
fn brings_everything(proof: &Arc<StreamProof>) -> Premise {
    let proof = Arc::clone(proof);
    Premise::new(move |cursor| {
        let proof = Arc::clone(&proof);
        // A part of a transaction moves no cursor: what it lacks is missed at the next.
        Box::pin(async move { proof.prove(cursor.as_ref()).await.map(drop) })
    })
}
