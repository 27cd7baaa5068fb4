//! Whether a change of how events are read loses any.
//!
//! Promises: rows are not read as messages, nor messages as rows: nothing may wait on the side that is
//! left, and what cannot be seen any more counts as waiting. Must not: change anything.
//! Fails: with [`ErrorKind::Config`] when events wait; with [`ErrorKind::History`] when messages are lost;
//! with the connection's error.

use crate::capture::mode::Mode;
use crate::capture::slot::{Gap, Slot, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, Sql, classify, fill, without_head};
use crate::schema;

static MESSAGES_WAIT: Sql = Sql::of(include_str!("../../sql/queries/messages_wait.sql"));
static TABLE_WAITS: Sql = Sql::of(include_str!("../../sql/queries/table_waits.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../sql/queries/cursor_floor.sql"));
const LEAF_SESSION: &str = include_str!("../../sql/queries/leaf_session.sql");

/// What helps where rows were inserted that nobody reads.
pub fn rows_remedy() -> String {
    let emit = schema::chosen().of("emit");
    format!("write by `{emit}`; to publish these, run `postrider capture switch poll`")
}

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
    if from != to && to != Mode::Wal && messages.state().await?.adopted > 0 {
        let cause = format!("adopted tables are read from the log alone, not by {}", to.name());
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("give them back first: `postrider adopt <table> --end`"));
    }
    match (from, to) {
        (Mode::Poll | Mode::Wal, Mode::Message) => check_table(messages.connection()).await,
        (Mode::Message, Mode::Poll | Mode::Wal) => check_messages(messages, to, loss).await,
        _ => Ok(()),
    }
}

/// Whether rows of the outbox are not published.
///
/// # Errors
/// When the connection fails.
pub async fn rows_wait(connection: &Connection) -> Result<bool> {
    let set = connection.client().batch_execute(LEAF_SESSION).await;
    set.map_err(|cause| classify("look for events that wait", cause))?;
    waits(connection, &fill(TABLE_WAITS.text(), &[("{floor}", without_head(FLOOR.text()))])).await
}

async fn check_table(connection: &Connection) -> Result<()> {
    if rows_wait(connection).await? {
        return Err(still_waiting("rows of the table", Mode::Poll, Mode::Message));
    }
    Ok(())
}

async fn check_messages(messages: &SlotKeeper, to: Mode, loss: Loss) -> Result<()> {
    match look(messages).await? {
        SeenMessages::Nothing => Ok(()),
        SeenMessages::Lost(_) if loss == Loss::Accepted => Ok(()),
        SeenMessages::Lost(gap) => Err(messages_lost(gap, to)),
        SeenMessages::Waiting => Err(still_waiting("messages in the log", Mode::Message, to)),
        SeenMessages::Read(pid) => {
            let cause =
                format!("backend {pid} reads the messages: nobody else can see whether any wait");
            Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("stop writers and relays, switch, and start them again"))
        }
    }
}

/// Why messages that were not read are lost; none when none are.
///
/// # Errors
/// When the connection fails.
pub async fn loss(messages: &SlotKeeper) -> Result<Option<Gap>> {
    Ok(match look(messages).await? {
        SeenMessages::Lost(gap) => Some(gap),
        SeenMessages::Nothing | SeenMessages::Waiting | SeenMessages::Read(_) => None,
    })
}

/// What is seen of messages that were not read.
enum SeenMessages {
    Nothing,
    Waiting,
    /// Only this backend can see them.
    Read(i32),
    Lost(Gap),
}

async fn look(messages: &SlotKeeper) -> Result<SeenMessages> {
    match messages.gap(&messages.state().await?).await? {
        // What was written before there was a slot is never read.
        Some(Gap::New) => return Ok(SeenMessages::Nothing),
        None | Some(Gap::Uncovered) => {}
        Some(gap) => return Ok(SeenMessages::Lost(gap)),
    }
    if let Slot::Ready { reader: Some(pid), .. } = messages.look().await? {
        return Ok(SeenMessages::Read(pid));
    }
    match waits(messages.connection(), MESSAGES_WAIT.text()).await {
        Ok(true) => Ok(SeenMessages::Waiting),
        Ok(false) => Ok(SeenMessages::Nothing),
        // The server cannot decode past a place of the log without a publication.
        Err(error) if error.kind() == ErrorKind::Schema => Ok(SeenMessages::Lost(Gap::Publication)),
        Err(error) => Err(error),
    }
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
