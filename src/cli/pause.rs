//! `postrider pause` and `postrider resume`: whether anything is published.
//!
//! Promises: once `pause` has ended well nothing more is sent, and what was sent is acknowledged and saved; a pause
//! outlives restarts. Must not: touch a row of the outbox. Fails: when PostgreSQL refuses, or an instance does not
//! follow in time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::capture::mode;
use crate::capture::mode::Pause;
use crate::cli::output::{count, show_age};
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::config::units::Span;
use crate::control::lease::live_instances;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::Connection;

/// How long it is waited for instances to let what is in flight land.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Pauses publishing, for all instances, until `postrider resume`.
///
/// Writers write on, and events wait in the outbox (in capture wal and message also in the server's log, which
/// keeps growing). What is in flight lands and cursors are saved before this command ends. A pause outlives
/// restarts; to pause again gives it another reason and end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider pause --reason 'Kafka is upgraded' --for 30m
  postrider pause --reason 'moving to another cluster' && postrider status")]
pub(super) struct PauseArguments {
    /// Why, for whoever looks at the status. Every role that may read the tables of postrider can read it.
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// Goes on by itself after this time, e.g. 30m; without it only `postrider resume` ends the pause.
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<Span>,

    #[command(flatten)]
    common: CommonSettings,
}

/// Ends a pause. Running instances go on within a second or two.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider resume")]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    common: CommonSettings,
}

pub(super) fn pause(arguments: PauseArguments) -> Result<ExitCode> {
    let PauseArguments { reason, lasts, common } = arguments;
    let reason = mode::checked_reason(&reason)?;
    let text = block_on(async move {
        let connection = open_outbox(common, "pause").await?;
        mode::pause(&connection, &reason, lasts.map(Duration::from)).await?;
        let ends = match lasts.map(Duration::from) {
            Some(lasts) => format!("for {}", show_age(Some(lasts.as_secs_f64()))),
            None => "until `postrider resume`".to_owned(),
        };
        wait_until_quiet(&connection).await?;
        Ok(format!(
            "publishing is paused {ends}; everything that was sent is acknowledged and saved"
        ))
    })?;
    output::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn resume(arguments: &ResumeArguments) -> Result<ExitCode> {
    let common = arguments.common.clone();
    let was_paused = block_on(async move {
        let connection = open_outbox(common, "pause").await?;
        mode::resume(&connection).await
    })?;
    output::answer(if was_paused { "publishing goes on" } else { "publishing was not paused" })?;
    Ok(ExitCode::SUCCESS)
}

/// A pause, in a line.
pub(super) fn words(pause: &Pause) -> String {
    let ends = match pause.left_seconds {
        Some(left) => format!("for another {}", show_age(Some(left))),
        None => "until `postrider resume`".to_owned(),
    };
    let (age, by) = (show_age(Some(pause.for_seconds)), legible::name(&pause.by));
    format!("paused for {age} by {by}, {ends}: {}", legible::name(&pause.reason))
}

/// An instance leaves the tier when what it had in flight has landed.
pub(super) async fn wait_until_quiet(connection: &Connection) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let live = live_instances(connection).await?;
        if live == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            let live = count(i64::try_from(live).unwrap_or(i64::MAX), "instance");
            let cause =
                format!("publishing is paused, but {live} did not let go within {PATIENCE:?}");
            return Err(Error::new(ErrorKind::ShutdownTimeout, cause).with_remedy(
                "see `postrider status`: where Kafka does not answer, what is in flight cannot land; the pause \
                 stands, and they follow when they can",
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
