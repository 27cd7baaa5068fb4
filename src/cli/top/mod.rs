//! `postrider top`: how instances and their tier do, live, in a terminal.
//!
//! Promises: shows what `/api/v1/*` tells, or what PostgreSQL knows, and nothing else; the terminal is given back as it was.
//! Must not: change anything. Fails: where there is no terminal, or no meaning in an address; when PostgreSQL refuses at the
//! start. What fails later is shown.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _};
use tokio::sync::mpsc;

use crate::cli::top::source::{DatabaseSource, InstanceSource};
use crate::cli::{CommandLine, block_on, health, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::error::{Error, ErrorKind, Result};

mod grid;
mod keys;
mod screen;
mod source;
mod view;

/// Shows live how instances and their tier do: rates, ages, buckets, what is parked.
///
/// Asks the instance on this machine, those whose addresses are given, or, with --database-url or
/// --database-url-file, PostgreSQL, which knows no rates.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys: Tab the next table, s sort by the next column, S turn the order, p hold still, / filter,
arrows move, ? help, q quit.

Examples:
  postrider top
  postrider top http://10.0.0.7:9786 http://10.0.0.8:9786
  postrider top --database-url postgres://relay@db/shop")]
pub(super) struct TopArguments {
    /// Asks the instances that answer there.
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// Where the instance on this machine answers [default: 127.0.0.1:9786].
    #[arg(long, value_name = "HOST:PORT", env = "POSTRIDER_ADMIN_LISTEN", hide_env = true)]
    admin_listen: Option<String>,

    #[command(flatten)]
    common: CommonSettings,
}

/// Whom it asks.
enum TopSource {
    Instances(InstanceSource),
    Database(Box<DatabaseSource>),
}

pub(super) fn run(arguments: TopArguments) -> Result<ExitCode> {
    if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        return Err(Error::new(ErrorKind::Config, "there is no terminal to draw on")
            .with_remedy("use `postrider status`, or `postrider status --json` for programs"));
    }
    block_on(async move {
        let source = choose(arguments).await?;
        let (sender, receiver) = mpsc::channel(1);
        let asking = tokio::spawn(async move {
            match source {
                TopSource::Instances(source) => source.follow(sender).await,
                TopSource::Database(source) => source.follow(sender).await,
            }
        });
        let shown = tokio::task::spawn_blocking(move || screen::show(receiver)).await;
        asking.abort();
        let failed = |cause: String| {
            Error::new(ErrorKind::Internal, format!("the terminal cannot be drawn on: {cause}"))
        };
        shown.map_err(|cause| failed(cause.to_string()))?.map_err(|cause| failed(cause.to_string()))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Many environments name the database for other commands: only who types it asks it here.
fn is_database_typed() -> bool {
    let typed = CommandLine::command().get_matches();
    let typed = typed.subcommand_matches("top").expect("this is the command that was typed");
    ["database_url", "database_url_file"]
        .iter()
        .any(|id| typed.value_source(id) == Some(ValueSource::CommandLine))
}

async fn choose(arguments: TopArguments) -> Result<TopSource> {
    let TopArguments { urls, admin_listen, common } = arguments;
    let is_database = is_database_typed();
    if is_database && !urls.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "URLs of instances and a database are both given",
        )
        .with_remedy("ask either of them"));
    }
    if !urls.is_empty() {
        let authorities =
            urls.iter().map(|url| health::authority_of(url)).collect::<Result<_>>()?;
        return Ok(TopSource::Instances(InstanceSource::new(authorities)));
    }
    if is_database {
        let (common, ..) = prepare(common, RelaySettings::default(), "error")?;
        let database = config::database(&common)?;
        let source = Box::pin(DatabaseSource::open(database)).await?;
        return Ok(TopSource::Database(Box::new(source)));
    }
    let authority = health::authority_of_listener(admin_listen)?;
    Ok(TopSource::Instances(InstanceSource::new(vec![authority])))
}
