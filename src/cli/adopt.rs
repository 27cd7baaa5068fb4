//! `postrider adopt`: publishes from the log the rows of a table that postrider did not make.
//!
//! Promises: what is asked for is checked against the table before anything is changed; giving a table
//! back tells exactly which rows are published. Must not: read an event.
//! Fails: when the table does not fit, rights are missing, or an instance still reads it.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_postgres::{IsolationLevel, Transaction};

use crate::capture::adopted::mapping::{
    Adopted, ColumnMap, Form, Mapping, Origin, Part, TableColumn,
};
use crate::capture::adopted::registry::{adopted_tables, owner_below, table_columns, unpublished};
use crate::capture::mode::{Mode, read_state};
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::requirements::{AdoptedReaders, missing_rights};
use crate::cli::{block_on, output, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::lease::live_instances;
use crate::control::migrate;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, PgSnapshot, classify, connect, fill};

const INSERT: &str = include_str!("../../sql/queries/adopted_insert.sql");
const DELETE: &str = include_str!("../../sql/queries/adopted_delete.sql");
const CHECK: &str = include_str!("../../sql/queries/adopted_check.sql");
const MARK: &str = include_str!("../../sql/queries/adopted_mark.sql");
const NEAR: &str = include_str!("../../sql/queries/adopted_near.sql");
const COUNT: &str = include_str!("../../sql/queries/adopted_count.sql");
const CHANGES: &str = include_str!("../../sql/queries/adopted_changes.sql");
const TRIGGERS: &str = include_str!("../../sql/queries/adopted_triggers.sql");
const PARTITION_KEYS: &str = include_str!("../../sql/queries/adopted_partition_keys.sql");
const END_PUBLICATION: &str = include_str!("../../sql/queries/adopted_publication_end.sql");

/// Publishes an existing table's rows from the WAL.
///
/// Rows are read by --capture wal, in the order of their commits. Rows that are there already and that
/// nobody has published (--pending) are published first, in the order of --order-by. Updates and deletes
/// are ignored. A null reads as an empty text. An id that is no UUID becomes one: a number one that ends
/// with it, a text by a hash.
///
/// The server prints ids, kinds and aggregates of whatever type; a payload is json, jsonb, text, bytea or xml.
///
/// Stop whoever publishes the table before; afterwards give it back with --end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider adopt shop.outboxevent
  postrider adopt shop.events --column aggregateid=order_id --column \"aggregatetype='order'\" \\
      --column type=kind --column payload=body --pending 'published_at is null' --order-by id
  postrider adopt shop.events --end --mark 'published_at = now()'")]
pub(super) struct AdoptArguments {
    /// The table.
    table: String,

    /// Takes a part of the event from this column: id, aggregatetype, aggregateid, type, payload, headers,
    /// created_at; aggregatetype and type may be a constant in quotes [default: the columns of these names].
    #[arg(long = "column", value_name = "PART=COLUMN")]
    columns: Vec<Mapping>,

    /// Publishes only existing rows that match this SQL condition [default: all]. With --end: ends only if this
    /// is the recorded condition, and runs no other.
    #[arg(long, value_name = "SQL")]
    pending: Option<String>,

    /// Treats rows visible to this snapshot as already published (pg_current_snapshot(), taken while nobody
    /// could write).
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "pending")]
    since: Option<Snapshot>,

    /// Publishes existing rows in this order [default: by id if that is a number, else by created_at and id].
    #[arg(long, value_name = "SQL")]
    order_by: Option<String>,

    /// Gives the table back; no instance may run.
    #[arg(long, conflicts_with_all = ["columns", "since", "order_by"])]
    end: bool,

    /// With --end: changes the rows that are published, so that another publisher goes on with the rest.
    #[arg(long, value_name = "SQL", requires = "end")]
    mark: Option<String>,

    /// Only says what would be done.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    common: CommonSettings,
}

