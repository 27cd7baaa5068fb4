//! One shard: claim, send, take note, in this order, for the buckets that it owns.
//!
//! Promises: events of a bucket are sent in the order of the cursor's ranges and of `seq` in them; a
//! cursor is handed to the store only when all that lies before it was acknowledged or parked; nothing
//! is claimed while too much is in flight. Must not: know SQL, librdkafka, or other shards.
//! Fails: with the first error of either side; everything in flight is then forgotten, and whoever
//! starts the shard again starts from the saved cursors.
//!
//! ```text
//!          ┌──────── next_claim: a cohort with an unfinished range, in turn
//!          │            none: merge equal cohorts, enter the latest tick, or wait
//!          ▼
//!     claim_page ── rows ──► batches ──► publisher        (waits while the ledger has no room)
//!          │
//!       settle ◄── reports: acknowledge, park, finished pages ──► cursor store
//!
//!     once nothing is in flight: begin with new buckets, try parked events again (`parking`)
//! ```

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::capture::table::claim::Poller;
use crate::control::cursors::CursorStore;
use crate::control::parked::{Parked, Piece};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::ShardGauge;
use crate::order::cursor::{Cohort, CohortCursor, Cursor};
use crate::order::ledger::{Ledger, Limit};
use crate::order::tick::Tick;
use crate::publish::kafka::producer::Warnings;
use crate::publish::{Batch, Publisher};

pub mod assignment;
mod batch;
mod cohorts;
mod laggard;
pub mod log_loop;
mod page;
mod parking;
mod probes;
mod settling;

use crate::shard::assignment::Holdings;
use crate::shard::batch::Outgoing;
pub use crate::shard::batch::OutgoingRow;
use crate::shard::laggard::Laggard;
use crate::shard::page::{CAREFUL_ROWS_MIN, FIRST_PAGE_ROWS, PAGE_BYTES};
use crate::shard::parking::Parking;

/// Batches between claim and acknowledgement.
pub const BATCHES_MAX: usize = 1_024;
/// Limits of one shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardLimits {
    /// Rows of one page, at most.
    pub page_rows: u32,
    /// Bytes between claim and acknowledgement, at most (one batch more may be on its way).
    pub in_flight_bytes: usize,
    /// Larger events are parked without being read.
    pub event_bytes_max: u64,
}

/// Everything that a shard works with.
#[derive(Debug)]
pub struct Shard {
    poller: Poller,
    publisher: Publisher<OutgoingRow>,
    store: Arc<CursorStore>,
    parking: Parking,
    ticks: watch::Receiver<Arc<Tick>>,
    nudge: Arc<Notify>,
    stop: watch::Receiver<bool>,
    holdings: Holdings,
    gauge: Arc<ShardGauge>,
    ledger: Ledger<CohortCursor>,
    laggard: Laggard,
    cohorts: Vec<CohortCursor>,
    turn: usize,
    page_rows: u32,
    row_bytes: u64,
    /// How many rows the next careful page has.
    careful_rows: u32,
    event_bytes_max: u64,
}

/// What a shard is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// Where pages come from.
    pub poller: Poller,
    /// Where batches go.
    pub publisher: Publisher<OutgoingRow>,
    /// Who saves cursors.
    pub store: Arc<CursorStore>,
    /// Where events go that cannot be published.
    pub parked: Arc<Parked>,
    /// Which warnings were said.
    pub warnings: Arc<Warnings>,
    /// The latest tick.
    pub ticks: watch::Receiver<Arc<Tick>>,
    /// Asks for a tick at once.
    pub nudge: Arc<Notify>,
    /// Becomes true when no more is to be claimed.
    pub stop: watch::Receiver<bool>,
    /// Which buckets are its own.
    pub holdings: Holdings,
    /// What operators see.
    pub gauge: Arc<ShardGauge>,
}

