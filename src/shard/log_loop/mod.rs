//! The log's reader: one stream in, many publishers out.
//!
//! Promises: events of an aggregate go to one publisher, in the order of the stream; a place is handed
//! on only when all events before it were acknowledged or parked; the server hears from us also while
//! Kafka is away. Must not: know SQL, librdkafka, or what a slot is.
//! Fails: with the first error of either side; everything in flight is then forgotten, and whoever
//! begins again begins at the saved place.
//!
//! ```text
//!     next item ── event ──► its shard's rows ── full, or 2 ms old ──► publisher
//!        │            └─ dropped: its bucket's cursor has passed it
//!        └─ commit ──► the page ends here, now and then, and at each tick
//!     settle ◄── reports: acknowledge, park ──► place (and at a tick, cursor) ──► `Course`
//! ```

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;
use tokio::sync::{Notify, watch};

mod copy;
mod fence;
mod landing;
mod large;
mod log_progress;
mod passed;
mod proven;
mod retry;
mod transaction;

use crate::capture::log::decode::{LogCapture, LogItem, LoggedEvent, Lsn, ReplyWanted};
use crate::capture::log::durability::Fence;
use crate::control::cursors::CursorStore;
use crate::control::parked::Parked;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, Standing};
use crate::metrics::counters::ShardGauge;
use crate::order::holds::IdHead;
use crate::order::ledger::{Ledger, Limit};
use crate::publish::kafka::producer::Warnings;
use crate::publish::{Batch, Publisher};
use crate::shard::assignment::Holdings;
use crate::shard::batch::{Outgoing, OutgoingRow};
use crate::shard::laggard::Laggard;
use crate::shard::log_loop::copy::Copied;
use crate::shard::log_loop::landing::LogPlace;
use crate::shard::log_loop::large::Large;
use crate::shard::log_loop::log_progress::Table;
pub use crate::shard::log_loop::log_progress::{AdoptedCourse, Course, Landing, TableCourse};
use crate::shard::log_loop::transaction::{Claims, Transaction};
use crate::shard::parking::Parking;
use crate::shard::{BATCHES_MAX, sleep_until};

/// Events wait this long for others to travel with.
const GATHER: Duration = Duration::from_millis(2);
/// A page ends with the first commit after so many events, if no tick ends it before.
const PAGE_EVENTS: u64 = 5_000;
/// Reports are looked for after so many items, at the latest.
const SETTLE_ITEMS: u32 = 256;
/// The server ends a stream from which it has not heard for `wal_sender_timeout`, a minute by default.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);
/// While nothing comes for the outbox, the place moves on in steps of so many bytes of the log.
const IDLE_STEP_BYTES: u64 = 1024 * 1024;

/// What a reader is connected to.
#[derive(Debug)]
pub struct ReaderWiring {
    /// The stream.
    pub capture: LogCapture,
    /// How far it is durable.
    pub fence: Fence,
    /// The place up to which everything is published.
    pub begins: Lsn,
    /// Where batches go, one per shard, with one wake for all.
    pub publishers: Vec<Publisher<OutgoingRow>>,
    /// Woken by all publishers.
    pub wake: Arc<Notify>,
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
    pub course: Course,
    /// None where there is no table.
    pub table: Option<TableCourse>,
    /// What operators see.
    pub gauge: Arc<ShardGauge>,
}

/// Reads one stream.
#[derive(Debug)]
pub struct Reader {
    capture: LogCapture,
    fence: Fence,
    publishers: Vec<Publisher<OutgoingRow>>,
    outgoing: Vec<Outgoing>,
    wake: Arc<Notify>,
    store: Arc<CursorStore>,
    parking: Parking,
    holdings: Holdings,
    buckets: Vec<Bucket>,
    stop: watch::Receiver<bool>,
    course: Course,
    table: Option<Table>,
    gauge: Arc<ShardGauge>,
    hasher: DefaultHashBuilder,
    ledger: Ledger<LogPlace>,
    laggard: Laggard,
    begins: Lsn,
    /// The end of the last transaction.
    place: Lsn,
    /// How far the server says it has come.
    received: Lsn,
    transaction: Transaction,
    claims: Claims,
    large: Option<Large>,
    page_events: u64,
    /// When what has gathered is to be sent.
    send_at: Option<Instant>,
    feedback_at: Instant,
    items: u32,
    /// The stream is to end: the word to stop has come, or buckets are to be given up.
    is_ending: bool,
}

