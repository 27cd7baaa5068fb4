//! What PostgreSQL has of buckets whose cursors are committed to Kafka.
//!
//! Promises: of two owners the later one learns of every id that the earlier one has sent a record with, or the earlier
//! one learns that it has lost the bucket before it sends any. Must not: know Kafka.
//! Fails: with [`ErrorKind::Fenced`](crate::error::ErrorKind::Fenced) when a bucket is another's; with the
//! connection's error.

use tokio_postgres::types::ToSql;

use super::{CursorStore, bucket, bucket_number};
use crate::error::{Error, Result};
use crate::event::Bucket;
use crate::order::history::History;
use crate::order::snapshot::TransactionId;
use crate::postgres::{Sql, Xid8, classify};

static BEGIN: Sql = Sql::of(include_str!("../../../sql/queries/exactly_begin.sql"));
static RECORD: Sql = Sql::of(include_str!("../../../sql/queries/exactly_record.sql"));
static CLEAR: Sql = Sql::of(include_str!("../../../sql/queries/exactly_clear.sql"));
static MARK: Sql = Sql::of(include_str!("../../../sql/queries/exactly_mark.sql"));

/// The term of a database in which nobody has changed how events are delivered.
const NEVER_SWITCHED: i64 = 0;

/// A bucket that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Which one.
    pub bucket: Bucket,
    /// Under which epoch.
    pub epoch: i64,
    /// What may have something open with it.
    pub fence: Vec<String>,
    /// Since which term its cursor is committed to Kafka.
    pub term: Option<i64>,
}

impl CursorStore {
    /// What there is to do before the cursors of these buckets are read from Kafka.
    ///
    /// # Errors
    /// When a bucket is another's.
    pub async fn taken(&self, buckets: &[Bucket]) -> Result<Vec<Taken>> {
        let numbers: Vec<i16> = buckets.iter().copied().map(bucket_number).collect();
        let rows = self.connection.client().query(BEGIN.text(), &[&numbers]).await;
        let rows = rows.map_err(|cause| classify("look at what was taken", cause))?;
        let epochs = self.epochs();
        let taken = rows.iter().map(|row| {
            let (bucket, epoch) = (bucket(row), row.get("epoch"));
            if epochs.get(&bucket) != Some(&epoch) {
                return Err(Error::fenced());
            }
            Ok(Taken { bucket, epoch, fence: row.get("fence"), term: row.get("delivery_term") })
        });
        taken.collect()
    }

    /// From here on these ids may have something open with the buckets. Whoever sees what this transaction has
    /// written was not there before.
    ///
    /// # Errors
    /// When a bucket is another's.
    pub async fn record_ids(&self, buckets: &[Bucket], ids: &[String]) -> Result<TransactionId> {
        let (numbers, epochs) = self.owned_columns(buckets)?;
        let row =
            self.connection.client().query_one(RECORD.text(), &[&numbers, &epochs, &ids]).await;
        let row = row.map_err(|cause| classify("write down who publishes", cause))?;
        if row.get::<_, i64>("buckets") != buckets.len() as i64 {
            return Err(Error::fenced());
        }
        Ok(row.get::<_, Xid8>("txid").0)
    }

    /// Nothing is open with these buckets any more.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn clear_ids(&self, buckets: &[Bucket]) -> Result<()> {
        let (numbers, epochs) = self.owned_columns(buckets)?;
        self.change(CLEAR.text(), &[&numbers, &epochs]).await
    }

    /// These buckets are delivered as this term says: where exactly once, a cursor of each is committed to Kafka.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn mark_term(&self, buckets: &[Bucket], term: i64) -> Result<()> {
        if term == NEVER_SWITCHED {
            return Ok(());
        }
        let (numbers, epochs) = self.owned_columns(buckets)?;
        self.change(MARK.text(), &[&numbers, &epochs, &term]).await
    }

    async fn change(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<()> {
        let changed = self.connection.client().execute(sql, parameters).await;
        changed.map(drop).map_err(|cause| classify("write down what is open", cause))
    }

    fn owned_columns(&self, buckets: &[Bucket]) -> Result<(Vec<i16>, Vec<i64>)> {
        let epochs = self.epochs();
        let owned = buckets.iter().map(|bucket| {
            let epoch = epochs.get(bucket).ok_or_else(Error::fenced)?;
            Ok((bucket_number(*bucket), *epoch))
        });
        owned.collect()
    }

    /// Where the server's log is on disk by now.
    ///
    /// # Errors
    /// When the server is a standby, or the connection fails.
    pub async fn flushed(&self) -> Result<History> {
        History::read_upto(&self.connection, "flushed").await
    }

    /// Where the server is by now.
    ///
    /// # Errors
    /// When the server is a standby, or the connection fails.
    pub async fn present(&self) -> Result<History> {
        History::read(&self.connection).await
    }
}
