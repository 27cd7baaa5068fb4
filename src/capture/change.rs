//! Whether a change of how events are read loses any.
//!
//! Promises: rows are not read as messages, nor messages as rows: nothing may wait on the side that is
//! left, and what cannot be seen any more counts as waiting. Must not: change anything.
//! Fails: with [`ErrorKind::Config`] when events wait; with [`ErrorKind::History`] when messages are lost;
//! with the connection's error.

use super::mode::Mode;
use super::slot::{Gap, Slot, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, classify};

const MESSAGES_WAIT: &str = include_str!("../../sql/queries/messages_wait.sql");
const TABLE_WAITS: &str = include_str!("../../sql/queries/table_waits.sql");

/// What becomes of messages that a lost slot had kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody has said that they are not needed.
    Refused,
    /// Somebody has.
    Accepted,
}

/// Whether nothing is lost by the change. `messages` looks after the slot of [`Mode::Message`].
///
/// # Errors
/// [`ErrorKind::Config`] when events wait, or it cannot be seen whether any do; [`ErrorKind::History`]
/// when messages are lost, unless that is accepted.
pub async fn check_change(messages: &SlotKeeper, from: Mode, to: Mode, loss: Loss) -> Result<()> {
    match (from, to) {
        (Mode::Poll | Mode::Wal, Mode::Message) => check_table(messages.connection()).await,
        (Mode::Message, Mode::Poll | Mode::Wal) => check_messages(messages, to, loss).await,
        _ => Ok(()),
    }
}

async fn check_table(connection: &Connection) -> Result<()> {
    if waits(connection, TABLE_WAITS).await? {
        return Err(still_waiting("rows of the table", Mode::Poll, Mode::Message));
    }
    Ok(())
}

async fn check_messages(messages: &SlotKeeper, to: Mode, loss: Loss) -> Result<()> {
    match messages.gap(&messages.state().await?).await? {
        // What was written before there was a slot is never read.
        Some(Gap::New) => return Ok(()),
        None | Some(Gap::Uncovered) => {}
        Some(_) if loss == Loss::Accepted => return Ok(()),
        Some(gap) => return Err(messages_lost(gap, to)),
    }
    if let Slot::Ready { reader: Some(pid), .. } = messages.look().await? {
        let cause =
            format!("backend {pid} reads the messages: nobody else can see whether any wait");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("stop writers and relays, switch, and start them again"));
    }
    if waits(messages.connection(), MESSAGES_WAIT).await? {
        return Err(still_waiting("messages in the log", Mode::Message, to));
    }
    Ok(())
}

async fn waits(connection: &Connection, look: &str) -> Result<bool> {
    let waiting = connection.client().query_one(look, &[]).await;
    let waiting = waiting.map_err(|cause| classify("look for events that wait", cause))?;
    Ok(waiting.get(0))
}

fn still_waiting(what: &str, from: Mode, to: Mode) -> Error {
    let cause =
        format!("{what} are not published yet, and --capture {} does not bring them", to.name());
    let remedy = format!("run with --capture {} until nothing waits", from.name());
    Error::new(ErrorKind::Config, cause).with_remedy(remedy)
}

/// The error for messages that a lost slot had kept; `to` is how events are to be read instead.
pub fn messages_lost(gap: Gap, to: Mode) -> Error {
    let cause = format!("messages since the last one that was published are lost: {}", gap.words());
    let remedy = match to {
        Mode::Message => "to begin anew with a slot of its own",
        Mode::Poll | Mode::Wal => "to go on with rows alone",
    };
    Error::new(ErrorKind::History, cause)
        .with_remedy(format!("run `postrider capture switch {} --accept-loss` {remedy}", to.name()))
}
