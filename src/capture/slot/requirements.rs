//! What it takes to read the log: the server's settings, room for a slot, the roles' attribute, and their
//! rights on adopted tables, whose rows are copied before the stream.
//!
//! Promises: what would stop a reader is known before anything is changed. Must not: change anything.
//! Fails: with [`ErrorKind::PostgresRefused`], cause and remedy; with the connection's error.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::capture::adopted::mapping::Adopted;
use crate::capture::adopted::registry::adopted_columns;
use crate::capture::mode::{KnownSlot, Mode};
use crate::capture::slot::{Slot, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Sql, classify};

static ADOPTED_RIGHTS: Sql = Sql::of(include_str!("../../../sql/queries/adopted_rights.sql"));
static NEEDS: Sql = Sql::of(include_str!("../../../sql/queries/log_needs.sql"));
const OPEN: &str = include_str!("../../../sql/queries/messages_open.sql");
/// What helps where every login may write events as messages.
pub const CLOSE_MESSAGES: &str = "run sql/roles.sql as a superuser: it leaves pg_logical_emit_message to \
                                  postrider_writer and postrider_relay";

/// Who is to make a slot or to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The role of this session.
    ThisRole,
    /// The roles of the running instances.
    Instances,
    /// Both.
    All,
}

/// Whether nothing is in a reader's way but what it can mend.
///
/// # Errors
/// [`ErrorKind::PostgresRefused`] with what is missing; the connection's error.
pub async fn check_needs(keeper: &SlotKeeper, readers: Readers) -> Result<()> {
    let (this_role, instances) = (readers != Readers::Instances, readers != Readers::ThisRole);
    let row = keeper
        .connection()
        .client()
        .query_one(NEEDS.text(), &[&keeper.name(), &this_role, &instances])
        .await
        .map_err(|cause| classify("look for what reading the log needs", cause))?;
    check_server(&row, keeper.mode())?;
    if let Some(roles) = row.get::<_, Option<String>>("roles_without") {
        let cause =
            format!("the log can be read by roles with the attribute replication: not by {roles}");
        let first = roles.split(", ").next().unwrap_or(&roles);
        return Err(refused(cause, format!("alter role {first} replication")));
    }
    if keeper.look().await? == Slot::Foreign {
        return Err(keeper.foreign());
    }
    keeper.check_logged().await?;
    let whose = AdoptedReaders { this_role, instances, group: false };
    let adopted = keeper.adopted().iter().filter(|_| keeper.mode() == Mode::Wal);
    for table in adopted {
        if let Some(missing) = missing_rights(keeper.connection(), &table.name, whose).await?.pop()
        {
            return Err(refused(missing.cause, missing.remedy));
        }
    }
    Ok(())
}

/// Whose rights on an adopted table are looked at.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedReaders {
    /// Those of this session's role.
    pub this_role: bool,
    /// Those of the running instances' roles.
    pub instances: bool,
    /// Those of the relays' group.
    pub group: bool,
}

/// A right that a relay's role lacks.
#[derive(Debug)]
pub struct MissingRight {
    /// What it may not do.
    pub cause: String,
    /// What grants it.
    pub remedy: String,
    /// Whether the table cannot even be looked up without it.
    pub is_of_schema: bool,
}

impl SlotKeeper {
    /// As [`missing_rights`], in the keeper's session.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn missing_rights(
        &self,
        table: &Adopted,
        whose: AdoptedReaders,
    ) -> Result<Vec<MissingRight>> {
        missing_rights(self.connection(), &table.name, whose).await
    }

    /// Refuses to read the log while it does not bring the rows of an adopted table.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] with the table and what helps; the connection's error.
    pub async fn check_adopted_logged(&self) -> Result<()> {
        for table in self.adopted().iter().filter(|_| self.mode() == Mode::Wal) {
            adopted_columns(self.connection(), &table.name).await?;
        }
        Ok(())
    }

    /// What keeps this session's role from reading adopted tables. Where all their rows from before the slot are
    /// published (`known`), they need only be looked up.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] with the grant that is missing; the connection's error.
    pub async fn check_adopted(&self, known: Option<&KnownSlot>) -> Result<()> {
        let whose = AdoptedReaders { this_role: true, instances: false, group: false };
        for table in self.adopted().iter().filter(|_| self.mode() == Mode::Wal) {
            let is_read = known.is_some_and(|slot| table.covers(&slot.snapshot));
            let missing = self.missing_rights(table, whose).await?;
            let mut missing = missing.into_iter().filter(|right| right.is_of_schema || !is_read);
            if let Some(MissingRight { cause, remedy, .. }) = missing.next() {
                return Err(refused(cause, remedy));
            }
        }
        Ok(())
    }
}

