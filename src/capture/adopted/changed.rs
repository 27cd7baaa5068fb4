//! Columns that were changed behind the place up to which the log is read.
//!
//! Promises: one that was renamed or retyped there is found, also where it is as before. Must not: say what was changed.
//! Fails: with the connection's error.

use crate::error::Result;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, PgSnapshot, classify};

const CHANGED: &str = include_str!("../../../sql/queries/adopted_changed.sql");

/// The columns of a table that were changed by transactions which are not among those that are published.
///
/// # Errors
/// When the connection fails.
pub async fn changed_since(
    connection: &Connection,
    name: &OutboxName,
    passed: &Snapshot,
) -> Result<Vec<String>> {
    let passed = PgSnapshot(passed.clone());
    let rows = connection.client().query(CHANGED, &[&name.quoted(), &passed]).await;
    let rows = rows.map_err(|cause| classify("look when columns were changed", cause))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}
