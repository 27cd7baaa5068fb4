//! Adopted tables: what is remembered of them, and the rows that the stream does not bring.
//!
//! Promises: a copy brings each row once that the slot's snapshot sees and nobody has published; what is
//! written later is in the stream. Must not: decide when to copy, or write into an adopted table.
//! Fails: with the connection's error; with [`ErrorKind::Schema`] for a table that does not fit.
//!
//! The copy runs in the transaction that made the slot, on the replication session itself: its snapshot
//! is exactly where the stream begins.

use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::types::ToSql;

use super::adopted_row::{Forms, id_of};
use super::mode::KnownSlot;
use super::printed::from_hex;
use super::wal::LoggedEvent;
use crate::adopted::{Adopted, ColumnMap, Form, Mapping, Origin, Part, TableColumn, ValueForm};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Arrival, OwnedEvent};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Lsn, PgSnapshot, Walsender, classify, fill, without_head};
use crate::snapshot::{Snapshot, TransactionId};
use crate::streamed::widen;

const READ: &str = include_str!("../../sql/queries/adopted_read.sql");
const SAVE: &str = include_str!("../../sql/queries/adopted_save.sql");
const TYPES: &str = include_str!("../../sql/queries/adopted_types.sql");
const COLUMNS: &str = include_str!("../../sql/queries/adopted_columns.sql");
const NEAR: &str = include_str!("../../sql/queries/adopted_near.sql");
const ROWS: &str = include_str!("../../sql/queries/adopted_rows.sql");
const COUNT: &str = include_str!("../../sql/queries/adopted_count.sql");
const NUMBER: &str = include_str!("../../sql/queries/adopted_number.sql");
const COPY: &str = include_str!("../../sql/queries/adopted_copy.sql");

/// Numbers of copied rows lie above the places of all streamed ones.
const COPIED_BASE: i64 = (1 << 62) + (1 << 61);

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
            let streamed: Option<Vec<i64>> = row.get("streamed");
            let unsigned = |ids: Vec<i64>| ids.into_iter().map(i64::cast_unsigned).collect();
            Ok(Adopted {
                name: OutboxName { schema: row.get("schema_name"), table: row.get("table_name") },
                columns: ColumnMap::restore(mappings?),
                pending: row.get("pending"),
                copy_order: row.get("copy_order"),
                // Beside another snapshot these ids may be those of other transactions.
                streamed: streamed.filter(|_| passed.is_some()).map(unsigned),
                passed: passed.map(|passed| passed.0),
            })
        })
        .collect()
}

/// In which form the stream has to bring the values of these tables. One that does not fit any more is told by its
/// rows, if they come.
///
/// # Errors
/// When the connection fails.
pub async fn value_form(connection: &Connection, tables: &[Adopted]) -> Result<ValueForm> {
    for table in tables {
        let columns = match table_columns(connection, &table.name).await {
            Ok(columns) => columns,
            Err(error) if error.kind() == ErrorKind::Schema => continue,
            Err(error) => return Err(error),
        };
        if table.columns.value_form(&columns) == ValueForm::Text {
            return Ok(ValueForm::Text);
        }
    }
    Ok(ValueForm::Binary)
}

/// Which types are written in which form.
///
/// # Errors
/// When the connection fails.
pub async fn forms(connection: &Connection) -> Result<Forms> {
    let rows = connection.client().query(TYPES, &[]).await;
    let rows = rows.map_err(|cause| classify("look at the types", cause))?;
    let form =
        |row: &tokio_postgres::Row| (row.get::<_, u32>("oid"), Form::of_sender(row.get("sender")));
    Ok(rows.iter().map(form).collect())
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
        type_name: row.get("type_name"),
        form: (!row.get::<_, bool>("is_generated")).then(|| Form::of_sender(row.get("sender"))),
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
    pub async fn save(
        &self,
        passed: &Snapshot,
        streamed: &[TransactionId],
        epoch: i64,
    ) -> Result<()> {
        let passed = PgSnapshot(passed.clone());
        let streamed: Vec<i64> = streamed.iter().map(|id| id.cast_signed()).collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&passed, &epoch, &streamed];
        let saved = self.connection.client().execute(SAVE, &parameters).await;
        let saved =
            saved.map_err(|cause| classify("note what is published of adopted tables", cause))?;
        if saved > 0 { Ok(()) } else { Err(Error::fenced()) }
    }

    /// Numbers for so many rows that are copied, which no other row of a copy has ever: the first of them.
    async fn numbers(&self, rows: i64) -> Result<i64> {
        let row = self.connection.client().query_one(NUMBER, &[&rows]).await;
        let row = row.map_err(|cause| classify("number the rows that are copied", cause))?;
        Ok(row.get("given_before"))
    }
}

