//! Adopted tables: what is remembered of them, and the rows that the stream does not bring.
//!
//! Promises: a copy brings each row once that the slot's snapshot sees and nobody has published; what is
//! written later is in the stream. Must not: decide when to copy, or write into an adopted table.
//! Fails: with the connection's error; with [`ErrorKind::Schema`] for a table that does not fit.
//!
//! The copy runs in the transaction that made the slot, on the replication session itself: its snapshot
//! is exactly where the stream begins.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use super::adopted_row::{Forms, id_of, place_at};
use super::mode::KnownSlot;
use super::wal::LoggedEvent;
use crate::adopted::{Adopted, ColumnMap, Form, Mapping, Origin, Part, TableColumn};
use crate::error::{Error, ErrorKind, Result};
use crate::event::OwnedEvent;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Lsn, PgSnapshot, Walsender, classify, fill, without_head};
use crate::snapshot::Snapshot;

const READ: &str = include_str!("../../sql/queries/adopted_read.sql");
const SAVE: &str = include_str!("../../sql/queries/adopted_save.sql");
const TYPES: &str = include_str!("../../sql/queries/adopted_types.sql");
const COLUMNS: &str = include_str!("../../sql/queries/adopted_columns.sql");
const NEAR: &str = include_str!("../../sql/queries/adopted_near.sql");
const ROWS: &str = include_str!("../../sql/queries/adopted_rows.sql");
const COUNT: &str = include_str!("../../sql/queries/adopted_count.sql");
const COPY: &str = include_str!("../../sql/queries/adopted_copy.sql");

/// Rows that are fetched at a time: few, as one may be large.
const FETCH: &str = "fetch 100 from adopted_rows";

/// The adopted tables, in the order of their numbers.
///
/// # Errors
/// When the connection fails, or a row was written by another version.
pub async fn adopted_tables(connection: &Connection) -> Result<Vec<Adopted>> {
    let rows = connection.client().query(READ, &[]).await;
    let rows = rows.map_err(|cause| classify("read which tables are adopted", cause))?;
    rows.iter()
        .map(|row| {
            let columns: Vec<&str> = row.get("columns");
            let mappings = columns.into_iter().map(str::parse::<Mapping>).collect::<Result<_>>();
            let passed: Option<PgSnapshot> = row.get("passed");
            Ok(Adopted {
                name: OutboxName { schema: row.get("schema_name"), table: row.get("table_name") },
                columns: ColumnMap::restore(mappings?),
                pending: row.get("pending"),
                copy_order: row.get("copy_order"),
                passed: passed.map(|passed| passed.0),
            })
        })
        .collect()
}

/// Which types are written in which form.
///
/// # Errors
/// When the connection fails.
pub async fn forms(connection: &Connection) -> Result<Forms> {
    let rows = connection.client().query(TYPES, &[]).await;
    let rows = rows.map_err(|cause| classify("look at the types", cause))?;
    let form = |row: &tokio_postgres::Row| {
        Some((row.get::<_, u32>("oid"), Form::of_sender(row.get("sender"))?))
    };
    Ok(rows.iter().filter_map(form).collect())
}

/// The columns of a table that the stream would bring.
///
/// # Errors
/// [`ErrorKind::Schema`] when there is no such table, or its rows are not in the log.
pub async fn table_columns(connection: &Connection, name: &OutboxName) -> Result<Vec<TableColumn>> {
    let rows = connection.client().query(COLUMNS, &[&name.quoted()]).await;
    let rows = rows.map_err(|cause| classify("look at the table", cause))?;
    let refuse =
        |cause: String, remedy: &str| Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy));
    let Some(first) = rows.first() else {
        return refuse(format!("there is no table {name}"), "Write it as schema.table");
    };
    if !matches!(first.get("kind"), "r" | "p") {
        return refuse(format!("{name} is no table"), "Name the table behind it");
    }
    if !first.get::<_, bool>("is_logged") {
        let remedy = format!("Run: alter table {} set logged", name.quoted());
        return refuse(format!("the rows of {name} are not in the log: it is unlogged"), &remedy);
    }
    if first.get("is_part") {
        return refuse(format!("{name} is a part of another table"), "Adopt the whole table");
    }
    let column = |row: &tokio_postgres::Row| TableColumn {
        name: row.get("name"),
        form: Form::of_sender(row.get("sender")),
    };
    Ok(rows.iter().map(column).collect())
}

