//! Rows that came into a bucket after they were written, as somebody has changed their `aggregateid`.
//!
//! Promises: where the server has counted that rows left their partitions, those are found that lie behind the cursor of
//! the bucket that they came to, as long as they are retained; a bounded time. Must not: change anything, or say
//! whether they were published: nobody knows. Fails: with the connection's error.
//!
//! A row keeps its transaction and its number when it moves. If its new bucket's cursor has passed these, and its former
//! bucket's had not, nobody reads it; if that had, it was published. Nothing in the row tells which.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::event::Bucket;
use crate::outbox::Outbox;
use crate::postgres::{Connection, Sql, classify, fill};

const COUNTED: &str = include_str!("../../sql/queries/moves_counted.sql");
static MOVED: Sql = Sql::of(include_str!("../../sql/queries/moved_rows.sql"));

/// Rows of which nobody knows whether they were published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovedRows {
    /// How many there are at most: some may have been changed in their places.
    pub at_most: i64,
    /// How many there are for certain.
    pub at_least: i64,
    /// The `seq` and the id of one of them.
    pub first: Option<(i64, String)>,
}

/// Looks for them, for so long.
///
/// # Errors
/// When the connection fails, or the role may not look.
pub async fn look(
    connection: &mut Connection,
    outbox: &Outbox,
    patience: Duration,
) -> Result<MovedRows> {
    let failed = |cause| classify("look for rows that came from another bucket", cause);
    let mut found = MovedRows::default();
    let tables: Vec<String> =
        (0..outbox.buckets).map(|bucket| outbox.bucket_table(Bucket(bucket))).collect();
    let counted = connection.client().query_one(COUNTED, &[&tables]).await.map_err(failed)?;
    if !counted.get::<_, bool>("are_any") {
        return Ok(found);
    }
    let (deadline, seconds) = (Instant::now() + patience, i64::from(outbox.generation_seconds));
    let transaction = connection.client_mut().build_transaction().read_only(true);
    let transaction = transaction.start().await.map_err(failed)?;
    for (bucket, table) in (0_i16..).zip(&tables) {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        if left == 0 {
            break;
        }
        let timeout = format!("set local statement_timeout = {left}");
        transaction.batch_execute(&timeout).await.map_err(failed)?;
        let sql = fill(MOVED.text(), &[("{bucket_table}", table)]);
        match transaction.query_opt(&sql, &[&bucket, table, &seconds]).await {
            Ok(None) => {}
            Ok(Some(row)) => {
                found.at_most += row.get::<_, i64>("at_most");
                found.at_least += row.get::<_, i64>("at_least");
                found.first.get_or_insert_with(|| (row.get("seq"), row.get("id")));
            }
            Err(cause) if cause.code() == Some(&SqlState::QUERY_CANCELED) => break,
            Err(cause) => return Err(failed(cause)),
        }
    }
    transaction.rollback().await.map_err(failed)?;
    Ok(found)
}
