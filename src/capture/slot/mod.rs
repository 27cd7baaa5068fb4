//! The replication slot, its publication, and what is remembered of both in `postrider.capture`.
//!
//! Promises: a slot is used only if nothing is missing between what is published and where it begins;
//! whatever is wrong with it is found before the stream is believed. Must not: read the stream.
//! Fails: with the connection's error; [`ErrorKind::PostgresRefused`] where rights are missing.
//!
//! A slot that is confirmed further than we have delivered skips what lies between without a word
//! (`START_REPLICATION` in PostgreSQL's documentation of the streaming protocol), as does one that was
//! dropped and made again, and a publication that lacked the table for a while. Each of these counts
//! as a slot that is lost.

mod copying;
pub mod failover;
pub mod parts;
mod publication;
mod publication_rights;
pub mod reader_lock;
pub mod requirements;
pub mod table_look;

use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;

use crate::capture::adopted::copy::SlotSession;
use crate::capture::adopted::mapping::{Adopted, ValueForm};
use crate::capture::adopted::registry::adopted_tables;
use crate::capture::mode::{CaptureState, KnownSlot, Mode, adopted_publication, read_state};
pub use crate::capture::slot::copying::AdoptedScope;
pub use crate::capture::slot::publication::Fingerprint;
use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::OutboxName;
use crate::postgres::{
    Connection, DatabaseConfig, Lsn, PgSnapshot, Sql, Walsender, classify, connect_walsender,
    with_timeout,
};

static SERVER: Sql = Sql::of(include_str!("../../../sql/queries/slot_server.sql"));
static NAME: Sql = Sql::of(include_str!("../../../sql/queries/slot_name.sql"));
static SLOT: Sql = Sql::of(include_str!("../../../sql/queries/capture_slot.sql"));
static DELIVERED: Sql = Sql::of(include_str!("../../../sql/queries/capture_delivered.sql"));
static COVERED: Sql = Sql::of(include_str!("../../../sql/queries/capture_covered.sql"));
static WAITS: Sql = Sql::of(include_str!("../../../sql/queries/slot_waits.sql"));
const LOOK: &str = include_str!("../../../sql/queries/slot_look.sql");
const DROP: &str = include_str!("../../../sql/queries/slot_drop.sql");
const BACKEND: &str = include_str!("../../../sql/queries/backend.sql");
const NEAR: &str = include_str!("../../../sql/queries/adopted_near.sql");
const WATCH: &str = include_str!("../../../sql/queries/slot_watch.sql");
const FREE: &str = include_str!("../../../sql/queries/slot_free.sql");

/// Slots that follow a failover, and the list of options in parentheses.
pub(super) const FAILOVER_VERSION: i32 = 170_000;
const OPTIONS_VERSION: i32 = 150_000;
/// A backend that is ended lets go of the slot within a moment.
const FREE_PATIENCE: Duration = Duration::from_secs(2);
const FREE_INTERVAL: Duration = Duration::from_millis(20);

/// The slot as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// There is none of this name.
    Missing,
    /// One of this name is not ours.
    Foreign,
    /// The server has thrown away what it would need.
    Lost,
    /// It waits for older transactions before it can be used.
    Making {
        /// The backend that makes it.
        maker: i32,
    },
    /// It can be used.
    Ready {
        /// Up to where it has been confirmed.
        confirmed: Lsn,
        /// The backend that reads it.
        reader: Option<i32>,
    },
}

/// A slot in figures.
#[derive(Clone, Copy, Debug)]
pub struct SlotSight {
    /// What the server keeps of its log for it.
    pub retained_bytes: u64,
    /// What may be written until it is lost; none where there is no limit.
    pub safe_bytes: Option<u64>,
    /// Up to where it has been confirmed.
    pub confirmed: Option<Lsn>,
    /// What has been written since.
    pub behind_bytes: u64,
    /// Since nobody reads it, in seconds; none where somebody does, or the server does not know.
    pub inactive_seconds: Option<f64>,
}

/// The session that looks after the slot.
#[derive(Debug)]
pub struct SlotKeeper {
    connection: Connection,
    database: DatabaseConfig,
    outbox: OutboxName,
    mode: Mode,
    name: String,
    server_version: i32,
    adopted: Vec<Adopted>,
    scope: AdoptedScope,
}

