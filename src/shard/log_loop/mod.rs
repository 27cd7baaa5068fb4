//! The log's reader: one stream in, many publishers out.
//!
//! Promises: events of an aggregate go to one publisher, in the order of the stream; a place is handed
//! on only when all events before it were acknowledged or parked; the server hears from us also while
//! Kafka is away. Must not: know SQL, librdkafka, or what a slot is.
//! Fails: with the first error of either side; everything in flight is then forgotten, and whoever
//! begins again begins at the saved place.
//!
//! ```text
//!   copying ── all rows of adopted tables are noted ──► Streaming
//!      │                                                   │ the signal to end, or buckets are to be given up
//!      │ the signal to end                                 ▼
//!      │                                                 Ending    reads on, and asks for a tick
//!      │                                                   │ no transaction is open, and the last one was
//!      ▼                                                   ▼ a tick of our own, where there are ticks
//!    done ◄── saved how far that leads ────────────────── draining
//! ```
//!
//! ```text
//!   next item ── event ──► `log_pages` ──► `outlet` ──► Kafka
//!      │            └─ dropped: its bucket's cursor has passed it
//!      ├─ part of a large event ──► `large`, behind all that came before
//!      └─ commit ──► the page ends here, now and then, and at each tick
//!   reports ──► `outlet` ── pages that are done ──► `log_source` ──► place (at a tick, cursor) ──► `ProgressLine`
//! ```

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use tokio::sync::watch;

mod brought;
mod copy;
mod large;
mod log_commits;
mod log_pages;
mod log_progress;
mod log_source;
mod orders;
mod proven;
mod transaction;

use crate::capture::log::decode::{LargePart, LogCapture, LogItem, LoggedEvent, Lsn, ReplyWanted};
use crate::capture::log::durability::DurabilityBarrier;
use crate::control::cursors::CursorStore;
use crate::control::parked::Parked;
use crate::error::Result;
use crate::event::{Bucket, LogPosition, OrderingKey};
use crate::metrics::counters::ShardGauge;
use crate::order::control_record::RecordedPlace;
use crate::order::cursor::Cursor;
use crate::order::ledger::{Ledger, Limit};
use crate::publish::Publisher;
use crate::publish::kafka::producer::Warnings;
use crate::shard::BATCHES_MAX;
use crate::shard::assignment::Holdings;
use crate::shard::batch::OutgoingRow;
use crate::shard::exactly::CommittedCursors;
pub use crate::shard::log_loop::brought::BroughtRows;
use crate::shard::log_loop::copy::{CopyEnd, publish_copy};
use crate::shard::log_loop::large::Large;
use crate::shard::log_loop::log_commits::LogCommits;
pub use crate::shard::log_loop::log_commits::Premise;
use crate::shard::log_loop::log_pages::{GATHER, LogPages, SETTLE_ITEMS, StandsAt};
pub use crate::shard::log_loop::log_progress::{AdoptedWiring, Landing, ProgressLine, TableWiring};
use crate::shard::log_loop::log_progress::{LogPlace, LogProgress};
use crate::shard::log_loop::log_source::LogSource;
use crate::shard::log_loop::orders::{Orders, gone};
use crate::shard::log_loop::transaction::{Kind, Transaction, TransactionStage};
use crate::shard::outlet::{Outlet, OutletSource, OutletWiring, sleep_until};
use crate::shard::transaction_budget::SharedBudget;

/// What a reader is connected to.
#[derive(Debug)]
pub struct ReaderWiring {
    /// The stream.
    pub capture: LogCapture,
    /// How far it is durable.
    pub barrier: DurabilityBarrier,
    /// The place up to which everything is published.
    pub begins: Lsn,
    /// The server keeps what lies behind this, where another stream is to begin between here and there.
    pub confirms_up_to: Option<Lsn>,
    /// Where batches go, one or more, with one wake for all.
    pub publishers: Vec<Publisher<OutgoingRow>>,
    /// Who knows what is owned.
    pub store: Arc<CursorStore>,
    /// Where events go that cannot be published.
    pub parked: Arc<Parked>,
    /// Which warnings were said.
    pub warnings: Arc<Warnings>,
    /// All buckets, in hand.
    pub holdings: Holdings,
    /// All buckets.
    pub buckets: Vec<Bucket>,
    /// Becomes true when the stream is to end.
    pub stop: watch::Receiver<bool>,
    /// Where the place goes.
    pub progress_line: ProgressLine,
    /// None where there is no table.
    pub table: Option<TableWiring>,
    /// What operators see.
    pub gauge: Arc<ShardGauge>,
    /// Where events are delivered exactly once.
    pub exactly: Option<LogBeginning>,
}