/// Keeps what is published of the adopted tables.
#[derive(Debug)]
pub struct AdoptionStore {
    connection: Connection,
}

impl AdoptionStore {
    /// On a session of its own.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Its session, to look at the tables.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Notes, on disk, that the rows of these transactions are published.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the buckets are another instance's; the connection's error.
    pub async fn save(&self, passed: &Snapshot, epoch: i64) -> Result<()> {
        let passed = PgSnapshot(passed.clone());
        let parameters: [&(dyn ToSql + Sync); 2] = [&passed, &epoch];
        let saved = self.connection.client().execute(SAVE, &parameters).await;
        let saved =
            saved.map_err(|cause| classify("note what is published of adopted tables", cause))?;
        if saved > 0 { Ok(()) } else { Err(Error::fenced()) }
    }
}

/// The condition for rows that are not published. `near` is a transaction id at or above theirs, read in
/// the same snapshot as the rows.
pub fn unpublished(adopted: &Adopted, near: &str) -> String {
    match (&adopted.passed, &adopted.pending) {
        (Some(passed), _) => {
            let rows = without_head(ROWS);
            fill(rows, &[("{near}", near), ("{near}", near), ("{passed}", &format!("'{passed}'"))])
        }
        (None, Some(pending)) => pending.clone(),
        (None, None) => "true".to_owned(),
    }
}

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

    /// Begins a copy of what this snapshot sees of the tables and nobody has published.
    ///
    /// # Errors
    /// When rights are missing, a condition has no meaning any more, or the connection fails.
    pub async fn copy(
        mut self,
        tables: &[Adopted],
        store: Arc<AdoptionStore>,
    ) -> Result<AdoptedCopy> {
        let near = cell(self.session.query(NEAR).await?)?;
        let mut sources = Vec::new();
        let mut rows = 0_i64;
        for table in tables {
            let source = CopySource::new(table, &near, store.connection()).await?;
            rows +=
                cell(self.session.query(&source.count).await?)?.parse::<i64>().unwrap_or(i64::MAX);
            sources.push(source);
        }
        sources.reverse();
        let first = self.begins.0.cast_signed() - rows;
        let Self { session, snapshot, .. } = self;
        tracing::info!(rows, "publishing rows of adopted tables that the stream does not bring");
        Ok(AdoptedCopy { session, snapshot, sources, is_open: false, place: first, store })
    }
}

/// What is to be read of one table.
#[derive(Debug)]
struct CopySource {
    name: OutboxName,
    count: String,
    copy: String,
    /// Which parts are of bytes: these come in hexadecimal.
    id: Form,
    payload: Form,
}

impl CopySource {
    async fn new(table: &Adopted, near: &str, connection: &Connection) -> Result<Self> {
        let columns = table_columns(connection, &table.name).await?;
        let resolved = ColumnMap::resolve(table.columns.mappings(), &columns)?;
        let form = |part| match resolved.origin(part) {
            Some(Origin::Column(name)) => columns
                .iter()
                .find(|column| column.name == *name)
                .and_then(|column| column.form)
                .unwrap_or(Form::Text),
            Some(Origin::Constant(_)) | None => Form::Text,
        };
        let condition = unpublished(table, near);
        let quoted = table.name.quoted();
        let places = [("{table}", quoted.as_str()), ("{condition}", &condition)];
        let parts = table.copy_parts();
        let order = ("{order}", table.copy_order.as_str());
        let copy = fill(COPY, &[("{parts}", &parts), places[0], places[1], order]);
        Ok(Self {
            name: table.name.clone(),
            count: fill(COUNT, &places),
            copy,
            id: form(Part::Id),
            payload: form(Part::Payload),
        })
    }
}

/// The rows that the stream does not bring.
#[derive(Debug)]
pub struct AdoptedCopy {
    session: Walsender,
    snapshot: Snapshot,
    /// The next table is the last.
    sources: Vec<CopySource>,
    is_open: bool,
    place: i64,
    store: Arc<AdoptionStore>,
}

