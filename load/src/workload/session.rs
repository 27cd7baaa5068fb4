//! One writer's connection: one transaction per batch, committed or rolled back.
//!
//! Promises: a batch is one transaction. Events alone, rows or messages, are one statement, which is one round trip; with
//! orders, the business rows and the events are written together, the order's row first, as an
//! application that keeps an aggregate's events in order does. Must not: decide what is written.
//! Fails: with the server's words; what became of the transaction is not known then.

use anyhow::{Context, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::measure::clock;
use crate::workload::batch::{EventBatch, RowHeaders};
use crate::workload::event::Intent;
use crate::workload::message;
use crate::workload::outbox::{self, EventTable};
use crate::workload::pg_array::PgArray;

/// What a transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// Rows of the outbox only.
    Events,
    /// Rows of customer, orders and order_line, and the outbox row of each order.
    Orders,
}

/// How events are written, which is how a relay captures them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WriteForm {
    /// As rows of the outbox.
    Table,
    /// As logical messages in the WAL; no table is involved.
    Message,
}

/// Where events are written to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A table.
    Table(EventTable),
    /// The WAL.
    Wal,
}

/// The business tables of the orders workload; they are this tool's own and created again for each run.
const BUSINESS_TABLES: &str = "
    drop schema if exists postrider_load cascade;
    create schema postrider_load;
    create table postrider_load.customer (
        id bigint primary key,
        order_changes bigint not null
    );
    create table postrider_load.orders (
        id bigint primary key,
        customer_id bigint not null references postrider_load.customer,
        version integer not null,
        changed_at timestamptz not null default now()
    );
    create table postrider_load.order_line (
        order_id bigint not null references postrider_load.orders,
        version integer not null,
        line smallint not null,
        product text not null,
        quantity integer not null,
        cents integer not null
    );
    create index order_line_order on postrider_load.order_line (order_id);";

/// Ten orders of one writer belong to one customer, so that no two writers wait for each other.
const UPSERT_CUSTOMERS: &str = "
    insert into postrider_load.customer (id, order_changes)
    select (o.id / $2 / 10) * $2 + o.id % $2 as customer_id, count(*)
      from unnest($1::bigint[]) as o(id) group by customer_id
    on conflict (id) do update set order_changes = customer.order_changes + excluded.order_changes";

const UPSERT_ORDERS: &str = "
    insert into postrider_load.orders (id, customer_id, version)
    select o.id, (o.id / $2 / 10) * $2 + o.id % $2, count(*)
      from unnest($1::bigint[]) as o(id) group by o.id
    on conflict (id) do update set version = orders.version + excluded.version, changed_at = now()";

const INSERT_LINES: &str = "
    insert into postrider_load.order_line (order_id, version, line, product, quantity, cents)
    select o.id, orders.version, line, 'product-' || (o.id + line) % 1000, line, 100 * line
      from unnest($1::bigint[]) as o(id) join postrider_load.orders using (id),
           generate_series(1, 2) as line";

/// Makes the business tables of the orders workload.
///
/// # Errors
/// When the role may not make a schema.
pub(crate) async fn make_business_tables(client: &Client) -> Result<()> {
    client
        .batch_execute(BUSINESS_TABLES)
        .await
        .context("the business tables cannot be made; --workload orders needs the right to create")
}

/// One transaction's events in one statement, in their order; the count keeps the answer small.
const EMIT: &str = "
    select count(pg_logical_emit_message(true, $1, m)) from unnest($2::bytea[]) as m";

/// How a batch's events reach the server.
enum WritePath {
    Insert {
        statement: Statement,
        /// Whether it takes the events' ids.
        takes_ids: bool,
    },
    /// With the messages of the batch at hand, whose memory is used again.
    Emit(Statement, PgArray),
}

