//! How events are read, as the one row of `postrider.capture` says for all instances.
//!
//! Promises: whoever reads the row knows how events are read, and what the slot was when it was made.
//! Must not: touch a slot that anybody reads. Fails: with the connection's error;
//! [`ErrorKind::Schema`] for a row of another version.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Row;

use crate::capture::slot::reader_lock::{end_portal, try_lock_in};
use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::Snapshot;
use crate::postgres::{Connection, Lsn, PgSnapshot, Sql, classify};
use crate::schema::{self, Schema};

static READ: Sql = Sql::of(include_str!("../../sql/queries/capture_read.sql"));
static MODE: Sql = Sql::of(include_str!("../../sql/queries/capture_mode.sql"));
static PAUSE: Sql = Sql::of(include_str!("../../sql/queries/pause.sql"));
static RESUME: Sql = Sql::of(include_str!("../../sql/queries/resume.sql"));
static LEAVE: Sql = Sql::of(include_str!("../../sql/queries/slot_leave.sql"));
/// What may be too much for a line.
const REASON_CHARACTERS_MAX: usize = 1_000;
/// The publication of the outbox.
const TABLE_PUBLICATION: &str = "postrider";
/// The same of another schema than the usual one, without its name.
const OTHER_TABLE_PUBLICATION: &str = "postrider_table";
/// How publications of adopted tables are called, before the schema's name.
pub(super) const ADOPTED_PUBLICATION: &str = "postrider_adopted";
/// The publication without a table.
const MESSAGE_PUBLICATION: &str = "postrider_messages";

/// The publication of adopted tables.
pub(super) fn adopted_publication() -> String {
    schema::chosen().tagged(ADOPTED_PUBLICATION)
}

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
                Error::new(
                    ErrorKind::Schema,
                    format!("{} has the mode {name:?}", schema::chosen().of("capture")),
                )
                .with_remedy("use the version of postrider that wrote it")
            })
    }

    /// The publication by which it reads.
    pub fn publication(self) -> String {
        self.publication_of(schema::chosen())
    }

    fn publication_of(self, schema: &Schema) -> String {
        match self {
            Self::Message => schema.tagged(MESSAGE_PUBLICATION),
            Self::Poll | Self::Wal if schema.is_usual() => TABLE_PUBLICATION.to_owned(),
            Self::Poll | Self::Wal => schema.tagged(OTHER_TABLE_PUBLICATION),
        }
    }
}

/// Whether anything is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Events are published.
    Running,
    /// Somebody has paused publishing.
    Paused,
}

/// How events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// Cursors are saved behind what Kafka has acknowledged.
    AtLeastOnce {
        /// Rises with each switch.
        term: i64,
    },
    /// Cursors are committed to Kafka with what they stand behind.
    ExactlyOnce {
        /// Rises with each switch.
        term: i64,
    },
}

impl DeliveryMode {
    /// The name of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce { .. } => "at-least-once",
            Self::ExactlyOnce { .. } => "exactly-once",
        }
    }

    /// Since which switch.
    pub fn term(self) -> i64 {
        match self {
            Self::AtLeastOnce { term } | Self::ExactlyOnce { term } => term,
        }
    }

    fn read(name: &str, term: i64) -> Result<Self> {
        match name {
            "at-least-once" => Ok(Self::AtLeastOnce { term }),
            "exactly-once" => Ok(Self::ExactlyOnce { term }),
            _ => {
                let cause = format!("{} has the delivery {name:?}", schema::chosen().of("capture"));
                Err(Error::new(ErrorKind::Schema, cause)
                    .with_remedy("use the version of postrider that wrote it"))
            }
        }
    }
}

/// What a session goes by: when it is another one, the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// How events are read.
    pub mode: Mode,
    /// How they are delivered.
    pub delivery: DeliveryMode,
    /// How many tables are adopted.
    pub adopted: i64,
    /// Whether they are read at all.
    pub flow: Flow,
}

/// The row of `postrider.capture`.
#[derive(Clone, Debug)]
pub struct CaptureState {
    /// How events are read now.
    pub mode: Mode,
    /// How they are delivered.
    pub delivery: DeliveryMode,
    /// What our slot is called, from before it is made until it is dropped.
    pub slot_name: Option<String>,
    /// What is known of it; none while it is made, or when it is of no use for this mode.
    pub slot: Option<KnownSlot>,
    /// All transactions that committed before this are published; none before the slot was used.
    pub delivered: Option<Lsn>,
    /// How many tables are adopted.
    pub adopted: i64,
    /// Who has paused publishing, if somebody has.
    pub pause: Option<Pause>,
    /// The database's number in its cluster.
    pub database: u32,
}

impl CaptureState {
    /// What a session goes by that begins now.
    pub fn way(&self) -> Way {
        let flow = if self.pause.is_some() { Flow::Paused } else { Flow::Running };
        Way { mode: self.mode, delivery: self.delivery, adopted: self.adopted, flow }
    }
}