impl SlotKeeper {
    /// Opens the session; nothing is changed yet.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn open(
        connection: Connection,
        database: &DatabaseConfig,
        outbox: OutboxName,
        mode: Mode,
    ) -> Result<Self> {
        let (server, adopted) = with_timeout(database, "name the slot", async {
            let server = connection.client().query_one(SERVER.text(), &[]).await;
            let server = server.map_err(|cause| classify("name the slot", cause))?;
            Ok((server, adopted_tables(&connection).await?))
        })
        .await?;
        let (name, server_version) = (server.get("slot_name"), server.get("server_version"));
        let database = database.clone();
        let scope = AdoptedScope::All;
        Ok(Self { connection, database, outbox, mode, name, server_version, adopted, scope })
    }

    /// Others are adopted from here on.
    pub(super) fn set_adopted(&mut self, adopted: Vec<Adopted>) {
        self.adopted = adopted;
    }

    /// Which of the adopted tables are read.
    pub fn scope(&self) -> AdoptedScope {
        self.scope
    }

    /// The adopted tables, as they were when the session began.
    pub fn adopted(&self) -> &[Adopted] {
        &self.adopted
    }

    /// The slot's name: one per database, as slots belong to the whole server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How events are read by it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn server_version(&self) -> i32 {
        self.server_version
    }

    /// The outbox whose log it is.
    pub fn outbox(&self) -> &OutboxName {
        &self.outbox
    }

    /// The session that looks after it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The slot as the server has it.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&self) -> Result<Slot> {
        let row = self.connection.client().query_opt(LOOK, &[&self.name]).await;
        let row = row.map_err(|cause| classify("look at the slot", cause))?;
        Ok(match row {
            None => Slot::Missing,
            Some(row) if !row.get::<_, bool>("is_ours") => Slot::Foreign,
            Some(row) if row.get("is_lost") => Slot::Lost,
            Some(row) => match row.get::<_, Option<Lsn>>("confirmed_flush_lsn") {
                Some(confirmed) => Slot::Ready { confirmed, reader: row.get("active_pid") },
                None => match row.get("active_pid") {
                    Some(maker) => Slot::Making { maker },
                    None => Slot::Lost,
                },
            },
        })
    }

    /// What the server says of the slot, in figures; none when it is not there.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn sight(&self) -> Result<Option<SlotSight>> {
        let row = self.connection.client().query_opt(WATCH, &[&self.name]).await;
        let row = row.map_err(|cause| classify("look at the slot", cause))?;
        let unsigned = |number: i64| number.max(0).cast_unsigned();
        Ok(row.map(|row| SlotSight {
            retained_bytes: unsigned(row.get("retained_bytes")),
            safe_bytes: row.get::<_, Option<i64>>("safe_bytes").map(unsigned),
            confirmed: row.get("confirmed_flush_lsn"),
            behind_bytes: unsigned(row.get("behind_bytes")),
            inactive_seconds: row.get("inactive_seconds"),
        }))
    }

    /// The row of `postrider.capture`.
    ///
    /// # Errors
    /// As [`read_state`].
    pub async fn state(&self) -> Result<CaptureState> {
        read_state(&self.connection).await
    }

    /// Why the stream would not bring everything that is not published yet; none when it would.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn gap(&self, state: &CaptureState) -> Result<Option<Gap>> {
        let slot = self.look().await?;
        let is_ours = state.slot_name.as_ref() == Some(&self.name);
        let Some(known) = state.slot.as_ref().filter(|_| is_ours) else {
            return Ok(Some(Gap::New));
        };
        if slot == Slot::Foreign {
            return Ok(Some(Gap::Foreign));
        }
        let changed = self.gap_since(known).await?;
        if changed == Some(Gap::Publication) {
            return Ok(changed);
        }
        if self.mode == Mode::Wal && self.has_unread_parts(&known.snapshot).await? {
            return Ok(Some(Gap::Attached));
        }
        let begins = state.delivered.unwrap_or(known.lsn);
        Ok(match slot {
            Slot::Missing | Slot::Foreign => Some(Gap::Missing),
            Slot::Lost => Some(Gap::Lost),
            Slot::Making { .. } => Some(Gap::Making),
            Slot::Ready { confirmed, .. } if confirmed > begins => Some(Gap::Ahead),
            Slot::Ready { .. } if state.delivered.is_none() => Some(Gap::Uncovered),
            Slot::Ready { .. } => changed,
        })
    }

    /// Ends whoever still streams from the slot: the caller holds the instance's lock, so that can only
    /// be an instance that is gone, or does not know yet that it is none any more.
    ///
    /// # Errors
    /// When the connection fails, or the slot is still read after a while.
    pub async fn free(&self) -> Result<()> {
        let until = Instant::now() + FREE_PATIENCE;
        while let Slot::Ready { reader: Some(pid), .. } = self.look().await? {
            if Instant::now() > until {
                let cause = format!("the slot {} is read by backend {pid}", self.name);
                return Err(Error::new(ErrorKind::SlotUnusable, cause)
                    .with_remedy(format!("end it: select pg_terminate_backend({pid})")));
            }
            let freed = self.connection.client().query(FREE, &[&self.name]).await;
            freed.map_err(|cause| classify("free the slot", cause))?;
            tokio::time::sleep(FREE_INTERVAL).await;
        }
        Ok(())
    }

    /// The error for a slot that is not ours.
    pub fn foreign(&self) -> Error {
        let cause = format!("a replication slot named {} belongs to something else", self.name);
        Error::new(ErrorKind::PostgresRefused, cause)
            .with_remedy(format!("drop it: select pg_drop_replication_slot('{}')", self.name))
    }

    /// Makes publication and slot again, in this order. It waits for all older transactions, so the
    /// table is polled meanwhile. Whoever does it holds the instance lock. The name is noted first: a
    /// slot whose maker was killed is found and dropped by it.
    ///
    /// # Errors
    /// When rights are missing, somebody reads the slot, or the connection fails.
    pub async fn make(&self) -> Result<(KnownSlot, SlotSession)> {
        let client = self.connection.client();
        let publication = self.make_publication().await?;
        if self.look().await? == Slot::Foreign {
            return Err(self.foreign());
        }
        let named = client.execute(NAME.text(), &[&self.name]).await;
        named.map_err(|cause| classify("note the slot's name", cause))?;
        client
            .execute(DROP, &[&self.name])
            .await
            .map_err(|cause| classify("drop the slot", cause))?;
        let (session, lsn, snapshot) = self.create(SlotTerm::Lasting).await?;
        let session = SlotSession::new(session, lsn, snapshot.clone());
        let known = KnownSlot { snapshot, lsn, publication: publication.to_string() };
        let snapshot = PgSnapshot(known.snapshot.clone());
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&self.name, &snapshot, &known.lsn, &known.publication];
        let noted = client.execute(SLOT.text(), &parameters).await;
        noted.map_err(|cause| classify("note the slot", cause))?;
        Ok((known, session))
    }

    /// Whether this session may be used on.
    pub fn is_connected(&self) -> bool {
        !self.connection.client().is_closed()
    }

    /// Opens a session for a stream and lets it go, to see whether the server lets one in.
    ///
    /// # Errors
    /// When it does not.
    pub async fn knock(&self) -> Result<()> {
        connect_walsender(&self.database, "slot").await.map(|_| ())
    }

    /// Makes a slot, and says what had committed where it begins. The session's transaction is open.
    async fn create(&self, term: SlotTerm) -> Result<(Walsender, Lsn, Snapshot)> {
        let mut session = connect_walsender(&self.database, "slot").await?;
        let options = match (self.server_version, term) {
            (version, SlotTerm::Lasting) if version >= FAILOVER_VERSION => {
                "(snapshot 'use', failover true)"
            }
            (version, _) if version >= OPTIONS_VERSION => "(snapshot 'use')",
            _ => "USE_SNAPSHOT",
        };
        let named = match term {
            SlotTerm::Lasting => self.name.clone(),
            SlotTerm::Session => {
                let backend = session.query(BACKEND).await?;
                format!("{}_copy_{} TEMPORARY", self.name, cell(&backend, 0).unwrap_or_default())
            }
        };
        // The slot's making is the first thing in it.
        session.query("begin isolation level repeatable read read only").await?;
        let create = format!("CREATE_REPLICATION_SLOT {named} LOGICAL pgoutput {options}");
        let slot = session.query(&create).await?;
        let snapshot = session.query("select pg_current_snapshot()").await?;
        let (lsn, seen) = (cell(&slot, 1), cell(&snapshot, 0));
        let read = lsn.and_then(parse_lsn).zip(seen.and_then(parse_snapshot));
        if let Some((lsn, snapshot)) = read {
            return Ok((session, lsn, snapshot));
        }
        Err({
            let cause = format!("a new slot begins at {lsn:?} with the snapshot {seen:?}");
            Error::new(ErrorKind::SlotUnusable, cause)
                .with_remedy("see `postrider capture show`; the slot is made again after a pause")
        })
    }

    /// Notes that all that had committed where the slot begins is published.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn cover(&self) -> Result<()> {
        let noted = self.connection.client().execute(COVERED.text(), &[&self.name]).await;
        noted.map(|_| ()).map_err(|cause| classify("note that the slot is covered", cause))
    }

    /// For whom the making of the slot waits, if it does.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn waits_for(&self) -> Result<Option<String>> {
        let row = self.connection.client().query_one(WAITS.text(), &[]).await;
        let row = row.map_err(|cause| classify("look for whom the slot waits", cause))?;
        Ok(row.get("who"))
    }

    /// A transaction id of the present, whole.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn near(&self) -> Result<TransactionId> {
        let row = self.connection.client().query_one(NEAR, &[]).await;
        let row = row.map_err(|cause| classify("look where transaction ids are", cause))?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
    }

    /// Notes, on disk, that everything before this place is published.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the buckets are another instance's; the connection's error.
    pub async fn deliver(&self, lsn: Lsn, epoch: i64) -> Result<()> {
        let noted = self.connection.client().execute(DELIVERED.text(), &[&lsn, &epoch]).await;
        let noted = noted.map_err(|cause| classify("note what is delivered", cause))?;
        if noted == 1 { Ok(()) } else { Err(Error::fenced()) }
    }

    /// How the stream is asked for: what was delivered is not sent again.
    pub fn start_command(&self, delivered: Lsn, form: ValueForm) -> String {
        let is_binary = form == ValueForm::Binary;
        let adopted = match self.mode == Mode::Wal && !self.adopted.is_empty() {
            true => format!(",{}", adopted_publication()),
            false => String::new(),
        };
        format!(
            "START_REPLICATION SLOT {} LOGICAL {delivered} (proto_version '1', \
             publication_names '{}{adopted}', binary '{is_binary}', messages 'true')",
            self.name,
            self.mode.publication()
        )
    }
}