/// What is in the way of reading an adopted table.
///
/// # Errors
/// When the connection fails.
pub async fn missing_rights(
    connection: &Connection,
    table: &OutboxName,
    whose: AdoptedReaders,
) -> Result<Vec<MissingRight>> {
    let AdoptedReaders { this_role, instances, group } = whose;
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&table.schema, &table.table, &this_role, &instances, &group];
    let roles = connection.client().query(ADOPTED_RIGHTS.text(), &parameters).await;
    let roles = roles.map_err(|cause| classify("look at the relay's rights", cause))?;
    Ok(roles.iter().flat_map(|row| missing_right(row, table)).collect())
}

fn missing_right(row: &Row, table: &OutboxName) -> Vec<MissingRight> {
    let (role, quoted) = (row.get::<_, String>("role"), table.quoted());
    let schema = escape_identifier(&table.schema);
    let grants = [
        ("may_use", format!("grant usage on schema {schema} to {role}")),
        ("may_read", format!("grant select on {quoted} to {role}")),
    ];
    let grants: Vec<String> = grants
        .into_iter()
        .filter(|(has, _)| !row.get::<_, bool>(has))
        .map(|(_, grant)| grant)
        .collect();
    let mut missing = Vec::new();
    let is_of_schema = !row.get::<_, bool>("may_use");
    if !grants.is_empty() {
        missing.push(MissingRight {
            cause: format!("{role} may not read the adopted table {table}"),
            remedy: format!("run: {}", grants.join("; ")),
            is_of_schema,
        });
    }
    if !row.get::<_, bool>("sees_all") {
        missing.push(MissingRight {
            cause: format!(
                "row-level security of the adopted table {table} would hide rows from {role}, which it \
                 refuses"
            ),
            remedy: format!("run: alter role {role} bypassrls"),
            is_of_schema: false,
        });
    }
    missing
}

/// Whether every login of the database may write what is read as events in [`Mode::Message`].
///
/// # Errors
/// When the connection fails.
pub async fn messages_are_open(keeper: &SlotKeeper) -> Result<bool> {
    let open = keeper.connection().client().query_one(OPEN, &[]).await;
    let open = open.map_err(|cause| classify("look who may write messages", cause))?;
    Ok(open.get(0))
}

fn check_server(row: &Row, mode: Mode) -> Result<()> {
    let wal_level: &str = row.get("wal_level");
    if wal_level != "logical" {
        let cause = format!(
            "--capture {} needs wal_level = logical; the server has {wal_level}",
            mode.name()
        );
        let remedy = "set wal_level = logical and restart the server, or capture by poll";
        return Err(refused(cause, remedy));
    }
    for (used, max, what, setting) in [
        ("other_slots", "slots_max", "replication slots", "max_replication_slots"),
        ("other_senders", "senders_max", "replication connections", "max_wal_senders"),
    ] {
        let (used, max): (i64, i64) = (row.get(used), row.get(max));
        if used >= max {
            let cause = format!("all {max} {what} of the server are in use");
            let remedy = format!("raise {setting} and restart the server, or end those of no use");
            return Err(refused(cause, remedy));
        }
    }
    Ok(())
}

fn refused(cause: String, remedy: impl Into<String>) -> Error {
    Error::new(ErrorKind::PostgresRefused, cause).with_remedy(remedy)
}
