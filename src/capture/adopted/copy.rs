//! The rows of adopted tables that the stream does not bring.
//!
//! Promises: a copy brings each row once that the slot's snapshot sees and nobody has published; what is
//! written later is in the stream; no value ends it, and no row comes in more than a part at a time that is larger than
//! what is read. Must not: decide when to copy, or write into an adopted table.
//! Fails: with the connection's error; with [`ErrorKind::Schema`] for a table that does not fit.
//!
//! The copy runs in the transaction that made the slot, on the replication session itself: its snapshot
//! is exactly where the stream begins.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio::time::Instant;

use crate::capture::adopted::mapping::{Adopted, ColumnMap};
use crate::capture::adopted::query::{CopiedRow, CopyQuery, RowAnswer};
use crate::capture::adopted::registry::{AdoptionStore, table_columns, unpublished};
use crate::capture::log::decode::{LargeEnd, LargePart, LoggedEvent};
use crate::capture::log::flawed::EventOrigin;
use crate::capture::mode::KnownSlot;
use crate::error::{Error, ErrorKind, Result};
use crate::event::LogPosition;
use crate::order::log_cursor::widen;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Lsn, Walsender, fill};
use crate::record::large::LargeRow;

const NEAR: &str = include_str!("../../../sql/queries/adopted_near.sql");
const COUNT: &str = include_str!("../../../sql/queries/adopted_count.sql");

const BACKEND: &str = include_str!("../../../sql/queries/backend.sql");
/// After so long without a row people are told that events wait.
const SLOW: Duration = Duration::from_secs(10);
const SLOW_AGAIN: Duration = Duration::from_secs(60);
/// Numbers of copied rows lie above the places of all streamed ones.
const COPIED_BASE: i64 = (1 << 62) + (1 << 61);

/// The session that made a slot, in the transaction whose snapshot is the slot's.
#[derive(Debug)]
pub struct SlotSession {
    session: Walsender,
    /// Where the slot begins.
    begins: Lsn,
    /// What had committed there.
    snapshot: Snapshot,
}

impl SlotSession {
    /// Takes a session over whose transaction is open.
    pub fn new(session: Walsender, begins: Lsn, snapshot: Snapshot) -> Self {
        Self { session, begins, snapshot }
    }

    /// Whether it made this slot.
    pub fn made(&self, slot: &KnownSlot) -> bool {
        (self.begins, &self.snapshot) == (slot.lsn, &slot.snapshot)
    }

    /// Begins a copy of what this snapshot sees of the tables and nobody has published. An event of more than
    /// `event_bytes_max` comes in parts.
    ///
    /// # Errors
    /// When rights are missing, a condition has no meaning any more, or the connection fails.
    pub async fn copy(
        mut self,
        tables: &[Adopted],
        store: Arc<AdoptionStore>,
        event_bytes_max: usize,
    ) -> Result<AdoptedCopy> {
        let backend = cell(self.session.query(BACKEND).await?)?;
        store.note_reader(backend.parse().map_err(|_| no_answer())?);
        let near = cell(self.session.query(NEAR).await?)?;
        let near_id = near.parse().map_err(|_| no_answer())?;
        let (mut sources, mut copied) = (Vec::new(), Vec::new());
        let mut rows = 0_i64;
        for (number, table) in tables.iter().enumerate() {
            if table.is_streamed() && table.covers(&self.snapshot) {
                continue;
            }
            // What was given may be ahead of the snapshot.
            let given = table.passed.clone().filter(|given| given.covers(&self.snapshot));
            copied.push(CopiedTable { number, name: table.name.clone(), given });
            let source = CopySource::new(table, &near, store.connection(), event_bytes_max).await?;
            let mut patience = CopyPatience::begin();
            let counting = self.session.query(&source.count);
            let counted = patience.over(&source.name, counting).await;
            let counted = cell(counted.map_err(|error| source.unread(error))?)?;
            rows += counted.parse::<i64>().unwrap_or(i64::MAX);
            sources.push(source);
        }
        sources.reverse();
        let place = COPIED_BASE + store.numbers(rows).await?;
        let Self { session, snapshot, begins } = self;
        tracing::info!(rows, "publishing rows of adopted tables that the stream does not bring");
        // No record of the log begins inside another: nothing of the stream arrives there.
        let log_position = LogPosition { commit_lsn: begins.0 - 1, index: 0 };
        let ids = CopiedIds { near: near_id, from: snapshot.xmin(), found: Vec::new() };
        Ok(AdoptedCopy {
            session,
            snapshot,
            begins,
            copied,
            sources,
            is_open: false,
            large: None,
            patience: None,
            place,
            log_position,
            ids,
            store,
        })
    }
}