/// Whether an event was published before the stream began.
fn is_published(published: Option<RecordedPlace>, log_position: LogPosition) -> bool {
    published.is_some_and(|place| place.covers(log_position.commit_lsn, log_position.index))
}

/// What was found of all buckets in Kafka.
#[derive(Debug)]
pub struct LogBeginning {
    /// What was found.
    pub found: CommittedCursors,
    /// Under which term.
    pub term: i64,
    /// Where the server was when whoever had the buckets before had ended.
    pub taken_at: Lsn,
    /// Up to where the log is published, perhaps in the middle of a transaction.
    pub committed: Option<RecordedPlace>,
    /// How much a transaction may have in flight.
    pub budget: SharedBudget,
    /// What has to hold wherever a place is committed.
    pub premise: Premise,
}

/// Reads one stream.
#[derive(Debug)]
pub struct LogReader {
    pages: LogPages,
    transaction: Transaction,
    large: Large,
    buckets: Vec<Bucket>,
    orders: Orders,
    phase: StreamPhase,
    /// Items since others were looked at.
    items: u32,
    /// What there is to do about it first.
    exactly: Option<LogBeginning>,
    /// Nothing parked is tried again before the stream has come so far: what was sent before what is parked may not
    /// have been committed.
    retries_wait_for: Lsn,
    /// What lies before this was published before the stream began.
    published: Option<RecordedPlace>,
}

/// How far the stream is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPhase {
    /// On and on.
    Streaming,
    /// Up to the next place at which others can go on.
    Ending,
}

impl LogReader {
    /// A reader at the beginning of its stream.
    pub fn new(wiring: ReaderWiring, in_flight_bytes: usize) -> Self {
        let ReaderWiring { publishers, store, parked, warnings, gauge, begins, .. } = wiring;
        let cursors = wiring.table.as_ref().map(|table| table.cursors.clone()).unwrap_or_default();
        let mut places: HashMap<Bucket, Option<Cursor>> =
            wiring.buckets.iter().map(|bucket| (*bucket, None)).collect();
        places.extend(cursors.into_iter().map(|(bucket, cursor)| (bucket, Some(cursor))));
        let progress = LogProgress::new(wiring.table, begins);
        let mut source = LogSource::new(
            wiring.capture,
            wiring.progress_line,
            progress,
            begins,
            wiring.confirms_up_to,
        );
        source.commits = wiring.exactly.as_ref().map(|exactly| {
            let asked = (Arc::clone(&store), exactly.premise.clone());
            LogCommits::new(asked, exactly.term, places, begins.0)
        });
        let limit = Limit { bytes: in_flight_bytes, batches: BATCHES_MAX };
        let ledger = Ledger::merging(limit, LogPlace::is_covered_by);
        let outlet = OutletWiring { publishers, store, parked, warnings, gauge };
        let mut outlet = Outlet::new(outlet, ledger, source);
        if let Some(exactly) = &wiring.exactly {
            outlet.begin_transactions(exactly.budget.clone());
        }
        let retries_wait_for = wiring.exactly.as_ref().map_or(Lsn(0), |found| found.taken_at);
        let published = wiring.exactly.as_ref().and_then(|found| found.committed);
        Self {
            exactly: wiring.exactly,
            retries_wait_for,
            published,
            pages: LogPages::new(outlet, wiring.barrier),
            transaction: Transaction::default(),
            large: Large::default(),
            buckets: wiring.buckets,
            orders: Orders { stop: wiring.stop, holdings: wiring.holdings },
            phase: StreamPhase::Streaming,
            items: 0,
        }
    }

    /// Streams until told to stop; then lets what is in flight land, and frees the slot.
    ///
    /// # Errors
    /// The first error of PostgreSQL's or Kafka's side.
    pub async fn run(mut self) -> Result<()> {
        let ended = self.work().await.map_err(|error| self.pages.outlet.give_up_transaction(error));
        // Buckets are in hand until nothing can be sent any more.
        let closed = self.pages.outlet.close().await;
        ended?;
        closed?.capture.end().await
    }

    async fn work(&mut self) -> Result<()> {
        self.pages.outlet.load_holds(&self.buckets).await?;
        self.begin_exactly().await?;
        if publish_copy(&mut self.pages, &mut self.orders).await? == CopyEnd::Not {
            return Ok(());
        }
        while !self.is_over().await {
            match self.pages.source().capture.next_buffered()? {
                Some(item) => self.take(item).await?,
                None => self.wait().await?,
            }
            self.items += 1;
            if self.items >= SETTLE_ITEMS {
                self.pages.outlet.settle().await?;
                self.look_around().await?;
            }
        }
        self.drain().await
    }

