//! Claiming pages from the outbox table.
//!
//! Promises: a claim returns exactly the rows of the cursor's range above its position, in the order
//! of `seq`; rows are lent from the receive buffer. Must not: decide which range comes next.
//! Fails: with the connection's error; a claim that broke off has no effect anywhere.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use hashbrown::HashMap;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream, Statement};

use crate::cursor::{Cohort, Cursor};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, LendEvent};
use crate::outbox::Outbox;
use crate::postgres::{
    Connection, DatabaseConfig, PgSnapshot, RawBytes, Timestamp, classify, connect,
};

const CLAIM: &str = include_str!("../../sql/queries/claim.sql");
const CLAIM_ARM: &str = include_str!("../../sql/queries/claim_arm.sql");
const CLAIM_SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

/// One session that claims pages.
#[derive(Debug)]
pub struct Poller {
    connection: Connection,
    outbox: Outbox,
    statements: HashMap<Cohort, Statement>,
}

impl Poller {
    /// Opens the session.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses the session.
    pub async fn connect(database: &DatabaseConfig, outbox: &Outbox, name: &str) -> Result<Self> {
        let connection = connect(database, &format!("shard {name}")).await?;
        connection
            .client()
            .batch_execute(CLAIM_SESSION)
            .await
            .map_err(|cause| classify("prepare the claiming session", cause))?;
        Ok(Self { connection, outbox: outbox.clone(), statements: HashMap::new() })
    }

    /// Claims up to `rows_max` rows of the range behind the cursor's position.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn claim(&mut self, cohort: &Cohort, cursor: &Cursor, rows_max: u32) -> Result<Page> {
        let statement = self.statement(cohort).await?;
        let from = PgSnapshot(cursor.from().clone());
        let upto = PgSnapshot(cursor.upto().snapshot.clone());
        let (position, through, rows_max) =
            (cursor.position(), cursor.through(), i64::from(rows_max));
        let parameters: [&(dyn ToSql + Sync); 5] = [&position, &through, &from, &upto, &rows_max];
        let rows = self
            .connection
            .client()
            .query_raw(&statement, parameters)
            .await
            .map_err(|cause| classify("claim a page", cause))?;
        Ok(Page { rows: Box::pin(rows) })
    }

    async fn statement(&mut self, cohort: &Cohort) -> Result<Statement> {
        if let Some(statement) = self.statements.get(cohort) {
            return Ok(statement.clone());
        }
        let statement = self
            .connection
            .client()
            .prepare(&claim_sql(&self.outbox, cohort))
            .await
            .map_err(|cause| classify("prepare the claim", cause))?;
        check_columns(&statement)?;
        self.statements.insert(Cohort::clone(cohort), statement.clone());
        Ok(statement)
    }
}

/// The text of the claim for a cohort.
pub fn claim_sql(outbox: &Outbox, cohort: &Cohort) -> String {
    let arms: Vec<String> = cohort
        .iter()
        .map(|bucket| CLAIM_ARM.replace("{bucket_table}", &outbox.bucket_table(*bucket)))
        .collect();
    CLAIM.replace("{bucket_arms}", &arms.join("union all\n"))
}

/// The claim's columns, in its order; a payload may be any of four types.
fn check_columns(statement: &Statement) -> Result<()> {
    const EXPECTED: [Type; 8] = [
        Type::INT8,
        Type::UUID,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::JSON,
        Type::JSONB,
        Type::TIMESTAMPTZ,
    ];
    const PAYLOADS: [Type; 4] = [Type::JSON, Type::JSONB, Type::TEXT, Type::BYTEA];
    for (index, column) in statement.columns().iter().enumerate() {
        let found = column.type_();
        let known =
            if index == PAYLOAD { PAYLOADS.contains(found) } else { EXPECTED[index] == *found };
        if !known {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the outbox's column {} has the type {found}", column.name()),
            )
            .with_remedy("restore the column as `postrider migrate print` shows it"));
        }
    }
    Ok(())
}

/// A page on its way: rows as they arrive, under the connection's back-pressure.
pub struct Page {
    rows: Pin<Box<RowStream>>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Stream for Page {
    type Item = Result<ClaimedRow>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = ready!(self.rows.as_mut().poll_next(context));
        Poll::Ready(row.map(|row| match row {
            Ok(row) => Ok(ClaimedRow(row)),
            Err(cause) => Err(classify("read a page", cause)),
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
        let jsonb = self.0.columns()[PAYLOAD].type_() == &Type::JSONB;
        let payload_start = if jsonb { JSONB_VERSION_BYTES } else { 0 };
        Event {
            seq: self.seq(),
            id: EventId(self.fixed(ID)),
            aggregate_type: self.text(AGGREGATE_TYPE),
            aggregate_id: self.text(AGGREGATE_ID),
            kind: self.text(KIND),
            payload: self.column(PAYLOAD).map(|bytes| &bytes[payload_start..]),
            headers: self.column(HEADERS).map(|bytes| {
                std::str::from_utf8(&bytes[JSONB_VERSION_BYTES..]).expect("JSON is UTF-8")
            }),
            created_at_micros: Timestamp::from_postgres(i64::from_be_bytes(self.fixed(CREATED_AT)))
                .0,
        }
    }
}
