//! Claiming pages from the outbox table.
//!
//! Promises: a claim returns exactly the rows of the cursor's range above its position, in the order
//! of `seq`, and never a part of those that share one; rows are lent from the receive buffer; no value comes
//! of an event that is larger than what is read. Must not: decide which range comes next.
//! Fails: with the connection's error, or with what PostgreSQL says of a value; a claim that broke off has no
//! effect anywhere.
//!
//! **Sizes.** The lengths of `text` and `bytea` stand in the row, also where the value is stored outside.
//! Of `json` and `jsonb` the stored size stands there. It leaves no doubt in nearly all rows: `json` is stored
//! as it is or compressed, by 255 times at most; the text of a `jsonb` is longer than its stored form where it
//! holds large numbers, by 8,192 times at most. Only where that could be too much is the text made to tell
//! its length.
//!
//! **Values that cannot be handed over.** They end a page, as does a row that is too large. The next is then
//! read carefully, value by value and within the server's own error handling: what cannot or should not be
//! read comes as [`WithheldRow`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use hashbrown::HashMap;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream, Statement};

use super::below::GroupLook;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, Event, EventId, LendEvent, Whereabouts};
use crate::order::cursor::{Cursor, CursorGroup};
use crate::order::holds::Refusal;
use crate::outbox::{Outbox, PayloadType};
use crate::postgres::{
    Connection, DatabaseConfig, PgSnapshot, RawBytes, Sql, Timestamp, classify, connect,
    is_about_a_value,
};

static CLAIM: Sql = Sql::of(include_str!("../../../sql/queries/claim.sql"));
static CLAIM_CAREFULLY: Sql = Sql::of(include_str!("../../../sql/queries/claim_carefully.sql"));
const CLAIM_ARM: &str = include_str!("../../../sql/queries/claim_arm.sql");
pub(in crate::capture) const CLAIM_SESSION: &str =
    include_str!("../../../sql/queries/claim_session.sql");

/// How a page is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageReading {
    /// All rows at once; one value that cannot be handed over ends the page.
    Plain,
    /// Value by value: for small pages.
    Careful,
}

/// One session that claims pages.
#[derive(Debug)]
pub struct Poller {
    pub(super) connection: Connection,
    pub(super) outbox: Outbox,
    event_bytes_max: u64,
    statements: HashMap<(CursorGroup, PageReading), Statement>,
    pub(super) looks: HashMap<CursorGroup, GroupLook>,
}

impl Poller {
    /// Opens the session. Events of more than `event_bytes_max` are not read.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses the session.
    pub async fn connect(
        database: &DatabaseConfig,
        outbox: &Outbox,
        name: &str,
        event_bytes_max: u64,
    ) -> Result<Self> {
        let connection = connect(database, &format!("shard {name}")).await?;
        connection
            .client()
            .batch_execute(CLAIM_SESSION)
            .await
            .map_err(|cause| classify("prepare the claiming session", cause))?;
        let (statements, looks) = (HashMap::new(), HashMap::new());
        Ok(Self { connection, outbox: outbox.clone(), event_bytes_max, statements, looks })
    }

    /// Claims up to `rows_max` rows of the range behind the cursor's position, and those that share the
    /// last one's `seq`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn claim(
        &mut self,
        cursor_group: &CursorGroup,
        cursor: &Cursor,
        rows_max: u32,
        reading: PageReading,
    ) -> Result<ClaimedPage> {
        let statement = self.statement(cursor_group, reading).await?;
        let from = PgSnapshot(cursor.from().clone());
        let upto = PgSnapshot(cursor.upto().snapshot.clone());
        let (first, through, rows_max) = (cursor.first(), cursor.through(), i64::from(rows_max));
        let parameters: [&(dyn ToSql + Sync); 5] = [&first, &through, &from, &upto, &rows_max];
        let rows = self
            .connection
            .client()
            .query_raw(&statement, parameters)
            .await
            .map_err(|cause| classify("claim a page", cause))?;
        Ok(ClaimedPage { rows: Box::pin(rows) })
    }

    async fn statement(
        &mut self,
        cursor_group: &CursorGroup,
        reading: PageReading,
    ) -> Result<Statement> {
        let key = (CursorGroup::clone(cursor_group), reading);
        if let Some(statement) = self.statements.get(&key) {
            return Ok(statement.clone());
        }
        let sql = claim_sql(&self.outbox, cursor_group, reading, self.event_bytes_max);
        let statement = self
            .connection
            .client()
            .prepare(&sql)
            .await
            .map_err(|cause| classify("prepare the claim", cause))?;
        check_columns(&statement)?;
        self.statements.insert(key, statement.clone());
        Ok(statement)
    }
}

