//! The `postrider-load` command: a load generator and auditor for a transactional outbox.
//!
//! Promises: it knows the outbox table, the topic and, to measure it, the relay's process; nothing
//! else of a relay. Must not: depend on one. Fails: with one line on stderr and an exit code.

mod args;
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

use crate::cli::Cli;

// The generator and the auditor share two cores with what they measure; librdkafka's allocations
// are the larger part of the auditor's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command.act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(&format!("postrider-load: {error:#}"));
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