impl AdoptedCopy {
    /// The next rows; none when all were brought.
    ///
    /// # Errors
    /// When the connection fails, or a value is not what its column's type says.
    pub async fn next(&mut self) -> Result<Option<Vec<LoggedEvent>>> {
        while let Some(source) = self.sources.last() {
            if !std::mem::replace(&mut self.is_open, true) {
                self.session.query("set local bytea_output = hex").await?;
                self.session.query(&source.copy).await?;
            }
            let rows = self.session.query(FETCH).await?;
            if !rows.is_empty() {
                let first = self.place;
                self.place += rows.len() as i64;
                let event = |(row, index)| {
                    let event = source.event(row, place_at(first + index));
                    event.map(|event| LoggedEvent::Copied(Box::new(event)))
                };
                return rows.into_iter().zip(0..).map(event).collect::<Result<_>>().map(Some);
            }
            tracing::info!(table = %source.name, "what the stream does not bring is read");
            self.session.query("close adopted_rows").await?;
            self.sources.pop();
            self.is_open = false;
        }
        Ok(None)
    }

    /// Everything that was brought is published: notes it, and gives the snapshot up.
    ///
    /// # Errors
    /// As [`AdoptionStore::save`].
    pub async fn finish(mut self, epoch: i64) -> Result<Snapshot> {
        self.store.save(&self.snapshot, epoch).await?;
        self.session.query("commit").await?;
        Ok(self.snapshot)
    }
}

impl CopySource {
    fn event(&self, row: Vec<Option<String>>, seq: i64) -> Result<OwnedEvent> {
        let odd = |what: &str| {
            Error::new(ErrorKind::Schema, format!("a row of {} has {what}", self.name))
                .with_remedy("look at the table; the copy begins anew")
        };
        let mut parts = row.into_iter();
        let mut next = || parts.next().flatten();
        let id = next().unwrap_or_default();
        let (aggregate_type, aggregate_id, kind) = (next(), next(), next());
        let payload = match (next(), self.payload) {
            (None, _) => None,
            (Some(text), Form::Bytes) => {
                Some(hex(&text).ok_or_else(|| odd("bytes in no known form"))?)
            }
            (Some(text), _) => Some(text.into_bytes()),
        };
        let headers = next();
        let created_at = next().map(|text| text.parse::<i64>().map_err(|_| odd("an odd time")));
        let id = if self.id == Form::Bytes { id.trim_start_matches("\\x") } else { &id };
        Ok(OwnedEvent {
            seq,
            id: id_of(id),
            aggregate_type: aggregate_type.unwrap_or_default(),
            aggregate_id: aggregate_id.unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            payload,
            headers,
            created_at_micros: created_at.transpose()?.unwrap_or_else(now_micros),
        })
    }
}

/// For rows that do not say when they were written.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes().as_chunks::<2>();
    if !digits.1.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    digits.0.iter().map(byte).collect()
}

/// The one value of an answer.
fn cell(rows: Vec<Vec<Option<String>>>) -> Result<String> {
    rows.into_iter().flatten().next().flatten().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the server gave no answer to a question with one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_hexadecimal() {
        assert_eq!(hex("\\x00ff5c"), Some(vec![0, 0xff, 0x5c]));
        assert_eq!(hex("\\x"), Some(vec![]));
        for odd in ["00", "\\x0", "\\xzz", "\\x+1"] {
            assert_eq!(hex(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_condition_names_the_snapshot() {
        let mut adopted = Adopted {
            name: OutboxName::default(),
            columns: ColumnMap::restore(Vec::new()),
            pending: None,
            copy_order: "id".to_owned(),
            passed: None,
        };
        assert_eq!(unpublished(&adopted, "99"), "true");
        adopted.pending = Some("tags = '{near}'".to_owned());
        assert_eq!(unpublished(&adopted, "99"), "tags = '{near}'");
        adopted.passed = "10:12:10".parse().ok();
        let condition = unpublished(&adopted, "99");
        assert!(condition.contains("'10:12:10'::pg_snapshot") && condition.contains("99::bigint"));
        assert!(!condition.contains("--") && !condition.contains('{'));
    }
}
