//! The limit of everybody who reads the log: `pg_recvlogical` to the null device.
//!
//! Promises: the rows of the backlog, in binary `pgoutput`, by each way into the server, each way
//! with a slot of its own over the same log. Must not: be counted when the server cannot decode its
//! log or the program is not there; that is said. Fails: when the program does.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

use super::limits::Limit;
use super::logged;
use super::places::Ways;
use crate::cli::PeersArgs;
use crate::clock;
use crate::fill::Backlog;
use crate::outbox::Outbox;
use crate::pen::{RowHeaders, Shape};
use crate::session::Target;
use crate::{process, screen};

const PROGRAM: &str = "pg_recvlogical";

const SLOTS: [&str; 2] = ["postrider_load_tcp", "postrider_load_socket"];

/// What is read, and from where.
pub(crate) struct LogLimit<'a> {
    /// How much is written.
    pub(crate) args: &'a PeersArgs,
    /// A connection.
    pub(crate) client: &'a Client,
    /// The ways to read.
    pub(crate) ways: &'a Ways,
}

impl LogLimit<'_> {
    /// Writes the rows and reads their log by each way.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) async fn measure(&self) -> Result<Vec<Limit>> {
        let missing = if !logged::is_possible(self.client).await? {
            Some("wal_level is not logical")
        } else if process::check_program(PROGRAM).is_err() {
            Some("there is no pg_recvlogical")
        } else {
            None
        };
        if let Some(reason) = missing {
            screen::talk(&format!("the log is not read: {reason}"));
            return Ok(Vec::new());
        }
        logged::make(self.client, &SLOTS).await?;
        let limits = self.write_and_read().await;
        logged::remove(self.client, &SLOTS).await?;
        limits
    }

    async fn write_and_read(&self) -> Result<Vec<Limit>> {
        self.write().await?;
        let end = "select pg_current_wal_insert_lsn()::text";
        let row = self.client.query_one(end, &[]).await.context("PostgreSQL does not answer")?;
        let end: &str = row.get(0);
        let ways = [
            ("limit: `pg_recvlogical` to nowhere, TCP", &self.ways.tcp_host, SLOTS[0]),
            ("limit: `pg_recvlogical` to nowhere, unix socket", &self.ways.socket_folder, SLOTS[1]),
        ];
        let mut limits = Vec::new();
        for (name, host, slot) in ways {
            if let Some(host) = host {
                let seconds = tokio::task::block_in_place(|| self.read(host, slot, end))?;
                limits.push(Limit { name, per_second: self.args.events as f64 / seconds });
            }
        }
        Ok(limits)
    }

    async fn write(&self) -> Result<()> {
        let shape = &self.args.shape;
        let table = Outbox::find(self.client, logged::TABLE).await?;
        let backlog = Backlog {
            database_url: &self.args.source.database_url,
            target: &Target::Table(table),
            events: self.args.events,
            tx_size: shape.tx_size,
            seed: shape.seed,
        };
        let written = Shape {
            run: clock::new_run_id()?,
            aggregates: shape.aggregates.max(u32::from(shape.writers)),
            writers: shape.writers,
            payload_bytes: shape.payload_bytes,
            headers: RowHeaders::of_count(0),
            rollback_percent: 0,
        };
        backlog.fill(&written).await?;
        // A row after the last one, so that its log position is passed for certain.
        let after = "select pg_logical_emit_message(false, 'postrider-load', 'end')";
        self.client.query_one(after, &[]).await.context("the log cannot be written")?;
        Ok(())
    }

    /// Reads to the log position `end`; gives the seconds that it took.
    fn read(&self, host: &str, slot: &str, end: &str) -> Result<f64> {
        let publication = format!("publication_names={}", logged::PUBLICATION);
        let began = Instant::now();
        let status = Command::new(PROGRAM)
            .args(["--start", "--no-loop", "--file=/dev/null", "--fsync-interval=0"])
            .args(["--dbname", &self.ways.login.conninfo(host), "--slot", slot, "--endpos", end])
            .args(["-o", "proto_version=1", "-o", "binary=true", "-o", &publication])
            .env("PGPASSWORD", &self.ways.login.password)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("{PROGRAM} cannot be started"))?;
        ensure!(status.success(), "{PROGRAM} ended with {status}");
        Ok(began.elapsed().as_secs_f64())
    }
}