/// The condition for rows that are not published. `near` is a transaction id at or above theirs, read in
/// the same snapshot as the rows.
pub fn unpublished(adopted: &Adopted, near: &str) -> String {
    match (&adopted.passed, &adopted.pending) {
        (Some(passed), _) => {
            let rows = without_head(ROWS);
            let ids: Vec<String> = adopted.proven().iter().map(ToString::to_string).collect();
            let (passed, proven) = (format!("'{passed}'"), format!("'{{{}}}'", ids.join(",")));
            let places = [
                ("{passed}", passed.as_str()),
                ("{proven}", &proven),
                ("{passed}", &passed),
                ("{near}", near),
                ("{near}", near),
            ];
            fill(rows, &places)
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
        let near_id = near.parse().map_err(|_| no_answer())?;
        let mut sources = Vec::new();
        let mut rows = 0_i64;
        for table in tables {
            let source = CopySource::new(table, &near, store.connection()).await?;
            let counted = self.session.query(&source.count).await;
            let counted = cell(counted.map_err(|error| source.unread(error))?)?;
            rows += counted.parse::<i64>().unwrap_or(i64::MAX);
            sources.push(source);
        }
        sources.reverse();
        let place = COPIED_BASE + store.numbers(rows).await?;
        let Self { session, snapshot, begins } = self;
        tracing::info!(rows, "publishing rows of adopted tables that the stream does not bring");
        // No record of the log begins inside another: nothing of the stream arrives there.
        let arrival = Arrival { commit_lsn: begins.0 - 1, index: 0 };
        let ids = CopiedIds { near: near_id, from: snapshot.xmin(), found: Vec::new() };
        Ok(AdoptedCopy { session, snapshot, sources, is_open: false, place, arrival, ids, store })
    }
}

/// What is to be read of one table.
#[derive(Debug)]
struct CopySource {
    name: OutboxName,
    count: String,
    copy: String,
    /// The forms of the parts: bytes come in hexadecimal, what is padded with its blanks.
    forms: [Form; Part::ALL.len()],
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
            forms: Part::ALL.map(form),
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
    /// The number of the next row: unlike that of any other row.
    place: i64,
    /// Behind all that any stream brought before, and before all that the one to come brings.
    arrival: Arrival,
    ids: CopiedIds,
    store: Arc<AdoptionStore>,
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
    /// The next row, one at a time as it may be large; none when all were brought. May be given up while it
    /// waits, and called again.
    ///
    /// # Errors
    /// When the connection fails, or a value is not what its column's type says.
    pub async fn next(&mut self) -> Result<Option<(LoggedEvent, Arrival)>> {
        while let Some(source) = self.sources.last() {
            if !std::mem::replace(&mut self.is_open, true) {
                self.session.ask_rows(&source.copy)?;
            }
            if let Some(row) = self.session.next_row().await? {
                self.ids.note(row.last().and_then(Option::as_deref));
                let event = LoggedEvent::Copied(Box::new(source.event(row, self.place)?));
                let arrival = self.arrival;
                self.place += 1;
                self.arrival.index = arrival.index.saturating_add(1);
                return Ok(Some((event, arrival)));
            }
            tracing::info!(table = %source.name, "what the stream does not bring is read");
            self.sources.pop();
            self.is_open = false;
        }
        Ok(None)
    }

    /// What had committed where the stream begins.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Ids of rows that were brought, as far as the snapshot alone does not say that they are published.
    pub fn take_ids(&mut self) -> Vec<TransactionId> {
        std::mem::take(&mut self.ids.found)
    }

    /// Everything that was brought is published: notes it, and gives the snapshot up.
    ///
    /// # Errors
    /// As [`AdoptionStore::save`].
    pub async fn finish(mut self, proven: &[TransactionId], epoch: i64) -> Result<Snapshot> {
        self.store.save(&self.snapshot, proven, epoch).await?;
        self.session.query("commit").await?;
        Ok(self.snapshot)
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

    fn event(&self, row: Vec<Option<String>>, seq: i64) -> Result<OwnedEvent> {
        let odd = |what: &str| {
            Error::new(ErrorKind::Schema, format!("a row of {} has {what}", self.name))
                .with_remedy("look at the table; the copy begins anew")
        };
        let mut parts = row.into_iter().zip(self.forms).map(|(text, form)| match form {
            Form::Padded => text.map(|text| text.trim_end_matches(' ').to_owned()),
            _ => text,
        });
        let mut next = || parts.next().flatten();
        let id = next().unwrap_or_default();
        let (aggregate_type, aggregate_id, kind) = (next(), next(), next());
        let payload = match (next(), self.forms[Part::Payload as usize]) {
            (None, _) => None,
            (Some(text), Form::Bytes) => {
                Some(from_hex(text.as_bytes()).ok_or_else(|| odd("bytes in no known form"))?)
            }
            (Some(text), _) => Some(text.into_bytes()),
        };
        let headers = next();
        let created_at = next().map(|text| text.parse::<i64>().map_err(|_| odd("an odd time")));
        let id = if self.forms[Part::Id as usize] == Form::Bytes {
            id.trim_start_matches("\\x")
        } else {
            &id
        };
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

/// The one value of an answer.
fn cell(rows: Vec<Vec<Option<String>>>) -> Result<String> {
    rows.into_iter().flatten().next().flatten().ok_or_else(no_answer)
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Internal, "the server gave no answer to a question with one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_names_the_snapshot() {
        let mut adopted = Adopted {
            name: OutboxName::default(),
            columns: ColumnMap::restore(Vec::new()),
            pending: None,
            copy_order: "id".to_owned(),
            passed: None,
            streamed: None,
        };
        assert_eq!(unpublished(&adopted, "99"), "true");
        adopted.pending = Some("tags = '{near}'".to_owned());
        assert_eq!(unpublished(&adopted, "99"), "tags = '{near}'");
        adopted.passed = "10:12:10".parse().ok();
        let condition = unpublished(&adopted, "99");
        assert!(condition.contains("'10:12:10'::pg_snapshot") && condition.contains("99::bigint"));
        assert!(!condition.contains("--") && !condition.contains("{p"));
        assert!(condition.contains("'{11}'::bigint[]"), "the latest that had ended: {condition}");
        adopted.streamed = Some(Vec::new());
        assert!(unpublished(&adopted, "99").contains("'{}'::bigint[]"));
    }
}
