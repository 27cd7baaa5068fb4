//! The hand-made poller that many teams write first: a flag, `for update skip locked`, one batch at
//! a time.
//!
//! Promises: an event is flagged after it was delivered, in the transaction that locked it. Must
//! not: be tuned beyond what such a poller has. Fails: with the first error of either side.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use super::producer::{PeerEvent, Sender};
use crate::workload::outbox;

/// What the poller reads and where it publishes.
#[derive(Clone, Debug)]
pub(crate) struct PollerPlan {
    /// The database.
    pub(crate) database_url: String,
    /// Kafka bootstrap servers.
    pub(crate) brokers: String,
    /// The topic.
    pub(crate) topic: String,
    /// Rows in a batch.
    pub(crate) batch_rows: i64,
}

/// The poller's own table.
pub(crate) const TABLE: &str = "postrider_load_polled";

/// Its pause when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(100);

/// What its batches wait for more records: little, for it waits for each thousand anyway.
const LINGER_MS: u32 = 1;

/// Creates the poller's table; an earlier one is dropped.
///
/// # Errors
/// When the role may not.
pub(crate) async fn make_table(client: &Client) -> Result<()> {
    let sql = format!(
        "drop table if exists {TABLE};
         create table {TABLE} (
             id bigint generated always as identity primary key,
             event_id uuid not null default gen_random_uuid(),
             aggregatetype text not null,
             aggregateid text not null,
             type text not null,
             payload json,
             created_at timestamptz not null default clock_timestamp(),
             published boolean not null default false
         );
         create index on {TABLE} (id) where not published;"
    );
    client.batch_execute(&sql).await.context("the poller's table cannot be made")
}

/// Relays until it is ended by a signal.
///
/// # Errors
/// When PostgreSQL or Kafka refuse.
pub(crate) async fn relay(plan: &PollerPlan) -> Result<()> {
    let mut client = outbox::connect(&plan.database_url).await?;
    let mut sender = Sender::new(&plan.brokers, &plan.topic, LINGER_MS)?;
    let select = client
        .prepare(&format!(
            "select id, event_id::text, aggregateid, type, payload::text from {TABLE} \
             where not published order by id limit $1 for update skip locked"
        ))
        .await
        .context("the poller's table is missing; the command peers makes it")?;
    let update = client
        .prepare(&format!("update {TABLE} set published = true where id = any($1)"))
        .await
        .context("the poller's table is missing; the command peers makes it")?;
    loop {
        let transaction = client.transaction().await.context("PostgreSQL is gone")?;
        let rows =
            transaction.query(&select, &[&plan.batch_rows]).await.context("the select failed")?;
        for row in &rows {
            let payload: Option<&str> = row.get(4);
            sender.send(&PeerEvent {
                id: row.get(1),
                aggregate_id: row.get(2),
                event_type: row.get(3),
                payload: payload.unwrap_or_default().as_bytes(),
            })?;
        }
        if !rows.is_empty() {
            tokio::task::block_in_place(|| sender.flush())?;
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            transaction.execute(&update, &[&ids]).await.context("the update failed")?;
        }
        transaction.commit().await.context("the commit failed")?;
        if rows.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