/// A table of which all is published once it is copied.
#[derive(Debug)]
struct CopiedTable {
    /// Its number in this session.
    number: usize,
    name: OutboxName,
    /// What was published before, where that is more than the snapshot sees.
    given: Option<Snapshot>,
}

/// What is to be read of one table.
#[derive(Debug)]
struct CopySource {
    name: OutboxName,
    count: String,
    query: CopyQuery,
}

impl CopySource {
    async fn new(
        table: &Adopted,
        near: &str,
        connection: &Connection,
        event_bytes_max: usize,
    ) -> Result<Self> {
        let columns = table_columns(connection, &table.name).await?;
        let map = ColumnMap::resolve(table.columns.mappings(), &columns)?;
        let (condition, quoted) = (unpublished(table, near), table.name.quoted());
        Ok(Self {
            name: table.name.clone(),
            count: fill(COUNT, &[("{table}", &quoted), ("{condition}", &condition)]),
            query: CopyQuery::new(table, &map, &columns, &condition, event_bytes_max),
        })
    }
}

/// How long a table has been read without an answer.
#[derive(Debug)]
struct CopyPatience {
    began: Instant,
    warn_at: Instant,
}

impl CopyPatience {
    fn begin() -> Self {
        let began = Instant::now();
        Self { began, warn_at: began + SLOW }
    }

    /// Waits for the work, and says what waits for it, and for how long.
    async fn over<T>(&mut self, table: &OutboxName, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(self.warn_at) => {}
            }
            tracing::warn!(
                %table,
                seconds = self.began.elapsed().as_secs(),
                remedy = "look at pg_stat_activity for what its session waits for: a lock, a sort (an index on \
                          --order-by spares it), or a function of the table's owner",
                "an adopted table gives no row; all events of the outbox and of other adopted tables wait for it"
            );
            self.warn_at = Instant::now() + SLOW_AGAIN;
        }
    }
}

/// The rows that the stream does not bring.
#[derive(Debug)]
pub struct AdoptedCopy {
    session: Walsender,
    snapshot: Snapshot,
    begins: Lsn,
    copied: Vec<CopiedTable>,
    /// The next table is the last.
    sources: Vec<CopySource>,
    is_open: bool,
    /// A row that comes in parts, and how many of them are still to come.
    large: Option<(Box<LargeRow>, u64)>,
    /// With the row that is waited for.
    patience: Option<CopyPatience>,
    /// The number of the next row: unlike that of any other row.
    place: i64,
    /// Behind all that any stream brought before, and before all that the one to come brings.
    log_position: LogPosition,
    ids: CopiedIds,
    store: Arc<AdoptionStore>,
}

/// What a copy brings.
#[derive(Debug)]
pub enum CopyItem {
    /// A row.
    Event(LoggedEvent),
    /// A part of one that is too large to be read at once.
    Part(LargePart),
}

/// Which ids the copied rows bear, as far as the snapshot alone does not say that they are published.
#[derive(Debug)]
struct CopiedIds {
    /// An id at or above all of them.
    near: TransactionId,
    from: TransactionId,
    found: Vec<TransactionId>,
}

impl CopiedIds {
    fn note(&mut self, xmin: Option<&str>) {
        let id = xmin.and_then(|text| text.parse().ok()).map(|id: u32| widen(id, self.near));
        if let Some(id) = id.filter(|id| *id >= self.from && self.found.last() != Some(id)) {
            self.found.push(id);
        }
    }
}

