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
use crate::config::units::Span;
use crate::control::delivery::{Changed, DeliveryProgress, look, switch_delivery};
use crate::control::lease::live_instances;
use crate::control::migrate;
use crate::error::Result;
use crate::legible;
use crate::postgres::{Connection, connect};

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

        /// How long the instances may take. The switch stands also where they are not in time.
        #[arg(long, value_name = "TIME", default_value = "60s", conflicts_with = "no_wait")]
        timeout: Span,

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
        DeliveryCommand::Switch { to, no_wait, timeout, common } => block_on(async move {
            let connection = open(common).await?;
            let changed = switch_delivery(&connection, to.name()).await?;
            if changed == Changed::Yes {
                output::answer(&format!("switched to {}", to.name()))?;
            }
            if !no_wait {
                return wait(&connection, to, timeout.into()).await;
            }
            let state = read_state(&connection).await?;
            output::answer(&words(state.delivery, &look(&connection).await?))?;
            Ok(ExitCode::SUCCESS)
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
    let DeliveryProgress { buckets, followed, .. } = progress;
    let often = how_often(delivery.name());
    match delivery {
        _ if progress.is_done() => format!("events are delivered {often}"),
        DeliveryMode::AtLeastOnce { .. } => format!(
            "events are to be delivered {often}; {followed} of {buckets} buckets are by now"
        ),
        DeliveryMode::ExactlyOnce { .. } => format!(
            "events are to be delivered {often}; {followed} of {buckets} buckets have a cursor in Kafka"
        ),
    }
}

/// The setting in words.
fn how_often(name: &str) -> String {
    name.replace('-', " ")
}

/// From the moment at which each bucket has a cursor in Kafka events are delivered exactly once; and at least once
/// where each bucket's owner has begun with it anew, and so has ended its last transaction.
async fn wait(connection: &Connection, to: Delivery, patience: Duration) -> Result<ExitCode> {
    let (began, mut seen_at) = (Instant::now(), Instant::now());
    loop {
        let (state, progress) = (read_state(connection).await?, look(connection).await?);
        let is_other = state.delivery.name() != to.name();
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
            let often = how_often(to.name());
            output::answer(&format!("no instance runs now; the next one delivers {often}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() >= patience {
            output::answer(&still(to, &progress))?;
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn still(to: Delivery, progress: &DeliveryProgress) -> String {
    let DeliveryProgress { buckets, followed, behind } = progress;
    let names: Vec<String> = behind.iter().map(|name| legible::name(name)).collect();
    let who = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    let lack = match to {
        Delivery::AtLeastOnce => "may still be delivered in transactions",
        Delivery::ExactlyOnce => "have no cursor in Kafka yet",
    };
    format!(
        "{} of {buckets} buckets {lack}; {who} has them. The switch stands. Look at what that instance logs; one of \
         an earlier version of postrider has to be replaced",
        buckets - followed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_how_far_the_instances_are() {
        let progress =
            |followed| DeliveryProgress { buckets: 16, followed, behind: vec!["old:1".to_owned()] };
        let once = DeliveryMode::ExactlyOnce { term: 3 };
        let often = DeliveryMode::AtLeastOnce { term: 4 };
        assert_eq!(words(once, &progress(16)), "events are delivered exactly once");
        assert_eq!(words(often, &progress(16)), "events are delivered at least once");
        assert!(words(once, &progress(4)).contains("4 of 16 buckets have a cursor"));
        assert!(words(often, &progress(4)).contains("to be delivered at least once; 4 of 16"));
        for (to, word) in
            [(Delivery::ExactlyOnce, "no cursor"), (Delivery::AtLeastOnce, "in transactions")]
        {
            let told = still(to, &progress(4));
            for word in ["12 of 16", "old:1", "The switch stands", word] {
                assert!(told.contains(word), "{told}");
            }
        }
        let unowned = DeliveryProgress { behind: Vec::new(), ..progress(1) };
        assert!(still(Delivery::ExactlyOnce, &unowned).contains("nobody"));
    }
}
