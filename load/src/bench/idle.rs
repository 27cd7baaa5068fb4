//! What a relay costs when there is nothing to relay.
//!
//! Promises: CPU of the relay's tree and transactions of the whole database, over the same time.
//! Must not: write. Fails: when the relay ends or PostgreSQL does not answer.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::measure::process::Relay;
use crate::workload::outbox::{self, EventSource, EventTable};

/// How long the relay may start before it is measured.
const START_SECONDS: u64 = 5;

/// What nothing costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleCost {
    /// Of one core, in percent.
    pub(crate) cpu_percent: f64,
    /// Transactions of the database per second; a query outside of a transaction counts as one.
    pub(crate) transactions_per_second: f64,
    /// Highest resident memory in megabytes.
    pub(crate) peak_megabytes: f64,
}

/// Starts a relay on an outbox without traffic and measures it for so many seconds.
///
/// # Errors
/// As the module says.
pub(crate) fn measure(
    source: &EventSource,
    command: &str,
    seconds: u64,
    folder: &Path,
) -> Result<IdleCost> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(async {
        let client = outbox::connect(&source.database_url).await?;
        let table = EventTable::find(&client, &source.outbox).await?;
        table.truncate(&client).await?;
        anyhow::Ok(client)
    })?;
    let mut relay = Relay::start(command, &folder.join("relay.log"))?;
    std::thread::sleep(Duration::from_secs(START_SECONDS));
    let (began, cpu_before) = (Instant::now(), relay.usage()?.cpu);
    let before = runtime.block_on(transactions(&client))?;
    std::thread::sleep(Duration::from_secs(seconds));
    let (usage, took) = (relay.usage()?, began.elapsed().as_secs_f64());
    let after = runtime.block_on(transactions(&client))?;
    relay.stop()?;
    // The question itself was one of the transactions.
    let relayed = (after - before - 1).max(0) as f64;
    Ok(IdleCost {
        cpu_percent: usage.cpu.saturating_sub(cpu_before).as_secs_f64() / took * 100.0,
        transactions_per_second: relayed / took,
        peak_megabytes: usage.peak_resident_bytes as f64 / 1e6,
    })
}

async fn transactions(client: &Client) -> Result<i64> {
    let row = client
        .query_one(
            "select xact_commit + xact_rollback from pg_stat_database \
             where datname = current_database()",
            &[],
        )
        .await
        .context("the database's statistics cannot be read")?;
    Ok(row.get(0))
}