/// How long a slot is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotTerm {
    /// Until it is dropped.
    Lasting,
    /// As long as the session that makes it.
    Session,
}

/// Why a stream would not bring everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// No slot was used yet.
    New,
    /// It is there; what had committed before it began is not published yet.
    Uncovered,
    /// It was dropped.
    Missing,
    /// Something else has taken its name.
    Foreign,
    /// The server has thrown away what it needs.
    Lost,
    /// It waits for older transactions before it can be used.
    Making,
    /// It was confirmed further than we have delivered: advanced, or dropped and made again.
    Ahead,
    /// The publication was changed since.
    Publication,
    /// Partitions of the outbox were unlogged, filtered, or filled aside since, or are.
    Course,
    /// A table that had rows became a part of an adopted one since.
    Attached,
    /// The server cannot hand on what comes next in it.
    Stuck,
    /// It brings rows in a form that their table has no more.
    Form,
    /// Rows of adopted tables from before it are not published, and the session that would see them is
    /// gone.
    Uncopied,
}

impl Gap {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::New => "there was no slot yet",
            Self::Uncovered => "what had committed before the slot began is not published yet",
            Self::Missing => "the slot is gone",
            Self::Foreign => "a replication slot of its name belongs to something else",
            Self::Lost => {
                "the server has thrown away what the slot needs (max_slot_wal_keep_size, idle_replication_slot_timeout)"
            }
            Self::Making => "the slot is being made",
            Self::Ahead => "the slot is ahead of what was published: advanced, or made anew",
            Self::Publication => "the publication is missing or was changed",
            Self::Course => "partitions of the outbox, or what is published of them, were changed",
            Self::Attached => "a table with rows has become a part of an adopted table",
            Self::Stuck => "the server cannot hand on what comes next in the log",
            Self::Form => "the log brings rows in a form that their table has no more",
            Self::Uncopied => "rows of adopted tables from before the slot are not published yet",
        }
    }
}