impl Shard {
    /// A shard that has no bucket in hand yet.
    pub fn new(wiring: Wiring, limits: ShardLimits) -> Self {
        let Wiring {
            poller,
            publisher,
            store,
            parked,
            warnings,
            ticks,
            nudge,
            stop,
            holdings,
            gauge,
        } = wiring;
        let limit = Limit { bytes: limits.in_flight_bytes, batches: BATCHES_MAX };
        Self {
            poller,
            publisher,
            store,
            parking: Parking::new(parked, warnings),
            ticks,
            nudge,
            stop,
            holdings,
            gauge,
            ledger: Ledger::merging(limit, CohortCursor::is_covered_by),
            laggard: Laggard::default(),
            cohorts: Vec::new(),
            turn: 0,
            page_rows: limits.page_rows,
            row_bytes: PAGE_BYTES / FIRST_PAGE_ROWS,
            careful_rows: CAREFUL_ROWS_MIN,
            event_bytes_max: limits.event_bytes_max,
        }
    }

    /// Works until told to stop; then waits for what is in flight.
    ///
    /// # Errors
    /// The first error of PostgreSQL's or Kafka's side.
    pub async fn run(mut self) -> Result<()> {
        let ended = self.work().await;
        // A publisher's end waits for its threads.
        let publisher = self.publisher;
        match tokio::task::spawn_blocking(move || drop(publisher)).await {
            Ok(()) => ended,
            Err(cause) => Err(Error::new(ErrorKind::Internal, cause.to_string())),
        }
    }

    async fn work(&mut self) -> Result<()> {
        while !*self.stop.borrow() {
            self.settle().await?;
            self.follow_holdings();
            self.look_for_requests().await?;
            let is_full = self.parking.is_full(self.publisher.held());
            if self.holdings.wants_more() || self.parking.wants_quiet() || is_full {
                if self.ledger.is_empty() {
                    self.begin_joined().await?;
                    self.lighten().await?;
                    self.retry().await?;
                } else {
                    self.wait().await;
                }
                continue;
            }
            match self.next_claim() {
                Some(index) if self.ledger.has_room() && self.ledger.has_page_room() => {
                    self.claim_page(index).await?;
                }
                Some(_) | None => self.wait().await,
            }
        }
        self.settle().await?;
        while !self.ledger.is_empty() {
            self.publisher.reported().await;
            self.settle().await?;
        }
        Ok(())
    }

    /// Claims no more for buckets that are to be given up, and lets those go whose last page is done.
    fn follow_holdings(&mut self) {
        if !self.holdings.settle(self.ledger.pages_finished()) {
            return;
        }
        let leaving = self.holdings.leave(self.ledger.pages_opened());
        if !leaving.is_empty() {
            self.cohorts = cohorts::without(std::mem::take(&mut self.cohorts), &leaving);
        }
    }

    /// Begins with new buckets at their saved cursors. Nothing is in flight: what is held is read anew
    /// for all buckets, as somebody else may have lifted holds since one was here last.
    async fn begin_joined(&mut self) -> Result<()> {
        let joining = self.holdings.join();
        if joining.is_empty() {
            return Ok(());
        }
        // One that was ours a moment ago may have a cursor that is not saved yet.
        self.store.save_all().await?;
        let cursors = self.store.load(&joining).await?;
        let tick = Arc::clone(&self.ticks.borrow());
        if cursors.iter().any(|(_, cursor)| cursor.awaits_more_than(&tick)) {
            self.nudge.notify_one();
        }
        self.cohorts.extend(cohorts::group(cursors));
        self.load_holds().await
    }

    async fn load_holds(&mut self) -> Result<()> {
        let waiting = self.parking.load(&self.claimed_buckets()).await?;
        let holds = waiting.holds.unwrap_or_default();
        self.publisher.renew(holds.into_iter().collect(), waiting.topics);
        Ok(())
    }

    /// Begins anew with what is held, if more of it lies in memory than may. Nothing is in flight.
    async fn lighten(&mut self) -> Result<()> {
        if self.parking.is_full(self.publisher.held()) { self.load_holds().await } else { Ok(()) }
    }

    async fn look_for_requests(&mut self) -> Result<()> {
        let back = self.publisher.topics_back();
        if back.is_empty() && self.parking.next_look().is_none() {
            return Ok(());
        }
        self.parking.look(back, &self.claimed_buckets()).await
    }

    /// Those that are not to be given up.
    fn claimed_buckets(&self) -> Vec<Bucket> {
        self.cohorts.iter().flat_map(|at| at.cohort.iter().copied()).collect()
    }

