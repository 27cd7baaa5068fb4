//! `postrider check`: would `run` work with this configuration?
//!
//! Promises: one line per thing that `run` needs, each trouble with what to do; the exit code is that
//! of the first trouble. Must not: change the database or publish. Fails: only when it cannot answer.

use std::process::ExitCode;

use clap::Args;

use crate::cli::check::findings::Findings;
use crate::cli::{block_on, output, prepare};
use crate::config::Config;
use crate::config::file::FileSettings;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::error::Result;
use crate::publish::kafka::config;
use crate::publish::kafka::config::ProducerConfig;

mod access;
mod broker;
mod capture;
mod database;
mod findings;
mod headers;
mod reach;

/// Checks that run would work: configuration, PostgreSQL, tables, rights, capture, Kafka, topics.
#[derive(Args, Debug)]
#[command(after_help = "\
Takes the same settings as run. Changes nothing, neither in PostgreSQL nor in Kafka.

Examples:
  postrider check --database-url postgres://relay@db/shop --brokers kafka:9092
  postrider check --json")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,

    /// Prints JSON instead of a list.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: CheckArguments) -> Result<ExitCode> {
    let mut findings = Findings::default();
    match settle(arguments.common, arguments.relay) {
        Err(error) => findings.failed("config", &error),
        Ok((config, producer, file)) => {
            findings.passed("config", describe(&file));
            for stranger in crate::cli::strangers() {
                let remedy = "correct or unset it";
                findings.warned("environment", format!("the variable {stranger}"), remedy);
            }
            for way in config.open_ways() {
                let (way, remedy) = way.split_once("; ").expect("each way says what closes it");
                findings.warned("transport", way, remedy);
            }
            findings = block_on(look(findings, config, producer))?;
        }
    }
    if arguments.json {
        output::answer_json(&findings)?;
    } else {
        output::answer_styled(&findings.list(output::stdout_has_colour()))?;
    }
    Ok(findings.exit_code())
}

fn settle(
    common: CommonSettings,
    relay: RelaySettings,
) -> Result<(Config, ProducerConfig, FileSettings)> {
    // The findings say it all; what the libraries warn of meanwhile would only repeat it.
    let (common, relay, file) = prepare(common, relay, "error")?;
    let config = Config::resolve(&common, &relay)?;
    let kafka = &config.kafka;
    let command = kafka.token_command.as_ref();
    let producer =
        config::producer_config(&kafka.brokers, &kafka.properties, command, &kafka.login_files)?;
    Ok((config, producer, file))
}

fn describe(file: &FileSettings) -> String {
    match &file.path {
        Some(path) => format!("{} ({} keys), flags and environment", path.display(), file.keys),
        None => "flags, environment and defaults; no file".to_owned(),
    }
}

async fn look(
    mut findings: Findings,
    config: Config,
    producer: ProducerConfig,
) -> Result<Findings> {
    let waiting = database::look(&mut findings, &config).await;
    broker::look(&mut findings, &config, &producer, waiting).await?;
    Ok(findings)
}
