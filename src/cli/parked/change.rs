//! `postrider parked retry` and `postrider parked discard`.
//!
//! Promises: what is done is said, event by event; a dry run says the same and does nothing.
//! Must not: do anything to what was not named. Fails: as its parent.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::cli::parked::{Chosen, Selection, count, list, nothing_chosen};
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::error::Result;
use crate::legible;
use crate::postgres::{Connection, Sql, classify};

static AGGREGATES: Sql = Sql::of(include_str!("../../../sql/queries/parked_aggregates.sql"));
static RETRY: Sql = Sql::of(include_str!("../../../sql/queries/parked_retry.sql"));
static DISCARD: Sql = Sql::of(include_str!("../../../sql/queries/parked_discard.sql"));

/// What is meant, and whether it is meant.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("chosen")
    .required(true)
    .multiple(true)
    .args(["aggregate", "aggregate_type", "aggregate_id", "event", "reason", "all"]))]
struct ParkedChange {
    #[command(flatten)]
    selection: Selection,

    /// Chooses everything that is parked.
    #[arg(long, conflicts_with_all =
        ["aggregate", "aggregate_type", "aggregate_id", "event", "reason"])]
    all: bool,

    /// Says what would be done, and does not do it.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// Tries the aggregates of parked events again, each from its first parked event on.
///
/// The relay that owns the bucket does so within about a second.
#[derive(Args, Debug)]
#[command(
    override_usage = "postrider parked retry [OPTIONS] <--aggregate, --event, --reason | --all>"
)]
#[command(after_help = "\
Examples:
  postrider parked retry --reason too-large
  postrider parked retry --all --dry-run")]
pub(super) struct RetryArguments {
    #[command(flatten)]
    change: ParkedChange,
}

/// Deletes parked events; later events of their aggregates are then tried again.
///
/// Discarded events are lost. Where one that cannot be published is left, it is tried once more, too.
#[derive(Args, Debug)]
#[command(
    override_usage = "postrider parked discard [OPTIONS] <--aggregate, --event, --reason | --all>"
)]
#[command(after_help = "\
Examples:
  postrider parked discard --event 018f4e6a-5b1c-7def-8a00-0123456789ab
  postrider parked discard --reason bad-headers --dry-run")]
pub(super) struct DiscardArguments {
    #[command(flatten)]
    change: ParkedChange,
}

pub(super) fn retry(arguments: RetryArguments) -> Result<ExitCode> {
    let ParkedChange { selection, dry_run, common, .. } = arguments.change;
    let chosen = Chosen::from(selection);
    let rows = block_on(async {
        let connection = open_outbox(common, "parked").await?;
        let sql = if dry_run { AGGREGATES.text() } else { RETRY.text() };
        change(&connection, sql, &chosen, "ask for parked events").await
    })?;
    let line = |row: &Row| {
        let events = count(row.get("events"), "event");
        let aggregate = legible::aggregate(row.get("aggregatetype"), row.get("aggregateid"));
        format!("{aggregate}: {events}\n")
    };
    let mut text: String = rows.iter().map(line).collect();
    let aggregates = count(i64::try_from(rows.len()).unwrap_or(i64::MAX), "aggregate");
    text.push_str(&match (rows.is_empty(), dry_run) {
        (true, _) => nothing_chosen(&chosen),
        (false, true) => format!("{aggregates} would be tried again\n"),
        (false, false) => format!("{aggregates} will be tried again by the relay\n"),
    });
    output::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn discard(arguments: DiscardArguments) -> Result<ExitCode> {
    let ParkedChange { selection, dry_run, common, .. } = arguments.change;
    let chosen = Chosen::from(selection);
    let gone = block_on(async {
        let connection = open_outbox(common, "parked").await?;
        if dry_run {
            let list = list::read(&connection, &chosen, None).await?;
            let gone = |one: list::Listed| {
                Gone::new(&one.id, &one.aggregatetype, &one.aggregateid, &one.reason)
            };
            return Ok(list.events.into_iter().map(gone).collect());
        }
        let rows = change(&connection, DISCARD.text(), &chosen, "discard parked events").await?;
        Ok(rows.iter().map(Gone::read).collect::<Vec<_>>())
    })?;
    let mut text: String = gone.iter().map(|one| format!("{}\n", one.0)).collect();
    let events = count(i64::try_from(gone.len()).unwrap_or(i64::MAX), "event");
    text.push_str(&match (gone.is_empty(), dry_run) {
        (true, _) => nothing_chosen(&chosen),
        (false, true) => format!("{events} would be discarded\n"),
        (false, false) => format!("{events} discarded\n"),
    });
    output::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A discarded event, in a line.
struct Gone(String);

impl Gone {
    fn new(id: &str, aggregate_type: &str, aggregate_id: &str, reason: &str) -> Self {
        let aggregate = legible::aggregate(aggregate_type, aggregate_id);
        Self(format!("{id}  {reason:<17}  {aggregate}"))
    }

    fn read(row: &Row) -> Self {
        let id: Uuid = row.get("id");
        Self::new(
            &id.to_string(),
            row.get("aggregatetype"),
            row.get("aggregateid"),
            row.get("reason"),
        )
    }
}

async fn change(
    connection: &Connection,
    sql: &str,
    chosen: &Chosen,
    operation: &str,
) -> Result<Vec<Row>> {
    let Chosen { aggregate_type, aggregate_id, event, reason } = chosen;
    connection
        .client()
        .query(sql, &[aggregate_type, aggregate_id, event, reason])
        .await
        .map_err(|cause| classify(operation, cause))
}
