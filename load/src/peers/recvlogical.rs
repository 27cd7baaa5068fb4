//! PostgreSQL's own reader of the WAL: `pg_recvlogical`, into the null device.
//!
//! Promises: reads in binary `pgoutput` up to an LSN. Must not: keep anything. Fails: when the
//! program is not there or ends badly.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

use super::cdc_table;
use super::endpoints::ServerLogin;
use crate::measure::process;

const PROGRAM: &str = "pg_recvlogical";

/// Why it cannot be used here, if so.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn obstacle(client: &Client) -> Result<Option<&'static str>> {
    Ok(if !cdc_table::is_possible(client).await? {
        Some("wal_level is not logical")
    } else if process::check_program(PROGRAM).is_err() {
        Some("there is no pg_recvlogical")
    } else {
        None
    })
}

/// Where the WAL ends now. Something is written behind it, so that a reader passes it for certain.
///
/// # Errors
/// When the server refuses.
pub(super) async fn end_of_log(client: &Client) -> Result<String> {
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await;
    let end = row.context("PostgreSQL does not answer")?.get(0);
    let after = "select pg_logical_emit_message(false, 'postrider-load', 'end')";
    client.query_one(after, &[]).await.context("the WAL cannot be written")?;
    Ok(end)
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedReading<'a> {
    /// By this slot.
    pub(super) slot: &'a str,
    /// Of these publications, with commas between.
    pub(super) publications: &'a str,
    /// Up to this LSN.
    pub(super) end: &'a str,
}

impl ReceivedReading<'_> {
    /// Reads it; gives how long it took.
    ///
    /// # Errors
    /// As the module says.
    pub(super) fn to_nowhere(self, login: &ServerLogin, host: &str) -> Result<Duration> {
        let publications = format!("publication_names={}", self.publications);
        let began = Instant::now();
        let status = Command::new(PROGRAM)
            .args(["--start", "--no-loop", "--file=/dev/null", "--fsync-interval=0"])
            .args(["--dbname", &login.conninfo(host), "--slot", self.slot, "--endpos", self.end])
            .args(["-o", "proto_version=1", "-o", "binary=true", "-o", &publications])
            .env("PGPASSWORD", &login.password)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("{PROGRAM} cannot be started"))?;
        ensure!(status.success(), "{PROGRAM} ended with {status}");
        Ok(began.elapsed())
    }
}
