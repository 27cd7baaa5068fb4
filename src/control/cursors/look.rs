//! Whether the cursors that were saved mean something here, for those who look and save nothing.
//!
//! Promises: what a relay would refuse is refused. Must not: change anything. Fails: with
//! [`ErrorKind::History`](crate::error::ErrorKind::History), or the connection's error.

use crate::control::cursors::copied::accept_place;
use crate::control::cursors::row::{bucket, saved_history};
use crate::control::cursors::{LOAD, OnPromotion};
use crate::error::Result;
use crate::order::history::History;
use crate::postgres::{Connection, classify};

/// Looks at all cursors as they were saved, whoever owns them.
///
/// # Errors
/// [`ErrorKind::History`](crate::error::ErrorKind::History) when one means nothing here; the connection's error.
pub async fn accept_all(connection: &Connection, on_promotion: OnPromotion) -> Result<()> {
    let none: Option<Vec<i16>> = None;
    let rows = connection.client().query(LOAD.text(), &[&none]).await;
    let rows = rows.map_err(|cause| classify("look at the cursors", cause))?;
    // The log goes on while we look: what was saved by now is not a later state.
    let history = History::read(connection).await?;
    for row in &rows {
        let Some(saved) = saved_history(row) else { continue };
        accept_place(bucket(row), row)?;
        history.accept(bucket(row), &saved, on_promotion)?;
    }
    Ok(())
}