    /// Sends parked events that were asked for. Nothing is in flight, and nothing is claimed before
    /// all of them are on their way.
    async fn retry(&mut self) -> Result<()> {
        if !self.parking.wants_quiet() {
            return Ok(());
        }
        let buckets = self.claimed_buckets();
        let (topics, Piece { requests, events, rest, .. }) =
            self.parking.begin_retry(&buckets).await?;
        self.publisher.resume(topics, requests.into_iter().map(|(_, key)| key).collect());
        self.ledger.open_page();
        let mut outgoing = Outgoing::default();
        for event in events {
            if outgoing.push(OutgoingRow::Parked(Box::new(event))) {
                self.send_parked(&mut outgoing).await?;
            }
        }
        self.send_parked(&mut outgoing).await?;
        if !rest.is_empty() {
            self.publisher.hold(rest);
        }
        // It leads no cursor anywhere.
        self.ledger
            .close_page(CohortCursor { cohort: Cohort::from([]), cursor: Cursor::initial() });
        let (owned, saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        self.parking.all_sent(&owned).await?;
        drop(saves_wait);
        while self.parking.looks_up() && !self.ledger.is_empty() {
            // What is tried again is not to be found where the others are looked up.
            self.settle().await?;
            if !self.ledger.is_empty() {
                self.publisher.reported().await;
            }
        }
        Ok(())
    }

    async fn send_parked(&mut self, outgoing: &mut Outgoing) -> Result<()> {
        if outgoing.rows.is_empty() {
            return Ok(());
        }
        while !self.ledger.has_room() {
            self.publisher.reported().await;
            self.settle().await?;
        }
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.parking.retries(number, &rows);
        self.publisher.send(Batch { number, rows });
        Ok(())
    }

    /// Takes the reports that are there, parks what was set aside, and hands on the cursors that this
    /// frees.
    async fn settle(&mut self) -> Result<()> {
        let publishers = std::slice::from_ref(&self.publisher);
        let (ledger, parking) = (&mut self.ledger, &mut self.parking);
        settling::take_reports(publishers, ledger, parking, &self.store).await?;
        while let Some(finished) = settling::next_finished(ledger, &self.gauge) {
            self.store.note(&finished);
        }
        settling::show(publishers, ledger, &self.parking, &self.gauge);
        if self.laggard.is_too_slow(ledger.oldest(), Instant::now()) {
            self.publisher.doubt();
        }
        Ok(())
    }

    /// The next cohort with something to claim, in turn.
    fn next_claim(&mut self) -> Option<usize> {
        self.enter_latest_tick();
        let count = self.cohorts.len();
        let index = (0..count)
            .map(|offset| (self.turn + offset) % count)
            .find(|index| !self.cohorts[*index].cursor.is_finished())?;
        self.turn = index + 1;
        Some(index)
    }

    /// Leads every cohort that has finished its range into the next one.
    fn enter_latest_tick(&mut self) {
        let tick = Arc::clone(&self.ticks.borrow_and_update());
        let is_due = |cursor: &Cursor| cursor.is_finished() && tick.is_later_than(cursor.upto());
        if !self.cohorts.iter().any(|at| is_due(&at.cursor)) || !self.ledger.has_page_room() {
            return;
        }
        self.cohorts = cohorts::merge(std::mem::take(&mut self.cohorts));
        for at in &mut self.cohorts {
            if is_due(&at.cursor) {
                at.cursor.enter(&tick);
                if at.cursor.is_finished() {
                    self.ledger.open_page();
                    self.ledger.close_page(at.clone());
                }
            }
        }
    }

    /// Waits until there is a tick, a report, or the word to stop.
    async fn wait(&mut self) {
        // An empty page that was just closed is finished already.
        if self.ledger.is_front_finished() || self.holdings.is_due(self.ledger.pages_finished()) {
            return;
        }
        let look = self.parking.next_look();
        let ended = tokio::select! {
            changed = self.ticks.changed() => changed.is_err(),
            () = self.publisher.reported() => false,
            () = sleep_until(look) => false,
            changed = self.stop.changed() => changed.is_err(),
            changed = self.holdings.changed() => changed.is_err(),
        };
        if ended {
            // The relay has let go of the session; it ends this shard too.
            std::future::pending::<()>().await;
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