/// The text of the claim for a cursor group.
pub fn claim_sql(
    outbox: &Outbox,
    cursor_group: &CursorGroup,
    reading: PageReading,
    event_bytes_max: u64,
) -> String {
    let claim = match reading {
        PageReading::Plain => CLAIM.text(),
        PageReading::Careful => CLAIM_CAREFULLY.text(),
    };
    claim
        .replace("{bucket_arms}", &arms(outbox, cursor_group.iter().copied()))
        .replace("{bucket_tables}", &outbox.bucket_tables(cursor_group))
        .replace("{is_small}", &small_sql(outbox.payload, event_bytes_max))
        .replace("{payload_bytes}", &bytes_sql("payload", outbox.payload, event_bytes_max))
        .replace("{headers_bytes}", &bytes_sql("headers", PayloadType::Jsonb, event_bytes_max))
        .replace("{event_bytes_max}", &event_bytes_max.min(i64::MAX as u64).to_string())
}

/// The rows of these buckets, each with its bucket's number.
pub fn arms(outbox: &Outbox, buckets: impl Iterator<Item = Bucket>) -> String {
    let arm = |bucket: Bucket| {
        CLAIM_ARM
            .replace("{bucket_table}", &outbox.bucket_table(bucket))
            .replace("{bucket}", &bucket.to_string())
    };
    let arms: Vec<String> = buckets.map(arm).collect();
    arms.join("union all\n")
}

/// How much PostgreSQL's compressions may hide: lz4 writes 255 bytes for one.
const JSON_COMPRESSION_MAX: u64 = 256;
/// A number in `jsonb` takes 16 bytes at least and is written with 131,072 digits at most.
const JSONB_EXPANSION_MAX: u64 = 8_192;
/// Text of a `jsonb` is made to be measured only above this size.
const JSONB_TRUSTED_BYTES: u64 = 2_048;

/// The expression for a column's length.
pub(in crate::capture) fn bytes_sql(column: &str, of: PayloadType, event_bytes_max: u64) -> String {
    match of {
        PayloadType::Text | PayloadType::Bytea => format!("octet_length({column})"),
        PayloadType::Json => format!(
            "case when pg_column_size({column}) <= {} or (pg_column_compression({column}) is null \
             and pg_column_size({column}) <= {event_bytes_max}) then pg_column_size({column}) \
             else octet_length({column}::text) end",
            event_bytes_max / JSON_COMPRESSION_MAX
        ),
        PayloadType::Jsonb => format!(
            "case when pg_column_size({column}) <= {} and pg_column_compression({column}) is null \
             then pg_column_size({column}) else octet_length({column}::text) end",
            jsonb_trusted_bytes(event_bytes_max)
        ),
    }
}

fn jsonb_trusted_bytes(event_bytes_max: u64) -> u64 {
    JSONB_TRUSTED_BYTES.min((event_bytes_max / JSONB_EXPANSION_MAX).max(1_024))
}

/// A cheaper test, true of most rows: no column takes more than an eighth of what an event may take, as `bytes_sql`
/// measures it.
fn small_sql(payload: PayloadType, event_bytes_max: u64) -> String {
    let share = event_bytes_max / 8;
    let jsonb = |column: &str| {
        let trusted = jsonb_trusted_bytes(event_bytes_max).min(share);
        format!("pg_column_size({column}) <= {trusted} and pg_column_compression({column}) is null")
    };
    let payload = match payload {
        PayloadType::Text | PayloadType::Bytea => format!("octet_length(payload) <= {share}"),
        PayloadType::Json => {
            format!("pg_column_size(payload) <= {}", event_bytes_max / JSON_COMPRESSION_MAX)
        }
        PayloadType::Jsonb => jsonb("payload"),
    };
    format!(
        "octet_length(aggregatetype) <= {share} and octet_length(aggregateid) <= {share} \
         and octet_length(type) <= {share} and (payload is null or {payload}) \
         and (headers is null or {})",
        jsonb("headers")
    )
}

