//! `postrider capture`: how events are read, and how to change that while writers write.
//!
//! Promises: a change takes one row; whatever is killed afterwards, the instances find their way from
//! there. Must not: read an event. Fails: when the server cannot do what is asked for, or events would
//! be lost by it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::capture::mode::Mode;
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::reader_lock::try_lock;
use crate::cli::{block_on, output, prepare};
use crate::config;
use crate::config::settings::{Capture, CommonSettings, RelaySettings};
use crate::control::migrate;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, connect};

mod show;
mod switch;

pub(super) use crate::cli::capture::show::Shown;

/// How long another session may make or drop the slot.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Shows how events are read, or changes it while everything runs.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  postrider capture show
  postrider capture switch wal --database-url postgres://owner@db/shop
  postrider capture switch poll")]
pub(super) struct CaptureArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows how events are read, and the state of the slot.
    Show {
        #[command(flatten)]
        common: CommonSettings,

        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Changes how events are read. Running instances follow within a second or two.
    ///
    /// Between poll and wal nothing is lost and, without a fault, nothing sent twice; aborting it is
    /// safe at any moment, and so is switching back. To and from message nothing may wait, and no writer
    /// may be in the middle of a transaction: rows are not read as messages, nor messages as rows. From
    /// wal to message the way leads over poll; where it is aborted, the instances poll.
    Switch(SwitchArguments),
}

#[derive(Args, Debug)]
struct SwitchArguments {
    /// How events are to be read.
    #[arg(value_enum)]
    to: Capture,

    /// Only checks whether it can be done.
    #[arg(long)]
    dry_run: bool,

    /// Does not wait until an instance has followed.
    #[arg(long)]
    no_wait: bool,

    /// Gives up the messages that a lost slot had kept; nothing else is ever given up.
    #[arg(long)]
    accept_loss: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// A session on the outbox's database.
struct Place {
    connection: Connection,
    database: DatabaseConfig,
    outbox: OutboxName,
}

/// How events are read, and the state of the slot, for other commands.
///
/// # Errors
/// When PostgreSQL cannot be read, or the outbox is not there.
pub(super) async fn shown(database: &DatabaseConfig, outbox: &OutboxName) -> Result<Shown> {
    let connection = connect(database, "capture").await?;
    let place = Place { connection, database: database.clone(), outbox: outbox.clone() };
    show::look(&place).await
}

impl Place {
    async fn open(common: &CommonSettings) -> Result<Self> {
        let (database, outbox) = (config::database(common)?, config::outbox(common)?);
        let connection = connect(&database, "capture").await?;
        migrate::load(connection.client(), &outbox).await?;
        Ok(Self { connection, database, outbox })
    }

    async fn keeper(&self, mode: Mode) -> Result<SlotKeeper> {
        let connection = connect(&self.database, "slot").await?;
        SlotKeeper::open(connection, &self.database, self.outbox.clone(), mode).await
    }

    /// Keeps everybody else from making or dropping the slot, as long as the session is held.
    async fn lock(&self) -> Result<Connection> {
        let connection = connect(&self.database, "capture").await?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        while !try_lock(&connection).await? {
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the slot is read or made by another session",
                )
                .with_remedy("look at `postrider capture show`"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(connection)
    }
}

pub(super) fn run(arguments: CaptureArguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Show { common, json } => {
            let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
            let shown = block_on(async { show::look(&Place::open(&common).await?).await })?;
            if json {
                output::answer_json(&shown)?
            } else {
                output::answer(&shown.text())?
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Switch(arguments) => {
            let (common, ..) = prepare(arguments.common.clone(), RelaySettings::default(), "warn")?;
            block_on(async { switch::switch(&mut Place::open(&common).await?, &arguments).await })
        }
    }
}
