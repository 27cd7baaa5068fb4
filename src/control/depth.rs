//! How much waits in some buckets, for figures.
//!
//! Promises: bounded work; what was not looked at makes the count a lower bound. Must not: change anything, or ask for
//! buckets of others. Fails: with the connection's error.

use hashbrown::HashMap;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::error::Result;
use crate::event::Bucket;
use crate::metrics::seen::SeenBacklog;
use crate::postgres::{Connection, DatabaseConfig, classify, connect, fill, without_head};

const STATE: &str = include_str!("../../sql/queries/bucket_state.sql");
const FLOOR: &str = include_str!("../../sql/queries/cursor_floor.sql");
const BACKLOG: &str = include_str!("../../sql/queries/bucket_backlog.sql");
const LOOKED_AT: &str = include_str!("../../sql/queries/bucket_looked_at.sql");
const PARKED: &str = include_str!("../../sql/queries/parked_depth.sql");
/// The claim's plan serves here too: by the index on seq, without a sort.
const SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

/// Rows that are looked at per bucket, on either side of the place above which most that wait lie.
const LOOK_AT: i64 = 5_000;

/// What rows of the outbox are, as events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxRows {
    /// Events.
    Events,
    /// None: events are messages in the log.
    Nothing,
}

/// A session that looks.
#[derive(Debug)]
pub struct DepthLook {
    connection: Connection,
    state: Statement,
    /// By bucket: its number is a constant there, so that the view's other arms fold away.
    backlogs: HashMap<Bucket, Statement>,
    parked: Statement,
}

impl DepthLook {
    /// Opens the session.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or refuses the session.
    pub async fn open(database: &DatabaseConfig) -> Result<Self> {
        let failed = |cause| classify("prepare to look at the backlog", cause);
        let connection = connect(database, "figures").await?;
        let client = connection.client();
        client.batch_execute(SESSION).await.map_err(failed)?;
        let state = fill(STATE, &[("{floor}", without_head(FLOOR))]);
        let prepared = tokio::try_join!(client.prepare(&state), client.prepare(PARKED));
        let (state, parked) = prepared.map_err(failed)?;
        Ok(Self { connection, state, backlogs: HashMap::new(), parked })
    }

    /// What waits in these buckets.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&mut self, own: &[Bucket], rows: OutboxRows) -> Result<SeenBacklog> {
        let mut seen = SeenBacklog::default();
        if rows == OutboxRows::Events {
            self.look_at_rows(own, &mut seen).await?;
        }
        self.look_at_parked(own, &mut seen).await?;
        Ok(seen)
    }

    async fn look_at_rows(&mut self, own: &[Bucket], seen: &mut SeenBacklog) -> Result<()> {
        let failed = |cause| classify("count the events that wait", cause);
        let states = self.connection.client().query(&self.state, &[]).await.map_err(failed)?;
        for state in states {
            let bucket = Bucket(state.get::<_, i16>("bucket").unsigned_abs());
            if !own.contains(&bucket) {
                continue;
            }
            let (floor, recent): (i64, i64) = (state.get("floor"), state.get("recent_floor"));
            let backlog = self.backlog(bucket).await?;
            let parameters: [&(dyn ToSql + Sync); 3] = [&floor, &recent, &LOOK_AT];
            let row = self.connection.client().query_one(&backlog, &parameters).await;
            let row = row.map_err(failed)?;
            let is_cut = |side| row.get::<_, i64>(side) == LOOK_AT;
            seen.is_lower_bound |= is_cut("older_looked_at") || is_cut("recent_looked_at");
            seen.backlog_events += row.get::<_, i64>("unpublished").unsigned_abs();
            seen.backlog_bytes += row.get::<_, i64>("bytes").unsigned_abs();
            let age: Option<f64> = row.get("oldest_age_seconds");
            seen.oldest_age_seconds.insert(bucket.0, age.unwrap_or_default());
        }
        Ok(())
    }

    async fn backlog(&mut self, bucket: Bucket) -> Result<Statement> {
        if let Some(statement) = self.backlogs.get(&bucket) {
            return Ok(statement.clone());
        }
        let sql = BACKLOG.replace("{looked_at}", without_head(LOOKED_AT));
        let sql = sql.replace("{bucket}", &bucket.to_string());
        let prepared = self.connection.client().prepare(&sql).await;
        let statement =
            prepared.map_err(|cause| classify("prepare to count the events that wait", cause))?;
        self.backlogs.insert(bucket, statement.clone());
        Ok(statement)
    }

    async fn look_at_parked(&self, own: &[Bucket], seen: &mut SeenBacklog) -> Result<()> {
        let numbers: Vec<i16> = own
            .iter()
            .map(|bucket| i16::try_from(bucket.0).expect("there are at most 64"))
            .collect();
        let parked = self.connection.client().query(&self.parked, &[&numbers]).await;
        for row in parked.map_err(|cause| classify("count the parked events", cause))? {
            let (reason, events): (String, i64) = (row.get("reason"), row.get("events"));
            let (age, topics): (f64, i64) = (row.get("oldest_age_seconds"), row.get("topics"));
            seen.parked.insert(reason, events.unsigned_abs());
            seen.topics_held += topics.unsigned_abs();
            seen.parked_oldest_age_seconds = seen.parked_oldest_age_seconds.max(age);
        }
        Ok(())
    }
}
