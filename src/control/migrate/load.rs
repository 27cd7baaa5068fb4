//! Reads what the relay must know about the outbox, and checks that it is what migrations made.
//!
//! Promises: an [`Outbox`] that comes from here has the columns, partitions and sequence on which
//! the order of events rests. Must not: change anything.
//! Fails: [`ErrorKind::Schema`], with what is missing and how to get it.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Row};

use crate::control::migrate::registry;
use crate::control::migrate::registry::{Applied, LaterMigrations, MIGRATIONS};
use crate::control::migrate::vacancy::check_rows;
use crate::control::migrate::{MigrationState, Settings, check_version, read_settings};
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::{Outbox, OutboxName, check_sequence};
use crate::postgres::{Sql, classify};
use crate::schema::{self, Schema};

const OUTBOX_SHAPE: &str = include_str!("../../../sql/queries/outbox_shape.sql");
const MISNAMED: &str = include_str!("../../../sql/queries/outbox_misnamed.sql");
static ELSEWHERE: Sql = Sql::of(include_str!("../../../sql/queries/outbox_elsewhere.sql"));
const GENERATIONS: i64 = 3;

const MIGRATE: &str = "run `postrider migrate up`";
const RESTORE: &str = "restore the table as `postrider migrate print` shows it";

/// Describes the outbox.
///
/// # Errors
/// [`ErrorKind::Schema`] when it is missing, was made by another version, or was changed since.
pub async fn load(client: &Client, name: &OutboxName) -> Result<Outbox> {
    load_with(client, name, LaterMigrations::Refused).await.map(|loaded| loaded.outbox)
}

/// The outbox, and what a later version has done to its schema.
#[derive(Debug)]
pub struct LoadedOutbox {
    /// As it was made.
    pub outbox: Outbox,
    /// The latest migration, where it is of a later version.
    pub later_migration: Option<String>,
}

/// As [`load`], where migrations of a later version may be borne.
///
/// # Errors
/// As [`load`].
pub async fn load_with(
    client: &Client,
    name: &OutboxName,
    later: LaterMigrations,
) -> Result<LoadedOutbox> {
    let state = MigrationState::read(client, name).await?;
    check_version(state.server_version)?;
    if !state.has_registry {
        return Err(not_migrated(schema::chosen(), name));
    }
    let applied = registry::read_with(client, later).await?;
    check_rows(&state, applied.len())?;
    let later_migration = applied.get(MIGRATIONS.len()..).and_then(<[_]>::last).map(Applied::title);
    if let Some(pending) = MIGRATIONS.get(applied.len()) {
        let cause = format!("migration {} is pending", pending.title());
        return Err(Error::new(ErrorKind::Schema, cause).with_remedy(MIGRATE));
    }
    let settings = read_settings(client).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::Schema,
            format!("the table {} is empty", schema::chosen().of("outbox")),
        )
        .with_remedy("restore its row from a backup: it says how the outbox was made")
    })?;
    if settings.outbox != *name {
        let whose = match schema::chosen().unusual() {
            None => "this database's outbox".to_owned(),
            Some(other) => format!("the outbox of schema {other}"),
        };
        let cause = format!("{whose} is {}, not {name}", settings.outbox);
        return Err(Error::new(ErrorKind::Schema, cause)
            .with_remedy(format!("give --outbox '{}'", settings.outbox)));
    }
    let failed = |cause| classify("look at the outbox's columns", cause);
    let shape = client.query_opt(OUTBOX_SHAPE, &[&name.quoted()]).await.map_err(failed)?;
    let Some(shape) = shape else { return Err(missing(client, name).await?) };
    let sequence = check(&settings, &TableShape::read(&shape).map_err(failed)?)?;
    let misnamed = misnamed(client, name).await?;
    if let Some(error) = moved_parts(misnamed.iter().filter(|part| !part.is_leaf)) {
        return Err(error);
    }
    let Settings { outbox, buckets, payload, generation_seconds } = settings;
    let OutboxName { schema, table } = outbox;
    let outbox = Outbox { schema, table, buckets, payload, generation_seconds, sequence };
    Ok(LoadedOutbox { outbox, later_migration })
}

/// The error for a database without the schema's control tables.
fn not_migrated(schema: &Schema, name: &OutboxName) -> Error {
    let (cause, remedy) = match schema.unusual() {
        None => (
            format!("there is no outbox: this database was not migrated for {name}"),
            MIGRATE.to_owned(),
        ),
        Some(other) => (
            format!("there is no outbox: this database was not migrated for schema {other}"),
            format!(
                "check --schema (POSTRIDER_SCHEMA); to make it, run `postrider migrate up --schema '{other}'` with --outbox \
                 for its table"
            ),
        ),
    };
    Error::new(ErrorKind::Schema, cause).with_remedy(remedy)
}

/// Why there is no table of that name: it is somewhere else, or gone.
async fn missing(client: &Client, name: &OutboxName) -> Result<Error> {
    let failed = |cause| classify("look where the outbox is", cause);
    let Some(found) = client.query_opt(ELSEWHERE.text(), &[]).await.map_err(failed)? else {
        let cause = format!("the table {name} is gone");
        return Ok(Error::new(ErrorKind::Schema, cause).with_remedy(RESTORE));
    };
    let now = OutboxName {
        schema: found.try_get("schema_name").map_err(failed)?,
        table: found.try_get("table_name").map_err(failed)?,
    };
    let cause = format!("the outbox {name} was moved or renamed: it is {now} now");
    Ok(Error::new(ErrorKind::Schema, cause).with_remedy(put_back(&now, name)))
}

