//! `postrider migrate`: makes the outbox and its control tables, or shows how.
//!
//! Promises: says what it did and what it left as it was. Must not: hold SQL.
//! Fails: as [`crate::control::migrate`].

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::capture::mode::{DeliveryMode, read_state};
use crate::cli::{block_on, handover, output, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::delivery::{Changed, renew_term};
use crate::control::migrate;
use crate::control::migrate::MigrationRequest;
use crate::error::{ErrorKind, Result};
use crate::outbox::PayloadType;
use crate::postgres::{Connection, Sql, connect};

static ROLES: Sql = Sql::of(include_str!("../../sql/roles.sql"));

/// Makes the outbox and postrider's control tables.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider migrate up --database-url postgres://owner@db/shop
  postrider migrate up --outbox app.events --buckets 32 --payload jsonb
  postrider migrate up --schema billing --outbox app.billing_outbox
  postrider migrate roles | psql shop
  postrider migrate print > postrider.sql
  postrider migrate handover && pg_dump shop | psql -h new shop && postrider migrate reanchor --handover
  postrider migrate inbox up --database-url postgres://owner@db/billing")]
pub(super) struct MigrateArguments {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Applies the migrations that are pending.
    Up {
        #[command(flatten)]
        common: CommonSettings,
        #[command(flatten)]
        table: TableSettings,
    },
    /// Prints the SQL for another migration tool; needs no database.
    Print {
        #[command(flatten)]
        common: CommonSettings,
        #[command(flatten)]
        table: TableSettings,
    },
    /// Prints the SQL that gives writers and relays the least rights (sql/roles.sql); needs no database.
    ///
    /// Run it as the role that migrates, again after each `migrate up`.
    Roles {
        #[command(flatten)]
        common: CommonSettings,
    },
    Handover(handover::HandoverArguments),
    /// Sets all cursors anew on a restored or promoted database; repeats every retained event.
    ///
    /// Writers wait while it runs. Running instances notice it and begin anew.
    Reanchor {
        #[command(flatten)]
        common: CommonSettings,

        /// Gives later events a `seq` above this one: the highest that a consumer has seen. A restored
        /// database gives numbers again, which consumers would take for repeats.
        #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..=SEQ_ABOVE_MAX))]
        seq_above: Option<i64>,

        /// The database is a copy that was made after `postrider migrate handover`: every retained event counts as
        /// published. Refused where others are retained than were then.
        #[arg(long, conflicts_with = "seq_above")]
        handover: bool,

        /// Only says what would be published again, or count as published.
        #[arg(long)]
        dry_run: bool,

        /// Keeps the cursors that PostgreSQL has, and gives up those in Kafka: where events are delivered exactly
        /// once and the topic of cursors is gone or was changed. What was published since a cursor was saved is
        /// repeated.
        #[arg(long, value_name = "WHERE", conflicts_with_all = ["seq_above", "handover"])]
        cursor_from: Option<CursorFrom>,
    },
    /// Makes the inbox of a consumer, in the consumer's own database: --database-url names that one.
    Inbox {
        #[command(subcommand)]
        command: InboxCommand,
    },
    /// Shows which migrations are applied; exits with 6 when some are pending.
    Status {
        #[command(flatten)]
        common: CommonSettings,
    },
}

/// Which cursors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CursorFrom {
    /// Those that PostgreSQL has.
    Postgres,
}

#[derive(Debug, Subcommand)]
enum InboxCommand {
    /// Applies the migrations that are pending.
    Up {
        #[command(flatten)]
        common: CommonSettings,
    },
    /// Prints the SQL for another migration tool; needs no database.
    Print,
}

/// Half of what a sequence may give out before numbers of adopted tables begin.
const SEQ_ABOVE_MAX: i64 = 1 << 61;

/// How the table is made. Fixed for the life of the table.
#[derive(Args, Debug)]
struct TableSettings {
    /// Makes this many hash partitions, the unit of parallel work [default: 16].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Table")]
    buckets: Option<u16>,

    /// Makes the column payload of this type: json, jsonb, text or bytea [default: json].
    #[arg(long, value_name = "TYPE", help_heading = "Table")]
    payload: Option<PayloadType>,

    /// Starts a new generation (the unit of clean-up) after this many seconds [default: 600].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800), help_heading = "Table")]
    generation_seconds: Option<u32>,
}

impl TableSettings {
    fn request(&self, common: &CommonSettings) -> Result<MigrationRequest> {
        Ok(MigrationRequest {
            outbox: config::outbox(common)?,
            buckets: self.buckets,
            payload: self.payload,
            generation_seconds: self.generation_seconds,
        })
    }
}

