//! The `postrider-load` command: a load generator and auditor for a transactional outbox.
//!
//! Promises: it knows the outbox table, the topic and, to measure it, the relay's process; nothing
//! else of a relay. Must not: depend on one. Fails: with one line on stderr and an exit code.

mod audit;
mod bench;
mod cli;
mod drain;
mod failure;
mod measure;
mod output;
mod peers;
mod report;
mod run;
mod verify;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command};

// The generator and the auditor share two cores with what they measure; librdkafka's allocations
// are the larger part of the auditor's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(&format!("postrider-load: {error:#}"));
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

fn act(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Drain(args) => Runtime::new()?.block_on(drain::drain(args)),
        Command::Bench(args) => bench::bench(args),
        Command::Peers(args) => Runtime::new()?.block_on(peers::peers(args)),
        Command::PeerPoller(args) => Runtime::new()?.block_on(peers::poller::relay(args)),
        Command::PeerBare(args) => Runtime::new()?.block_on(peers::copy_baseline::publish(args)),
        Command::Verify(args) => verify::verify(args),
        Command::Run(args) => run::run(args),
        Command::Report(args) => report::run(args),
    }
}