pub(super) fn run(arguments: AdoptArguments) -> Result<ExitCode> {
    let (common, ..) = prepare(arguments.common.clone(), RelaySettings::default(), "warn")?;
    let (database, outbox) = (config::database(&common)?, config::outbox(&common)?);
    let table: OutboxName = arguments.table.parse()?;
    block_on(async {
        let mut connection = connect(&database, "adopt").await?;
        migrate::load(connection.client(), &outbox).await?;
        match arguments.end {
            true => end(&mut connection, &table, &arguments).await,
            false => adopt(&mut connection, &database, &outbox, &table, &arguments).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn adopt(
    connection: &mut Connection,
    database: &DatabaseConfig,
    outbox: &OutboxName,
    table: &OutboxName,
    arguments: &AdoptArguments,
) -> Result<()> {
    if table == outbox {
        let cause = format!("{table} is postrider's own outbox");
        return Err(Error::new(ErrorKind::Config, cause).with_remedy("it is published as it is"));
    }
    let columns = table_columns(connection, table).await?;
    let map = ColumnMap::resolve(&arguments.columns, &columns)?;
    let copy_order = match &arguments.order_by {
        Some(order) => order.clone(),
        None => default_order(&map, &columns)?,
    };
    let adopted = Adopted {
        name: table.clone(),
        columns: map,
        pending: arguments.pending.clone(),
        copy_order,
        passed: arguments.since.clone(),
        streamed: None,
    };
    say_as_whom(connection, table).await?;
    let waiting = count_pending(connection, &adopted).await?;
    output::answer(&description(&adopted, waiting))?;
    say_what_moves(connection, &adopted).await?;
    if arguments.dry_run {
        return output::answer("nothing was changed");
    }
    if !insert(connection, &adopted).await? {
        let cause = format!("{table} is adopted already");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy(format!("give it back first: postrider adopt {table} --end")));
    }
    if let Err(error) = publish(database, outbox).await {
        delete(connection, table).await?;
        return Err(error);
    }
    say_missing_rights(connection, table).await?;
    output::answer(match read_state(connection).await?.mode {
        Mode::Wal => "adopted; the reader makes a new slot and publishes these first",
        _ => "adopted; run `postrider capture switch wal` to publish it",
    })
}

/// The copy reads the table by the relay's role; the stream needs no right on it.
async fn say_missing_rights(connection: &Connection, table: &OutboxName) -> Result<()> {
    let whose = AdoptedReaders { this_role: false, instances: true, group: true };
    for missing in missing_rights(connection, table, whose).await? {
        output::answer(&format!("{}; {}", missing.cause, missing.remedy))?;
    }
    Ok(())
}

/// A table's owner may have PostgreSQL run functions as whoever reads it.
async fn say_as_whom(connection: &Connection, table: &OutboxName) -> Result<()> {
    let Some(owner) = owner_below(connection, table).await? else { return Ok(()) };
    tracing::warn!(
        "functions of {}, who owns {table} or a part of it, may run as you, a superuser, when it is read; call this \
         as the table's owner, or as the role that owns postrider's tables",
        legible::name(&owner)
    );
    Ok(())
}

/// In the log a row that moves to another partition is a new one.
async fn say_what_moves(connection: &Connection, adopted: &Adopted) -> Result<()> {
    let Some(pending) = &adopted.pending else { return Ok(()) };
    let row =
        connection.client().query_one(PARTITION_KEYS, &[&adopted.name.quoted(), pending]).await;
    let row = row.map_err(|cause| classify("look at the table's partitions", cause))?;
    let Some(columns) = row.get::<_, Option<String>>("columns") else { return Ok(()) };
    output::answer(&format!(
        "the table is partitioned by {columns}, which --pending names: a row that moves to another partition by an \
         update is published again; let nobody change it while the table is adopted"
    ))
}

/// Refuses to run another condition than the caller expects.
fn expect_pending(adopted: &Adopted, expected: Option<&String>) -> Result<()> {
    let recorded = adopted.pending.as_ref();
    if expected.is_none() || expected == recorded {
        return Ok(());
    }
    let shown = recorded.map_or_else(|| "none".to_owned(), |pending| whole(pending));
    let cause = format!("another --pending is recorded for {}: {shown}", adopted.name);
    Err(Error::new(ErrorKind::Config, cause).with_remedy(
        "find out who wrote it into postrider.adopted; to run it all the same, give it as it stands there",
    ))
}

/// SQL that will run is shown to its last letter: what is cut off may be what matters.
fn whole(sql: &str) -> String {
    legible::shown(sql, usize::MAX)
}

/// The recorded condition, before it runs with the caller's rights.
fn say_condition(adopted: &Adopted) -> Result<()> {
    let Some(pending) = &adopted.pending else { return Ok(()) };
    output::answer(&format!(
        "runs with your rights, from postrider.adopted.pending: {}",
        whole(pending)
    ))
}

/// What else runs with the caller's rights when rows are marked.
async fn say_triggers(connection: &Connection, adopted: &Adopted) -> Result<()> {
    let triggers = connection.client().query(TRIGGERS, &[&adopted.name.quoted()]).await;
    for row in triggers.map_err(|cause| classify("look at the table's triggers", cause))? {
        let name: String = row.get("name");
        output::answer(&format!(
            "fires with your rights for each row that is marked: trigger {}",
            legible::name(&name)
        ))?;
    }
    Ok(())
}

/// The publication is made here: the relay's role need not own the table.
async fn publish(database: &DatabaseConfig, outbox: &OutboxName) -> Result<()> {
    let connection = connect(database, "slot").await?;
    let keeper = SlotKeeper::open(connection, database, outbox.clone(), Mode::Wal).await?;
    keeper.make_publication().await.map(|_| ())
}

fn default_order(map: &ColumnMap, columns: &[TableColumn]) -> Result<String> {
    let column = |part| match map.origin(part) {
        Some(Origin::Column(name)) => columns.iter().find(|column| column.name == *name),
        Some(Origin::Constant(_)) | None => None,
    };
    let quoted = |column: &TableColumn| postgres_protocol::escape::escape_identifier(&column.name);
    match (column(Part::Id), column(Part::CreatedAt)) {
        (Some(id), _) if matches!(id.form, Some(Form::Integer | Form::Numeric)) => Ok(quoted(id)),
        (Some(id), Some(created_at)) => Ok(format!("{}, {}", quoted(created_at), quoted(id))),
        _ => Err(Error::new(
            ErrorKind::Config,
            "the table does not tell in which order its rows were written",
        )
        .with_remedy("give --order-by, like --order-by written_at")),
    }
}

async fn count_pending(connection: &mut Connection, adopted: &Adopted) -> Result<i64> {
    let (transaction, near) = one_snapshot(connection).await?;
    let (quoted, condition) = (adopted.name.quoted(), unpublished(adopted, &near));
    let places = [
        ("{table}", quoted.as_str()),
        ("{condition}", condition.as_str()),
        ("{order}", &adopted.copy_order),
    ];
    let row = transaction.query_one(&fill(CHECK, &places), &[]).await;
    let row = row.map_err(|cause| {
        let error = classify("read the rows that are pending", cause);
        Error::new(ErrorKind::Config, error.message().to_owned())
            .with_remedy("--pending is a condition of SQL, --order-by what follows `order by`")
    })?;
    Ok(row.get(0))
}

/// A transaction that sees one state of the table, and a transaction id at or above all that it sees.
async fn one_snapshot(connection: &mut Connection) -> Result<(Transaction<'_>, String)> {
    let failed = |cause| classify("begin a transaction", cause);
    let begun = connection.client_mut().build_transaction();
    let begun = begun.isolation_level(IsolationLevel::RepeatableRead).start().await;
    let transaction = begun.map_err(failed)?;
    let near: i64 = transaction.query_one(NEAR, &[]).await.map_err(failed)?.get(0);
    Ok((transaction, near.to_string()))
}

fn description(adopted: &Adopted, waiting: i64) -> String {
    let pairs: Vec<String> = adopted.columns.mappings().iter().map(ToString::to_string).collect();
    format!(
        "{}: {}; {waiting} rows are pending, by {}",
        adopted.name,
        pairs.join(", "),
        adopted.copy_order
    )
}

async fn insert(connection: &Connection, adopted: &Adopted) -> Result<bool> {
    let OutboxName { schema, table } = &adopted.name;
    let columns: Vec<String> = adopted.columns.mappings().iter().map(ToString::to_string).collect();
    let passed = adopted.passed.clone().map(PgSnapshot);
    let inserted = connection
        .client()
        .execute(INSERT, &[schema, table, &columns, &adopted.pending, &adopted.copy_order, &passed])
        .await;
    Ok(inserted.map_err(|cause| classify("adopt the table", cause))? == 1)
}

async fn delete(connection: &Connection, name: &OutboxName) -> Result<()> {
    let deleted = connection.client().execute(DELETE, &[&name.schema, &name.table]).await;
    deleted.map(|_| ()).map_err(|cause| classify("give the table back", cause))
}

async fn end(
    connection: &mut Connection,
    table: &OutboxName,
    arguments: &AdoptArguments,
) -> Result<()> {
    let tables = adopted_tables(connection).await?;
    let Some(adopted) = tables.into_iter().find(|adopted| adopted.name == *table) else {
        let cause = format!("{table} is not adopted");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("see `postrider capture show` for the tables that are"));
    };
    let running = live_instances(connection).await?;
    if running > 0 {
        let cause = format!("instances are running ({running}), and publish more of {table}");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("stop them; they save how far they have come"));
    }
    expect_pending(&adopted, arguments.pending.as_ref())?;
    say_condition(&adopted)?;
    say_as_whom(connection, table).await?;
    if arguments.mark.is_some() {
        say_triggers(connection, &adopted).await?;
    }
    let failed = |cause| classify("give the table back", cause);
    let (transaction, near) = one_snapshot(connection).await?;
    let rest = unpublished(&adopted, &near);
    let quoted = table.quoted();
    let count = fill(COUNT, &[("{table}", &quoted), ("{condition}", &rest)]);
    let left: i64 = transaction.query_one(&count, &[]).await.map_err(failed)?.get(0);
    let mut said = format!("{left} rows of {table} are not known to be published");
    if let Some(mark) = &arguments.mark {
        let pending = adopted.pending.as_deref().unwrap_or("true");
        let places = [
            ("{table}", quoted.as_str()),
            ("{mark}", mark),
            ("{pending}", pending),
            ("{condition}", &rest),
        ];
        let marked = transaction.execute(&fill(MARK, &places), &[]).await.map_err(failed)?;
        said = format!("{said}; {marked} that are were marked");
    }
    transaction.execute(DELETE, &[&table.schema, &table.table]).await.map_err(failed)?;
    transaction.batch_execute(END_PUBLICATION).await.map_err(failed)?;
    if arguments.dry_run {
        transaction.rollback().await.map_err(failed)?;
        return output::answer(&format!("{said}; nothing was changed"));
    }
    transaction.commit().await.map_err(failed)?;
    output::answer(&format!("{said}; the table is given back"))
}

/// An adopted table, as `capture show` tells of it.
#[derive(Debug, Serialize)]
pub(super) struct ShownAdopted {
    table: String,
    columns: Vec<String>,
    /// Which of the rows that were there were to be published; it runs with the rights of whoever gives the table back.
    pending: Option<String>,
    /// Since the table's statistics were reset; neither is published.
    ignored_updates: i64,
    /// As above.
    ignored_deletes: i64,
}

impl ShownAdopted {
    pub(super) fn text(&self) -> String {
        let pending =
            self.pending.as_deref().map(|pending| format!("; pending: {}", whole(pending)));
        format!(
            "adopted     {}: {}; {} updates and {} deletes ignored{}",
            self.table,
            self.columns.join(", "),
            self.ignored_updates,
            self.ignored_deletes,
            pending.unwrap_or_default()
        )
    }
}

/// The adopted tables, for people.
pub(super) async fn shown(connection: &Connection) -> Result<Vec<ShownAdopted>> {
    let mut shown = Vec::new();
    for adopted in adopted_tables(connection).await? {
        let OutboxName { schema, table } = &adopted.name;
        let row = connection.client().query_one(CHANGES, &[schema, table]).await;
        let row = row.map_err(|cause| classify("look at a table's statistics", cause))?;
        shown.push(ShownAdopted {
            table: adopted.name.to_string(),
            columns: adopted.columns.mappings().iter().map(ToString::to_string).collect(),
            pending: adopted.pending,
            ignored_updates: row.get("updates"),
            ignored_deletes: row.get("deletes"),
        });
    }
    Ok(shown)
}
