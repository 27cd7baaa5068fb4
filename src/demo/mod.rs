//! `postrider demo`: everything that postrider promises, shown on servers of its own.
//!
//! Promises: nothing outside its own servers and folders is touched, and these are gone afterwards;
//! exit code 0 only when every committed event arrived, in order, and no other did.
//! Must not: use a way into the relay that others do not have. Fails: when a server cannot be
//! started or a part of the demo fails; the verdict on what was done is given all the same.
//!
//! ```text
//!  shop ──orders and events──► PostgreSQL ──► relay ──► Kafka ──► consumer
//!    └── what was written, and its fate ──► check ◄── what arrived ──┘
//!                                             └──► view, summary
//! ```

mod ages;
mod arguments;
mod check;
mod consumer;
mod display;
mod interrupt;
mod live;
mod output;
mod panel;
mod picture;
mod plain;
mod relay_task;
mod schedule;
mod servers;
mod session;
mod shop;
mod summary;
mod tables;
mod terminal;
mod warnings;
mod words;

pub use crate::demo::arguments::{BrokerChoice, DemoArguments};

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::demo::interrupt::Interrupt;
use crate::demo::servers::Servers;
use crate::demo::session::DemoOutcome;
use crate::demo::warnings::DemoWarnings;
use crate::error::{Error, ErrorKind, Result};

/// What is still running then is not waited for: it holds nothing that outlives the process.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the demo; the exit code is 0 only when the check holds, else 1. It sets up a log of its own
/// (warnings only, kept away from the live view), so no other should be set up before.
///
/// # Errors
/// When a server does not start, the demo is interrupted before that, or a part of it cannot be
/// made. Each kind has its own exit code.
pub fn run(arguments: DemoArguments) -> Result<ExitCode> {
    arguments.check()?;
    let warnings = DemoWarnings::collect();
    let runtime = Runtime::new().map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("cannot start the runtime: {cause}"))
    })?;
    let ended = on_servers(&runtime, &arguments, &warnings);
    runtime.shutdown_timeout(RUNTIME_DEADLINE);
    for line in warnings.take() {
        output::progress(&format!("warning: {line}"));
    }
    ended
}

/// The servers go away when this returns, after everybody who is connected to them.
fn on_servers(
    runtime: &Runtime,
    arguments: &DemoArguments,
    warnings: &DemoWarnings,
) -> Result<ExitCode> {
    let (interrupt, servers) = runtime.block_on(async {
        let interrupt = Interrupt::listen()?;
        output::progress("starting PostgreSQL and Kafka, for this demo only (Ctrl-C ends it)");
        let servers = Servers::start(arguments, shop::TOPICS, output::progress, &interrupt).await?;
        Ok::<_, Error>((interrupt, servers))
    })?;
    if arguments.servers_only {
        return runtime.block_on(keep(&servers, &interrupt));
    }
    let outcome = runtime.block_on(session::run(arguments, &servers, &interrupt, warnings))?;
    if interrupt.was_said() {
        output::progress("stopped before its time: this is the verdict on what was done");
    }
    let code = conclude(&outcome)?;
    drop(servers);
    output::progress("both servers are stopped, their folders removed");
    Ok(code)
}

/// `--servers-only`: says where the servers are, and waits.
async fn keep(servers: &Servers, interrupt: &Interrupt) -> Result<ExitCode> {
    output::progress(&format!("{}: kept until Ctrl-C, then gone", servers.names()));
    for line in [
        format!("export DATABASE_URL='{}'", servers.database_url()),
        format!("export POSTRIDER_BROKERS='{}'", servers.broker.brokers()),
    ] {
        output::line(&line).map_err(|cause| closed(&cause))?;
    }
    interrupt.wait().await;
    output::progress("stopping both servers");
    Ok(ExitCode::SUCCESS)
}

/// Says what came of it.
fn conclude(outcome: &DemoOutcome) -> Result<ExitCode> {
    for line in summary::lines(&outcome.findings) {
        output::line(&line).map_err(|cause| closed(&cause))?;
    }
    for trouble in &outcome.troubles {
        output::progress(&format!("error: {trouble}"));
    }
    let is_good = words::is_proven(&outcome.findings.verdict, outcome.findings.course);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn closed(cause: &std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot write to standard output: {cause}"))
        .with_remedy("leave standard output open")
}
