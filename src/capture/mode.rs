//! How events are read, as the one row of `postrider.capture` says for all instances.
//!
//! Promises: whoever reads the row knows how events are read, and what the slot was when it was made.
//! Must not: touch a slot that anybody reads. Fails: with the connection's error;
//! [`ErrorKind::Schema`] for a row of another version.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, Lsn, PgSnapshot, classify};
use crate::snapshot::Snapshot;

const READ: &str = include_str!("../../sql/queries/capture_read.sql");
const MODE: &str = include_str!("../../sql/queries/capture_mode.sql");
const FORGET: &str = include_str!("../../sql/queries/capture_forget.sql");
const LEAVE: &str = include_str!("../../sql/queries/slot_leave.sql");
const MESSAGES_WAIT: &str = include_str!("../../sql/queries/messages_wait.sql");
const TABLE_WAITS: &str = include_str!("../../sql/queries/table_waits.sql");
/// The publication of the outbox.
const TABLE_PUBLICATION: &str = "postrider";
/// The publication without a table.
const MESSAGE_PUBLICATION: &str = "postrider_messages";

/// How events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From the table.
    Poll,
    /// From the table's log.
    Wal,
    /// From messages in the log.
    Message,
}

impl Mode {
    /// As it is typed and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Wal => "wal",
            Self::Message => "message",
        }
    }

    fn read(name: &str) -> Result<Self> {
        [Self::Poll, Self::Wal, Self::Message]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| {
                Error::new(ErrorKind::Schema, format!("postrider.capture has the mode {name:?}"))
                    .with_remedy("use the version of postrider that wrote it")
            })
    }

    pub(super) fn publication(self) -> &'static str {
        if self == Self::Message { MESSAGE_PUBLICATION } else { TABLE_PUBLICATION }
    }
}

/// The row of `postrider.capture`.
#[derive(Clone, Debug)]
pub struct CaptureState {
    /// How events are read now.
    pub mode: Mode,
    /// The slot that was made last.
    pub slot: Option<KnownSlot>,
    /// All transactions that committed before this are published; none before the slot was used.
    pub delivered: Option<Lsn>,
    /// How many tables are adopted.
    pub adopted: i64,
}

/// What was noted when a slot was made.
#[derive(Clone, Debug)]
pub struct KnownSlot {
    /// Its name.
    pub name: String,
    /// What had committed where it begins.
    pub snapshot: Snapshot,
    /// Where it begins.
    pub lsn: Lsn,
    /// What the publication was.
    pub publication: String,
}

/// Reads the row of `postrider.capture`.
///
/// # Errors
/// When the connection fails, or the row is not one of this version.
pub async fn read_state(connection: &Connection) -> Result<CaptureState> {
    let row = connection.client().query_one(READ, &[]).await;
    let row = row.map_err(|cause| classify("read how events are captured", cause))?;
    let name: Option<String> = row.get("slot_name");
    let snapshot: Option<PgSnapshot> = row.get("slot_snapshot");
    let lsn: Option<Lsn> = row.get("slot_lsn");
    let publication: Option<String> = row.get("publication");
    let slot = name.zip(snapshot).zip(lsn.zip(publication));
    Ok(CaptureState {
        mode: Mode::read(row.get("mode"))?,
        slot: slot.map(|((name, snapshot), (lsn, publication))| KnownSlot {
            name,
            snapshot: snapshot.0,
            lsn,
            publication,
        }),
        delivered: row.get("delivered_lsn"),
        adopted: row.get("adopted"),
    })
}

/// Changes how events are read; false when somebody else has changed it meanwhile.
///
/// # Errors
/// When the connection fails.
pub async fn change_mode(connection: &Connection, from: Mode, to: Mode) -> Result<bool> {
    let changed = connection.client().query_one(MODE, &[&from.name(), &to.name()]).await;
    let changed = changed.map_err(|cause| classify("change how events are captured", cause))?;
    Ok(changed.get::<_, i64>(0) == 1)
}

/// Whether nothing is lost by the change: rows are not read as messages, nor messages as rows, so
/// nothing may wait on the side that is left.
///
/// # Errors
/// [`ErrorKind::Config`] when events wait.
pub async fn check_change(control: &Connection, from: Mode, to: Mode) -> Result<()> {
    if to != Mode::Wal && read_state(control).await?.adopted > 0 {
        let cause = format!("adopted tables are read from the log alone, not by {}", to.name());
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("give them back first: `postrider adopt <table> --end`"));
    }
    let (waits, what) = match (from, to) {
        (Mode::Poll | Mode::Wal, Mode::Message) => (TABLE_WAITS, "rows of the table"),
        (Mode::Message, Mode::Poll | Mode::Wal) => (MESSAGES_WAIT, "messages in the log"),
        _ => return Ok(()),
    };
    let waiting = control.client().query_one(waits, &[]).await;
    let waiting = waiting.map_err(|cause| classify("look for events that wait", cause))?;
    if waiting.get(0) {
        let cause = format!(
            "{what} are not published yet, and --capture {} does not bring them",
            to.name()
        );
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy(format!("run with --capture {} until nothing waits", from.name())));
    }
    Ok(())
}

/// Forgets a slot of messages that is lost.
///
/// # Errors
/// When the connection fails.
pub async fn forget_slot(connection: &Connection) -> Result<()> {
    let forgotten = connection.client().execute(FORGET, &[]).await;
    forgotten.map(|_| ()).map_err(|cause| classify("forget the lost slot", cause))
}

/// Drops a slot that polling has left behind; false while somebody still reads it.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn leave_slot(connection: &Connection, slot: &str) -> Result<bool> {
    let failed = |cause| classify("drop the slot that is not read any more", cause);
    connection.client().query(LEAVE, &[&slot]).await.map_err(failed)?;
    Ok(read_state(connection).await?.slot.is_none())
}
