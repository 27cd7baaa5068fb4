//! Looks at what is written into the outbox, without taking part in anything.
//!
//! Promises: bounded work per look; no row is shown twice. Must not: change anything, or be taken for all that was
//! written. Fails: with the connection's error, or with what PostgreSQL says of a value.

use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Statement};

use crate::capture::table::claim::{ClaimedRow, PageError, bytes_sql, check_columns};
use crate::error::Result;
use crate::order::snapshot::Snapshot;
use crate::outbox::{Outbox, PayloadType};
use crate::postgres::{Connection, PgSnapshot, classify, fill, without_head};

const SAMPLE: &str = include_str!("../../../sql/queries/sample.sql");
const SNAPSHOT: &str = include_str!("../../../sql/queries/sample_snapshot.sql");
const SESSION: &str = include_str!("../../../sql/queries/claim_session.sql");

/// Rows that were drawn so long before the newest one are not looked for.
const LATE_ROWS: i64 = 10_000;
/// How long a look may take.
const PATIENCE: &str = "set local statement_timeout = '10s'";

/// Which rows are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleFilter {
    /// Of this kind of aggregate.
    pub aggregate_type: Option<String>,
    /// Of this aggregate.
    pub aggregate_id: Option<String>,
    /// Of this type.
    pub kind: Option<String>,
}

/// A session that looks again and again.
#[derive(Debug)]
pub struct OutboxSampler {
    connection: Connection,
    statement: Statement,
    filter: SampleFilter,
    seen: Snapshot,
    newest: i64,
}

impl OutboxSampler {
    /// Prepares the session. Events of more than `event_bytes_max` are left out.
    ///
    /// # Errors
    /// With the connection's error.
    pub async fn new(
        connection: Connection,
        outbox: &Outbox,
        event_bytes_max: u64,
        filter: SampleFilter,
    ) -> Result<Self> {
        let failed = |cause| classify("prepare to look at the outbox", cause);
        connection.client().batch_execute(SESSION).await.map_err(failed)?;
        let limit = event_bytes_max.min(i64::MAX as u64).to_string();
        let (root, headers) =
            (outbox.name().quoted(), bytes_sql("headers", PayloadType::Jsonb, event_bytes_max));
        let places = [
            ("{outbox}", root.as_str()),
            ("{payload_bytes}", &bytes_sql("payload", outbox.payload, event_bytes_max)),
            ("{headers_bytes}", &headers),
            ("{event_bytes_max}", &limit),
        ];
        let statement = connection.client().prepare(&fill(without_head(SAMPLE), &places)).await;
        let statement = statement.map_err(failed)?;
        check_columns(&statement)?;
        Ok(Self { connection, statement, filter, seen: Snapshot::empty(), newest: i64::MIN })
    }

    /// Up to `rows_max` rows that no earlier look has seen, the newest, in the order of `seq`.
    ///
    /// # Errors
    /// With the connection's error, or when a value cannot be read.
    pub async fn look(&mut self, rows_max: i64) -> Result<Vec<ClaimedRow>> {
        let failed = |cause| classify("look at the outbox", cause);
        let transaction = self.connection.client_mut().build_transaction();
        let transaction =
            transaction.isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = transaction.start().await.map_err(failed)?;
        transaction.batch_execute(PATIENCE).await.map_err(failed)?;
        let now = transaction.query_one(SNAPSHOT, &[]).await.map_err(failed)?;
        let now: PgSnapshot = now.try_get(0).map_err(failed)?;
        let (seen, above) = (PgSnapshot(self.seen.clone()), self.newest.saturating_sub(LATE_ROWS));
        let SampleFilter { aggregate_type, aggregate_id, kind } = &self.filter;
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&seen, &above, aggregate_type, aggregate_id, kind, &rows_max];
        let rows = transaction.query(&self.statement, &parameters).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let rows = rows.into_iter().map(|row| ClaimedRow::of(row).map_err(PageError::into_error));
        let rows = rows.collect::<Result<Vec<ClaimedRow>>>()?;
        self.seen = now.0;
        self.newest =
            rows.iter().map(ClaimedRow::seq).max().unwrap_or(self.newest).max(self.newest);
        Ok(rows)
    }
}