fn cell(rows: &[Vec<Option<String>>], column: usize) -> Option<&str> {
    rows.first()?.get(column)?.as_deref()
}

fn parse_lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some(Lsn(part(high)? << 32 | part(low)?))
}

/// The snapshot at which a slot begins. Logical decoding makes it, and gives an `xmin` behind `xmax` when
/// nothing runs: what lies below `xmin` is seen all the same.
fn parse_snapshot(text: &str) -> Option<Snapshot> {
    let mut numbers = text.splitn(3, ':');
    let (xmin, xmax): (u64, u64) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    if xmin > xmax { Snapshot::new(xmin, xmin, Vec::new()).ok() } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_snapshot_may_have_its_xmin_behind_its_xmax() {
        let parsed = |text| parse_snapshot(text).map(|snapshot| snapshot.to_string());
        assert_eq!(parsed("11790:11789:").as_deref(), Some("11790:11790:"));
        assert_eq!(parsed("10:20:11,14").as_deref(), Some("10:20:11,14"));
        assert_eq!(parsed("10:"), None);
    }

    #[test]
    fn places_are_read_as_postgresql_writes_them() {
        assert_eq!(parse_lsn("1/2E48CE8"), Some(Lsn(0x1_02E4_8CE8)));
        assert_eq!(parse_lsn("1/2E48CE8").map(|lsn| lsn.to_string()).as_deref(), Some("1/2E48CE8"));
        assert_eq!(parse_lsn("12"), None);
    }
}
