//! `postrider migrate handover` and `migrate reanchor --handover`: the database goes to another server.
//!
//! Promises: what is recorded is true, or nothing is recorded and publishing goes on; a copy is taken only as it was
//! recorded. Must not: hold SQL, copy a database, or end a pause of somebody else.
//! Fails: with 7 where not everything is published in time; as [`crate::control::migrate::handover`].

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::capture::mode;
use crate::capture::mode::{CaptureState, DeliveryMode, Mode, Pause, read_state};
use crate::cli::output::count;
use crate::cli::pause::wait_until_quiet;
use crate::cli::wait::NOT_IN_TIME;
use crate::cli::{block_on, output, pause, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::units::Span;
use crate::control::migrate;
use crate::control::migrate::Outbox;
use crate::control::migrate::handover::{Recorded, reanchor_handover, record, unpublished};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, connect};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const REASON: &str = "the database is handed over to another server";

/// Records that everything is published, so that a copy of the database goes on without a loss or a repeat.
///
/// With all writers stopped and the relays running: waits until everything is published, pauses publishing, and records
/// what the outbox retains. Then copy or upgrade the database by whatever means, and run `postrider migrate reanchor
/// --handover` there. Ends with 7 when not everything is published in time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider migrate handover --timeout 5m
  postrider resume                               # if the former server is to go on after all")]
pub(super) struct HandoverArguments {
    /// How long it may take until everything is published.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Span,

    #[command(flatten)]
    common: CommonSettings,
}

/// How a hand-over has ended that did not fail.
enum HandoverEnd {
    Recorded(Recorded),
    NotInTime { waiting: i64, pause: Option<Pause> },
}

pub(super) fn run(arguments: HandoverArguments) -> Result<ExitCode> {
    let HandoverArguments { timeout, common } = arguments;
    let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
    let deadline = Instant::now() + Duration::from(timeout);
    let ended = block_on(async move {
        let (mut connection, outbox) = open(&common).await?;
        hand_over(&mut connection, &outbox, deadline).await
    })?;
    match ended {
        HandoverEnd::Recorded(recorded) => {
            output::answer(&recorded_words(&recorded))?;
            Ok(ExitCode::SUCCESS)
        }
        HandoverEnd::NotInTime { waiting, pause } => {
            output::answer(&late_words(waiting, pause.as_ref()))?;
            Ok(ExitCode::from(NOT_IN_TIME))
        }
    }
}