    /// What is not looked at for every event.
    async fn look_around(&mut self) -> Result<()> {
        self.items = 0;
        if self.orders.are_to_end() {
            self.phase = StreamPhase::Ending;
        }
        let outlet = &mut self.pages.outlet;
        if outlet.is_time_to_look() {
            outlet.parking.look(&self.buckets).await?;
        }
        if outlet.is_full() {
            self.pages.lighten(&self.buckets).await?;
        }
        if self.transaction.is_open()
            && self.large.is_nothing()
            && self.pages.outlet.is_transaction_overdue()
        {
            self.pages.commit_part(self.transaction.place()).await?;
        }
        self.retry_if_quiet().await?;
        // A stream that never pauses is confirmed all the same.
        if self.pages.source().is_feedback_due() {
            self.feed_back().await?;
        }
        Ok(())
    }

    /// Tries again what was asked for, where no transaction is open on either side.
    async fn retry_if_quiet(&mut self) -> Result<()> {
        let is_between = !self.transaction.is_open() && !self.pages.outlet.is_transaction_open();
        let is_past = self.retries_wait_for <= self.pages.source().received();
        if self.pages.outlet.parking.wants_quiet() && is_between && is_past {
            self.pages.retry(&self.buckets).await?;
        }
        Ok(())
    }

    /// After the signal to end: at once where there are no ticks, else at the next one of our own ticker,
    /// so that a poller can go on exactly here. Others that poll already tick, too.
    async fn is_over(&mut self) -> bool {
        if self.phase == StreamPhase::Streaming {
            return false;
        }
        let Transaction { stage, kind, .. } = self.transaction;
        match self.pages.source().progress.table() {
            None => stage == TransactionStage::Between,
            Some(table) => {
                table.ask_for_tick();
                stage == TransactionStage::Between
                    && kind == Kind::Tick
                    && table.is_own(table.last_tick()).await
            }
        }
    }

    async fn take(&mut self, item: LogItem) -> Result<()> {
        let source = self.pages.source();
        match item {
            LogItem::Begin { commit, xid } => {
                self.transaction = Transaction::begin(xid, commit, source.begins);
            }
            LogItem::Event(event) => self.take_event(event).await?,
            LogItem::Part(part) => self.take_part(part).await?,
            LogItem::Tick => self.transaction.kind = Kind::Tick,
            LogItem::Commit { end } => self.take_commit(end).await?,
            LogItem::KeepAlive { end, reply } => {
                source.receive(end);
                if reply == ReplyWanted::Yes {
                    self.feed_back().await?;
                }
            }
            LogItem::Other => {}
        }
        Ok(())
    }

    async fn take_event(&mut self, mut event: LoggedEvent) -> Result<()> {
        if self.large.is_nothing() && self.pages.outlet.is_part_filled() {
            self.pages.commit_part(self.transaction.place()).await?;
        }
        // Also those count that are dropped: another time of reading may not drop them.
        let (transaction, source) = (&mut self.transaction, self.pages.source());
        let log_position = transaction.next_log_position();
        if source.progress.has_passed(transaction, event.origin(), event.seq())
            || transaction.stage == TransactionStage::Delivered
            || is_published(self.published, log_position)
        {
            return Ok(());
        }
        if let (LoggedEvent::Flawed(flawed), Some(txid)) = (&mut event, transaction.txid) {
            flawed.note_writer(txid);
        }
        self.pages.wait_until_durable(self.transaction.commit).await?;
        self.pages.gather(event, OrderingKey::Committed(log_position)).await
    }

    async fn take_part(&mut self, part: LargePart) -> Result<()> {
        if self.large.is_nothing() {
            let (transaction, source) = (&mut self.transaction, self.pages.source());
            let log_position = transaction.next_log_position();
            // Rows of the outbox do not come in parts.
            if source.progress.has_passed(transaction, part.origin, 0)
                || transaction.stage == TransactionStage::Delivered
                || is_published(self.published, log_position)
            {
                self.large.pass();
            } else {
                self.pages.wait_until_durable(self.transaction.commit).await?;
                self.large.begin(log_position, &mut self.pages).await?;
            }
        }
        self.large.take(part, &mut self.pages).await?;
        self.pages.source().feed_back_when_due().await
    }

