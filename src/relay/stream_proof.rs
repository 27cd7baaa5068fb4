//! Whether the stream has brought everything that cursors are to pass.
//!
//! Promises: no place is saved or committed behind a moment in which the stream may have lacked rows of a table, unless
//! the table proves that it lacked none. Must not: move a cursor. Fails: with the connection's error; with
//! [`ErrorKind::SlotUnusable`] where rows were lacking, or nothing proves that none were.
//!
//! What a publication brings may be changed by anybody who owns it, and the server tells of some changes no more than
//! that there was one in the whole database. Then the rows of each step are looked for in the table: those that its
//! cursor passes, that no saved one has, and that did not come. What comes goes on being published meanwhile. Once all
//! that was written when the change was seen is proven, it is noted as what the stream is read by.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use crate::capture::log::decode::{LogCapture, LogItem, unusable};
use crate::capture::log::flawed::EventOrigin;
use crate::capture::mode::{KnownSlot, Mode};
use crate::capture::slot::table_look::{TableLook, UnbroughtRow};
use crate::capture::slot::{Fingerprint, Gap, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::cursor::Cursor;
use crate::order::seq_ranges::SeqRanges;
use crate::order::snapshot::Snapshot;
use crate::outbox::Outbox;
use crate::postgres::{DatabaseConfig, Lsn};
use crate::shard::log_loop::BroughtRows;

/// The server of PostgreSQL 14 counts half a second late.
const COUNT_LOOKS: u32 = 5;
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// The server ends a stream from which it has not heard for `wal_sender_timeout`, a minute by default.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// Rows that were published before the stream began may lie among those that it did not bring. Of more than so many
/// nothing is proven.
const ROWS_MAX: i64 = 10_000;

/// Proves what a stream has brought.
pub(super) struct StreamProof {
    database: DatabaseConfig,
    pub(super) keeper: Arc<SlotKeeper>,
    /// By what the stream is believed.
    known: Mutex<KnownSlot>,
    outbox: Outbox,
    /// Which rows came.
    pub(super) brought: BroughtRows,
    /// Asks for a tick, where there are any.
    nudge: Option<Arc<Notify>>,
    doubt: Mutex<Option<StreamDoubt>>,
}

/// Something was changed that may have kept rows out of the stream.
pub(super) struct StreamDoubt {
    /// What is published since.
    now: String,
    /// What was written until that was seen.
    written: Snapshot,
    /// Where the table is read.
    table: TableLook,
}

/// How the stream was read before anything of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamTrial {
    /// It brings every row that is there.
    Whole,
    /// The session ends.
    Stopped,
}

impl StreamProof {
    /// Of the stream that the keeper's slot brings, by what is known of it.
    pub(super) fn new(
        database: &DatabaseConfig,
        outbox: &Outbox,
        (keeper, known): (Arc<SlotKeeper>, KnownSlot),
        nudge: Option<Arc<Notify>>,
    ) -> Self {
        Self {
            database: database.clone(),
            keeper,
            known: Mutex::new(known),
            outbox: outbox.clone(),
            brought: BroughtRows::default(),
            nudge,
            doubt: Mutex::default(),
        }
    }

    /// Looks whether anything was changed, while nothing is saved. A doubt is settled with the next place.
    ///
    /// # Errors
    /// [`ErrorKind::SlotUnusable`] when the stream lacks rows, and the table cannot tell which; the connection's error.
    pub(super) async fn look(&self) -> Result<()> {
        if self.changed().await?.is_some()
            && let Some(nudge) = &self.nudge
        {
            // An outbox at rest does not tick by itself.
            nudge.notify_one();
        }
        Ok(())
    }

    /// Whether the stream has brought everything that this cursor passes and no saved one has.
    ///
    /// # Errors
    /// [`ErrorKind::SlotUnusable`] when it has not; the connection's error.
    pub(super) async fn prove(&self, cursor: Option<&Cursor>) -> Result<()> {
        let Some(now) = self.changed().await? else {
            *self.doubt.lock().await = None;
            return Ok(());
        };
        let mut doubt = self.doubt.lock().await;
        let doubted = match doubt.take().filter(|doubt| doubt.now == now) {
            Some(same) => doubt.insert(same),
            None => doubt.insert(self.begin_to_doubt(now).await?),
        };
        let Some(cursor) = cursor else { return Ok(()) };
        self.look_into_table(&doubted.table, cursor.from()).await?;
        if cursor.from().covers(&doubted.written) {
            let mut known = self.known.lock().await;
            self.keeper.note_course(&doubted.now, &known.publication).await?;
            known.publication.clone_from(&doubted.now);
            tracing::info!(
                slot = self.keeper.name(),
                "the stream has brought every row since the place that was saved last, whatever was changed of publications or partitions"
            );
            *doubt = None;
        }
        Ok(())
    }