pub(super) fn reanchor(common: &CommonSettings, dry_run: bool) -> Result<ExitCode> {
    let events = block_on(async move {
        let (mut connection, outbox) = open(common).await?;
        reanchor_handover(connection.client_mut(), &outbox, dry_run).await
    })?;
    let events = count(events, "retained event");
    output::answer(&if dry_run {
        format!("{events} would count as published; nothing was changed")
    } else {
        format!(
            "the cursors are set behind {events}, which were published before the hand-over\n\
             run sql/roles.sql if the roles are new here, start the relays, then run `postrider resume`"
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn open(common: &CommonSettings) -> Result<(Connection, Outbox)> {
    let connection = connect(&config::database(common)?, "migrate").await?;
    let outbox = migrate::load(connection.client(), &config::outbox(common)?).await?;
    Ok((connection, outbox))
}

async fn hand_over(
    connection: &mut Connection,
    outbox: &Outbox,
    deadline: Instant,
) -> Result<HandoverEnd> {
    let state = read_state(connection).await?;
    check(&state)?;
    if let Some(waiting) = wait_until_published(connection, deadline).await? {
        return Ok(HandoverEnd::NotInTime { waiting, pause: state.pause });
    }
    let is_paused = state.pause.is_some();
    // One that ends by itself would end in the middle of the copy.
    if state.pause.is_none_or(|pause| pause.left_seconds.is_some()) {
        mode::pause(connection, REASON, None).await?;
    }
    wait_until_quiet(connection).await?;
    let recorded = record(connection.client_mut(), outbox).await;
    if recorded.is_err() && !is_paused {
        mode::resume(connection).await?;
    }
    recorded.map(HandoverEnd::Recorded)
}

/// Waits until everything retained is published or parked; how many events wait, if they are not in time.
async fn wait_until_published(connection: &Connection, deadline: Instant) -> Result<Option<i64>> {
    loop {
        let began = Instant::now();
        let waiting = unpublished(connection.client()).await?;
        if waiting == 0 {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(waiting));
        }
        // A look reads everything that is retained.
        tokio::time::sleep(LOOK_INTERVAL.max(began.elapsed())).await;
    }
}

/// What cannot be handed over, with the way round it.
fn check(state: &CaptureState) -> Result<()> {
    let (cause, remedy) = if state.mode == Mode::Message {
        (
            "events are read from messages in this server's log, and no copy has that log"
                .to_owned(),
            "run `postrider capture switch poll`, hand over, and switch back on the other server",
        )
    } else if state.adopted > 0 {
        let tables = count(state.adopted, "table");
        (
            format!(
                "{tables} adopted: which of its rows are published is told by this server's log"
            ),
            "end the adoption with --mark (postrider adopt --end), hand over, and adopt it again on the other server",
        )
    } else if matches!(state.delivery, DeliveryMode::ExactlyOnce { .. }) {
        (
            "the cursors that hold are in Kafka, and are of this server's history".to_owned(),
            "run `postrider delivery switch at-least-once`, hand over, and switch back on the other server",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::History, cause).with_remedy(remedy))
}

fn recorded_words(recorded: &Recorded) -> String {
    let events = count(recorded.events, "retained event");
    let upto = match recorded.highest_seq {
        Some(highest) => format!(" up to seq {highest}"),
        None => String::new(),
    };
    format!(
        "publishing is paused, and {events}{upto} are recorded as published\n\
         copy or upgrade the database now, run `postrider migrate reanchor --handover` there, and let nobody write\n\
         before; `postrider resume` lets this server go on instead"
    )
}

fn late_words(waiting: i64, pause: Option<&Pause>) -> String {
    let waiting = count(waiting, "event");
    let cause = match pause {
        Some(pause) => format!("{}; run `postrider resume` first", pause::words(pause)),
        None => "stop all writers, and see `postrider status`".to_owned(),
    };
    format!("{waiting} not published in time: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mode: Mode, adopted: i64, delivery: DeliveryMode) -> CaptureState {
        CaptureState {
            mode,
            delivery,
            slot_name: None,
            slot: None,
            delivered: None,
            adopted,
            pause: None,
            database: 5,
        }
    }

    #[test]
    fn what_only_this_servers_log_tells_is_not_handed_over() {
        let (often, once) =
            (DeliveryMode::AtLeastOnce { term: 2 }, DeliveryMode::ExactlyOnce { term: 1 });
        assert!(check(&state(Mode::Poll, 0, often)).is_ok());
        assert!(check(&state(Mode::Wal, 0, often)).is_ok());
        for (state, word) in [
            (state(Mode::Message, 0, often), "capture switch poll"),
            (state(Mode::Wal, 2, often), "--mark"),
            (state(Mode::Poll, 0, once), "delivery switch at-least-once"),
        ] {
            let error = check(&state).expect_err("it cannot be");
            assert_eq!(error.kind(), ErrorKind::History);
            assert!(error.remedy().is_some_and(|remedy| remedy.contains(word)), "{error}");
        }
    }

    #[test]
    fn what_is_recorded_is_said() {
        let said = recorded_words(&Recorded { events: 1, highest_seq: Some(9) });
        assert!(said.contains("1 retained event up to seq 9"), "{said}");
        let said = recorded_words(&Recorded { events: 0, highest_seq: None });
        assert!(said.contains("0 retained events are recorded"), "{said}");
    }
}
