//! How a shard reads a page, and what it does with one that a value ends.
//!
//! Promises: the cursor is led no further than what was sent, and never between rows of one `seq`; a page that
//! a value ends is read again value by value, a few rows at first. Must not: choose which cursor group is next.
//! Fails: with the connection's error, and as the outlet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hashbrown::HashMap;
use tokio::sync::watch;

use crate::capture::table::claim::{ClaimedPage, ClaimedRow, PageError, PageReading, Poller};
use crate::control::cursors::CursorStore;
use crate::error::{Error, Result};
use crate::event::Bucket;
use crate::metrics::histogram::micros;
use crate::order::control_record::ControlRecord;
use crate::order::cursor::{Cursor, GroupCursor};
use crate::order::ledger::Finished;
use crate::order::saved_cursor::SavedCursor;
use crate::order::tick::Tick;
use crate::shard::batch::{Outgoing, OutgoingRow};
use crate::shard::outlet::{Outlet, OutletSource};

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
/// A shard that polls has one.
const ONLY_PUBLISHER: usize = 0;

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

/// Where finished pages lead: to the cursors that are saved next.
#[derive(Debug)]
pub(super) struct SavedCursors {
    store: Arc<CursorStore>,
    /// Since when cursors are committed to Kafka, where they are.
    term: Option<i64>,
    /// Where each bucket stands that has one there.
    committed: HashMap<Bucket, Cursor>,
}

impl SavedCursors {
    pub(super) fn new(store: Arc<CursorStore>, term: Option<i64>) -> Self {
        Self { store, term, committed: HashMap::new() }
    }

    /// These are no more ours.
    pub(super) fn forget(&mut self, buckets: &[Bucket]) {
        buckets.iter().for_each(|bucket| _ = self.committed.remove(bucket));
    }

    /// Where a bucket begins.
    pub(super) fn begin(&mut self, cursors: &[(Bucket, Cursor)]) {
        self.committed.extend(cursors.iter().cloned());
    }
}

impl OutletSource for SavedCursors {
    type Place = GroupCursor;

    fn hand_on(&mut self, finished: impl Iterator<Item = Finished<GroupCursor>>) {
        finished.for_each(|finished| self.store.note(&finished));
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        None
    }

    async fn heartbeat(&mut self) -> Result<()> {
        Ok(())
    }

    async fn control_records(
        &mut self,
        landed: &[Finished<GroupCursor>],
        retried: &[i64],
    ) -> Result<Option<Vec<(Bucket, String)>>> {
        let term = self.term.expect("cursors are committed to Kafka");
        let mut moved: HashMap<Bucket, &Cursor> = HashMap::new();
        for Finished { place: GroupCursor { cursor_group, cursor }, .. } in landed {
            moved.extend(cursor_group.iter().map(|bucket| (*bucket, cursor)));
        }
        let moved: Vec<(Bucket, Cursor)> =
            moved.into_iter().map(|(bucket, cursor)| (bucket, cursor.clone())).collect();
        self.committed.extend(moved.iter().cloned());
        let named: Vec<(Bucket, Cursor)> = match retried {
            [] => moved,
            _ => self.committed.iter().map(|(at, cursor)| (*at, cursor.clone())).collect(),
        };
        let (history, owned) = (self.store.flushed().await?, self.store.owned());
        let epochs: HashMap<Bucket, i64> = owned.into_iter().collect();
        let record = |(bucket, cursor): (Bucket, Cursor)| {
            let epoch = *epochs.get(&bucket).ok_or_else(Error::fenced)?;
            let (cursor, retried) = (Some(SavedCursor::from(&cursor)), retried.to_vec());
            let record = ControlRecord { term, history, epoch, cursor, log: None, retried };
            Ok((bucket, record.encode()))
        };
        named.into_iter().map(record).collect::<Result<_>>().map(Some)
    }
}

/// Reads pages, each as large as the rows before it let expect.
#[derive(Debug)]
pub(super) struct PageReader {
    poller: Poller,
    /// Becomes true when no more is to be claimed.
    stop: watch::Receiver<bool>,
    page_rows: u32,
    /// How large a row was in the page before.
    row_bytes: u64,
    /// How many rows the next careful page has.
    careful_rows: u32,
    event_bytes_max: u64,
}

impl PageReader {
    pub(super) fn new(poller: Poller, stop: watch::Receiver<bool>, limits: ShardLimits) -> Self {
        Self {
            poller,
            stop,
            page_rows: limits.page_rows,
            row_bytes: PAGE_BYTES / FIRST_PAGE_ROWS,
            careful_rows: CAREFUL_ROWS_MIN,
            event_bytes_max: limits.event_bytes_max,
        }
    }

    /// Claims the next page of a cursor group, sends it, and leads the cursor behind it. Where one value ends it,
    /// what follows is read carefully, some rows more each time.
    pub(super) async fn claim(
        &mut self,
        at: &mut GroupCursor,
        outlet: &mut Outlet<SavedCursors>,
    ) -> Result<()> {
        let rows_max = self.rows_max(outlet.piece_bytes());
        let Some(cause) = self.read(at, outlet, rows_max, PageReading::Plain).await? else {
            self.careful_rows = CAREFUL_ROWS_MIN;
            return Ok(());
        };
        tracing::debug!(cause = cause.message(), "a page is read value by value");
        let rows_max = self.careful_rows.min(self.page_rows);
        self.careful_rows = self.careful_rows.saturating_mul(2).min(self.page_rows);
        match self.read(at, outlet, rows_max, PageReading::Careful).await? {
            None => Ok(()),
            // It is no value that ended the page.
            Some(cause) => Err(cause),
        }
    }

