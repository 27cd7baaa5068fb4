//! The limits on the rows of a backlog: reading alone and producing alone, in the shortest way.
//!
//! Promises: the same rows as everybody's; reading throws them away, producing has them in memory or
//! in a file. Must not: be taken for a relay. Fails: with the first error of either side.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;

use super::endpoints::Endpoints;
use super::peer::RELAY;
use super::perf_test::PerfTest;
use super::plan::PeersPlan;
use super::producer::{PeerEvent, Sender};
use super::table::MeasuredLimit;
use super::wal_limit::WalLimit;
use crate::workload::outbox;

/// As many rows as are kept in memory for producing.
const PRODUCED_ROWS: usize = 500_000;

/// What the producer's batches wait for more records.
const LINGER_MS: u32 = 20;

struct LimitRow {
    id: String,
    aggregate_id: String,
    event_type: String,
    payload: String,
}

impl LimitRow {
    fn of(row: &BinaryCopyOutRow) -> Self {
        Self {
            id: row.get(0),
            aggregate_id: row.get(1),
            event_type: row.get(2),
            payload: row.get(3),
        }
    }
}

/// Measures all limits on the rows that the outbox holds now, and on the WAL of as many.
///
/// # Errors
/// When PostgreSQL or Kafka refuse.
pub(crate) async fn measure(
    plan: &PeersPlan,
    client: &Client,
    endpoints: &Endpoints,
    perf_test: &PerfTest,
    topic: &str,
) -> Result<Vec<MeasuredLimit>> {
    let table = &plan.source.outbox;
    let mut limits = Vec::new();
    let copies = [
        ("limit: `copy` to nowhere, TCP", &endpoints.tcp_host),
        ("limit: `copy` to nowhere, unix socket", &endpoints.socket_folder),
    ];
    for (name, host) in copies {
        if let Some(host) = host {
            let per_second = copy_to_nowhere(&endpoints.login.url(host), table).await?;
            limits.push(MeasuredLimit { name, beside: RELAY, per_second });
        }
    }
    limits.extend(WalLimit { plan, client, endpoints }.measure().await?);
    let rows = rows(client, table).await?;
    let produced = tokio::task::block_in_place(|| produce(&plan.sink.brokers, topic, &rows))?;
    let name = "limit: rdkafka producing from memory";
    limits.push(MeasuredLimit { name, beside: RELAY, per_second: produced });
    let file = plan.out.join("payloads");
    write_payloads(&file, &rows)?;
    drop(rows);
    let per_second =
        tokio::task::block_in_place(|| perf_test.run(&plan.sink.brokers, topic, &file))?;
    let name = "limit: kafka-producer-perf-test, no keys";
    limits.push(MeasuredLimit { name, beside: RELAY, per_second });
    std::fs::remove_file(&file).context("the file of payloads cannot be removed")?;
    Ok(limits)
}

fn produce(brokers: &str, topic: &str, rows: &[LimitRow]) -> Result<f64> {
    let mut sender = Sender::new(brokers, topic, LINGER_MS)?;
    // The first record opens the connection and gets the producer its id.
    send_all(&mut sender, &rows[..rows.len().min(1)])?;
    let began = Instant::now();
    send_all(&mut sender, rows)?;
    Ok(rows.len() as f64 / began.elapsed().as_secs_f64())
}

fn send_all(sender: &mut Sender, rows: &[LimitRow]) -> Result<()> {
    for row in rows {
        sender.send(&PeerEvent {
            id: &row.id,
            aggregate_id: &row.aggregate_id,
            event_type: &row.event_type,
            payload: row.payload.as_bytes(),
        })?;
    }
    sender.flush()
}

fn write_payloads(path: &Path, rows: &[LimitRow]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(failed)?);
    for row in rows {
        writeln!(file, "{}", row.payload).with_context(failed)?;
    }
    file.flush().with_context(failed)
}

/// Rows per second out of the table in the order of `seq`, over one connection, thrown away as they
/// come.
async fn copy_to_nowhere(database_url: &str, table: &str) -> Result<f64> {
    let client = outbox::connect(database_url).await?;
    let count: i64 = client
        .query_one(&format!("select count(*) from {table}"), &[])
        .await
        .context("the table cannot be counted")?
        .get(0);
    let sql = format!(
        "copy (select id, aggregateid, type, payload from {table} order by seq) \
         to stdout (format binary)"
    );
    let began = Instant::now();
    let mut stream = pin!(client.copy_out(&sql).await.context("the table cannot be copied")?);
    while stream.try_next().await.context("the copy failed")?.is_some() {}
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// The first rows of the table.
async fn rows(client: &Client, table: &str) -> Result<Vec<LimitRow>> {
    let sql = format!(
        "copy (select id::text, aggregateid, type, payload::text from {table} order by seq \
         limit {PRODUCED_ROWS}) to stdout (format binary)"
    );
    let stream = client.copy_out(&sql).await.context("the table cannot be copied")?;
    let types = [Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT];
    let mut found = pin!(BinaryCopyOutStream::new(stream, &types));
    let mut rows = Vec::new();
    while let Some(row) = found.try_next().await.context("the copy failed")? {
        rows.push(LimitRow::of(&row));
    }
    Ok(rows)
}