impl AdoptedCopy {
    /// The next row, one at a time as it may be large, or a part of it; none when all were brought. May be given
    /// up while it waits, and called again.
    ///
    /// # Errors
    /// When the connection fails, or a value is not what its column's type says.
    pub async fn next(&mut self) -> Result<Option<(CopyItem, LogPosition)>> {
        while let Some(source) = self.sources.last() {
            if !std::mem::replace(&mut self.is_open, true) {
                self.session.ask_rows(source.query.sql())?;
            }
            let patience = self.patience.get_or_insert_with(CopyPatience::begin);
            let row = patience.over(&source.name, self.session.next_row()).await?;
            self.patience = None;
            if let Some(row) = row {
                let row = source.query.read(row, self.place)?;
                let log_position = self.log_position;
                return Ok(Some((self.item(row), log_position)));
            }
            tracing::info!(table = %source.name, "copied existing rows");
            self.sources.pop();
            self.is_open = false;
        }
        Ok(None)
    }

    fn item(&mut self, row: CopiedRow) -> CopyItem {
        let CopiedRow { written_by, content } = row;
        self.ids.note(written_by.as_deref());
        let (large, parts_left, value, bytes) = match content {
            RowAnswer::Event(event) => {
                self.go_on();
                return CopyItem::Event(event);
            }
            RowAnswer::Large(row, parts) => (row, parts, 0, Vec::new()),
            RowAnswer::Part(value, bytes) => {
                let (row, parts) = self.large.take().expect("parts follow their row");
                (row, parts - 1, value, bytes)
            }
        };
        let end = if parts_left > 0 {
            self.large = Some((large, parts_left));
            None
        } else {
            self.go_on();
            Some(LargeEnd::Row(large))
        };
        CopyItem::Part(LargePart { origin: EventOrigin::Copy, value, bytes, end })
    }

    /// Whatever comes next is another row.
    fn go_on(&mut self) {
        self.place += 1;
        self.log_position.index = self.log_position.index.saturating_add(1);
    }

    /// Gives the copy up, also where the server is busy with a function of a table's owner.
    ///
    /// # Errors
    /// As [`AdoptionStore::end_reading`].
    pub async fn give_up(self) -> Result<()> {
        self.store.end_reading().await
    }

    /// What had committed where the stream begins.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Ids of rows that were brought, as far as the snapshot alone does not say that they are published.
    pub fn take_ids(&mut self) -> Vec<TransactionId> {
        std::mem::take(&mut self.ids.found)
    }

    /// Where the stream begins that brings the rest.
    pub fn begins(&self) -> Lsn {
        self.begins
    }

    /// Everything that was brought is published: notes it, and gives the snapshot up. Gives what is published of each
    /// table that was copied, by its number.
    ///
    /// # Errors
    /// As [`AdoptionStore::save`].
    pub async fn finish(
        mut self,
        proven: &[TransactionId],
        epoch: i64,
    ) -> Result<Vec<(usize, Snapshot)>> {
        // In this order: a table that counts as streamed has nothing missing behind the place.
        self.store.begin_stream(self.begins, epoch).await?;
        let mut passed = Vec::new();
        for CopiedTable { number, name, given } in self.copied {
            let snapshot = given.unwrap_or_else(|| self.snapshot.clone());
            self.store.save(&[name], &snapshot, proven, epoch).await?;
            passed.push((number, snapshot));
        }
        self.session.query("commit").await?;
        Ok(passed)
    }
}

impl CopySource {
    /// What the relay's rights on its own tables would not mend.
    fn unread(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::PostgresRefused {
            return error;
        }
        let (name, schema) = (self.name.quoted(), escape_identifier(&self.name.schema));
        let cause = format!("the adopted table {} cannot be read: {}", self.name, error.message());
        Error::new(ErrorKind::PostgresRefused, cause)
            .with_remedy(format!(
                "grant usage on schema {schema} and select on {name} to the relay's role; with \
                 row-level security on it, alter that role bypassrls"
            ))
            .with_source(error)
    }
}

/// The one value of an answer.
fn cell(rows: Vec<Vec<Option<String>>>) -> Result<String> {
    rows.into_iter().flatten().next().flatten().ok_or_else(no_answer)
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Internal, "the server gave no answer to a question with one")
}
