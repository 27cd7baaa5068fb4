//! The `postrider-load` command: a load generator and auditor for a transactional outbox.
//!
//! Promises: it knows the outbox table, the topic and, to measure it, the relay's process; nothing
//! else of a relay. Must not: depend on one. Fails: with one line on stderr and an exit code.

mod array;
mod audit;
mod bench;
mod cli;
mod clock;
mod commits;
mod drain;
mod environment;
mod event;
mod failure;
mod fill;
mod latency;
mod marks;
mod message;
mod outbox;
mod peers;
mod pen;
mod pick;
mod process;
mod range;
mod report;
mod result;
mod run;
mod sampler;
mod schedule;
mod screen;
mod session;
mod slot;
mod summary;
mod tail;
mod threshold;
mod topic;
mod truth;
mod verify;
mod writer;

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
            screen::talk(&format!("postrider-load: {error:#}"));
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
        Command::PeerBare(args) => Runtime::new()?.block_on(peers::bare::publish(args)),
        Command::Verify(args) => verify::verify(args),
        Command::Run(args) => run::run(args),
        Command::Report(args) => report::run(args),
    }
}
