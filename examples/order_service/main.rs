//! The order service: how three services that own a database each stay in agreement, whatever is killed.
//!
//! ```text
//!  customers ─HTTP─► orders ──outbox──► relay ──► topic order ──► stock, payments, read model
//!                      ▲                                             │         │
//!                      └───────── topics stock, payment ◄── relay ◄──┴─outbox──┘
//! ```
//!
//! `cargo run --release --example order_service` shows it all; README.md beside this file is the way through it.
//!
//! This program is everybody: without a role it is the stage, which starts PostgreSQL, Kafka and, as processes of
//! their own, the same program again in each role. So every part can be killed alone, as in production.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people on a terminal")]

mod arguments;
mod audit;
mod chaos;
mod consumer;
mod customers;
mod database;
mod events;
mod ledger;
mod naive;
mod orders;
mod page;
mod payments;
mod random;
mod read_model;
mod request;
mod saga;
mod scenes;
mod session;
mod stage;
mod stock;
mod supervisor;
mod topics;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Role};

/// librdkafka allocates twice per record, for the relay as for services.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The commands of postrider that this program is as well: it has the relay in it.
const RELAY_COMMANDS: [&str; 3] = ["run", "migrate", "capture"];

fn main() -> ExitCode {
    supervisor::end_with_parent();
    let first = std::env::args().nth(1);
    if first.is_some_and(|word| RELAY_COMMANDS.contains(&word.as_str())) {
        return postrider::cli::main();
    }
    match start(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.role {
        Some(Role::Orders(service)) => runtime.block_on(orders::serve(&service))?,
        Some(Role::Stock(service)) => runtime.block_on(stock::serve(&service)),
        Some(Role::Payments(service)) => runtime.block_on(payments::serve(&service)),
        Some(Role::ReadModel(service)) => runtime.block_on(read_model::serve(&service)),
        Some(Role::Naive(service)) => runtime.block_on(naive::serve(&service))?,
        None => return session::run(&runtime, arguments.options),
    }
    Ok(ExitCode::SUCCESS)
}
