//! What people ask of parked events: another try, or their end.
//!
//! Promises: nothing is discarded that was not chosen. Must not: publish; the owner of the bucket does, when it finds the
//! request. Fails: with the connection's error.

use uuid::Uuid;

use crate::error::Result;
use crate::order::refusal::Reason;
use crate::postgres::{Connection, Sql, classify};

static RETRY: Sql = Sql::of(include_str!("../../../sql/queries/parked_retry.sql"));
static DISCARD: Sql = Sql::of(include_str!("../../../sql/queries/parked_discard.sql"));

/// Which parked events are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedChoice {
    /// One event, by its id.
    Event(Uuid),
    /// All that are parked for this reason.
    Reason(Reason),
    /// All.
    All,
}

/// Asks for another try of the aggregates of these events; how many aggregates that are.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn retry(connection: &Connection, choice: ParkedChoice) -> Result<u64> {
    change(connection, RETRY.text(), choice, "ask for parked events").await
}

/// Deletes these events, and asks for another try of later ones of their aggregates; how many are gone.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn discard(connection: &Connection, choice: ParkedChoice) -> Result<u64> {
    change(connection, DISCARD.text(), choice, "discard parked events").await
}

async fn change(
    connection: &Connection,
    sql: &str,
    choice: ParkedChoice,
    operation: &str,
) -> Result<u64> {
    let any: Option<String> = None;
    let (event, reason) = match choice {
        ParkedChoice::Event(event) => (Some(event), None),
        ParkedChoice::Reason(reason) => (None, Some(reason.name())),
        ParkedChoice::All => (None, None),
    };
    let changed = connection.client().query(sql, &[&any, &any, &event, &reason]).await;
    let changed = changed.map_err(|cause| classify(operation, cause))?;
    Ok(changed.len() as u64)
}