/// The claim's columns, in its order; a payload may be any of four types, and what was read carefully is
/// bytes and text.
pub(in crate::capture) fn check_columns(statement: &Statement) -> Result<()> {
    const EXPECTED: [&[Type]; 11] = [
        &[Type::INT8],
        &[Type::UUID],
        &[Type::TEXT],
        &[Type::TEXT],
        &[Type::TEXT],
        &[Type::JSON, Type::JSONB, Type::TEXT, Type::BYTEA],
        &[Type::JSONB, Type::TEXT],
        &[Type::TIMESTAMPTZ],
        &[Type::INT2],
        &[Type::INT8],
        &[Type::TEXT],
    ];
    for (column, expected) in statement.columns().iter().zip(EXPECTED) {
        let found = column.type_();
        if !expected.contains(found) {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the outbox's column {} has the type {found}", column.name()),
            )
            .with_remedy("restore the column as `postrider migrate print` shows it"));
        }
    }
    Ok(())
}

/// Why a page ended early.
#[derive(Debug)]
pub enum PageError {
    /// Of a value PostgreSQL says this.
    Value(Error),
    /// The session failed.
    Session(Error),
}

/// A page on its way: rows as they arrive, under the connection's back-pressure.
pub struct ClaimedPage {
    pub(in crate::capture) rows: Pin<Box<RowStream>>,
}

impl std::fmt::Debug for ClaimedPage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Stream for ClaimedPage {
    type Item = std::result::Result<ClaimedRow, PageError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = ready!(self.rows.as_mut().poll_next(context));
        Poll::Ready(row.map(|row| match row {
            Ok(row) => ClaimedRow(row).checked(),
            Err(cause) if is_about_a_value(&cause) => {
                Err(PageError::Value(classify("read a page", cause)))
            }
            Err(cause) => Err(PageError::Session(classify("read a page", cause))),
        }))
    }
}

const SEQ: usize = 0;
const ID: usize = 1;
const AGGREGATE_TYPE: usize = 2;
const AGGREGATE_ID: usize = 3;
const KIND: usize = 4;
const PAYLOAD: usize = 5;
const HEADERS: usize = 6;
const CREATED_AT: usize = 7;
/// From here on only of what was read carefully, and null but for a row that is withheld.
const BUCKET: usize = 8;
const EVENT_BYTES: usize = 9;
const FAULT: usize = 10;

/// The first byte of a `jsonb` value in binary form: the version of the form.
const JSONB_VERSION_BYTES: usize = 1;

/// A row of the outbox in the receive buffer.
#[derive(Debug)]
pub struct ClaimedRow(Row);

impl ClaimedRow {
    /// Its place in the order of writing.
    pub fn seq(&self) -> i64 {
        i64::from_be_bytes(self.fixed(SEQ))
    }

    /// What the row took on the wire, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.raw_size_bytes()
    }

    /// What stands in its place, if it was not read whole.
    pub fn withheld(&self, event_bytes_max: u64) -> Option<WithheldRow> {
        if self.0.len() <= BUCKET {
            return None;
        }
        self.column(BUCKET)?;
        let refusal = match self.column(FAULT) {
            Some(fault) => Refusal::unreadable(&String::from_utf8_lossy(fault)),
            None => {
                let event_bytes = i64::from_be_bytes(self.fixed(EVENT_BYTES));
                Refusal::not_read(event_bytes, event_bytes_max.try_into().unwrap_or(i64::MAX))
            }
        };
        Some(WithheldRow {
            seq: self.seq(),
            id: EventId(self.fixed(ID)),
            bucket: Bucket(u16::from_be_bytes(self.fixed(BUCKET))),
            aggregate_type: self.text(AGGREGATE_TYPE).to_owned(),
            aggregate_id: self.text(AGGREGATE_ID).to_owned(),
            refusal,
        })
    }

    /// A row of a statement with the claim's columns.
    pub(super) fn of(row: Row) -> std::result::Result<Self, PageError> {
        Self(row).checked()
    }

    /// A server whose encoding is UTF-8 converts nothing: bytes of a damaged text come as they are.
    fn checked(self) -> std::result::Result<Self, PageError> {
        let is_text = |index: &usize| {
            self.column(*index).is_none_or(|bytes| std::str::from_utf8(bytes).is_ok())
        };
        if [AGGREGATE_TYPE, AGGREGATE_ID, KIND, HEADERS].iter().all(is_text) {
            return Ok(self);
        }
        let cause = format!("cannot read a page: the row of seq {} is not UTF-8", self.seq());
        Err(PageError::Value(Error::new(ErrorKind::PostgresRefused, cause)))
    }

    fn column(&self, index: usize) -> Option<&[u8]> {
        // RawBytes takes every type, and the index is one of the claim's columns.
        let column: Option<RawBytes<'_>> = self.0.get(index);
        column.map(|bytes| bytes.0)
    }

    fn fixed<const BYTES: usize>(&self, index: usize) -> [u8; BYTES] {
        let bytes = self.column(index).expect("the column is not null");
        bytes.try_into().expect("the type was checked when the claim was prepared")
    }

    fn text(&self, index: usize) -> &str {
        let bytes = self.column(index).expect("the column is not null");
        std::str::from_utf8(bytes).expect("the session's encoding is UTF-8")
    }
}

