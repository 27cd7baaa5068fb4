//! The `postrider-load` command: a load generator and auditor for a transactional outbox.
//!
//! Promises: it knows the outbox table, the topic and, to measure it, the relay's process; nothing
//! else of a relay. Must not: depend on one. Fails: with one line on stderr and an exit code.

mod audit;
mod cli;
mod clock;
mod drain;
mod event;
mod failure;
mod outbox;
mod pick;
mod process;
mod range;
mod screen;
mod topic;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

// The generator and the auditor share two cores with what they measure; librdkafka's allocations
// are the larger part of the auditor's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Drain(args) => drain::drain(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::talk(&format!("postrider-load: {error:#}"));
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
