//! Looks at what is written into the outbox, without taking part in anything.
//!
//! Promises: bounded work per look; no row is shown twice. Must not: change anything, or be taken for all that was
//! written. Fails: with the connection's error. A value that cannot be read costs its own event alone.

use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Statement};

use crate::capture::table::claim::{ClaimedRow, PageError, bytes_sql, check_columns};
use crate::error::{Error, Result};
use crate::order::snapshot::Snapshot;
use crate::outbox::{Outbox, PayloadType};
use crate::postgres::{
    Connection, PgSnapshot, Sql, classify, fill, is_about_a_value, without_head,
};

const SAMPLE: &str = include_str!("../../../sql/queries/sample.sql");
const UNSEEN: &str = include_str!("../../../sql/queries/sample_unseen.sql");
static CAREFULLY: Sql = Sql::of(include_str!("../../../sql/queries/sample_carefully.sql"));
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
    /// Where a value ends a look.
    carefully: Statement,
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
        let unseen = fill(without_head(UNSEEN), &[("{outbox}", &outbox.name().quoted())]);
        let headers = bytes_sql("headers", PayloadType::Jsonb, event_bytes_max);
        let places = [
            ("{unseen}", unseen.as_str()),
            ("{payload_bytes}", &bytes_sql("payload", outbox.payload, event_bytes_max)),
            ("{headers_bytes}", &headers),
            ("{event_bytes_max}", &limit),
        ];
        let plainly = fill(without_head(SAMPLE), &places);
        let places = [places[0], places[3], places[3]];
        let carefully = fill(without_head(CAREFULLY.text()), &places);
        let statement = connection.client().prepare(&plainly).await.map_err(failed)?;
        let carefully = connection.client().prepare(&carefully).await.map_err(failed)?;
        check_columns(&statement)?;
        check_columns(&carefully)?;
        let (seen, newest) = (Snapshot::empty(), i64::MIN);
        Ok(Self { connection, statement, carefully, filter, seen, newest })
    }

    /// Up to `rows_max` rows that no earlier look has seen, the newest, in the order of `seq`.
    ///
    /// # Errors
    /// With the connection's error.
    pub async fn look(&mut self, rows_max: i64) -> Result<Vec<ClaimedRow>> {
        let plainly = self.statement.clone();
        if let Ok(rows) = self.look_by(&plainly, rows_max).await? {
            return Ok(rows);
        }
        let carefully = self.carefully.clone();
        // It is no value that ended the look.
        self.look_by(&carefully, rows_max).await?
    }

    /// A look, or what PostgreSQL says of the value that ended it.
    async fn look_by(
        &mut self,
        statement: &Statement,
        rows_max: i64,
    ) -> Result<std::result::Result<Vec<ClaimedRow>, Error>> {
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
        let rows = match transaction.query(statement, &parameters).await {
            Err(cause) if is_about_a_value(&cause) => {
                transaction.rollback().await.map_err(failed)?;
                return Ok(Err(failed(cause)));
            }
            answer => answer.map_err(failed)?,
        };
        transaction.commit().await.map_err(failed)?;
        let rows: std::result::Result<Vec<ClaimedRow>, PageError> =
            rows.into_iter().map(ClaimedRow::of).collect();
        let rows = match rows {
            Ok(rows) => rows,
            Err(PageError::Value(cause)) => return Ok(Err(cause)),
            Err(PageError::Session(cause)) => return Err(cause),
        };
        self.seen = now.0;
        self.newest =
            rows.iter().map(ClaimedRow::seq).max().unwrap_or(self.newest).max(self.newest);
        Ok(Ok(rows))
    }
}