    /// Reads a page, and leads the cursor as far as it came. What PostgreSQL says of a value, if one ended it.
    async fn read(
        &mut self,
        at: &mut GroupCursor,
        outlet: &mut Outlet<SavedCursors>,
        rows_max: u32,
        reading: PageReading,
    ) -> Result<Option<Error>> {
        let mut cursor = at.cursor.clone();
        let began = Instant::now();
        let mut page = self.poller.claim(&at.cursor_group, &cursor, rows_max, reading).await?;
        outlet.figures().claim.record(micros(began.elapsed().as_micros()), 1);
        outlet.ledger.open_page();
        let mut seen = SeenPage::default();
        let mut broken = None;
        match self.pass_on(&mut page, &mut seen, outlet).await? {
            // Rows share a `seq` where somebody wrote it himself: some of this one may have been sent.
            PageEnd::CutShort { unsent } => cursor.advance_before(unsent),
            PageEnd::Complete => {
                if seen.rows > 0 {
                    cursor.advance(seen.last);
                }
                if seen.rows < rows_max {
                    cursor.finish();
                }
            }
            PageEnd::Broken(cause) => {
                if seen.rows > 0 {
                    cursor.advance_before(seen.last);
                }
                broken = Some(cause);
            }
        }
        if let Some(row_bytes) = seen.bytes.checked_div(seen.rows.into()) {
            self.row_bytes = row_bytes.max(1);
        }
        at.cursor = cursor;
        if let Some(window) = at.cursor.whole_window() {
            let upto = &at.cursor.upto().snapshot;
            outlet.store.note_whole(&at.cursor_group, window, upto);
        }
        outlet.ledger.close_page(at.clone());
        outlet.settle().await?;
        Ok(broken)
    }

    /// Whether the open window of a cursor group has to be closed, or is old enough to be.
    pub(super) fn is_window_due(&self, at: &GroupCursor, tick: &Tick) -> bool {
        let GroupCursor { cursor_group, cursor } = at;
        if cursor.open_window().is_none() {
            return false;
        }
        let is_left = tick.is_later_than(cursor.upto()) && cursor.leaves_window(tick);
        is_left || self.poller.is_look_due(cursor_group)
    }

    /// Closes a cursor group's window, if its ranges are read: looks for rows below them, and goes back where there
    /// are any.
    pub(super) async fn close_window(
        &mut self,
        at: &mut GroupCursor,
        outlet: &Outlet<SavedCursors>,
    ) -> Result<()> {
        let GroupCursor { cursor_group, cursor } = at;
        let Some(window) = cursor.open_window() else { return Ok(()) };
        let upto = &cursor.upto().snapshot;
        match self.poller.lowest_below(cursor_group, window, upto).await? {
            None => {
                outlet.store.note_closed(cursor_group, window, upto);
                cursor.close_window();
            }
            Some(lowest) => {
                outlet.parking.say_below(lowest);
                cursor.go_back();
            }
        }
        Ok(())
    }

    /// Sends a page's rows as they come.
    async fn pass_on(
        &mut self,
        page: &mut ClaimedPage,
        seen: &mut SeenPage,
        outlet: &mut Outlet<SavedCursors>,
    ) -> Result<PageEnd> {
        let (mut outgoing, bytes_max) = (Outgoing::default(), outlet.batch_bytes());
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
            if outgoing.push(row, bytes_max)
                && let Sent::CutShort { unsent } = self.send(&mut outgoing, outlet).await?
            {
                return Ok(PageEnd::CutShort { unsent });
            }
        }
        Ok(match self.send(&mut outgoing, outlet).await? {
            Sent::CutShort { unsent } => PageEnd::CutShort { unsent },
            Sent::Done => end,
        })
    }

    /// Large events make small pages: a page holds a snapshot open in PostgreSQL while it is read.
    fn rows_max(&self, bytes_max: usize) -> u32 {
        let bytes = PAGE_BYTES.min(bytes_max as u64);
        let rows = u32::try_from(bytes / self.row_bytes).unwrap_or(u32::MAX);
        rows.clamp(1, self.page_rows)
    }

    /// Sends what has gathered, once the ledger has room.
    async fn send(
        &mut self,
        outgoing: &mut Outgoing,
        outlet: &mut Outlet<SavedCursors>,
    ) -> Result<Sent> {
        let Some(unsent) = outgoing.rows.first().map(OutgoingRow::seq) else {
            return Ok(Sent::Done);
        };
        outlet.settle().await?;
        let patience = tokio::time::Instant::now() + PAGE_WAIT_MAX;
        while !outlet.ledger.has_room() {
            // Others wait for what is in it.
            if outlet.is_transaction_filled() {
                return Ok(Sent::CutShort { unsent });
            }
            tokio::select! {
                () = outlet.reported() => outlet.settle().await?,
                _ = self.stop.changed() => return Ok(Sent::CutShort { unsent }),
                () = tokio::time::sleep_until(patience) => return Ok(Sent::CutShort { unsent }),
            }
        }
        outlet.send(ONLY_PUBLISHER, outgoing).await?;
        Ok(Sent::Done)
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
struct SeenPage {
    rows: u32,
    bytes: u64,
    /// The `seq` of the last row.
    last: i64,
}

impl SeenPage {
    fn note(&mut self, row: &ClaimedRow) {
        self.rows += 1;
        self.bytes += row.size_bytes() as u64;
        self.last = row.seq();
    }
}
