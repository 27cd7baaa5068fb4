//! Two more limits on the rows of a backlog: reading alone, and producing alone.
//!
//! Promises: the same rows as everybody's; reading throws them away, producing has them in memory.
//! Must not: be taken for a relay. Fails: with the first error of either side.

use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;

use super::producer::{Event, Sender};

/// As many rows as are kept in memory for producing.
const PRODUCED_ROWS: usize = 500_000;

/// What the producer's batches wait for more records.
const LINGER_MS: u32 = 20;

/// What one reading and one producing gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Limits {
    /// Rows per second out of the table, in the order of `seq`, over one connection.
    pub(crate) rows_read_per_second: f64,
    /// Records per second into the topic, from memory, one producer.
    pub(crate) records_produced_per_second: f64,
}

struct Row {
    id: String,
    aggregate_id: String,
    event_type: String,
    payload: String,
}

impl Row {
    fn of(row: &BinaryCopyOutRow) -> Self {
        Self {
            id: row.get(0),
            aggregate_id: row.get(1),
            event_type: row.get(2),
            payload: row.get(3),
        }
    }
}

/// Measures both on the rows that `table` holds now.
///
/// # Errors
/// When PostgreSQL or Kafka refuse.
pub(crate) async fn measure(
    client: &Client,
    table: &str,
    brokers: &str,
    topic: &str,
) -> Result<Limits> {
    let began = Instant::now();
    let count = copy(client, table, |_| ()).await?;
    let rows_read_per_second = count as f64 / began.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    copy(client, table, |row| {
        if rows.len() < PRODUCED_ROWS {
            rows.push(Row::of(row));
        }
    })
    .await?;
    let mut sender = Sender::new(brokers, topic, LINGER_MS)?;
    let produced = tokio::task::block_in_place(|| {
        // The first record opens the connection and gets the producer its id.
        send_all(&mut sender, &rows[..rows.len().min(1)])?;
        let began = Instant::now();
        send_all(&mut sender, &rows)?;
        anyhow::Ok(rows.len() as f64 / began.elapsed().as_secs_f64())
    })?;
    Ok(Limits { rows_read_per_second, records_produced_per_second: produced })
}

fn send_all(sender: &mut Sender, rows: &[Row]) -> Result<()> {
    for row in rows {
        sender.send(&Event {
            id: &row.id,
            aggregate_id: &row.aggregate_id,
            event_type: &row.event_type,
            payload: row.payload.as_bytes(),
        })?;
    }
    sender.flush()
}

/// Copies the table out and gives every row to `take`; returns how many there were.
async fn copy(
    client: &Client,
    table: &str,
    mut take: impl FnMut(&BinaryCopyOutRow),
) -> Result<u64> {
    let sql = format!(
        "copy (select id::text, aggregateid, type, payload::text from {table} order by seq) \
         to stdout (format binary)"
    );
    let stream = client.copy_out(&sql).await.context("the table cannot be copied")?;
    let types = [Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT];
    let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
    let mut count = 0;
    while let Some(row) = rows.try_next().await.context("the copy failed")? {
        count += 1;
        take(&row);
    }
    Ok(count)
}