impl Reader {
    /// A reader at the beginning of its stream.
    pub fn new(wiring: ReaderWiring, in_flight_bytes: usize) -> Self {
        let outgoing = wiring.publishers.iter().map(|_| Outgoing::default()).collect();
        let limit = Limit { bytes: in_flight_bytes, batches: BATCHES_MAX };
        let mut ledger = Ledger::merging(limit, LogPlace::is_covered_by);
        ledger.open_page();
        Self {
            outgoing,
            parking: Parking::new(wiring.parked, wiring.warnings),
            table: wiring.table.map(|course| Table::new(course, wiring.begins)),
            capture: wiring.capture,
            fence: wiring.fence,
            publishers: wiring.publishers,
            wake: wiring.wake,
            store: wiring.store,
            holdings: wiring.holdings,
            buckets: wiring.buckets,
            stop: wiring.stop,
            course: wiring.course,
            gauge: wiring.gauge,
            hasher: DefaultHashBuilder::default(),
            ledger,
            laggard: Laggard::default(),
            begins: wiring.begins,
            place: wiring.begins,
            received: wiring.begins,
            transaction: Transaction::default(),
            claims: Claims::default(),
            large: None,
            page_events: 0,
            send_at: None,
            feedback_at: Instant::now() + FEEDBACK_INTERVAL,
            items: 0,
            is_ending: false,
        }
    }

    /// Streams until told to stop; then lets what is in flight land, and frees the slot.
    ///
    /// # Errors
    /// The first error of PostgreSQL's or Kafka's side.
    pub async fn run(mut self) -> Result<()> {
        let ended = self.work().await;
        let (capture, publishers) = (self.capture, self.publishers);
        // A publisher's end waits for its threads.
        let dropped = tokio::task::spawn_blocking(move || drop(publishers)).await;
        ended?;
        dropped.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
        capture.end().await
    }

    async fn work(&mut self) -> Result<()> {
        let waiting = self.parking.load(&self.buckets).await?;
        self.renew(waiting.holds.unwrap_or_default(), &waiting.topics);
        if self.copy().await? == Copied::Not {
            return Ok(());
        }
        while !self.is_over().await {
            match self.capture.next_buffered()? {
                Some(item) => self.take(item).await?,
                None => self.wait().await?,
            }
            self.items += 1;
            if self.items >= SETTLE_ITEMS {
                self.settle().await?;
                self.look_around().await?;
            }
        }
        self.drain().await
    }

    /// What is not looked at for every event.
    async fn look_around(&mut self) -> Result<()> {
        self.is_ending |= self.is_told_to_end();
        self.look_for_requests().await?;
        let held = self.publishers.iter().map(Publisher::held).sum();
        if self.parking.is_full(held) {
            self.lighten().await?;
        }
        if self.parking.wants_quiet() && !self.transaction.is_open {
            self.retry().await?;
        }
        // A stream that never pauses is confirmed all the same.
        self.feed_back_when_due().await
    }

    /// By the word to stop, or because others poll already: they get the buckets once everything has
    /// landed, as in any planned move.
    fn is_told_to_end(&mut self) -> bool {
        *self.stop.borrow() || self.holdings.is_revoked()
    }