/// A pause that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// By whom: a role of the database.
    pub by: String,
    /// For how long already.
    pub for_seconds: f64,
    /// None where only `postrider resume` ends it.
    pub left_seconds: Option<f64>,
}

impl Pause {
    fn read(row: &Row) -> Option<Self> {
        row.get::<_, bool>("is_paused").then(|| Self {
            reason: row.get::<_, Option<String>>("pause_reason").unwrap_or_default(),
            by: row.get::<_, Option<String>>("paused_by").unwrap_or_default(),
            for_seconds: row.get("paused_for_seconds"),
            left_seconds: row.get("pause_left_seconds"),
        })
    }
}

/// What was noted when a slot was made.
#[derive(Clone, Debug)]
pub struct KnownSlot {
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
    let row = connection.client().query_one(READ.text(), &[]).await;
    let row = row.map_err(|cause| classify("read how events are captured", cause))?;
    // The session may be that which keeps the lock of the log's reader.
    end_portal(connection).await?;
    let snapshot: Option<PgSnapshot> = row.get("slot_snapshot");
    let lsn: Option<Lsn> = row.get("slot_lsn");
    let publication: Option<String> = row.get("publication");
    let slot = snapshot.zip(lsn.zip(publication));
    Ok(CaptureState {
        mode: Mode::read(row.get("mode"))?,
        delivery: DeliveryMode::read(row.get("delivery"), row.get("delivery_term"))?,
        slot_name: row.get("slot_name"),
        slot: slot.map(|(snapshot, (lsn, publication))| KnownSlot {
            snapshot: snapshot.0,
            lsn,
            publication,
        }),
        delivered: row.get("delivered_lsn"),
        adopted: row.get("adopted"),
        pause: Pause::read(&row),
        database: row.get("database"),
    })
}

/// A pause's reason as it is stored: a line of text.
///
/// # Errors
/// [`ErrorKind::Config`] for none, or too long a one.
pub fn checked_reason(reason: &str) -> Result<String> {
    let reason = reason.trim();
    let length = reason.chars().count();
    if (1..=REASON_CHARACTERS_MAX).contains(&length) && !reason.contains('\0') {
        return Ok(reason.to_owned());
    }
    let cause = format!("the reason for a pause has {length} characters");
    let remedy = format!("give --reason between 1 and {REASON_CHARACTERS_MAX} characters");
    Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy))
}

/// Pauses publishing, or gives the pause that is there another reason and end.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn pause(connection: &Connection, reason: &str, lasts: Option<Duration>) -> Result<()> {
    let seconds = lasts.map(|lasts| lasts.as_secs_f64());
    let paused = connection.client().execute(PAUSE.text(), &[&reason, &seconds]).await;
    paused.map(drop).map_err(|cause| classify("pause publishing", cause))
}

/// Ends a pause; false when there was none.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn resume(connection: &Connection) -> Result<bool> {
    let resumed = connection.client().query_one(RESUME.text(), &[]).await;
    let resumed = resumed.map_err(|cause| classify("resume publishing", cause))?;
    Ok(resumed.get("was_paused"))
}

/// Changes how events are read; false when somebody else has changed it meanwhile.
///
/// # Errors
/// When the connection fails.
pub async fn change_mode(connection: &Connection, from: Mode, to: Mode) -> Result<bool> {
    let changed = connection.client().query_one(MODE.text(), &[&from.name(), &to.name()]).await;
    let changed = changed.map_err(|cause| classify("change how events are captured", cause))?;
    Ok(changed.get::<_, i64>(0) == 1)
}

/// Drops a slot that polling has left behind, and forgets it; false while somebody reads or makes it.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn leave_slot(connection: &mut Connection, slot: &str) -> Result<bool> {
    let failed = |cause| classify("drop the slot that is not read any more", cause);
    let transaction = connection.client_mut().transaction().await.map_err(failed)?;
    if !try_lock_in(&transaction).await? {
        return Ok(false);
    }
    transaction.query(LEAVE.text(), &[&slot]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(read_state(connection).await?.slot_name.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_schema_has_publications_of_its_own() {
        let other: Schema = "messages".parse().expect("it is a name");
        let named =
            |schema: &Schema| [Mode::Wal, Mode::Message].map(|mode| mode.publication_of(schema));
        assert_eq!(named(&Schema::default()), ["postrider", "postrider_messages"]);
        assert_eq!(named(&other), ["postrider_table_messages", "postrider_messages_messages"]);
    }

    #[test]
    fn a_reason_is_a_line_of_text() {
        assert_eq!(checked_reason(" upgrade ").expect("it is one"), "upgrade");
        for text in ["", "  ", &"x".repeat(1_001), "a\0b"] {
            assert_eq!(checked_reason(text).expect_err("it is none").kind(), ErrorKind::Config);
        }
    }
}