/// The statements that lead a table back to its place.
fn put_back(now: &OutboxName, made: &OutboxName) -> String {
    let mut commands = Vec::new();
    if now.schema != made.schema {
        let schema = escape_identifier(&made.schema);
        commands.push(format!("alter table {} set schema {schema}", now.quoted()));
    }
    if now.table != made.table {
        let moved = OutboxName { schema: made.schema.clone(), table: now.table.clone() };
        let table = escape_identifier(&made.table);
        commands.push(format!("alter table {} rename to {table}", moved.quoted()));
    }
    format!("put it back; run: {}", commands.join("; "))
}

/// A partition of the outbox with another name than it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisnamedPart {
    /// What it is called.
    pub now: OutboxName,
    /// What it was made as.
    pub made: OutboxName,
    /// Whether it holds rows, as one generation of a bucket; else it is a whole bucket.
    pub is_leaf: bool,
}

/// The partitions that somebody has renamed, or moved to another schema. What they are stands in their bounds.
///
/// # Errors
/// When the connection fails.
pub async fn misnamed(client: &Client, name: &OutboxName) -> Result<Vec<MisnamedPart>> {
    let failed = |cause| classify("look at the names of the outbox's partitions", cause);
    let rows = client.query(MISNAMED, &[&name.schema, &name.table]).await.map_err(failed)?;
    let part = |row: &Row| MisnamedPart {
        now: OutboxName { schema: row.get("schema_name"), table: row.get("table_name") },
        made: OutboxName { schema: name.schema.clone(), table: row.get("made_name") },
        is_leaf: row.get("is_leaf"),
    };
    Ok(rows.iter().map(part).collect())
}

/// The trouble with partitions that are read by the names with which they were made; none if there are none.
pub fn moved_parts<'a>(parts: impl Iterator<Item = &'a MisnamedPart>) -> Option<Error> {
    let mut parts = parts.peekable();
    let MisnamedPart { now, made, .. } = parts.peek()?;
    let cause = format!("the partition {made} of the outbox was moved or renamed: it is {now} now");
    let remedies: Vec<String> = parts.map(|part| put_back(&part.now, &part.made)).collect();
    Some(Error::new(ErrorKind::Schema, cause).with_remedy(remedies.join("; then ")))
}

/// What the catalog says about the table.
struct TableShape {
    columns: Vec<String>,
    buckets: i64,
    leaves: i64,
    sequence: Option<String>,
    sequence_cache: Option<i64>,
    sequence_increment: Option<i64>,
}

impl TableShape {
    fn read(row: &Row) -> std::result::Result<Self, tokio_postgres::Error> {
        Ok(Self {
            columns: row.try_get("columns")?,
            buckets: row.try_get("buckets")?,
            leaves: row.try_get("leaves")?,
            sequence: row.try_get("sequence")?,
            sequence_cache: row.try_get("sequence_cache")?,
            sequence_increment: row.try_get("sequence_increment")?,
        })
    }
}

/// Compares the table with what migration 2 makes; gives the sequence's name.
///
/// Columns that somebody added behind ours do no harm.
fn check(settings: &Settings, shape: &TableShape) -> Result<String> {
    let payload = format!("payload {}", settings.payload);
    // The server quotes a schema's name only where it has to.
    let schema = schema::chosen();
    let (txid, plain_txid) = (
        format!("txid {}", schema.of("own_transaction")),
        format!("txid {}.own_transaction", schema.name()),
    );
    let expected = [
        txid.as_str(),
        "seq bigint",
        "id uuid",
        "aggregatetype text",
        "aggregateid text",
        "type text",
        &payload,
        "headers jsonb",
        "created_at timestamp with time zone",
        "generation smallint",
    ];
    let name = &settings.outbox;
    let changed = |what: String, remedy: &str| {
        let cause = format!("{name} was changed: {what}");
        Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy))
    };
    for (place, column) in expected.into_iter().enumerate() {
        match shape.columns.get(place) {
            Some(found) if found == column || column == txid && *found == plain_txid => {}
            Some(found) => return changed(format!("found {found:?}, not {column:?}"), RESTORE),
            None => return changed(format!("the column {column:?} is missing"), RESTORE),
        }
    }
    let buckets = i64::from(settings.buckets);
    if (shape.buckets, shape.leaves) != (buckets, buckets * GENERATIONS) {
        let what = format!("{} buckets with {} leaves", shape.buckets, shape.leaves);
        return changed(format!("it has {what}, not {buckets} with three each"), RESTORE);
    }
    let Some(sequence) = &shape.sequence else {
        return changed("the column seq has no sequence".to_owned(), RESTORE);
    };
    let (cache, increment) = (shape.sequence_cache, shape.sequence_increment);
    check_sequence(sequence, cache.unwrap_or(1), increment.unwrap_or(1))?;
    Ok(sequence.clone())
}
