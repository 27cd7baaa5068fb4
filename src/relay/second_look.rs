//! What a statement that found nothing in its place means: a second look at the outbox tells it better.
//!
//! Promises: whoever changed the outbox under a relay reads what was changed, and what leads it back; a session that
//! only knew an older state of it begins anew. Must not: try the same again and again. Fails: never; where the second
//! look tells nothing, the first error stands.

use std::time::{Duration, Instant};

use crate::control::migrate;
use crate::control::migrate::LaterMigrations;
use crate::error::{Error, ErrorKind};
use crate::postgres::{connect, with_timeout};
use crate::relay::instance::Instance;

/// A session that began anew over a change does so again after this; in between an error is an error.
const ANEW_PAUSE: Duration = Duration::from_secs(60);

/// What becomes of a process whose session has ended with an error that no retry mends.
#[derive(Debug)]
pub(super) enum SecondVerdict {
    /// It ends with this.
    End(Error),
    /// The outbox is as it ought to be: what the session knew of it is what was wrong.
    Anew(Error),
}

/// When a session was begun anew last.
#[derive(Debug, Default)]
pub(super) struct SecondLook {
    anew_at: Option<Instant>,
}

impl SecondLook {
    /// Looks at the outbox again, where the error may come from a change of it.
    pub(super) async fn judge(&mut self, instance: &Instance, error: Error) -> SecondVerdict {
        match error.kind() {
            ErrorKind::Schema | ErrorKind::PostgresRefused => {}
            _ => return SecondVerdict::End(error),
        }
        let is_changed = match look(instance).await {
            Ok(()) => error.kind() == ErrorKind::Schema,
            Err(found) if found.kind() == ErrorKind::Schema => return SecondVerdict::End(found),
            // Whatever kept the second look from telling anything is not what ended the session.
            Err(_) => false,
        };
        if !is_changed || self.anew_at.is_some_and(|at| at.elapsed() < ANEW_PAUSE) {
            return SecondVerdict::End(error);
        }
        self.anew_at = Some(Instant::now());
        SecondVerdict::Anew(error)
    }
}

async fn look(instance: &Instance) -> crate::error::Result<()> {
    let database = &instance.config.database;
    let connection = connect(database, "cursors").await?;
    let load =
        migrate::load_with(connection.client(), &instance.config.outbox, LaterMigrations::Borne);
    with_timeout(database, "look at the outbox", load).await.map(|_| ())
}
