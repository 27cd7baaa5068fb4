//! Which migrations are applied, and how the outbox was made.
//!
//! Promises: changes nothing. Must not: wait for a migration that runs.
//! Fails: as the registry does, for an edited or an unknown migration.

use std::fmt;

use tokio_postgres::Client;

use crate::control::migrate::registry;
use crate::control::migrate::registry::{Applied, MIGRATIONS};
use crate::control::migrate::{MigrationState, Settings, check_version, read_settings};
use crate::error::Result;
use crate::outbox::OutboxName;

/// One migration that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its version and name, as `0002 outbox`.
    pub title: String,
    /// When it was applied, and by whom; none while it is pending.
    pub applied: Option<(String, String)>,
}

/// The answer of [`status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// All migrations, in order.
    pub migrations: Vec<MigrationStatus>,
    /// How the outbox was made; none before that was fixed.
    pub settings: Option<Settings>,
}

impl SchemaStatus {
    /// Whether `postrider migrate up` has something to do.
    pub fn is_pending(&self) -> bool {
        self.migrations.iter().any(|migration| migration.applied.is_none())
    }
}

impl fmt::Display for SchemaStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:<16}  {:<23}  by", "migration", "applied")?;
        for migration in &self.migrations {
            let title = &migration.title;
            match &migration.applied {
                Some((at, by)) => writeln!(formatter, "{title:<16}  {at:<23}  {by}")?,
                None => writeln!(formatter, "{title:<16}  pending")?,
            }
        }
        match &self.settings {
            Some(settings) => write!(formatter, "{settings}"),
            None => formatter.write_str("no outbox yet; run `postrider migrate up`"),
        }
    }
}

/// Says which migrations are applied.
///
/// # Errors
/// [`crate::error::ErrorKind::Schema`] when the database's list differs from ours in more than its
/// end.
pub async fn status(client: &Client) -> Result<SchemaStatus> {
    let state = MigrationState::read(client, &OutboxName::default()).await?;
    check_version(state.server_version)?;
    let applied = if state.has_registry { registry::read(client).await? } else { Vec::new() };
    let migrations = MIGRATIONS.iter().enumerate().map(|(place, migration)| MigrationStatus {
        title: migration.title(),
        applied: applied
            .get(place)
            .map(|Applied { applied_at, applied_by, .. }| (applied_at.clone(), applied_by.clone())),
    });
    let migrations = migrations.collect();
    let has_settings = state.has_registry && state.has_control;
    let settings = if has_settings { read_settings(client).await? } else { None };
    Ok(SchemaStatus { migrations, settings })
}
