//! What may be said on the command line: to the stage by people, to the services by the stage.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Three services, a saga and a relay, with everything that can be killed.
#[derive(Debug, Parser)]
#[command(name = "order_service", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What is shown.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Customers come for so many seconds; then the audit.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// Orders per second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub(crate) rate: u64,
    /// What is random follows from this number.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Kills services, relays, PostgreSQL and Kafka (kill -9), one after the other.
    #[arg(long)]
    pub(crate) chaos: bool,
    /// Milliseconds between two kills.
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub(crate) kill_every: u64,
    /// Makes the read model slow for a quarter of the time: records wait in Kafka, customers do not.
    #[arg(long)]
    pub(crate) slow_consumer: bool,
    /// Lets the relays go from poll to wal and back in mid-traffic.
    #[arg(long)]
    pub(crate) switch: bool,
    /// Shows no page.
    #[arg(long)]
    pub(crate) headless: bool,
    /// Where the page is shown.
    #[arg(long, default_value = "127.0.0.1:8086")]
    pub(crate) page: SocketAddr,
    /// Places orders also by two services without an outbox, which write twice.
    #[arg(long)]
    pub(crate) naive: bool,
}

/// Who this process is.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Takes orders, and leads their saga.
    Orders(Service),
    /// Lays aside, gives back, sends.
    Stock(Service),
    /// Takes money and gives it back.
    Payments(Service),
    /// Customers' orders, from the topic alone.
    ReadModel(Service),
    /// Orders without an outbox.
    Naive(Service),
}

/// What each service is told.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// Its own database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// Kafka's address.
    #[arg(long, env = "POSTRIDER_BROKERS")]
    pub(crate) brokers: String,
    /// Where it takes requests, if it takes any.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// While this file is there, the service is slow.
    #[arg(long)]
    pub(crate) slow_file: Option<PathBuf>,
}