pub(super) fn run(arguments: MigrateArguments) -> Result<ExitCode> {
    match arguments.command {
        MigrateCommand::Up { common, table } => up(settled(common)?, &table),
        MigrateCommand::Print { common, table } => print(&settled(common)?, &table),
        MigrateCommand::Roles { common } => {
            settled(common)?;
            output::answer(ROLES.text())?;
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Handover(arguments) => handover::run(arguments),
        MigrateCommand::Reanchor { common, handover: true, dry_run, .. } => {
            handover::reanchor(&settled(common)?, dry_run)
        }
        MigrateCommand::Reanchor {
            common,
            cursor_from: Some(CursorFrom::Postgres),
            dry_run,
            ..
        } => renew(settled(common)?, dry_run),
        MigrateCommand::Reanchor { common, seq_above, dry_run, .. } => {
            reanchor(settled(common)?, seq_above, dry_run)
        }
        MigrateCommand::Inbox { command: InboxCommand::Up { common } } => {
            inbox_up(&settled(common)?)
        }
        MigrateCommand::Inbox { command: InboxCommand::Print } => {
            output::answer(&migrate::inbox::print())?;
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Status { common } => status(settled(common)?),
    }
}

fn settled(common: CommonSettings) -> Result<CommonSettings> {
    prepare(common, RelaySettings::default(), "warn").map(|(common, ..)| common)
}

fn up(common: CommonSettings, table: &TableSettings) -> Result<ExitCode> {
    let request = table.request(&common)?;
    let database = config::database(&common)?;
    let report = block_on(async move {
        let mut connection = connect(&database, "migrate").await?;
        migrate::up(connection.client_mut(), &request).await
    })?;
    output::answer(&report.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn print(common: &CommonSettings, table: &TableSettings) -> Result<ExitCode> {
    output::answer(&migrate::print(&table.request(common)?)?)?;
    Ok(ExitCode::SUCCESS)
}

fn inbox_up(common: &CommonSettings) -> Result<ExitCode> {
    let database = config::database(common)?;
    let applied = block_on(async move {
        let connection = connect(&database, "migrate").await?;
        migrate::inbox::up(connection.client()).await
    })?;
    let lines: String = applied.iter().map(|title| format!("applied {title}\n")).collect();
    output::answer(if lines.is_empty() { "nothing to do\n" } else { &lines })?;
    Ok(ExitCode::SUCCESS)
}

fn reanchor(common: CommonSettings, seq_above: Option<i64>, dry_run: bool) -> Result<ExitCode> {
    let (database, outbox) = (config::database(&common)?, config::outbox(&common)?);
    let retained = block_on(async move {
        let connection = connect(&database, "migrate").await?;
        let outbox = migrate::load(connection.client(), &outbox).await?;
        migrate::reanchor(connection.client(), &outbox, seq_above, dry_run).await
    })?;
    output::answer(&match dry_run {
        true => {
            format!("{retained} retained events would be published again; nothing was changed\n")
        }
        false => {
            format!("the cursors are set anew: {retained} retained events are published again\n")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn renew(common: CommonSettings, dry_run: bool) -> Result<ExitCode> {
    let (database, outbox) = (config::database(&common)?, config::outbox(&common)?);
    let changed = block_on(async move {
        let connection = connect(&database, "migrate").await?;
        migrate::load(connection.client(), &outbox).await?;
        match dry_run {
            true => would_renew(&connection).await,
            false => renew_term(&connection).await,
        }
    })?;
    output::answer(match (changed, dry_run) {
        (Changed::Yes, true) => {
            "the cursors that PostgreSQL has would hold, and what was published since they were saved be repeated; \
             nothing was changed\n"
        }
        (Changed::Yes, false) => {
            "the cursors that PostgreSQL has hold; what was published since they were saved is repeated\n"
        }
        (Changed::Not, _) => {
            "nothing to do: events are delivered at least once, by PostgreSQL's cursors\n"
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What [`renew_term`] would find.
async fn would_renew(connection: &Connection) -> Result<Changed> {
    Ok(match read_state(connection).await?.way().delivery {
        DeliveryMode::ExactlyOnce { .. } => Changed::Yes,
        DeliveryMode::AtLeastOnce { .. } => Changed::Not,
    })
}

fn status(common: CommonSettings) -> Result<ExitCode> {
    let database = config::database(&common)?;
    let status = block_on(async move {
        let connection = connect(&database, "migrate").await?;
        migrate::status(connection.client()).await
    })?;
    output::answer(&status.to_string())?;
    Ok(match status.is_pending() {
        true => ExitCode::from(ErrorKind::Schema.exit_code()),
        false => ExitCode::SUCCESS,
    })
}
