//! Adopted tables: what is remembered of them, and which of their rows are published.
//!
//! Promises: what is noted is on disk before anybody learns of it. Must not: read a row, or write into an adopted table.
//! Fails: with the connection's error; with [`ErrorKind::Schema`] for a table that does not fit.

use std::sync::atomic::{AtomicI32, Ordering};

use hashbrown::HashMap;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::types::ToSql;

use crate::capture::adopted::mapping::{Adopted, ColumnMap, Form, Mapping, TableColumn, ValueForm};
use crate::capture::adopted::row::Forms;
use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Lsn, PgSnapshot, Sql, classify, fill, without_head};

static READ: Sql = Sql::of(include_str!("../../../sql/queries/adopted_read.sql"));
static DELIVERED: Sql = Sql::of(include_str!("../../../sql/queries/capture_delivered.sql"));
static SAVE: Sql = Sql::of(include_str!("../../../sql/queries/adopted_save.sql"));
const TYPES: &str = include_str!("../../../sql/queries/adopted_types.sql");
const COLUMNS: &str = include_str!("../../../sql/queries/adopted_columns.sql");
const ROWS: &str = include_str!("../../../sql/queries/adopted_rows.sql");
const KNOWN: &str = include_str!("../../../sql/queries/adopted_known.sql");
const ATTACHED: &str = include_str!("../../../sql/queries/adopted_attached.sql");
const CHILDREN: &str = include_str!("../../../sql/queries/adopted_children.sql");
static END_READING: Sql = Sql::of(include_str!("../../../sql/queries/adopted_end_reading.sql"));
static MOVED: Sql = Sql::of(include_str!("../../../sql/queries/adopted_moved.sql"));
const OWNER: &str = include_str!("../../../sql/queries/adopted_owner.sql");
static NUMBER: Sql = Sql::of(include_str!("../../../sql/queries/adopted_number.sql"));

/// The adopted tables, in the order of their numbers.
///
/// # Errors
/// When the connection fails, or a row was written by another version.
pub async fn adopted_tables(connection: &Connection) -> Result<Vec<Adopted>> {
    let rows = connection.client().query(READ.text(), &[]).await;
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
        return refuse(no_table(name), "write it as schema.table");
    };
    if !matches!(first.get("kind"), "r" | "p") {
        return refuse(format!("{name} is no table"), "name the table behind it");
    }
    if !first.get::<_, bool>("is_logged") {
        let remedy = format!("Run: alter table {} set logged", name.quoted());
        return refuse(format!("the rows of {name} are not in the log: it is unlogged"), &remedy);
    }
    if first.get("is_part") {
        return refuse(format!("{name} is a part of another table"), "adopt the whole table");
    }
    if let Some(part) = first.get::<_, Option<String>>("unlogged_part") {
        let remedy =
            format!("make it a logged table (alter table {part} set logged), or detach it");
        return refuse(
            format!("the rows of {part}, a part of {name}, are not in the log"),
            &remedy,
        );
    }
    let column = |row: &tokio_postgres::Row| TableColumn {
        name: row.get("name"),
        type_name: row.get("type_name"),
        form: (!row.get::<_, bool>("is_generated")).then(|| Form::of_sender(row.get("sender"))),
    };
    Ok(rows.iter().map(column).collect())
}

/// The same of a table that was adopted under this name.
///
/// # Errors
/// [`ErrorKind::Schema`] with what brings its rows back into the log; the connection's error.
pub async fn adopted_columns(
    connection: &Connection,
    name: &OutboxName,
) -> Result<Vec<TableColumn>> {
    let refused = match table_columns(connection, name).await {
        Err(error) if error.kind() == ErrorKind::Schema => error,
        answered => return answered,
    };
    let moved = connection.client().query_opt(MOVED.text(), &[]).await;
    let moved = moved.map_err(|cause| classify("look for a table that was renamed", cause))?;
    let Some(now) = moved.filter(|_| refused.message() == no_table(name)) else {
        return Err(refused);
    };
    let now = OutboxName { schema: now.get("schema_name"), table: now.get("table_name") };
    let cause = format!("the adopted table {name} is called {now}");
    Err(Error::new(ErrorKind::Schema, cause).with_remedy(way_back(&now, name)))
}

fn no_table(name: &OutboxName) -> String {
    format!("there is no table {name}")
}

/// The statements that give a table its name again.
fn way_back(now: &OutboxName, before: &OutboxName) -> String {
    let renamed = (now.table != before.table).then(|| {
        format!("alter table {} rename to {}", now.quoted(), escape_identifier(&before.table))
    });
    let at = OutboxName { schema: now.schema.clone(), table: before.table.clone() };
    let moved = (now.schema != before.schema).then(|| {
        format!("alter table {} set schema {}", at.quoted(), escape_identifier(&before.schema))
    });
    let steps: Vec<String> = renamed.into_iter().chain(moved).collect();
    format!("run: {}", steps.join("; "))
}

/// The owner of a table whose functions would run as a superuser if this session read it, or only planned to.
///
/// # Errors
/// When the connection fails.
pub async fn owner_below(connection: &Connection, name: &OutboxName) -> Result<Option<String>> {
    let row = connection.client().query_opt(OWNER, &[&name.schema, &name.table]).await;
    let row = row.map_err(|cause| classify("look who owns the table", cause))?;
    Ok(row.map(|row| row.get("owner")))
}

/// Keeps what is published of the adopted tables.
#[derive(Debug)]
pub struct AdoptionStore {
    connection: Connection,
    /// The tables that are read in this session.
    tables: Vec<OutboxName>,
    /// The backend that copies rows; 0 where none does.
    reader: AtomicI32,
}