impl LendEvent for ClaimedRow {
    fn event(&self) -> Event<'_> {
        // `jsonb` in binary form begins with its version.
        let start = |index: usize| {
            if self.0.columns()[index].type_() == &Type::JSONB { JSONB_VERSION_BYTES } else { 0 }
        };
        Event {
            seq: self.seq(),
            id: EventId(self.fixed(ID)),
            aggregate_type: self.text(AGGREGATE_TYPE),
            aggregate_id: self.text(AGGREGATE_ID),
            kind: self.text(KIND),
            payload: self.column(PAYLOAD).map(|bytes| &bytes[start(PAYLOAD)..]),
            headers: self.column(HEADERS).map(|bytes| {
                std::str::from_utf8(&bytes[start(HEADERS)..]).expect("it was checked when it came")
            }),
            created_at_micros: Timestamp::from_postgres(i64::from_be_bytes(self.fixed(CREATED_AT)))
                .0,
        }
    }
}

/// A row of the outbox that was not read whole: it is too large, or PostgreSQL cannot hand it over. It lends
/// its place and its aggregate.
#[derive(Debug)]
pub struct WithheldRow {
    seq: i64,
    id: EventId,
    bucket: Bucket,
    aggregate_type: String,
    aggregate_id: String,
    refusal: Refusal,
}

impl WithheldRow {
    /// What it takes here, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.aggregate_type.len() + self.aggregate_id.len() + self.refusal.detail.len()
    }
}

impl LendEvent for WithheldRow {
    fn event(&self) -> Event<'_> {
        Event {
            seq: self.seq,
            id: self.id,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            kind: "",
            payload: None,
            headers: None,
            created_at_micros: 0,
        }
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts::Outbox(self.bucket)
    }

    fn flaw(&self) -> Option<&Refusal> {
        Some(&self.refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_never_longer_than_it_is_said_to_be() {
        let limit = 8 << 20;
        assert_eq!(bytes_sql("payload", PayloadType::Text, limit), "octet_length(payload)");
        let json = bytes_sql("payload", PayloadType::Json, limit);
        assert!(json.starts_with("case when pg_column_size(payload) <= 32768 or "), "{json}");
        let jsonb = bytes_sql("headers", PayloadType::Jsonb, limit);
        assert!(jsonb.starts_with("case when pg_column_size(headers) <= 1024 and "), "{jsonb}");
        let jsonb = bytes_sql("headers", PayloadType::Jsonb, 1 << 40);
        assert!(jsonb.starts_with("case when pg_column_size(headers) <= 2048 and "), "{jsonb}");
    }

    #[test]
    fn what_is_small_is_small_with_all_its_columns() {
        let json = small_sql(PayloadType::Json, 8 << 20);
        assert!(json.starts_with("octet_length(aggregatetype) <= 1048576 and "), "{json}");
        assert!(json.contains("(payload is null or pg_column_size(payload) <= 32768)"), "{json}");
        let tiny = small_sql(PayloadType::Jsonb, 1_024);
        assert!(tiny.contains("pg_column_size(payload) <= 128 and "), "{tiny}");
        assert!(tiny.contains("pg_column_size(headers) <= 128 and "), "{tiny}");
    }
}
