//! What saved ticks saw: by what the ticker remembers besides, rows are judged before their partition is emptied.
//!
//! Promises: the latest saved tick is on record before a later one is saved in its place, but for those of one
//! second. Must not: be needed for relaying: a role that may not write it relays all the same.
//! Fails: with the connection's error.

use crate::error::{ErrorKind, Result};
use crate::postgres::{Connection, Sql, classify};

static LOG_BEGIN: Sql = Sql::of(include_str!("../../../sql/queries/log_begin_note.sql"));
static NOTE: Sql = Sql::of(include_str!("../../../sql/queries/past_tick_note.sql"));

/// Whether the table could be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It could.
    Yes,
    /// The role may not.
    Refused,
}

/// Remembers that the log is read from the latest saved tick on, and brings each row up to the next one that is
/// remembered, whatever its number.
///
/// # Errors
/// When the connection fails.
pub async fn remember_log(connection: &Connection) -> Result<Remembered> {
    let noted = connection.client().batch_execute(LOG_BEGIN.text()).await;
    match noted.map_err(|cause| classify("remember that the log is read", cause)) {
        Ok(()) => Ok(Remembered::Yes),
        Err(error) if error.kind() == ErrorKind::PostgresRefused => Ok(Remembered::Refused),
        Err(error) => Err(error),
    }
}

/// Remembers the latest saved tick.
///
/// # Errors
/// When the connection fails.
pub async fn remember_tick(connection: &Connection) -> Result<Remembered> {
    let failed = |cause| classify("remember a tick", cause);
    let noted = connection.client().batch_execute(NOTE.text()).await.map_err(failed);
    match noted {
        Ok(()) => Ok(Remembered::Yes),
        Err(error) if error.kind() == ErrorKind::PostgresRefused => {
            connection.client().batch_execute("rollback").await.map_err(failed)?;
            Ok(Remembered::Refused)
        }
        Err(error) => Err(error),
    }
}
