//! `postrider check`: would `run` work with this configuration?
//!
//! Promises: one line per thing that `run` needs, each trouble with what to do; the exit code is that
//! of the first trouble. Must not: change the database or publish. Fails: only when it cannot answer.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::check::findings::{Findings, OnWarnings};
use crate::cli::{block_on, output, prepare};
use crate::config::Config;
use crate::config::file::FileSettings;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::units::Span;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::lock_holder;
use crate::publish::kafka::config;
use crate::publish::kafka::config::ProducerConfig;

/// So long Kafka may take at least.
const KAFKA_PATIENCE_MIN: Duration = Duration::from_secs(2);

mod access;
mod broker;
mod capture;
mod database;
mod exactly;
mod findings;
mod forms;
mod functions;
mod headers;
mod held;
mod moved;
mod reach;
mod ring;
mod server;
mod topics;

/// Checks that run would work: configuration, PostgreSQL, tables, rights, capture, Kafka, topics.
#[derive(Args, Debug)]
#[command(after_help = "\
Takes the same settings as run. Changes nothing, neither in PostgreSQL nor in Kafka; where events are
delivered exactly once it takes a transactional id for a moment. In JSON each finding
has the name of its check, which stays the same from version to version: see docs/check.md.

Examples:
  postrider check --database-url postgres://relay@db/shop --brokers kafka:9092
  postrider check --deny-warnings --timeout 10s
  postrider check --offline --config postrider.toml
  postrider check --json")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,

    /// Looks at the configuration alone: nothing is asked of PostgreSQL or Kafka.
    #[arg(long)]
    offline: bool,

    /// Ends with 1 when there are warnings, and no problems.
    #[arg(long)]
    deny_warnings: bool,

    /// How long all of it may take.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Span,

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
            if arguments.offline {
                findings.passed("kafka-auth", config.kafka.login_words());
            } else {
                let patience = Duration::from(arguments.timeout);
                findings = block_on(look(findings, config, producer, patience))?;
            }
        }
    }
    if arguments.json {
        output::answer_json(&findings)?;
    } else {
        output::answer_styled(&findings.list(output::stdout_has_colour()))?;
    }
    let warnings = if arguments.deny_warnings { OnWarnings::Deny } else { OnWarnings::Allow };
    Ok(findings.exit_code(warnings))
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
        Some(path) => {
            format!("{} ({} keys), flags and environment", path.display(), file.values.0.len())
        }
        None => "flags, environment and defaults; no file".to_owned(),
    }
}

async fn look(
    mut findings: Findings,
    config: Config,
    producer: ProducerConfig,
    patience: Duration,
) -> Result<Findings> {
    let deadline = Instant::now() + patience;
    let late = |server: &str, kind: ErrorKind| {
        let cause = format!("{server} did not answer everything within {patience:?}");
        let remedy = "look what holds it up, or raise --timeout";
        Error::new(kind, cause).with_remedy(remedy)
    };
    let database = Box::pin(database::look(&mut findings, &config));
    let waiting = match tokio::time::timeout(patience, database).await {
        Ok(waiting) => waiting,
        Err(_) => {
            let late = late("PostgreSQL", ErrorKind::PostgresUnavailable);
            findings.failed("timeout", &behind_a_lock(&config, late).await);
            None
        }
    };
    // Kafka is worth a look of its own, also where PostgreSQL has taken all the time.
    let left = deadline.saturating_duration_since(Instant::now()).max(KAFKA_PATIENCE_MIN);
    let broker = broker::look(&mut findings, &config, &producer, waiting, left);
    match tokio::time::timeout(left + KAFKA_PATIENCE_MIN, broker).await {
        Ok(ended) => ended?,
        Err(_) => findings.failed("timeout", &late("Kafka", ErrorKind::KafkaUnavailable)),
    }
    if findings.has_failed() {
        return Ok(findings);
    }
    let transactions = Box::pin(exactly::look(&mut findings, &config, &producer));
    if tokio::time::timeout(left + KAFKA_PATIENCE_MIN, transactions).await.is_err() {
        findings.failed("timeout", &late("Kafka", ErrorKind::KafkaUnavailable));
    }
    Ok(findings)
}

/// The same, with whoever holds a lock in the way of a check.
async fn behind_a_lock(config: &Config, late: Error) -> Error {
    match lock_holder(&config.database).await {
        None => late,
        Some(holder) => {
            let cause = format!("{}: a check waits for {holder}", late.message());
            Error::new(late.kind(), cause).with_remedy(holder.remedy())
        }
    }
}
