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
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::watch;

use crate::capture::poll::{ClaimedRow, Page, PageError, Poller, Reading};
use crate::cursor::{Cohort, CohortCursor, Cursor};
use crate::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::ledger::{Ledger, Limit};
use crate::monitor::ShardGauge;
use crate::parked::{Parked, Piece};
use crate::publish::kafka::Warnings;
use crate::publish::{Batch, Publisher};
use crate::tick::Tick;

mod cohorts;
pub mod holdings;
mod outgoing;
mod parking;
pub mod reader;
mod settling;

use holdings::Holdings;
use outgoing::Outgoing;
pub use outgoing::OutgoingRow;
use parking::Parking;

/// Batches between claim and acknowledgement.
pub const BATCHES_MAX: usize = 1_024;
/// A page is claimed for about this many bytes, judged by the pages before it.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// A page that has waited for room this long is let go, and its rest claimed again when there is room:
/// while it is read, PostgreSQL keeps its snapshot, and vacuum cannot clean up anywhere.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The first page, before the size of any row was seen. What is read of a page lies in memory while it waits
/// for room, and so does what the driver reads ahead: large rows are claimed one by one.
const FIRST_PAGE_ROWS: u64 = 4;
/// The smallest page that is read value by value.
const CAREFUL_ROWS_MIN: u32 = 64;

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
    stop: watch::Receiver<bool>,
    holdings: Holdings,
    gauge: Arc<ShardGauge>,
    ledger: Ledger<CohortCursor>,
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
        let Wiring { poller, publisher, store, parked, warnings, ticks, stop, holdings, gauge } =
            wiring;
        let limit = Limit { bytes: limits.in_flight_bytes, batches: BATCHES_MAX };
        Self {
            poller,
            publisher,
            store,
            parking: Parking::new(parked, warnings),
            ticks,
            stop,
            holdings,
            gauge,
            ledger: Ledger::new(limit),
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
            if self.holdings.wants_more() || self.parking.wants_quiet() {
                if self.ledger.is_empty() {
                    self.begin_joined().await?;
                    self.retry().await?;
                } else {
                    self.wait().await;
                }
                continue;
            }
            match self.next_claim() {
                Some(index) if self.ledger.has_room() => self.claim_page(index).await?,
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
        self.cohorts.extend(cohorts::group(cursors));
        let waiting = self.parking.load(&self.claimed_buckets()).await?;
        self.publisher.renew(waiting.holds, waiting.topics);
        Ok(())
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
        let (owned, _saves_wait) = (self.store.owned(), self.store.pause_saves().await);
        self.parking.all_sent(&owned).await
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
        settling::show(publishers, ledger, &self.gauge);
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
        if !self.cohorts.iter().any(|at| is_due(&at.cursor)) {
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

    /// Claims the next page of a cohort. Where one value ends it, what follows is read carefully, some rows
    /// more each time.
    async fn claim_page(&mut self, index: usize) -> Result<()> {
        let rows_max = self.rows_max();
        let Some(cause) = self.read_page(index, rows_max, Reading::Plain).await? else {
            self.careful_rows = CAREFUL_ROWS_MIN;
            return Ok(());
        };
        tracing::debug!(cause = cause.message(), "a page is read value by value");
        let rows_max = self.careful_rows.min(self.page_rows);
        self.careful_rows = self.careful_rows.saturating_mul(2).min(self.page_rows);
        match self.read_page(index, rows_max, Reading::Careful).await? {
            None => Ok(()),
            // It is no value that ended the page.
            Some(cause) => Err(cause),
        }
    }

    /// Reads a page, and leads the cursor as far as it came. What PostgreSQL says of a value, if one ended it.
    async fn read_page(
        &mut self,
        index: usize,
        rows_max: u32,
        reading: Reading,
    ) -> Result<Option<Error>> {
        let CohortCursor { cohort, mut cursor } = self.cohorts[index].clone();
        let mut page = self.poller.claim(&cohort, &cursor, rows_max, reading).await?;
        self.ledger.open_page();
        let mut seen = Seen::default();
        let mut broken = None;
        match self.pass_on(&mut page, &mut seen).await? {
            // Rows share a `seq` where somebody wrote it himself: some of this one may have been sent.
            PageEnd::CutShort { unsent } => cursor.advance(unsent - 1),
            PageEnd::Complete if seen.rows < rows_max => cursor.finish(),
            PageEnd::Complete => cursor.advance(seen.last),
            PageEnd::Broken(cause) => {
                if seen.rows > 0 {
                    cursor.advance(seen.last - 1);
                }
                broken = Some(cause);
            }
        }
        if let Some(row_bytes) = seen.bytes.checked_div(seen.rows.into()) {
            self.row_bytes = row_bytes.max(1);
        }
        self.close_page(index, cursor).await?;
        Ok(broken)
    }

    /// Sends a page's rows as they come.
    async fn pass_on(&mut self, page: &mut Page, seen: &mut Seen) -> Result<PageEnd> {
        let mut outgoing = Outgoing::default();
        let mut end = PageEnd::Complete;
        while let Some(row) = page.next().await {
            let row = match row {
                Ok(row) => row,
                Err(PageError::Session(cause)) => return Err(cause),
                Err(PageError::Value(cause)) => {
                    // More rows of the last `seq` may lie behind: they are read together again.
                    outgoing.take_back(seen.last);
                    end = PageEnd::Broken(cause);
                    break;
                }
            };
            seen.note(&row);
            let row = match row.withheld(self.event_bytes_max) {
                Some(withheld) => OutgoingRow::Withheld(Box::new(withheld)),
                None => OutgoingRow::Claimed(row),
            };
            if outgoing.push(row)
                && let Sent::CutShort { unsent } = self.send(&mut outgoing).await?
            {
                return Ok(PageEnd::CutShort { unsent });
            }
        }
        Ok(match self.send(&mut outgoing).await? {
            Sent::CutShort { unsent } => PageEnd::CutShort { unsent },
            Sent::Done => end,
        })
    }

    async fn close_page(&mut self, index: usize, cursor: Cursor) -> Result<()> {
        self.cohorts[index].cursor = cursor;
        self.ledger.close_page(self.cohorts[index].clone());
        self.settle().await
    }

    /// Large events make small pages: a page holds a snapshot open in PostgreSQL while it is read.
    fn rows_max(&self) -> u32 {
        let rows = u32::try_from(PAGE_BYTES / self.row_bytes).unwrap_or(u32::MAX);
        rows.clamp(1, self.page_rows)
    }

    /// Sends what has gathered, once the ledger has room.
    async fn send(&mut self, outgoing: &mut Outgoing) -> Result<Sent> {
        let Some(unsent) = outgoing.rows.first().map(OutgoingRow::seq) else {
            return Ok(Sent::Done);
        };
        self.settle().await?;
        let patience = tokio::time::Instant::now() + PAGE_WAIT_MAX;
        while !self.ledger.has_room() {
            tokio::select! {
                () = self.publisher.reported() => self.settle().await?,
                _ = self.stop.changed() => return Ok(Sent::CutShort { unsent }),
                () = tokio::time::sleep_until(patience) => return Ok(Sent::CutShort { unsent }),
            }
        }
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.publisher.send(Batch { number, rows });
        Ok(Sent::Done)
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// What became of rows that were to be sent.
enum Sent {
    Done,
    /// The word to stop came first, or there was no room for too long; from this `seq` on nothing was sent.
    CutShort {
        unsent: i64,
    },
}

/// How a page ended.
enum PageEnd {
    /// All its rows were sent.
    Complete,
    /// It was let go; rows from this `seq` on were not sent.
    CutShort { unsent: i64 },
    /// A value ended it; all rows before the last one's `seq` were sent.
    Broken(Error),
}

/// What was seen of a page.
#[derive(Debug, Default)]
struct Seen {
    rows: u32,
    bytes: u64,
    /// The `seq` of the last row.
    last: i64,
}

impl Seen {
    fn note(&mut self, row: &ClaimedRow) {
        self.rows += 1;
        self.bytes += row.size_bytes() as u64;
        self.last = row.seq();
    }
}
