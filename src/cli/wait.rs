//! `postrider wait`: until everything that was committed before is published.
//!
//! Promises: ends well only when it is; what is parked is named. Must not: change anything, or wait where nothing
//! moves. Fails: when PostgreSQL cannot be read.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::capture::barrier::{Barrier, Behind};
use crate::capture::mode::read_state;
use crate::cli::output::count;
use crate::cli::parked::{Chosen, list};
use crate::cli::pause::words;
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::config::units::{Span, show_bytes};
use crate::error::Result;
use crate::legible;
use crate::postgres::Connection;

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How many parked events are named.
const NAMED_MAX: i64 = 10;
pub(super) const NOT_IN_TIME: u8 = 7;
pub(super) const PARKED: u8 = 8;

/// Waits until every event that was committed before now is published.
///
/// What is committed meanwhile is not waited for. Ends with 0 when all is published, with 7 when it is not in
/// time, with 8 when all is published but what is parked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider wait --timeout 30s && run-the-assertions
  postrider wait && postrider pause --reason 'new cluster'")]
pub(super) struct WaitArguments {
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Span,

    #[command(flatten)]
    common: CommonSettings,
}

/// How waiting has ended.
enum WaitEnd {
    Published,
    Parked(list::List),
    NotInTime(Behind),
    /// Nothing moves: publishing is paused.
    Paused(Behind, String),
}

pub(super) fn run(arguments: WaitArguments) -> Result<ExitCode> {
    let WaitArguments { timeout, common } = arguments;
    let deadline = Instant::now() + Duration::from(timeout);
    let ended = block_on(async move {
        // By this name the relays know that somebody waits.
        let connection = open_outbox(common, "wait").await?;
        wait(&connection, deadline).await
    })?;
    output::answer(&ended.words())?;
    Ok(ended.code())
}

async fn wait(connection: &Connection, deadline: Instant) -> Result<WaitEnd> {
    let barrier = Barrier::take(connection).await?;
    loop {
        let state = read_state(connection).await?;
        let behind = barrier.behind(connection, &state).await?;
        if behind == Behind::Nothing {
            return parked(connection).await;
        }
        if let Some(pause) = state.pause {
            return Ok(WaitEnd::Paused(behind, words(&pause)));
        }
        if Instant::now() >= deadline {
            return Ok(WaitEnd::NotInTime(behind));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn parked(connection: &Connection) -> Result<WaitEnd> {
    let found = list::read(connection, &Chosen::default(), Some(NAMED_MAX)).await?;
    Ok(if found.total == 0 { WaitEnd::Published } else { WaitEnd::Parked(found) })
}

impl WaitEnd {
    fn code(&self) -> ExitCode {
        match self {
            Self::Published => ExitCode::SUCCESS,
            Self::Parked(_) => ExitCode::from(PARKED),
            Self::NotInTime(_) | Self::Paused(..) => ExitCode::from(NOT_IN_TIME),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Published => "everything that was committed before is published".to_owned(),
            Self::NotInTime(behind) => {
                format!("not published in time: {}; see `postrider status`", behind_words(behind))
            }
            Self::Paused(behind, pause) => format!("{}; {pause}", behind_words(behind)),
            Self::Parked(found) => parked_words(found),
        }
    }
}

fn parked_words(found: &list::List) -> String {
    let events = count(found.total, "event");
    let mut text = format!("everything else is published, but {events} parked:\n");
    for one in &found.events {
        let aggregate = legible::aggregate(&one.aggregatetype, &one.aggregateid);
        text.push_str(&format!("  {}  {:<17}  {aggregate}\n", one.id, one.reason));
    }
    if found.total > NAMED_MAX {
        text.push_str("  and more: see `postrider parked list`\n");
    }
    text
}

fn behind_words(behind: &Behind) -> String {
    match behind {
        Behind::Nothing => "nothing waits".to_owned(),
        Behind::Buckets(buckets) => {
            let buckets = count(i64::try_from(*buckets).unwrap_or(i64::MAX), "bucket");
            format!("events of {buckets} may wait")
        }
        Behind::LogBytes(bytes) => {
            format!("{} of the server's log are not read", show_bytes(*bytes))
        }
        Behind::Log => "the server's log is not read yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_said() {
        for (ended, said) in [
            (WaitEnd::Published, "is published"),
            (WaitEnd::NotInTime(Behind::Buckets(1)), "in time: events of 1 bucket may wait"),
            (WaitEnd::NotInTime(Behind::LogBytes(2_048)), "2.0 KiB of the server's log"),
            (WaitEnd::Paused(Behind::Log, "paused for 1.0s".to_owned()), "not read yet; paused"),
        ] {
            assert!(ended.words().contains(said), "{}", ended.words());
        }
    }
}
