//! How a shard reads a page, and what it does with one that a value ends.
//!
//! Promises: the cursor is led no further than what was sent, and never between rows of one `seq`; a page that
//! a value ends is read again value by value, a few rows at first. Must not: choose which cohort is next.
//! Fails: with the connection's error.

use std::time::Duration;

use futures_util::StreamExt;

use crate::capture::table::claim::{ClaimedRow, Page, PageError, Reading};
use crate::error::{Error, Result};
use crate::order::cursor::{CohortCursor, Cursor};
use crate::publish::Batch;
use crate::shard::Shard;
use crate::shard::batch::{Outgoing, OutgoingRow};

/// A page is claimed for about this many bytes, judged by the pages before it.
pub(super) const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// A page that has waited for room this long is let go, and its rest claimed again when there is room:
/// while it is read, PostgreSQL keeps its snapshot, and vacuum cannot clean up anywhere.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The first page, before the size of any row was seen. What is read of a page lies in memory while it waits
/// for room, and so does what the driver reads ahead: large rows are claimed one by one.
pub(super) const FIRST_PAGE_ROWS: u64 = 4;
/// The smallest page that is read value by value.
pub(super) const CAREFUL_ROWS_MIN: u32 = 64;

impl Shard {
    /// Claims the next page of a cohort. Where one value ends it, what follows is read carefully, some rows
    /// more each time.
    pub(super) async fn claim_page(&mut self, index: usize) -> Result<()> {
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
        let held = self.parking.held_among(&outgoing.rows).await?;
        if !held.is_empty() {
            self.publisher.hold(held);
        }
        let (rows, bytes) = outgoing.take();
        let number = self.ledger.add_batch(rows.len() as u64, bytes);
        self.publisher.send(Batch { number, rows });
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
