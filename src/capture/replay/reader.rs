//! Reading the events of a replay from the outbox, page by page.
//!
//! Promises: a page has the next events of one bucket in the order of `seq`, and never a part of those that share one;
//! its bytes are bounded as a claim's are; one value that cannot be handed over costs its own event alone.
//! Must not: decide what becomes of it. Fails: with the connection's error; the page has no effect then.

use futures_util::StreamExt;
use hashbrown::HashMap;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::capture::replay::{FilterColumns, OpenPart, filtered};
use crate::capture::table::claim::{
    CLAIM_SESSION, ClaimedPage, ClaimedRow, PageError, PageReading, bytes_sql, check_columns,
};
use crate::error::{Error, Result};
use crate::event::Bucket;
use crate::order::snapshot::Snapshot;
use crate::outbox::{Outbox, PayloadType};
use crate::postgres::{Connection, DatabaseConfig, PgSnapshot, Sql, classify, connect};

static PAGE: Sql = Sql::of(include_str!("../../../sql/queries/replay_page.sql"));
static PAGE_CAREFULLY: Sql =
    Sql::of(include_str!("../../../sql/queries/replay_page_carefully.sql"));

/// A page is read for about this many bytes, judged by the page before.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// The first page, before the size of any row was seen.
const FIRST_PAGE_ROWS: u64 = 4;
/// A page that is read value by value.
const CAREFUL_ROWS: u32 = 64;

/// What of a replay is read, and how far.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRange<'a> {
    /// Which events.
    pub filter: &'a FilterColumns,
    /// What was committed when it was asked for.
    pub asked_snapshot: &'a Snapshot,
    /// The bucket, and from where on.
    pub part: OpenPart,
}

/// The next events of a replay in one bucket.
#[derive(Debug, Default)]
pub struct ReplayPage {
    /// Those that can be sent.
    pub rows: Vec<ClaimedRow>,
    /// How many cannot be read.
    pub unreadable: i64,
    /// The highest `seq` of the page; none of an empty one.
    pub last_seq: Option<i64>,
    /// Whether nothing is left behind it.
    pub is_last: bool,
}

/// One session that reads replays.
#[derive(Debug)]
pub struct ReplayReader {
    connection: Connection,
    outbox: Outbox,
    event_bytes_max: u64,
    statements: HashMap<(Bucket, PageReading), Statement>,
    /// How large a row was in the page before.
    row_bytes: u64,
}

impl ReplayReader {
    /// Opens the session. Events of more than `event_bytes_max` are not read.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses the session.
    pub async fn connect(
        database: &DatabaseConfig,
        outbox: &Outbox,
        event_bytes_max: u64,
    ) -> Result<Self> {
        let connection = connect(database, "replay").await?;
        let prepared = connection.client().batch_execute(CLAIM_SESSION).await;
        prepared.map_err(|cause| classify("prepare to read a replay", cause))?;
        let (outbox, statements) = (outbox.clone(), HashMap::new());
        let row_bytes = PAGE_BYTES / FIRST_PAGE_ROWS;
        Ok(Self { connection, outbox, event_bytes_max, statements, row_bytes })
    }

    /// The session, for what else is to be noted of a replay.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next page, of so many rows at most and those that share the last one's `seq`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn page(&mut self, range: ReplayRange<'_>, rows_max: u32) -> Result<ReplayPage> {
        let by_bytes = u32::try_from(PAGE_BYTES / self.row_bytes).unwrap_or(u32::MAX);
        let rows_max = by_bytes.clamp(1, rows_max.max(1));
        let page = match self.read(range, rows_max, PageReading::Plain).await? {
            Ok(page) => page,
            Err(cause) => {
                tracing::debug!(
                    cause = cause.message(),
                    "a page of a replay is read value by value"
                );
                let rows_max = rows_max.min(CAREFUL_ROWS);
                // It is no value that ended the page.
                self.read(range, rows_max, PageReading::Careful).await??
            }
        };
        let bytes: u64 = page.rows.iter().map(|row| row.size_bytes() as u64).sum();
        if let Some(row_bytes) = bytes.checked_div(page.rows.len() as u64) {
            self.row_bytes = row_bytes.max(1);
        }
        Ok(page)
    }

    /// A page, or what PostgreSQL says of the value that ended it.
    async fn read(
        &mut self,
        range: ReplayRange<'_>,
        rows_max: u32,
        reading: PageReading,
    ) -> Result<std::result::Result<ReplayPage, Error>> {
        let statement = self.statement(range.part.bucket, reading).await?;
        let snapshot = PgSnapshot(range.asked_snapshot.clone());
        let (limit, part) = (i64::from(rows_max), range.part);
        let filter = range.filter.parameters((&part.next_seq, &part.last_seq));
        let more: [&(dyn ToSql + Sync); 2] = [&snapshot, &limit];
        let parameters: Vec<&(dyn ToSql + Sync)> = filter.into_iter().chain(more).collect();
        let rows = self.connection.client().query_raw(&statement, parameters);
        let rows = rows.await.map_err(|cause| classify("read a page of a replay", cause))?;
        let mut claimed = ClaimedPage { rows: Box::pin(rows) };
        let (mut page, mut count) = (ReplayPage::default(), 0_u32);
        while let Some(row) = claimed.next().await {
            let row = match row {
                Ok(row) => row,
                Err(PageError::Value(cause)) => return Ok(Err(cause)),
                Err(PageError::Session(cause)) => return Err(cause),
            };
            count += 1;
            page.last_seq = Some(row.seq());
            match row.withheld(self.event_bytes_max) {
                Some(_) => page.unreadable += 1,
                None => page.rows.push(row),
            }
        }
        page.is_last = count < rows_max;
        Ok(Ok(page))
    }

    async fn statement(&mut self, bucket: Bucket, reading: PageReading) -> Result<Statement> {
        if let Some(statement) = self.statements.get(&(bucket, reading)) {
            return Ok(statement.clone());
        }
        let sql = page_sql(&self.outbox, bucket, reading, self.event_bytes_max);
        let prepared = self.connection.client().prepare(&sql).await;
        let statement = prepared.map_err(|cause| classify("prepare to read a replay", cause))?;
        check_columns(&statement)?;
        self.statements.insert((bucket, reading), statement.clone());
        Ok(statement)
    }
}

/// The text of a page's statement.
pub fn page_sql(
    outbox: &Outbox,
    bucket: Bucket,
    reading: PageReading,
    event_bytes_max: u64,
) -> String {
    let page = match reading {
        PageReading::Plain => PAGE.text(),
        PageReading::Careful => PAGE_CAREFULLY.text(),
    };
    let headers = bytes_sql("event.headers", PayloadType::Jsonb, event_bytes_max);
    filtered(page, outbox, &[bucket])
        .replace("{bucket_tables}", &outbox.bucket_tables(&[bucket]))
        .replace("{payload_bytes}", &bytes_sql("event.payload", outbox.payload, event_bytes_max))
        .replace("{headers_bytes}", &headers)
        .replace("{event_bytes_max}", &event_bytes_max.min(i64::MAX as u64).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_complete() {
        let outbox = Outbox {
            schema: "public".to_owned(),
            table: "outbox".to_owned(),
            buckets: 4,
            payload: PayloadType::Text,
            generation_seconds: 600,
            sequence: String::new(),
        };
        for reading in [PageReading::Plain, PageReading::Careful] {
            let sql = page_sql(&outbox, Bucket(3), reading, 1_000);
            assert!(!sql.contains('{') && sql.contains("outbox_b03"), "{sql}");
        }
    }
}
