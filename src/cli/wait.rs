//! `postrider wait`: until everything that was committed before is published.
//!
//! Promises: ends well only when it is; what is parked is named; a pause is waited for like anything else, as it may end,
//! and is told at once. Must not: change anything. Fails: when PostgreSQL cannot be read.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::capture::barrier::{Barrier, Behind};
use crate::capture::mode::{Pause, read_state};
use crate::cli::output::count;
use crate::cli::parked::{Chosen, list};
use crate::cli::pause::words;
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::config::units::{Span, show_bytes};
use crate::control::lease::live_instances;
use crate::control::unread;
use crate::error::Result;
use crate::legible;
use crate::postgres::{Connection, Sql, classify};

static ASKED: Sql = Sql::of(include_str!("../../sql/queries/parked_asked.sql"));
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// All retained rows are read for it.
const LOOK_INTERVAL_UNREAD: Duration = Duration::from_secs(1);
/// How many parked events are named.
const NAMED_MAX: i64 = 10;
pub(super) const NOT_IN_TIME: u8 = 7;
pub(super) const PARKED: u8 = 8;

/// Waits until every event that was committed before now is published.
///
/// What is committed meanwhile is not waited for. While publishing is paused it is waited all the same, as the pause may
/// end; stderr says so at once. Ends with 0 when all is published, with 7 when it is not in time, with 8 when all
/// is published but what is parked.
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
    NotInTime(Behind, Hindrance),
}

/// What may be the cause that it is not published in time.
#[derive(Debug)]
enum Hindrance {
    /// Publishing is paused, in these words.
    Paused(String),
    /// No instance has a lease.
    NobodyRuns,
    /// None that can be told from here.
    Unknown,
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
    let mut told: Option<String> = None;
    loop {
        let state = read_state(connection).await?;
        let mut behind = barrier.behind(connection, &state).await?;
        if behind == Behind::Nothing {
            let patience = deadline.max(Instant::now() + unread::PATIENCE);
            let found = unread::look(connection, patience).await?;
            if found.rows.is_empty() && found.is_whole {
                let waits_until = if state.pause.is_some() { Instant::now() } else { deadline };
                return end_with_parked(connection, waits_until).await;
            }
            behind = Behind::Unread(found.rows.len());
            tokio::time::sleep(LOOK_INTERVAL_UNREAD).await;
        }
        if Instant::now() >= deadline {
            let hindrance = hindrance(connection, state.pause.as_ref()).await?;
            return Ok(WaitEnd::NotInTime(behind, hindrance));
        }
        if let Some(pause) = &state.pause
            && told.as_ref() != Some(&pause.reason)
        {
            tell(pause);
            told = Some(pause.reason.clone());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// To whoever looks at a script that stands.
fn tell(pause: &Pause) {
    tracing::warn!(
        reason = pause.reason,
        by = pause.by,
        ends_in_seconds = pause.left_seconds.map(f64::round),
        remedy = "run `postrider resume` when it may go on",
        "publishing is paused: waiting until it goes on"
    );
}

async fn hindrance(connection: &Connection, pause: Option<&Pause>) -> Result<Hindrance> {
    Ok(match pause {
        Some(pause) => Hindrance::Paused(words(pause)),
        None if live_instances(connection).await? == 0 => Hindrance::NobodyRuns,
        None => Hindrance::Unknown,
    })
}

/// What is tried again right now may be published in a moment.
async fn end_with_parked(connection: &Connection, deadline: Instant) -> Result<WaitEnd> {
    loop {
        let end = parked(connection).await?;
        let asked = connection.client().query_one(ASKED.text(), &[]).await;
        let asked = asked.map_err(|cause| classify("look what is tried again", cause))?;
        if Instant::now() >= deadline || !asked.get::<_, bool>("is_asked") {
            return Ok(end);
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
            Self::NotInTime(..) => ExitCode::from(NOT_IN_TIME),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Published => "everything that was committed before is published".to_owned(),
            Self::NotInTime(behind, hindrance) => {
                let cause = match hindrance {
                    Hindrance::Paused(pause) => pause,
                    Hindrance::NobodyRuns => "no instance of postrider runs",
                    Hindrance::Unknown => "see `postrider status`",
                };
                format!("not published in time: {}; {cause}", behind_words(behind))
            }
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
        Behind::Unread(0) => "not all retained rows could be looked at".to_owned(),
        Behind::Unread(rows) => {
            let rows = count(i64::try_from(*rows).unwrap_or(i64::MAX), "row");
            format!("{rows} with a seq that was not drawn wait")
        }
        Behind::LogBytes(bytes) => {
            format!("{} of the server's log are not read", show_bytes(*bytes))
        }
        Behind::Log => "the server's log is not read yet".to_owned(),
        Behind::Adopted(table) => format!("rows of {table} may wait"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_said() {
        let paused = Hindrance::Paused("paused for 1.0s".to_owned());
        for (ended, said) in [
            (WaitEnd::Published, "is published"),
            (
                WaitEnd::NotInTime(Behind::Buckets(1), Hindrance::Unknown),
                "in time: events of 1 bucket may wait; see",
            ),
            (
                WaitEnd::NotInTime(Behind::LogBytes(2_048), Hindrance::NobodyRuns),
                "2.0 KiB of the server's log are not read; no instance",
            ),
            (WaitEnd::NotInTime(Behind::Log, paused), "not read yet; paused"),
            (
                WaitEnd::NotInTime(
                    Behind::Adopted("shop.order".parse().expect("it is a name")),
                    Hindrance::Unknown,
                ),
                "in time: rows of shop.order may wait; see",
            ),
            (
                WaitEnd::NotInTime(Behind::Unread(2), Hindrance::Unknown),
                "2 rows with a seq that was not drawn wait",
            ),
            (
                WaitEnd::NotInTime(Behind::Unread(0), Hindrance::Unknown),
                "not all retained rows could be looked at",
            ),
        ] {
            assert!(ended.words().contains(said), "{}", ended.words());
        }
    }
}
