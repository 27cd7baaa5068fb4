//! `postrider delivery`: how events are delivered, and how to change that while everything runs.
//!
//! Promises: a change takes one row; the instances find their way from there, and it is told how far they are. Must
//! not: read an event. Fails: when PostgreSQL cannot be reached, or the outbox is not there.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::capture::mode::{DeliveryMode, read_state};
use crate::cli::{block_on, output, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, Delivery, RelaySettings};
use crate::control::delivery::{Changed, DeliveryProgress, look, switch_delivery};
use crate::control::lease::live_instances;
use crate::control::migrate;
use crate::error::Result;
use crate::legible;
use crate::postgres::{Connection, connect};

/// So long the instances are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// So long all of them may be without a lease while they follow.
const CHANGEOVER: Duration = Duration::from_secs(5);

/// Shows how events are delivered, or changes it while everything runs.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(super) struct DeliveryArguments {
    #[command(subcommand)]
    command: DeliveryCommand,
}

#[derive(Debug, Subcommand)]
enum DeliveryCommand {
    /// Shows how events are delivered.
    Show {
        #[command(flatten)]
        common: CommonSettings,
    },
    /// Changes how events are delivered, and waits until the instances have followed.
    Switch {
        /// How events are to be delivered.
        #[arg(value_enum)]
        to: Delivery,

        /// Returns at once; the instances follow within a second or two.
        #[arg(long)]
        no_wait: bool,

        #[command(flatten)]
        common: CommonSettings,
    },
}

pub(super) fn run(arguments: DeliveryArguments) -> Result<ExitCode> {
    match arguments.command {
        DeliveryCommand::Show { common } => block_on(async {
            let connection = open(common).await?;
            let state = read_state(&connection).await?;
            output::answer(&words(state.delivery, &look(&connection).await?))?;
            Ok(ExitCode::SUCCESS)
        }),
        DeliveryCommand::Switch { to, no_wait, common } => block_on(async {
            let connection = open(common).await?;
            let changed = switch_delivery(&connection, to.name()).await?;
            if changed == Changed::Yes {
                output::answer(&format!("switched to {}", to.name()))?;
            }
            match to {
                Delivery::ExactlyOnce if !no_wait => wait(&connection).await,
                Delivery::ExactlyOnce | Delivery::AtLeastOnce => {
                    let state = read_state(&connection).await?;
                    output::answer(&words(state.delivery, &look(&connection).await?))?;
                    Ok(ExitCode::SUCCESS)
                }
            }
        }),
    }
}

async fn open(common: CommonSettings) -> Result<Connection> {
    let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
    let connection = connect(&config::database(&common)?, "delivery").await?;
    migrate::load(connection.client(), &config::outbox(&common)?).await?;
    Ok(connection)
}

fn words(delivery: DeliveryMode, progress: &DeliveryProgress) -> String {
    let DeliveryProgress { buckets, committed, .. } = progress;
    match delivery {
        DeliveryMode::AtLeastOnce => "events are delivered at least once".to_owned(),
        DeliveryMode::ExactlyOnce { .. } if progress.is_done() => {
            "events are delivered exactly once".to_owned()
        }
        DeliveryMode::ExactlyOnce { .. } => format!(
            "events are to be delivered exactly once; {committed} of {buckets} buckets have a cursor in Kafka"
        ),
    }
}

/// From the moment at which each bucket has a cursor in Kafka events are delivered exactly once.
async fn wait(connection: &Connection) -> Result<ExitCode> {
    let (began, mut seen_at) = (Instant::now(), Instant::now());
    loop {
        let (state, progress) = (read_state(connection).await?, look(connection).await?);
        let is_other = state.delivery == DeliveryMode::AtLeastOnce;
        if progress.is_done() || is_other {
            output::answer(&words(state.delivery, &progress))?;
            return Ok(if is_other { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        if state.pause.is_some() {
            output::answer("publishing is paused: instances follow when it goes on")?;
            return Ok(ExitCode::SUCCESS);
        }
        if live_instances(connection).await? > 0 {
            seen_at = Instant::now();
        } else if seen_at.elapsed() >= CHANGEOVER {
            output::answer("no instance runs now; the next one delivers exactly once")?;
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() >= PATIENCE {
            output::answer(&still(&progress))?;
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn still(progress: &DeliveryProgress) -> String {
    let DeliveryProgress { buckets, committed, behind } = progress;
    let names: Vec<String> = behind.iter().map(|name| legible::name(name)).collect();
    let who = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    format!(
        "{} of {buckets} buckets have no cursor in Kafka yet; {who} has them. The switch stands. Look at what that \
         instance logs; one of an earlier version of postrider has to be replaced",
        buckets - committed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_how_far_the_instances_are() {
        let progress = |committed| DeliveryProgress {
            buckets: 16,
            committed,
            behind: vec!["old:1".to_owned()],
        };
        let mode = DeliveryMode::ExactlyOnce { term: 3 };
        assert_eq!(words(mode, &progress(16)), "events are delivered exactly once");
        assert!(words(mode, &progress(4)).contains("4 of 16 buckets"));
        assert!(words(DeliveryMode::AtLeastOnce, &progress(16)).contains("at least once"));
        let told = still(&progress(4));
        assert!(told.contains("12 of 16") && told.contains("old:1"), "{told}");
        assert!(still(&DeliveryProgress { behind: Vec::new(), ..progress(1) }).contains("nobody"));
    }
}