impl AdoptionStore {
    /// On a session of its own.
    pub fn new(connection: Connection, tables: Vec<OutboxName>) -> Self {
        Self { connection, tables, reader: AtomicI32::new(0) }
    }

    /// The tables that are read in this session.
    pub fn tables(&self) -> &[OutboxName] {
        &self.tables
    }

    /// Notes which backend copies rows from here on.
    pub(super) fn note_reader(&self, backend: i32) {
        self.reader.store(backend, Ordering::Relaxed);
    }

    /// Ends the session that copies rows, whatever it waits for: its client alone would not be missed by a server
    /// that is busy with a function.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn end_reading(&self) -> Result<()> {
        let backend = self.reader.swap(0, Ordering::Relaxed);
        if backend == 0 {
            return Ok(());
        }
        let ended = self.connection.client().execute(END_READING.text(), &[&backend]).await;
        ended.map(drop).map_err(|cause| classify("end the reading of adopted tables", cause))
    }

    /// Its session, to look at the tables.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Notes, on disk, that the stream begins here: what was delivered behind it comes once more.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the buckets are another instance's; the connection's error.
    pub(super) async fn begin_stream(&self, begins: Lsn, epoch: i64) -> Result<()> {
        let noted = self.connection.client().execute(DELIVERED.text(), &[&begins, &epoch]).await;
        let noted = noted.map_err(|cause| classify("note where the stream begins", cause))?;
        if noted == 1 { Ok(()) } else { Err(Error::fenced()) }
    }

    /// Notes, on disk, that the rows of these transactions are published in these tables.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the buckets are another instance's; the connection's error.
    pub async fn save(
        &self,
        tables: &[OutboxName],
        passed: &Snapshot,
        streamed: &[TransactionId],
        epoch: i64,
    ) -> Result<()> {
        let passed = PgSnapshot(passed.clone());
        let streamed: Vec<i64> = streamed.iter().map(|id| id.cast_signed()).collect();
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&passed, &epoch, &streamed, &schemas, &names];
        let saved = self.connection.client().execute(SAVE.text(), &parameters).await;
        let saved =
            saved.map_err(|cause| classify("note what is published of adopted tables", cause))?;
        if saved > 0 { Ok(()) } else { Err(Error::fenced()) }
    }

    /// Numbers for so many rows that are copied, which no other row of a copy has ever: the first of them.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn numbers(&self, rows: i64) -> Result<i64> {
        let row = self.connection.client().query_one(NUMBER.text(), &[&rows]).await;
        let row = row.map_err(|cause| classify("number the rows that are copied", cause))?;
        Ok(row.get("given_before"))
    }
}

/// The condition for rows that are not published. `near` is a transaction id at or above theirs, read in
/// the same snapshot as the rows.
pub fn unpublished(adopted: &Adopted, near: &str) -> String {
    let pending = adopted.pending.as_deref().unwrap_or("true");
    let Some(passed) = &adopted.passed else { return pending.to_owned() };
    let known = known(adopted, passed, near, "adopted_row.xmin");
    let attached = attached(adopted, passed, near);
    let places = [("{known}", known.as_str()), ("{attached}", &attached), ("{pending}", pending)];
    fill(without_head(ROWS), &places)
}

/// The query for parts of a table that became such in a transaction that is not known to be published.
pub(super) fn attached(adopted: &Adopted, passed: &Snapshot, near: &str) -> String {
    let (known, root) =
        (known(adopted, passed, near, "edge.xmin"), escape_literal(&adopted.name.quoted()));
    let places = [
        ("{known}", known.as_str()),
        ("{root}", root.trim()),
        ("{near}", near),
        ("{near}", near),
        ("{known}", &known),
    ];
    fill(without_head(ATTACHED), &places)
}

/// The condition that the transaction of this `xmin` is known to be published.
fn known(adopted: &Adopted, passed: &Snapshot, near: &str, xmin: &str) -> String {
    let ids: Vec<String> = adopted.proven().iter().map(ToString::to_string).collect();
    let (passed, proven) = (format!("'{passed}'"), format!("'{{{}}}'", ids.join(",")));
    let places = [
        ("{passed}", passed.as_str()),
        ("{proven}", &proven),
        ("{passed}", &passed),
        ("{xmin}", xmin),
        ("{near}", near),
        ("{near}", near),
        ("{xmin}", xmin),
    ];
    fill(without_head(KNOWN), &places)
}

/// The tables whose rows are a table's, and come under their own names: itself, and those that inherit from it. By their
/// object identifiers, with the table's number.
///
/// # Errors
/// When the connection fails.
pub async fn known_tables(
    connection: &Connection,
    tables: &[Adopted],
) -> Result<HashMap<u32, usize>> {
    let mut known = HashMap::new();
    for (number, table) in tables.iter().enumerate() {
        let rows = connection.client().query(CHILDREN, &[&table.name.quoted()]).await;
        let rows = rows.map_err(|cause| classify("look for adopted tables", cause))?;
        known.extend(rows.iter().map(|row| (row.get::<_, u32>("oid"), number)));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_back_to_its_name() {
        let name = |schema: &str, table: &str| OutboxName {
            schema: schema.to_owned(),
            table: table.to_owned(),
        };
        assert_eq!(
            way_back(&name("b", "x"), &name("a", "y")),
            r#"run: alter table "b"."x" rename to "y"; alter table "b"."y" set schema "a""#
        );
        assert_eq!(
            way_back(&name("b", "y"), &name("a", "y")),
            r#"run: alter table "b"."y" set schema "a""#
        );
    }

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
        let condition = unpublished(&adopted, "99");
        assert!(condition.contains("'{}'::bigint[]") && condition.contains("(tags = '{near}')"));
    }
}