    async fn take_commit(&mut self, end: Lsn) -> Result<()> {
        self.transaction.end();
        let source = self.pages.source();
        source.place = end;
        source.receive(end);
        let tick = source.progress.commit(&self.transaction, end);
        self.pages.commit(tick).await?;
        self.commit_if_due().await
    }

    /// Commits to Kafka first where it is not known yet that anything is, and takes away what is published.
    async fn begin_exactly(&mut self) -> Result<()> {
        let Some(exactly) = self.exactly.take() else { return Ok(()) };
        let store = Arc::clone(&self.pages.outlet.store);
        if !exactly.found.retried.is_empty() {
            let (owned, turns) = (store.owned(), &exactly.found.retried);
            self.pages.outlet.parking.parked().answer(&owned, turns, &[]).await?;
        }
        if !exactly.found.fresh.is_empty() {
            self.pages.outlet.commit_places(&[]).await?;
            store.mark_term(&exactly.found.fresh, exactly.term).await?;
        }
        Ok(())
    }

    /// Ends the transaction in Kafka where that is due and the stream stands between two of PostgreSQL's.
    async fn commit_if_due(&mut self) -> Result<()> {
        if self.transaction.is_open() || !self.pages.outlet.is_transaction_due() {
            return Ok(());
        }
        let is_tick = self.transaction.kind == Kind::Tick;
        let mut stands_at = StandsAt::Commit;
        if let Some(table) = self.pages.source().progress.table() {
            if is_tick && table.is_own(table.last_tick()).await {
                stands_at = StandsAt::Tick;
            } else {
                table.ask_again_for_tick();
            }
        }
        self.pages.commit_if_due(stands_at).await?;
        if self.pages.outlet.parking.wants_quiet() {
            // Events that never pause would open the next one before this has ended.
            self.pages.outlet.await_end().await?;
            self.retry_if_quiet().await?;
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Result<()> {
        self.pages.outlet.note_ran_out();
        self.pages.outlet.settle().await?;
        self.look_around().await?;
        if self.is_over().await {
            return Ok(());
        }
        self.commit_if_due().await?;
        if self.pages.is_due() {
            self.pages.send_all().await?;
            if !self.transaction.is_open() && self.pages.source().progress.ends_anywhere() {
                self.pages.end_page(None).await?;
            }
        }
        match self.next_item().await? {
            Some(item) => self.take(item).await,
            None => Ok(()),
        }
    }

    /// The next item, or none when something else is to be done.
    async fn next_item(&mut self) -> Result<Option<LogItem>> {
        let (send_at, outlet) = (self.pages.send_at(), &mut self.pages.outlet);
        let (look_at, feedback_at) = (outlet.parking.next_look(), outlet.source.heartbeat_at());
        let ends_at = outlet.transaction_due_at().filter(|due| *due > Instant::now());
        let (source, reported) = outlet.source_and_reported();
        tokio::select! {
            item = source.capture.next() => return item.map(Some),
            () = reported => {}
            () = sleep_until(send_at) => {}
            () = sleep_until(look_at) => {}
            () = sleep_until(ends_at) => {}
            () = sleep_until(feedback_at) => {}
            changed = source.progress_line.saved.changed() => {
                changed.map_err(|_| gone())?;
                source.hurry_feedback();
            }
            changed = self.orders.changed() => changed?,
        }
        Ok(None)
    }

    /// Tells the server how far we are, which while nothing comes for us is as far as the server is.
    async fn feed_back(&mut self) -> Result<()> {
        let is_idle = !self.transaction.is_open() && self.pages.is_idle();
        let source = self.pages.source();
        if is_idle {
            source.move_on_idle();
        }
        source.feed_back().await
    }

    /// Lets everything land, and waits until it is saved how far that leads.
    async fn drain(&mut self) -> Result<()> {
        if self.pages.source().progress.ends_anywhere() {
            self.pages.end_page(None).await?;
        }
        self.pages.outlet.wait_until_landed().await?;
        self.pages.outlet.conclude().await?;
        let source = self.pages.source();
        while source.progress.awaits_ticks() {
            source.hand_on_ticks();
            tokio::time::sleep(GATHER).await;
        }
        let landed = source.progress_line.landed.borrow().as_ref().map(|landing| landing.place);
        while let Some(landed) = landed
            && *source.progress_line.saved.borrow_and_update() < landed
        {
            source.progress_line.saved.changed().await.map_err(|_| gone())?;
        }
        self.feed_back().await
    }
}
