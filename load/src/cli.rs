//! The command line.
//!
//! Promises: every flag has a default that works on one machine, or is required. Must not: do
//! anything. Fails: clap names the flag, the value and the remedy; exit code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::event::SMALLEST_PAYLOAD_BYTES;

/// Load generator and auditor for a transactional outbox.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 runtime, 2 usage, 4 PostgreSQL, 5 Kafka, \
7 a threshold broke or the audit found a fault.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fill a backlog while no relay runs, then measure how fast a relay drains it.
    #[command(
        after_help = "Example:\n  postrider-load drain --events 500000 --relay 'postrider run'"
    )]
    Drain(DrainArgs),
}

/// Where the events go in.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// The database with the outbox.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// The outbox table.
    #[arg(long, default_value = "public.outbox")]
    pub(crate) outbox: String,
}

/// Where the events come out.
#[derive(Clone, Debug, Args)]
pub(crate) struct SinkArgs {
    /// Kafka bootstrap servers.
    #[arg(long, default_value = "localhost:9092")]
    pub(crate) brokers: String,
    /// The topic that the relay publishes to.
    #[arg(long, default_value = "outbox.event.order")]
    pub(crate) topic: String,
    /// Partitions of the topic, when it has to be made.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub(crate) partitions: i32,
}

/// What the events look like.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Events per transaction.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tx_size: u32,
    /// Length of each payload, in bytes.
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(i64::from(SMALLEST_PAYLOAD_BYTES)..=10_000_000))]
    pub(crate) payload_bytes: u32,
    /// Headers in each row, besides those that the relay adds; 0 leaves the column out.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) headers: u32,
    /// Number of aggregates (distinct keys).
    #[arg(long, default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) aggregates: u32,
    /// Connections that write; each owns a part of the aggregates.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) writers: u16,
    /// Of 100 transactions, how many are rolled back; their events must never appear.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=90))]
    pub(crate) rollback_percent: u32,
    /// Seed of the choices of aggregates.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Fill a backlog while no relay runs, then measure how fast a relay drains it.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sink: SinkArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Events in the backlog.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// The relay's command line; no shell is involved.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) relay: String,
    /// How often to repeat; figures are given as minimum, median and maximum.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Empty the outbox before each run.
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Skip ANALYZE and CHECKPOINT between filling and draining.
    #[arg(long)]
    pub(crate) no_settle: bool,
    /// Read the whole topic afterwards and audit it.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub(crate) verify: bool,
    /// The broker's process id, to measure its CPU.
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,
    /// Give up when the relay publishes nothing for so long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stall_seconds: u64,
    /// Folder for the relay's log and drain.json.
    #[arg(long, default_value = "postrider-load-out")]
    pub(crate) out: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
