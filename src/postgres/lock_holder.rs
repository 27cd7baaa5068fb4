//! Who keeps a session of ours waiting for a lock.
//!
//! Promises: names whoever is at the head of the queue, and not one that waits itself; answers within seconds. Must not:
//! end anybody, or wait for a lock. Fails: never; what cannot be seen is not named.

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::legible;
use crate::postgres::config::DatabaseConfig;
use crate::postgres::{Sql, classify, open};

static HOLDER: Sql = Sql::of(include_str!("../../sql/queries/lock_holder.sql"));
/// A look that takes longer has met what it was to look at.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Whoever keeps one of our sessions waiting for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// What is locked; none where it is a row.
    pub relation: Option<String>,
    /// Its session; none where it is a prepared transaction.
    pub session: Option<HoldingSession>,
}

/// A session that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingSession {
    /// Of its backend.
    pub pid: i32,
    /// By which it logged in.
    pub role: String,
    /// What it calls itself.
    pub application: String,
}

impl LockHolder {
    /// What people can do about it.
    pub fn remedy(&self) -> String {
        match &self.session {
            Some(HoldingSession { pid, .. }) => format!(
                "let its owner commit, or end it: select pg_terminate_backend({pid}); postrider goes on by itself"
            ),
            None => "see pg_prepared_xacts, and commit or roll back what is prepared there; postrider goes on by itself"
                .to_owned(),
        }
    }
}

impl fmt::Display for LockHolder {
    /// Completes "it waits for".
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.relation {
            Some(relation) => write!(formatter, "a lock on {}", legible::name(relation))?,
            None => write!(formatter, "a locked row")?,
        }
        let Some(HoldingSession { pid, role, application }) = &self.session else {
            return write!(formatter, " behind a prepared transaction");
        };
        write!(formatter, " behind session {pid} of role {}", legible::name(role))?;
        match application.as_str() {
            "" => Ok(()),
            application => write!(formatter, " ({})", legible::name(application)),
        }
    }
}

/// Whoever keeps a session of this login waiting for some seconds, if somebody does.
pub async fn lock_holder(database: &DatabaseConfig) -> Option<LockHolder> {
    match tokio::time::timeout(PATIENCE, look(database)).await {
        Ok(Ok(holder)) => holder,
        Ok(Err(cause)) => {
            tracing::debug!(cause = cause.message(), "who holds a lock cannot be seen");
            None
        }
        Err(_) => None,
    }
}

async fn look(database: &DatabaseConfig) -> Result<Option<LockHolder>> {
    let connection = open(database, "locks", &database.display_name()).await?;
    let row = connection.client().query_opt(HOLDER.text(), &[]).await;
    let row = row.map_err(|cause| classify("look who holds a lock", cause))?;
    Ok(row.map(|row| {
        let pid: i32 = row.get("pid");
        let text = |name| row.get::<_, Option<String>>(name).unwrap_or_default();
        let session = HoldingSession { pid, role: text("role"), application: text("application") };
        LockHolder { relation: row.get("relation"), session: (pid != 0).then_some(session) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_with_what_helps() {
        let session = |application: &str| {
            let (role, application) = ("shop".to_owned(), application.to_owned());
            Some(HoldingSession { pid: 55, role, application })
        };
        let relation = || Some("public.outbox_seq_seq".to_owned());
        for (holder, words, helps) in [
            (
                LockHolder { relation: relation(), session: session("psql\u{1b}[2J") },
                "a lock on public.outbox_seq_seq behind session 55 of role shop (psql\\u{1b}[2J)",
                "pg_terminate_backend(55)",
            ),
            (
                LockHolder { relation: None, session: session("") },
                "a locked row behind session 55 of role shop",
                "pg_terminate_backend(55)",
            ),
            (
                LockHolder { relation: relation(), session: None },
                "a lock on public.outbox_seq_seq behind a prepared transaction",
                "pg_prepared_xacts",
            ),
        ] {
            assert_eq!(holder.to_string(), words);
            assert!(holder.remedy().contains(helps), "{}", holder.remedy());
        }
    }
}
