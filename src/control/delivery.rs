//! How events are delivered, as the database says it, and how far the instances have followed.
//!
//! Promises: a change is one row, and what was committed to Kafka under another term counts no more. Must not: ask
//! Kafka. Fails: with the connection's error.

use crate::error::Result;
use crate::postgres::{Connection, Sql, classify};

static SWITCH: Sql = Sql::of(include_str!("../../sql/queries/delivery_switch.sql"));
static RENEW: Sql = Sql::of(include_str!("../../sql/queries/delivery_renew.sql"));
static LOOK: Sql = Sql::of(include_str!("../../sql/queries/delivery_look.sql"));

/// Whether a row was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was.
    Yes,
    /// It said so already.
    Not,
}

/// How far the instances are with what the database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryProgress {
    /// How many buckets there are.
    pub buckets: i64,
    /// How many of them are delivered so: where exactly once, they have a cursor in Kafka.
    pub followed: i64,
    /// Who has the others.
    pub behind: Vec<String>,
}

impl DeliveryProgress {
    /// Whether all have followed.
    pub fn is_done(&self) -> bool {
        self.followed == self.buckets
    }
}

/// Changes how events are delivered, to the way of this name.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn switch_delivery(connection: &Connection, to: &str) -> Result<Changed> {
    told(connection.client().execute(SWITCH.text(), &[&to]).await)
}

/// From here on cursors are PostgreSQL's, and are committed to Kafka anew; not where events are delivered at least
/// once.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn renew_term(connection: &Connection) -> Result<Changed> {
    told(connection.client().execute(RENEW.text(), &[]).await)
}

fn told(rows: std::result::Result<u64, tokio_postgres::Error>) -> Result<Changed> {
    let rows = rows.map_err(|cause| classify("change how events are delivered", cause))?;
    Ok(if rows == 0 { Changed::Not } else { Changed::Yes })
}

/// Looks how far the instances are.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn look(connection: &Connection) -> Result<DeliveryProgress> {
    let row = connection.client().query_one(LOOK.text(), &[]).await;
    let row = row.map_err(|cause| classify("look how far the instances are", cause))?;
    let behind: Option<Vec<String>> = row.get("behind");
    Ok(DeliveryProgress {
        buckets: row.get("buckets"),
        followed: row.get("followed"),
        behind: behind.unwrap_or_default(),
    })
}