    /// After the word to stop: at once where there are no ticks, else at the next one of our own ticker,
    /// so that a poller can go on exactly here. Others that poll already tick, too.
    async fn is_over(&mut self) -> bool {
        if !self.is_ending {
            return false;
        }
        match &mut self.table {
            None => !self.transaction.is_open,
            Some(table) => {
                table.ask_for_tick();
                !self.transaction.is_open
                    && self.transaction.is_tick
                    && table.is_own(table.last_tick()).await
            }
        }
    }

    async fn take(&mut self, item: LogItem) -> Result<()> {
        match item {
            LogItem::Begin { commit, xid } => {
                self.transaction = Transaction::begin(xid, commit, self.begins);
            }
            LogItem::Event(event) => self.take_event(event).await?,
            LogItem::Part(part) => self.take_part(part, None).await?,
            LogItem::Tick => self.transaction.is_tick = true,
            LogItem::Commit { end } => self.take_commit(end).await?,
            LogItem::KeepAlive { end, reply } => {
                self.received = self.received.max(end);
                if reply == ReplyWanted::Yes {
                    self.feed_back().await?;
                }
            }
            LogItem::Other => {}
        }
        Ok(())
    }

    async fn take_event(&mut self, event: LoggedEvent) -> Result<()> {
        // Also those count that are dropped: another time of reading may not drop them.
        let arrival = self.transaction.next_arrival();
        if self.is_passed_row(&event) || self.transaction.is_delivered {
            return Ok(());
        }
        self.wait_until_durable(self.transaction.commit).await?;
        self.gather(event, Standing::Committed(arrival)).await
    }

    /// Puts an event to those that travel with it.
    async fn gather(&mut self, event: LoggedEvent, standing: Standing) -> Result<()> {
        let shard = self.shard_of(event.aggregate_id());
        if self.send_at.is_none() {
            self.send_at = Some(Instant::now() + GATHER);
        }
        self.page_events += 1;
        if self.outgoing[shard].push(OutgoingRow::Logged(event, standing)) {
            self.send(shard).await?;
        }
        Ok(())
    }

    /// By how the id begins: of what is held no more is known.
    fn shard_of(&self, aggregate_id: &[u8]) -> usize {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(IdHead::cut(aggregate_id));
        (hasher.finish() % self.publishers.len() as u64) as usize
    }

    async fn take_commit(&mut self, end: Lsn) -> Result<()> {
        self.transaction.is_open = false;
        self.place = end;
        self.received = self.received.max(end);
        let Transaction { xid, is_tick, txid, .. } = self.transaction;
        let mut tick = None;
        if let Some(table) = &mut self.table {
            if let Some(txid) = txid {
                table.streamed.bring(txid);
            }
            if is_tick {
                tick = Some(table.mark(xid, end));
            }
        }
        if tick.is_some() || self.page_events >= PAGE_EVENTS {
            self.end_page(tick).await?;
        } else if self.page_events > 0 && self.send_at.is_none() {
            // Its last events are on their way; the page is to end, too.
            self.send_at = Some(Instant::now() + GATHER);
        }
        Ok(())
    }

    /// Sends what has gathered and ends the page at the last commit.
    async fn end_page(&mut self, tick: Option<u64>) -> Result<()> {
        self.send_all().await?;
        self.ledger.close_page(LogPlace { end: self.place, tick });
        self.ledger.open_page();
        self.page_events = 0;
        self.settle().await
    }

    async fn send_all(&mut self) -> Result<()> {
        for shard in 0..self.outgoing.len() {
            self.send(shard).await?;
        }
        self.send_at = None;
        Ok(())
    }

    /// Sends what has gathered for a shard, once the ledger has room.
    async fn send(&mut self, shard: usize) -> Result<()> {
        if self.outgoing[shard].rows.is_empty() {
            return Ok(());
        }
        self.wait_for_room().await?;
        let held = self.parking.held_among(&self.outgoing[shard].rows).await?;
        if !held.is_empty() {
            self.publishers[shard].hold(held);
        }
        let (rows, bytes) = self.outgoing[shard].take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.publishers[shard].send(Batch { number, rows });
        Ok(())
    }

