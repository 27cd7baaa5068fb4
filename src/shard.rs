//! One shard: claim, send, take note, in this order, for the buckets that it owns.
//!
//! Promises: events of a bucket are sent in the order of the cursor's ranges and of `seq` in them; a
//! cursor is handed to the store only when all that lies before it was acknowledged; nothing is
//! claimed while too much is in flight. Must not: know SQL, librdkafka, or other shards.
//! Fails: with the first error of either side; everything in flight is then forgotten, and whoever
//! starts the shard again starts from the saved cursors.
//!
//! ```text
//!          ┌──────── next_claim: a cohort with an unfinished range, in turn
//!          │            none: merge equal cohorts, enter the latest tick, or wait
//!          ▼
//!     claim_page ── rows ──► batches ──► publisher        (waits while the ledger has no room)
//!          │
//!       settle ◄── reports: acknowledge, finished pages ──► cursor store
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use crate::capture::poll::{ClaimedRow, Poller};
use crate::cursor::Cursor;
use crate::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::ledger::{Cohort, Ledger, Limit};
use crate::monitor::ShardGauge;
use crate::publish::{Batch, Publisher, Report};
use crate::tick::Tick;

/// Rows that travel to the publishing thread in one piece, at most.
const BATCH_ROWS: usize = 512;
/// Bytes that travel to the publishing thread in one piece; one larger event travels alone.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches between claim and acknowledgement.
pub const BATCHES_MAX: usize = 1_024;
/// What an event costs besides its bytes, while it is in flight: librdkafka's record and headers.
const EVENT_OVERHEAD_BYTES: usize = 512;
/// A page is claimed for about this many bytes, judged by the pages before it.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// A page that has waited for room this long is let go, and its rest claimed again when there is room:
/// while it is read, PostgreSQL keeps its snapshot, and vacuum cannot clean up anywhere.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The smallest page.
const PAGE_ROWS_MIN: u32 = 64;

/// Limits of one shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardLimits {
    /// Rows of one page, at most.
    pub page_rows: u32,
    /// Bytes between claim and acknowledgement, at most (one batch more may be on its way).
    pub in_flight_bytes: usize,
}

/// Everything that a shard works with.
#[derive(Debug)]
pub struct Shard {
    poller: Poller,
    publisher: Publisher<ClaimedRow>,
    store: Arc<CursorStore>,
    ticks: watch::Receiver<Arc<Tick>>,
    stop: watch::Receiver<bool>,
    gauge: Arc<ShardGauge>,
    ledger: Ledger,
    cohorts: Vec<(Cohort, Cursor)>,
    turn: usize,
    page_rows: u32,
    row_bytes: u64,
}

/// What a shard is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// Where pages come from.
    pub poller: Poller,
    /// Where batches go.
    pub publisher: Publisher<ClaimedRow>,
    /// Who saves cursors.
    pub store: Arc<CursorStore>,
    /// The latest tick.
    pub ticks: watch::Receiver<Arc<Tick>>,
    /// Becomes true when no more is to be claimed.
    pub stop: watch::Receiver<bool>,
    /// What operators see.
    pub gauge: Arc<ShardGauge>,
}

impl Shard {
    /// A shard for these buckets, each at its saved cursor.
    pub fn new(wiring: Wiring, cursors: Vec<(Bucket, Cursor)>, limits: ShardLimits) -> Self {
        let Wiring { poller, publisher, store, ticks, stop, gauge } = wiring;
        let limit = Limit { bytes: limits.in_flight_bytes, batches: BATCHES_MAX };
        Self {
            poller,
            publisher,
            store,
            ticks,
            stop,
            gauge,
            ledger: Ledger::new(limit),
            cohorts: group(cursors),
            turn: 0,
            page_rows: limits.page_rows,
            row_bytes: 1,
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
            self.settle()?;
            match self.next_claim() {
                Some(index) if self.ledger.has_room() => self.claim_page(index).await?,
                Some(_) | None => self.wait().await,
            }
        }
        self.settle()?;
        while !self.ledger.is_empty() {
            self.publisher.reported().await;
            self.settle()?;
        }
        Ok(())
    }

