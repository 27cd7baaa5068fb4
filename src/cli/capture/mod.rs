//! `postrider capture`: how events are read, and how to change that while writers write.
//!
//! Promises: a change takes one row; whatever is killed afterwards, the instances find their way from
//! there. Must not: read an event. Fails: when the server cannot do what is asked for, or events would
//! be lost by it.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::capture::mode_switch::CaptureSession;
use crate::cli::capture::switch::Asked;
use crate::cli::{block_on, output, prepare};
use crate::config;
use crate::config::settings::{Capture, CommonSettings, RelaySettings};
use crate::control::migrate;
use crate::error::Result;
use crate::outbox::OutboxName;
use crate::postgres::{DatabaseConfig, connect};

pub(super) mod show;
mod switch;

pub(super) use crate::cli::capture::show::ShownCapture;

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
    command: CaptureCommand,
}

#[derive(Debug, Subcommand)]
enum CaptureCommand {
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

/// How events are read, and the state of the slot, for other commands.
///
/// # Errors
/// When PostgreSQL cannot be read, or the outbox is not there.
pub(super) async fn shown(database: &DatabaseConfig, outbox: &OutboxName) -> Result<ShownCapture> {
    let connection = connect(database, "capture").await?;
    let session = CaptureSession { connection, database: database.clone(), outbox: outbox.clone() };
    show::look(&session).await
}

async fn open(common: &CommonSettings) -> Result<CaptureSession> {
    let (database, outbox) = (config::database(common)?, config::outbox(common)?);
    let connection = connect(&database, "capture").await?;
    migrate::load(connection.client(), &outbox).await?;
    Ok(CaptureSession { connection, database, outbox })
}

pub(super) fn run(arguments: CaptureArguments) -> Result<ExitCode> {
    match arguments.command {
        CaptureCommand::Show { common, json } => {
            let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
            let shown = block_on(async { show::look(&open(&common).await?).await })?;
            if json {
                output::answer_json(&shown)?
            } else {
                output::answer(&shown.text())?
            }
            Ok(ExitCode::SUCCESS)
        }
        CaptureCommand::Switch(arguments) => {
            let SwitchArguments { to, dry_run, no_wait, accept_loss, common } = arguments;
            let asked = Asked { to, dry_run, no_wait, accept_loss };
            let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
            block_on(async { Box::pin(switch::switch(&mut open(&common).await?, asked)).await })
        }
    }
}
