//! `postrider adopt`: publishes from the log the rows of a table that postrider did not make.
//!
//! Promises: what will run with the caller's rights is shown before it runs. Must not: change a table but by
//! [`handover`].

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::capture::adopted::handover::{
    self, GivenBack, HandoverRequest, HandoverRun, IgnoredChanges, triggers, whole,
};
use crate::capture::adopted::mapping::{Adopted, Mapping};
use crate::capture::adopted::registry::{adopted_tables, owner_below};
use crate::capture::mode::{Mode, read_state};
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::reader_lock::try_lock;
use crate::capture::slot::requirements::{AdoptedReaders, missing_rights};
use crate::cli::{block_on, output, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::lease::live_instances;
use crate::control::migrate;
use crate::error::Result;
use crate::legible;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, connect};
use crate::schema;

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
            true => end(&mut connection, (&database, &outbox), &table, &arguments).await,
            false => adopt(&mut connection, &database, &outbox, &table, arguments).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn adopt(
    connection: &mut Connection,
    database: &DatabaseConfig,
    outbox: &OutboxName,
    table: &OutboxName,
    arguments: AdoptArguments,
) -> Result<()> {
    let AdoptArguments { columns, pending, since, order_by, dry_run, .. } = arguments;
    let request = HandoverRequest { columns, pending, since, order_by };
    let adopted = handover::resolve(connection, outbox, table, request).await?;
    say_as_whom(connection, table).await?;
    let waiting = handover::count_pending(connection, &adopted).await?;
    output::answer(&description(&adopted, waiting))?;
    if let Some(columns) = handover::moving_columns(connection, &adopted).await? {
        output::answer(&format!(
            "the table is partitioned by {columns}, which --pending names: a row that moves to another partition by an \
             update is published again; let nobody change it while the table is adopted"
        ))?;
    }
    if dry_run {
        return output::answer("nothing was changed");
    }
    handover::take_over(database, outbox, &adopted).await?;
    say_missing_rights(connection, table).await?;
    say_whether_there_is_room(database, outbox).await?;
    output::answer(match read_state(connection).await?.mode {
        Mode::Wal => {
            "adopted; the reader publishes these first, once the transactions that are open now have ended; of rows of this \
             table that are deleted before that nothing comes"
        }
        _ => "adopted; run `postrider capture switch wal` to publish it",
    })
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

/// The copy reads the table by the relay's role; the stream needs no right on it.
async fn say_missing_rights(connection: &Connection, table: &OutboxName) -> Result<()> {
    let whose = AdoptedReaders { this_role: false, instances: true, group: true };
    for missing in missing_rights(connection, table, whose).await? {
        output::answer(&format!("{}; {}", missing.cause, missing.remedy))?;
    }
    Ok(())
}

/// A table is copied by a slot of its own beside the one that is read.
async fn say_whether_there_is_room(database: &DatabaseConfig, outbox: &OutboxName) -> Result<()> {
    let connection = connect(database, "slot").await?;
    let keeper = SlotKeeper::open(connection, database, outbox.clone(), Mode::Wal).await?;
    if keeper.has_room().await? {
        return Ok(());
    }
    output::answer(
        "all replication slots of the server are in use: the table is copied, and read, once there is room for one more; raise \
         max_replication_slots",
    )
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

async fn end(
    connection: &mut Connection,
    (database, outbox): (&DatabaseConfig, &OutboxName),
    table: &OutboxName,
    arguments: &AdoptArguments,
) -> Result<()> {
    // Nobody begins to read meanwhile; one that is between two sessions has no lease, but the lock.
    let lock = connect(database, "adopt").await?;
    let is_read = !try_lock(&lock).await?;
    let running = live_instances(connection).await?.max(usize::from(is_read));
    let (mark, expected) = (arguments.mark.as_deref(), arguments.pending.as_deref());
    let adopted = handover::find_ended(connection, table, running, expected).await?;
    if let Some(pending) = &adopted.pending {
        let sql = whole(pending);
        let column = schema::chosen().of("adopted.pending");
        output::answer(&format!("runs with your rights, from {column}: {sql}"))?;
    }
    say_as_whom(connection, table).await?;
    if mark.is_some() {
        for name in triggers(connection, &adopted).await? {
            output::answer(&format!(
                "fires with your rights for each row that is marked: trigger {}",
                legible::name(&name)
            ))?;
        }
    }
    let change = if arguments.dry_run { HandoverRun::Rehearse } else { HandoverRun::Make };
    let slot = connect(database, "slot").await?;
    let mut keeper = SlotKeeper::open(slot, database, outbox.clone(), Mode::Wal).await?;
    let given_back = handover::give_back(connection, &mut keeper, &adopted, mark, change).await?;
    output::answer(&outcome(table, given_back, change))
}

fn outcome(table: &OutboxName, given_back: GivenBack, change: HandoverRun) -> String {
    let GivenBack { unpublished, marked } = given_back;
    let marked = marked.map(|marked| format!("; {marked} that are were marked"));
    let end = match change {
        HandoverRun::Make => "the table is given back",
        HandoverRun::Rehearse => "nothing was changed",
    };
    let marked = marked.unwrap_or_default();
    format!("{unpublished} rows of {table} are not known to be published{marked}; {end}")
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
        let IgnoredChanges { updates, deletes } = handover::ignored(connection, &adopted).await?;
        shown.push(ShownAdopted {
            table: adopted.name.to_string(),
            columns: adopted.columns.mappings().iter().map(ToString::to_string).collect(),
            pending: adopted.pending,
            ignored_updates: updates,
            ignored_deletes: deletes,
        });
    }
    Ok(shown)
}