    async fn wait_for_room(&mut self) -> Result<()> {
        while !self.ledger.has_room() {
            self.settle().await?;
            if self.ledger.has_room() {
                break;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(self.feedback_at.into()) => self.feed_back().await?,
            }
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Result<()> {
        self.settle().await?;
        self.look_around().await?;
        if self.is_over().await {
            return Ok(());
        }
        let now = Instant::now();
        if self.send_at.is_some_and(|due| due <= now) {
            self.send_all().await?;
            if !self.transaction.is_open && self.table.is_none() {
                self.end_page(None).await?;
            }
        }
        let (send_at, look_at) = (self.send_at, self.parking.next_look());
        let item = tokio::select! {
            item = self.capture.next() => Some(item?),
            () = self.wake.notified() => None,
            () = sleep_until(send_at) => None,
            () = sleep_until(look_at) => None,
            () = tokio::time::sleep_until(self.feedback_at.into()) => None,
            changed = self.course.saved.changed() => {
                changed.map_err(|_| gone())?;
                self.feedback_at = Instant::now();
                None
            }
            changed = self.stop.changed() => {
                changed.map_err(|_| gone())?;
                None
            }
            changed = self.holdings.changed() => {
                changed.map_err(|_| gone())?;
                None
            }
        };
        match item {
            Some(item) => self.take(item).await,
            None => Ok(()),
        }
    }

    async fn feed_back_when_due(&mut self) -> Result<()> {
        if self.feedback_at <= Instant::now() {
            self.feed_back().await?;
        }
        Ok(())
    }

    /// Tells the server how far we are. What is confirmed was saved before.
    async fn feed_back(&mut self) -> Result<()> {
        self.move_on_idle();
        let saved = *self.course.saved.borrow_and_update();
        self.feedback_at = Instant::now() + FEEDBACK_INTERVAL;
        if let Some(table) = &self.table {
            table.ask_for_more(self.received);
        }
        self.capture.confirm(self.received.max(saved), saved).await
    }

    /// While nothing comes for the outbox, nothing of the log is needed: an idle outbox in a busy
    /// database keeps no log back.
    fn move_on_idle(&mut self) {
        let is_idle = !self.transaction.is_open
            && self.page_events == 0
            && self.send_at.is_none()
            && self.ledger.batches() == 0
            && self.table.as_ref().is_none_or(|table| table.is_at_rest());
        let landed =
            self.course.landed.borrow().as_ref().map_or(self.begins, |landing| landing.place);
        if is_idle && self.received.0 > landed.0 + IDLE_STEP_BYTES {
            let place = self.received;
            self.place = place;
            self.course.landed.send_modify(|landing| match landing {
                Some(landing) => landing.place = place,
                None => *landing = Some(Landing { place, cursor: None, proven: Vec::new() }),
            });
        }
    }

    /// All pages but the open one, which is empty.
    async fn wait_until_landed(&mut self) -> Result<()> {
        loop {
            self.settle().await?;
            if self.ledger.batches() == 0 {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(self.feedback_at.into()) => self.feed_back().await?,
            }
        }
    }

    /// Lets everything land, and waits until it is saved how far that leads.
    async fn drain(&mut self) -> Result<()> {
        if self.table.is_none() {
            self.end_page(None).await?;
        }
        self.wait_until_landed().await?;
        while self.table.as_ref().is_some_and(|table| !table.landed.is_empty()) {
            self.hand_on_ticks();
            tokio::time::sleep(GATHER).await;
        }
        let landed = self.course.landed.borrow().as_ref().map(|landing| landing.place);
        while let Some(landed) = landed
            && *self.course.saved.borrow_and_update() < landed
        {
            self.course.saved.changed().await.map_err(|_| gone())?;
        }
        self.feed_back().await
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the session of the log's reader has ended")
}