    /// Where something was `changed`: reads a stream that begins at this place and behind these cursors up to the
    /// present, and looks whether it lacks a row: what comes behind that one would be published before it.
    ///
    /// # Errors
    /// [`ErrorKind::SlotUnusable`] when it does; the stream's or the connection's error.
    pub(super) async fn rehearse(
        &self,
        changed: String,
        mut capture: LogCapture,
        begins: Lsn,
        cursors: &[(Bucket, Cursor)],
        stop: &mut watch::Receiver<bool>,
    ) -> Result<StreamTrial> {
        let doubt = self.begin_to_doubt(changed).await?;
        let (seen, end) = doubt.table.visible_now().await?;
        tracing::info!(
            slot = self.keeper.name(),
            "publications or partitions were changed: reading the log once before anything of it is published"
        );
        self.brought.begin(cursors.iter().cloned());
        let (mut rows, mut place) = (SeqRanges::default(), begins);
        let mut signs = tokio::time::interval(SIGN_INTERVAL);
        while place < end {
            let item = tokio::select! {
                item = capture.next() => item?,
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(StreamTrial::Stopped),
                _ = signs.tick() => {
                    // A log in which nothing is written brings nothing.
                    self.nudge.as_ref().into_iter().for_each(|nudge| nudge.notify_one());
                    capture.confirm(place, begins).await?;
                    continue;
                }
            };
            match item {
                LogItem::Event(event) if matches!(event.origin(), EventOrigin::Row(..)) => {
                    rows.insert(event.seq());
                }
                LogItem::Commit { end } | LogItem::KeepAlive { end, .. } => place = place.max(end),
                _ => {}
            }
        }
        self.brought.mark(place, rows);
        self.look_into_table(&doubt.table, &seen).await?;
        capture.end().await?;
        *self.doubt.lock().await = Some(doubt);
        Ok(StreamTrial::Whole)
    }

    /// What came up to this place is saved.
    pub(super) fn forget(&self, saved: Lsn) {
        self.brought.forget(saved);
    }

    /// What is published now, where that was changed and the table can tell whether a row is missing.
    ///
    /// # Errors
    /// As [`StreamProof::look`].
    pub(super) async fn changed(&self) -> Result<Option<String>> {
        let gap = match self.publication_gap().await? {
            None if self.has_unread_parts().await? => Gap::Attached,
            None => return Ok(None),
            Some(gap) => match self.provable().await? {
                Some(now) => return Ok(Some(now.to_string())),
                None => gap,
            },
        };
        self.keeper.check_logged().await.map_err(unusable)?;
        self.keeper.check_adopted_logged().await.map_err(unusable)?;
        Err(Error::new(ErrorKind::SlotUnusable, gap.words()))
    }

    async fn provable(&self) -> Result<Option<Fingerprint>> {
        self.keeper.provable(&*self.known.lock().await).await
    }

    async fn has_unread_parts(&self) -> Result<bool> {
        Ok(self.keeper.mode() == Mode::Wal
            && self.keeper.has_unread_parts(&self.known.lock().await.snapshot).await?)
    }

    async fn begin_to_doubt(&self, now: String) -> Result<StreamDoubt> {
        // In this order: what is written after the look was written under what was seen.
        let written = self.keeper.written_so_far().await?;
        let table = TableLook::open(&self.database, &self.outbox).await?;
        Ok(StreamDoubt { now, written, table })
    }

    /// Looks for rows that the snapshot sees, no saved cursor has passed, and the stream did not bring.
    async fn look_into_table(&self, table: &TableLook, seen: &Snapshot) -> Result<()> {
        let lacks = || Error::new(ErrorKind::SlotUnusable, Gap::Course.words());
        // Where they are too many to be told, a row that is there may be one of those that did not come.
        let brought = self.brought.multirange().unwrap_or_else(|| "{}".to_owned());
        let rows = table.unbrought(seen, &brought, ROWS_MAX).await?;
        let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count >= ROWS_MAX);
        let was_passed =
            |row: &UnbroughtRow| self.brought.was_passed(row.bucket, row.transaction, row.seq);
        match !is_cut && rows.iter().all(was_passed) {
            true => Ok(()),
            false => Err(lacks()),
        }
    }

    /// Whoever changes the publication so that nothing is missing notes it; the server counts what was changed a moment
    /// later.
    async fn publication_gap(&self) -> Result<Option<Gap>> {
        let mut known = self.known.lock().await;
        let mut gap = self.keeper.gap_since(&known).await?;
        for _ in 0..COUNT_LOOKS {
            if gap.is_none() {
                break;
            }
            let Some(noted) = self.keeper.state().await?.slot else { break };
            if noted.publication == known.publication {
                break;
            }
            gap = self.keeper.gap_since(&noted).await?;
            if gap.is_none() {
                known.publication = noted.publication;
            }
            if gap != Some(Gap::Course) {
                break;
            }
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
        Ok(gap)
    }
}