impl WritePath {
    async fn prepare(client: &Client, target: &Target, headers: &RowHeaders) -> Result<Self> {
        match target {
            Target::Table(table) => {
                let statement = table.prepare_insert(client, headers).await?;
                Ok(Self::Insert { statement, takes_ids: table.takes_ids() })
            }
            Target::Wal => {
                let emit = client.prepare(EMIT).await.context("messages cannot be written")?;
                Ok(Self::Emit(emit, PgArray::of_bytes()))
            }
        }
    }
}

struct Business {
    customers: Statement,
    orders: Statement,
    lines: Statement,
    writers: i64,
}

/// A connection that writes batches.
pub(crate) struct WriterSession {
    client: Client,
    path: WritePath,
    headers: Option<String>,
    business: Option<Business>,
}

impl WriterSession {
    /// Connects and prepares the statements; `writers` is the number of writers in the run.
    ///
    /// # Errors
    /// When the server refuses, or the target's table is not an outbox.
    pub(crate) async fn open(
        database_url: &str,
        target: &Target,
        headers: &RowHeaders,
        workload: Workload,
        writers: u16,
    ) -> Result<Self> {
        let client = outbox::connect(database_url).await?;
        let path = WritePath::prepare(&client, target, headers).await?;
        let business = match workload {
            Workload::Events => None,
            Workload::Orders => Some(Business {
                customers: prepare(&client, UPSERT_CUSTOMERS).await?,
                orders: prepare(&client, UPSERT_ORDERS).await?,
                lines: prepare(&client, INSERT_LINES).await?,
                writers: i64::from(writers),
            }),
        };
        Ok(Self { client, path, headers: headers.json().cloned(), business })
    }

    /// Writes one transaction and ends it as `intent` says.
    ///
    /// # Errors
    /// When the server refuses or the connection is lost.
    pub(crate) async fn write(&mut self, batch: &EventBatch, intent: Intent) -> Result<()> {
        if intent == Intent::Commit && self.business.is_none() {
            return self.write_events(batch).await;
        }
        self.client.batch_execute("begin").await.context("a transaction cannot be started")?;
        if let Some(business) = &self.business {
            self.write_business(business, batch).await?;
        }
        self.write_events(batch).await?;
        let end = if intent == Intent::Commit { "commit" } else { "rollback" };
        self.client.batch_execute(end).await.context("a transaction cannot be ended")
    }

    async fn write_business(&self, business: &Business, batch: &EventBatch) -> Result<()> {
        let aggregates = &batch.aggregates;
        for statement in [&business.customers, &business.orders] {
            let written = self.client.execute(statement, &[aggregates, &business.writers]).await;
            written.context("the business rows cannot be written")?;
        }
        let written = self.client.execute(&business.lines, &[aggregates]).await;
        written.context("the order lines cannot be written").map(drop)
    }

    async fn write_events(&mut self, batch: &EventBatch) -> Result<()> {
        let headers = self.headers.as_ref();
        let sent = match &mut self.path {
            WritePath::Insert { statement, takes_ids } => {
                let mut values: Vec<&(dyn ToSql + Sync)> = vec![&batch.keys, &batch.payloads];
                if *takes_ids {
                    values.push(&batch.ids);
                }
                if let Some(headers) = headers {
                    values.push(headers);
                }
                self.client.execute(&*statement, &values).await
            }
            WritePath::Emit(emit, messages) => {
                compose(batch, headers, messages)?;
                self.client.execute(emit, &[&message::PREFIX, messages]).await
            }
        };
        sent.context("the events cannot be written").map(drop)
    }
}

/// Makes the messages of a batch, in its order.
fn compose(batch: &EventBatch, headers: Option<&String>, messages: &mut PgArray) -> Result<()> {
    let now_us = clock::unix_us(std::time::SystemTime::now())?;
    messages.clear();
    let events = batch.keys.elements().zip(batch.payloads.elements());
    for (id, event) in batch.ids.elements().zip(events) {
        messages.push(|out| message::write(id, now_us, event, headers.map(String::as_str), out));
    }
    Ok(())
}

async fn prepare(client: &Client, sql: &str) -> Result<Statement> {
    client.prepare(sql).await.context("the business tables do not fit; is another run using them?")
}
