//! What waits in the outbox, seen from outside the relay.
//!
//! Promises: bounded work, however much waits. Must not: change anything. Fails: as the connection.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::postgres::{Connection, classify};

const STATE: &str = include_str!("../../sql/queries/bucket_state.sql");
const BACKLOG: &str = include_str!("../../sql/queries/bucket_backlog.sql");
const WAITING: &str = include_str!("../../sql/queries/bucket_waiting.sql");
/// The claim's plan serves here too: by the index on seq, without a sort.
const SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

/// Rows that are looked at per bucket.
pub(super) const LOOK_AT_MAX: i64 = 20_000;
/// Waiting events whose topics are looked at, per bucket.
const WAITING_MAX: i64 = 1_000;

/// One bucket's row in `postrider.cursor`.
#[derive(Clone, Debug)]
pub(super) struct BucketState {
    pub(super) bucket: i16,
    pub(super) epoch: i64,
    pub(super) owner: Option<String>,
    pub(super) position: i64,
    /// None before an instance first took the bucket.
    pub(super) saved_age_seconds: Option<f64>,
    /// No unpublished row has a `seq` at or below it.
    floor: i64,
}

/// What waits in one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) unpublished: i64,
    /// More rows are there than were looked at.
    pub(super) is_lower_bound: bool,
    pub(super) oldest_age_seconds: Option<f64>,
}

/// By what an event's topic is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventKind {
    pub(super) aggregate_type: String,
    pub(super) kind: String,
}

/// A session that looks at the outbox.
#[derive(Debug)]
pub(super) struct Onlooker<'a>(&'a Connection);

impl<'a> Onlooker<'a> {
    /// Prepares the session for looking.
    pub(super) async fn new(connection: &'a Connection) -> Result<Self> {
        let failed = |cause| classify("prepare the session", cause);
        connection.client().batch_execute(SESSION).await.map_err(failed)?;
        Ok(Self(connection))
    }

    /// All buckets, by rising number.
    pub(super) async fn buckets(&self) -> Result<Vec<BucketState>> {
        let failed = |cause| classify("read the cursors", cause);
        let rows = self.0.client().query(STATE, &[]).await.map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| BucketState {
                bucket: row.get("bucket"),
                epoch: row.get("epoch"),
                owner: row.get("owner"),
                position: row.get("position"),
                saved_age_seconds: row.get("saved_age_seconds"),
                floor: row.get("floor"),
            })
            .collect())
    }

    /// What waits in a bucket.
    pub(super) async fn backlog(&self, state: &BucketState) -> Result<Backlog> {
        let failed = |cause| classify("count the events that wait", cause);
        let sql = of_bucket(BACKLOG, state);
        let row =
            self.0.client().query_one(&sql, &[&state.floor, &LOOK_AT_MAX]).await.map_err(failed)?;
        Ok(Backlog {
            unpublished: row.get("unpublished"),
            is_lower_bound: row.get::<_, i64>("looked_at") == LOOK_AT_MAX,
            oldest_age_seconds: row.get("oldest_age_seconds"),
        })
    }

    /// The kinds of events that wait in any bucket.
    pub(super) async fn waiting(&self) -> Result<BTreeSet<EventKind>> {
        let failed = |cause| classify("look at the events that wait", cause);
        let mut kinds = BTreeSet::new();
        for state in self.buckets().await? {
            let sql = of_bucket(WAITING, &state);
            let rows = self
                .0
                .client()
                .query(&sql, &[&state.floor, &LOOK_AT_MAX, &WAITING_MAX])
                .await
                .map_err(failed)?;
            kinds.extend(rows.iter().map(|row| EventKind {
                aggregate_type: row.get("aggregatetype"),
                kind: row.get("type"),
            }));
        }
        Ok(kinds)
    }
}

/// The bucket is a constant in the text, so that the view's other arms fold away.
fn of_bucket(sql: &str, state: &BucketState) -> String {
    sql.replace("{bucket}", &state.bucket.to_string())
}

#[cfg(test)]
impl BucketState {
    pub(super) fn sample(bucket: i16) -> Self {
        Self { bucket, epoch: 1, owner: None, position: 0, saved_age_seconds: Some(0.1), floor: 0 }
    }
}