    /// Takes the reports that are there, and hands on the cursors that they free.
    fn settle(&mut self) -> Result<()> {
        while let Some(report) = self.publisher.next_report()? {
            match report {
                Report::Delivered(number) => self.ledger.acknowledge(number),
                Report::Failed(error) => return Err(error),
            }
        }
        while let Some(finished) = self.ledger.next_finished() {
            self.gauge.published.fetch_add(finished.events, Ordering::Relaxed);
            self.store.note(&finished);
        }
        self.gauge.in_flight_bytes.store(self.ledger.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The next cohort with something to claim, in turn.
    fn next_claim(&mut self) -> Option<usize> {
        self.enter_latest_tick();
        let count = self.cohorts.len();
        let index = (0..count)
            .map(|offset| (self.turn + offset) % count)
            .find(|index| !self.cohorts[*index].1.is_finished())?;
        self.turn = index + 1;
        Some(index)
    }

    /// Leads every cohort that has finished its range into the next one.
    fn enter_latest_tick(&mut self) {
        let tick = Arc::clone(&self.ticks.borrow_and_update());
        let is_due = |cursor: &Cursor| cursor.is_finished() && tick.is_later_than(cursor.upto());
        if !self.cohorts.iter().any(|(_, cursor)| is_due(cursor)) {
            return;
        }
        self.cohorts = merge(std::mem::take(&mut self.cohorts));
        for (cohort, cursor) in &mut self.cohorts {
            if is_due(cursor) {
                cursor.enter(&tick);
                if cursor.is_finished() {
                    self.ledger.open_page(cohort);
                    self.ledger.close_page(cursor.clone());
                }
            }
        }
    }

    /// Waits until there is a tick, a report, or the word to stop.
    async fn wait(&mut self) {
        // An empty page that was just closed is finished already.
        if self.ledger.is_front_finished() {
            return;
        }
        let ended = tokio::select! {
            changed = self.ticks.changed() => changed.is_err(),
            () = self.publisher.reported() => false,
            changed = self.stop.changed() => changed.is_err(),
        };
        if ended {
            // The relay has let go of the session; it ends this shard too.
            std::future::pending::<()>().await;
        }
    }

    async fn claim_page(&mut self, index: usize) -> Result<()> {
        let (cohort, mut cursor) = self.cohorts[index].clone();
        let rows_max = self.rows_max();
        let mut page = self.poller.claim(&cohort, &cursor, rows_max).await?;
        self.ledger.open_page(&cohort);
        let mut outgoing = Outgoing::default();
        let (mut rows, mut bytes) = (0_u32, 0_u64);
        while let Some(row) = page.next().await {
            let row = row?;
            (rows, bytes) = (rows + 1, bytes + row.size_bytes() as u64);
            if outgoing.push(row)
                && let Sent::CutShort = self.send(&mut outgoing, &mut cursor).await?
            {
                return self.close_page(index, cursor);
            }
        }
        if let Sent::CutShort = self.send(&mut outgoing, &mut cursor).await? {
            return self.close_page(index, cursor);
        }
        if rows < rows_max {
            cursor.finish();
        }
        if rows > 0 {
            self.row_bytes = (bytes / u64::from(rows)).max(1);
        }
        self.close_page(index, cursor)
    }

    fn close_page(&mut self, index: usize, cursor: Cursor) -> Result<()> {
        self.ledger.close_page(cursor.clone());
        self.cohorts[index].1 = cursor;
        self.settle()
    }

    /// Large events make small pages: a page holds a snapshot open in PostgreSQL while it is read.
    fn rows_max(&self) -> u32 {
        let rows = u32::try_from(PAGE_BYTES / self.row_bytes).unwrap_or(u32::MAX);
        rows.max(PAGE_ROWS_MIN).min(self.page_rows)
    }

    /// Sends what has gathered, once the ledger has room, and leads the cursor past it.
    async fn send(&mut self, outgoing: &mut Outgoing, cursor: &mut Cursor) -> Result<Sent> {
        let Some(last) = outgoing.rows.last() else { return Ok(Sent::Done) };
        let seq = last.seq();
        self.settle()?;
        let patience = tokio::time::Instant::now() + PAGE_WAIT_MAX;
        while !self.ledger.has_room() {
            tokio::select! {
                () = self.publisher.reported() => self.settle()?,
                _ = self.stop.changed() => return Ok(Sent::CutShort),
                () = tokio::time::sleep_until(patience) => return Ok(Sent::CutShort),
            }
        }
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.publisher.send(Batch { number, rows });
        cursor.advance(seq);
        Ok(Sent::Done)
    }
}

/// What became of rows that were to be sent.
enum Sent {
    Done,
    /// The word to stop came first, or there was no room for too long; the rows were not sent.
    CutShort,
}

/// Rows that gather for one batch.
#[derive(Default)]
struct Outgoing {
    rows: Vec<ClaimedRow>,
    bytes: usize,
}

impl Outgoing {
    /// Takes a row; true when the batch is full.
    fn push(&mut self, row: ClaimedRow) -> bool {
        self.bytes += row.size_bytes() + EVENT_OVERHEAD_BYTES;
        self.rows.push(row);
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self) -> (Vec<ClaimedRow>, usize) {
        let capacity = self.rows.len();
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(capacity));
        (rows, std::mem::take(&mut self.bytes))
    }
}

/// Buckets with the same cursor are claimed together.
fn group(cursors: Vec<(Bucket, Cursor)>) -> Vec<(Cohort, Cursor)> {
    let singles =
        cursors.into_iter().map(|(bucket, cursor)| (Cohort::from([bucket]), cursor)).collect();
    merge_where(singles, |_| true)
}

/// Finished cohorts at the same tick become one.
fn merge(cohorts: Vec<(Cohort, Cursor)>) -> Vec<(Cohort, Cursor)> {
    if cohorts.len() < 2 {
        return cohorts;
    }
    merge_where(cohorts, Cursor::is_finished)
}

fn merge_where(
    cohorts: Vec<(Cohort, Cursor)>,
    may: impl Fn(&Cursor) -> bool,
) -> Vec<(Cohort, Cursor)> {
    let mut merged: Vec<(Vec<Bucket>, Cursor)> = Vec::new();
    for (cohort, cursor) in cohorts {
        let same = |other: &Cursor| {
            *other == cursor
                || (other.is_finished() && cursor.is_finished() && other.upto() == cursor.upto())
        };
        match merged.iter_mut().find(|(_, other)| may(&cursor) && same(other)) {
            Some((buckets, _)) => buckets.extend(cohort.iter()),
            None => merged.push((cohort.to_vec(), cursor)),
        }
    }
    let sorted = |mut buckets: Vec<Bucket>| {
        buckets.sort_unstable();
        Cohort::from(buckets)
    };
    merged.into_iter().map(|(buckets, cursor)| (sorted(buckets), cursor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::Observation;

    fn tick(next: u64) -> Arc<Tick> {
        let snapshot = format!("{next}:{next}:").parse().unwrap();
        let seen = Observation { floor: 5, snapshot, next, ceiling: 9 };
        Arc::new(Tick::follow(&Tick::first(), seen).unwrap())
    }

    fn at(next: u64) -> Cursor {
        let mut cursor = Cursor::initial();
        cursor.enter(&tick(next));
        cursor
    }

    fn buckets(cohorts: &[(Cohort, Cursor)]) -> Vec<Vec<u16>> {
        cohorts.iter().map(|(cohort, _)| cohort.iter().map(|bucket| bucket.0).collect()).collect()
    }

    #[test]
    fn equal_cursors_are_claimed_together() {
        let cohorts = group(vec![
            (Bucket(0), at(10)),
            (Bucket(1), at(20)),
            (Bucket(2), at(10)),
            (Bucket(3), Cursor::initial()),
        ]);
        assert_eq!(buckets(&cohorts), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn cohorts_meet_at_a_tick_that_both_have_finished() {
        let mut first = at(20);
        first.finish();
        let mut other = at(10);
        other.finish();
        let other_on_its_way = other.clone();
        other.enter(&tick(20));
        let unfinished = vec![
            (Cohort::from([Bucket(0)]), first.clone()),
            (Cohort::from([Bucket(1)]), other_on_its_way),
        ];
        assert_eq!(merge(unfinished).len(), 2, "they are at different ticks");
        other.finish();
        let both = vec![(Cohort::from([Bucket(4)]), first), (Cohort::from([Bucket(1)]), other)];
        assert_eq!(buckets(&merge(both)), [vec![1, 4]]);
    }
}
