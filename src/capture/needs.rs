//! What it takes to read the log: the server's settings, room for a slot, the roles' attribute.
//!
//! Promises: what would stop a reader is known before anything is changed. Must not: change anything.
//! Fails: with [`ErrorKind::PostgresRefused`], cause and remedy; with the connection's error.

use tokio_postgres::Row;

use super::mode::Mode;
use super::slot::{Slot, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::classify;

const NEEDS: &str = include_str!("../../sql/queries/log_needs.sql");

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
        .query_one(NEEDS, &[&keeper.name(), &this_role, &instances])
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
    Ok(())
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
