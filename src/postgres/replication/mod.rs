//! Replication sessions: statements, then the log as a stream.
//!
//! Promises: hosts, encryption, authentication and session settings are those of every other session
//! of ours. What the server sends is lent, not copied. Must not: know what is in the log.
//! Fails: with cause and remedy, by the same table of SQLSTATEs.
//!
//! The driver has no way to speak both directions at once (`CopyBoth`), which replication needs.
//!
//! Source: PostgreSQL documentation, "Streaming Replication Protocol" and "Message Flow".

mod authentication;
mod connect;
mod end_point;
mod fault;
mod framing;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod paced_socket;
mod session;
mod stream;
mod transport;
mod wire;

pub use crate::postgres::replication::framing::MessageSieve;
pub use crate::postgres::replication::session::Walsender;
pub use crate::postgres::replication::stream::{Everything, Frame, LogStream, ReplyWanted};

use crate::error::Result;
use crate::postgres::password::Unopened;
use crate::postgres::replication::connect::SessionScope;
use crate::postgres::replication::session::is_on;
use crate::postgres::replication::wire::Wire;
use crate::postgres::{DatabaseConfig, SESSION, errors, with_timeout};

/// Opens a replication session. `purpose` shows in `pg_stat_activity` as application_name
/// `postrider <purpose>`.
///
/// # Errors
/// When no server answers, refuses us, or is hidden by a connection pooler.
pub async fn connect_walsender(database: &DatabaseConfig, purpose: &str) -> Result<Walsender> {
    let name = database.display_name();
    let action = format!("connect to {name}");
    let opening = async {
        let wire = database.log_in(|now| open_as(now, purpose, &action)).await?;
        let mut walsender = Walsender::new(wire);
        let answer = walsender.ask(SESSION).await;
        let rows = answer.map_err(|fault| fault.during("set up the session"))?;
        let is_direct = rows.iter().any(|row| row.first().is_some_and(is_on));
        if is_direct { Ok(walsender) } else { Err(errors::pooler(&name)) }
    };
    Box::pin(with_timeout(database, &action, opening)).await
}

/// Whether this login gets a session in which it could copy the whole server: `pg_hba.conf` has a line for
/// `replication` that lets it in. The session is ended at once.
///
/// # Errors
/// When none can be tried, as no password is had.
pub async fn may_copy_server(database: &DatabaseConfig) -> Result<bool> {
    let now = database.now().await?;
    match connect::open(&now, "check", SessionScope::Server).await {
        Ok(_) => Ok(true),
        Err(fault) => {
            tracing::debug!(?fault, "no session for copying the server");
            Ok(false)
        }
    }
}

async fn open_as(
    database: DatabaseConfig,
    purpose: &str,
    action: &str,
) -> std::result::Result<Wire, Unopened> {
    connect::open(&database, purpose, SessionScope::Database).await.map_err(|fault| {
        let is_password = fault.is_password_refusal();
        let error = fault.during(action);
        if is_password { Unopened::Password(error) } else { Unopened::Otherwise(error) }
    })
}

#[cfg(test)]
#[path = "replication_tests.rs"]
mod tests;
