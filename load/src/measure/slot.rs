//! Replication slots, as anybody sees them: for relays that read the WAL.
//!
//! Promises: a slot counts as read only when its stream has begun, not while it is being made. Must not:
//! read a relay's slot, or change it. Fails: when the server does not answer, or the relay ends or takes
//! too long.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use crate::measure::process::Relay;

/// Where a relay reads events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayReads {
    /// In the table.
    Table,
    /// In the WAL, by a slot: what was written before there is one does not come.
    Wal,
}

/// How often the slots are looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// The slots of this database whose stream has begun. Others may not see the state of a stream; one that
/// is in use counts for them.
const READ: &str = "
    select slot.slot_name::text
      from pg_replication_slots as slot
      left join pg_stat_replication as stream on stream.pid = slot.active_pid
     where slot.database = current_database() and slot.active
       and coalesce(stream.state, 'streaming') in ('catchup', 'streaming')
     order by slot.slot_name limit 1";

const EXISTS: &str = "
    select exists (select from pg_replication_slots
                   where database = current_database() and not temporary)";

/// The WAL that the server keeps for the slots of this database, in bytes.
const KEPT: &str = "
    select coalesce(max(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)), 0)::bigint
      from pg_replication_slots where database = current_database()";

/// Refuses a server whose WAL cannot be decoded.
///
/// # Errors
/// When `wal_level` is not `logical`, or the server does not answer.
pub(crate) async fn check_wal_level(client: &Client) -> Result<()> {
    let row = client.query_one("select current_setting('wal_level')", &[]).await;
    let level: String = row.context("PostgreSQL does not answer")?.get(0);
    if level != "logical" {
        bail!("reading the WAL needs wal_level = logical; it is {level}");
    }
    Ok(())
}

/// Waits until the relay reads the WAL; gives the name of its slot. What was written before there is a
/// slot is not in its stream.
///
/// # Errors
/// When the relay ends, or does not come to it within `limit`.
pub(crate) async fn await_reader(
    client: &Client,
    relay: &mut Relay,
    limit: Duration,
) -> Result<String> {
    let begin = Instant::now();
    loop {
        let row = client.query_opt(READ, &[]).await.context("PostgreSQL does not answer")?;
        if let Some(row) = row {
            return Ok(row.get(0));
        }
        wait(relay, begin, limit, "does not read the WAL")?;
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Lets a relay that polls drop the slot that it does not need any more: it would hold the WAL back.
///
/// # Errors
/// When the relay cannot be started, ends, or does not come to it within `limit`.
pub(crate) async fn release(
    client: &Client,
    polling_relay: &str,
    log: &Path,
    limit: Duration,
) -> Result<()> {
    let mut relay = Relay::start(polling_relay, log)?;
    let begin = Instant::now();
    loop {
        let row = client.query_one(EXISTS, &[]).await.context("PostgreSQL does not answer")?;
        if !row.get::<_, bool>(0) {
            return relay.stop().map(drop);
        }
        wait(&mut relay, begin, limit, "keeps a replication slot")?;
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn wait(relay: &mut Relay, begin: Instant, limit: Duration, state: &str) -> Result<()> {
    relay.check_alive()?;
    if begin.elapsed() > limit {
        bail!("the relay {state} after {} s", limit.as_secs());
    }
    Ok(())
}

/// Watches how much WAL the server keeps for slots.
pub(crate) struct KeptWal {
    runtime: Runtime,
    client: Client,
    peak_bytes: u64,
}

impl KeptWal {
    /// Watches through this connection, which lives in `runtime`.
    pub(crate) fn new(runtime: Runtime, client: Client) -> Self {
        Self { runtime, client, peak_bytes: 0 }
    }

    /// Looks once.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn look(&mut self) -> Result<()> {
        let row = self.runtime.block_on(self.client.query_one(KEPT, &[]));
        let bytes: i64 = row.context("PostgreSQL does not answer")?.get(0);
        self.peak_bytes = self.peak_bytes.max(bytes.unsigned_abs());
        Ok(())
    }

    /// The most that was seen.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }
}
