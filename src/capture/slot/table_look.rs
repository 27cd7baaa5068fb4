//! Looks into the outbox's table for rows that its log did not bring.
//!
//! Promises: a row that is there, that no saved cursor has passed and that did not come, is found. Must not: know why it
//! did not come; decide what follows. Fails: with the connection's error.

use tokio_postgres::types::ToSql;

use crate::capture::table::claim::arms;
use crate::error::Result;
use crate::event::Bucket;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::Outbox;
use crate::postgres::{
    Connection, DatabaseConfig, Lsn, PgSnapshot, Sql, classify, connect, fill, without_head,
};

static UNBROUGHT: Sql = Sql::of(include_str!("../../../sql/queries/rows_unbrought.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../../sql/queries/cursor_floor.sql"));
const VISIBLE: &str = include_str!("../../../sql/queries/visible_now.sql");
const LEAF_SESSION: &str = include_str!("../../../sql/queries/leaf_session.sql");

/// A session that looks into the table.
#[derive(Debug)]
pub struct TableLook {
    connection: Connection,
    statement: String,
}

/// A row that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnbroughtRow {
    /// Its bucket.
    pub bucket: Bucket,
    /// Its transaction.
    pub transaction: TransactionId,
    /// Its place.
    pub seq: i64,
}

impl TableLook {
    /// Opens the session.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn open(database: &DatabaseConfig, outbox: &Outbox) -> Result<Self> {
        let connection = connect(database, "slot").await?;
        let set = connection.client().batch_execute(LEAF_SESSION).await;
        set.map_err(|cause| classify("look for rows that did not come", cause))?;
        let arms = arms(outbox, (0..outbox.buckets).map(Bucket));
        let places = [("{bucket_arms}", arms.as_str()), ("{floor}", without_head(FLOOR.text()))];
        Ok(Self { connection, statement: fill(UNBROUGHT.text(), &places) })
    }

    /// What can be seen now, and a place in the log behind all of that.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn visible_now(&self) -> Result<(Snapshot, Lsn)> {
        let seen = self.connection.client().query_one(VISIBLE, &[]).await;
        let seen = seen.map_err(|cause| classify("look how far the log is", cause))?;
        let PgSnapshot(snapshot) = seen.get("snapshot");
        Ok((snapshot, seen.get("lsn")))
    }

    /// Rows that the snapshot sees and no saved cursor has passed, but for those `brought`, a multirange of `seq`; so
    /// many at most.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn unbrought(
        &self,
        seen: &Snapshot,
        brought: &str,
        rows_max: i64,
    ) -> Result<Vec<UnbroughtRow>> {
        let seen = PgSnapshot(seen.clone());
        let parameters: [&(dyn ToSql + Sync); 3] = [&seen, &brought, &rows_max];
        let rows = self.connection.client().query(&self.statement, &parameters).await;
        let rows = rows.map_err(|cause| classify("look for rows that did not come", cause))?;
        let read = |row: &tokio_postgres::Row| UnbroughtRow {
            bucket: Bucket(row.get::<_, i16>("bucket").cast_unsigned()),
            transaction: row.get::<_, i64>("txid").cast_unsigned(),
            seq: row.get("seq"),
        };
        Ok(rows.iter().map(read).collect())
    }
}
