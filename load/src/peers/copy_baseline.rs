//! The limit: one `copy` out of the table, straight into a producer. It keeps no cursor, watches no
//! commit and saves nothing, so no relay of the same rows over the same connection can be cheaper.
//!
//! Promises: the same records as a relay, in the order of the table's column `seq`, once. Must not:
//! do anything that a relay could leave out. Fails: with the first error of either side.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::producer::{PeerEvent, Sender};
use crate::workload::outbox;

/// What is copied, and where it is published.
#[derive(Clone, Debug)]
pub(crate) struct CopyPlan {
    /// The database.
    pub(crate) database_url: String,
    /// The table.
    pub(crate) outbox: String,
    /// Kafka bootstrap servers.
    pub(crate) brokers: String,
    /// The topic.
    pub(crate) topic: String,
}

/// What its batches wait for more records.
const LINGER_MS: u32 = 20;

/// Publishes every row of the table once and then waits to be ended by a signal.
///
/// # Errors
/// When PostgreSQL or Kafka refuse.
pub(crate) async fn publish(plan: &CopyPlan) -> Result<()> {
    let client = outbox::connect(&plan.database_url).await?;
    let mut sender = Sender::new(&plan.brokers, &plan.topic, LINGER_MS)?;
    let sql = format!(
        "copy (select id, aggregateid, type, payload::text from {} order by seq) \
         to stdout (format binary)",
        plan.outbox
    );
    let stream = client.copy_out(&sql).await.context("the table cannot be copied")?;
    let types = [Type::UUID, Type::TEXT, Type::TEXT, Type::TEXT];
    let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
    let mut id_text = Uuid::encode_buffer();
    while let Some(row) = rows.try_next().await.context("the copy failed")? {
        let id: Uuid = row.get(0);
        let payload: Option<&str> = row.get(3);
        sender.send(&PeerEvent {
            id: id.hyphenated().encode_lower(&mut id_text),
            aggregate_id: row.get(1),
            event_type: row.get(2),
            payload: payload.unwrap_or_default().as_bytes(),
        })?;
    }
    tokio::task::block_in_place(|| sender.flush())?;
    loop {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
}
