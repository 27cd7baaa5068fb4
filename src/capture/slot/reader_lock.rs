//! The lock of the one session that reads the log, or makes or drops its slot.
//!
//! Promises: it needs a right, so that no stranger can keep it; it ends with its session, and holds back no
//! vacuum. Must not: be taken for a proof: what is saved carries an epoch.
//! Fails: with the connection's error, or with that of a role which has not the right.

use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::postgres::{Connection, Sql, classify};

static LOCK: Sql = Sql::of(include_str!("../../../sql/queries/instance_lock.sql"));
static LOCK_HERE: Sql = Sql::of(include_str!("../../../sql/queries/slot_lock.sql"));
static FORMER: Sql = Sql::of(include_str!("../../../sql/queries/instance_former.sql"));
static UNLOCK: Sql = Sql::of(include_str!("../../../sql/queries/instance_unlock.sql"));
static HOLDER: Sql = Sql::of(include_str!("../../../sql/queries/instance_holder.sql"));
const OPERATION: &str = "take the lock of the log's reader";

/// Takes the lock if it is free, and keeps it in a transaction that only reads: what is written meanwhile
/// needs another connection.
///
/// # Errors
/// When the connection fails, or the role may not take it.
pub async fn try_lock(connection: &Connection) -> Result<bool> {
    let client = connection.client();
    let is_free = match client.batch_execute(LOCK.text()).await {
        Ok(()) => client.query_one(FORMER.text(), &[]).await.map(|row| row.get("is_free")),
        Err(cause) if is_taken(&cause) => Ok(false),
        Err(cause) => Err(cause),
    };
    match is_free.map_err(|cause| classify(OPERATION, cause)) {
        Ok(true) => end_portal(connection).await.map(|()| true),
        other => {
            unlock(connection).await?;
            other
        }
    }
}

/// Lets the snapshot of the latest query go: in an open transaction the server keeps it until the next one,
/// and no vacuum removes what it sees.
///
/// # Errors
/// When the connection fails.
pub(in crate::capture) async fn end_portal(connection: &Connection) -> Result<()> {
    let ended = connection.client().batch_execute("select").await;
    ended.map_err(|cause| classify("end a query", cause))
}

/// Lets the lock go; nothing happens where it is not held.
///
/// # Errors
/// When the connection fails.
pub async fn unlock(connection: &Connection) -> Result<()> {
    let ended = connection.client().batch_execute("rollback").await;
    ended.map_err(|cause| classify("let the lock of the log's reader go", cause))
}

/// Takes the lock to the end of a transaction that is open already, if it is free. If not, the transaction
/// is good for nothing but its end.
///
/// # Errors
/// When the connection fails, or the role may not take it.
pub(in crate::capture) async fn try_lock_in(transaction: &Transaction<'_>) -> Result<bool> {
    let is_free = match transaction.batch_execute(LOCK_HERE.text()).await {
        Ok(()) => transaction.query_one(FORMER.text(), &[]).await.map(|row| row.get("is_free")),
        Err(cause) if is_taken(&cause) => Ok(false),
        Err(cause) => Err(cause),
    };
    is_free.map_err(|cause| classify(OPERATION, cause))
}

fn is_taken(cause: &tokio_postgres::Error) -> bool {
    cause.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Ends the session that holds the lock when nothing was heard of it for so long; whether
/// there was one.
///
/// # Errors
/// When the connection fails.
pub async fn unlock_the_silent(connection: &Connection, silence: Duration) -> Result<bool> {
    let ended = connection.client().query(UNLOCK.text(), &[&millis(silence)]).await;
    ended
        .map(|ended| !ended.is_empty())
        .map_err(|cause| classify("end the session of an instance that is gone", cause))
}

fn millis(silence: Duration) -> i64 {
    i64::try_from(silence.as_millis()).expect("silence does not last for ages")
}

/// A session that keeps the lock and is no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its backend.
    pub pid: i32,
    /// Its role.
    pub role: String,
    /// What it calls itself.
    pub application_name: String,
}

/// Who has kept the lock for this time, while no instance but `name` has a lease, or had one within it.
///
/// # Errors
/// When the connection fails.
pub async fn stranger(
    connection: &Connection,
    name: &str,
    silence: Duration,
) -> Result<Option<Stranger>> {
    let row = connection.client().query_opt(HOLDER.text(), &[&name, &millis(silence)]).await;
    let row =
        row.map_err(|cause| classify("look who keeps the lock of the log's reader", cause))?;
    Ok(row.map(|row| Stranger {
        pid: row.get("pid"),
        role: row.get("role"),
        application_name: row.get("application_name"),
    }))
}
