//! The command line: what people type, and what they read.
//!
//! Promises: answers go to stdout, talk to stderr; an error is `error: cause` and, indented below it,
//! what to do; each kind of error has its exit code. Must not: decide how the relay works.
//! Fails: with the exit codes that `--help` lists.

use std::future::Future;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use tokio_postgres::error::SqlState;

use crate::config::environment;
use crate::config::file;
use crate::config::file::FileSettings;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::migrate::load;
#[cfg(feature = "demo")]
use crate::demo;
use crate::error::{Error, ErrorKind, Result};
use crate::logging;
use crate::postgres::{Connection, connect};
use crate::schema;

mod adopt;
mod adopted_backlog;
mod backlog;
mod capture;
mod check;
mod completions;
mod config;
mod delivery;
mod handover;
mod health;
mod man;
mod migrate;
mod output;
mod parked;
mod pause;
#[cfg(all(test, feature = "demo"))]
mod reference_tests;
mod replay;
mod run;
mod service;
mod status;
mod tap;
mod top;
mod topics;
mod wait;
mod waiting;
mod writers;

const AFTER_HELP: &str = "\
Each long flag can also be set by the environment (--page-rows: POSTRIDER_PAGE_ROWS) and by
postrider.toml (page-rows = 2000). A flag wins over the environment, that over the file.

Exit codes: 0 ok, 1 failed at runtime, 2 usage, 3 configuration, 4 PostgreSQL, 5 Kafka, 6 schema,
7 not published in time (wait), 8 parked (wait).

Examples:
  postrider migrate up --database-url postgres://owner@localhost/shop
  postrider check --database-url postgres://relay@localhost/shop --brokers localhost:9092
  postrider run --database-url postgres://relay@localhost/shop --brokers localhost:9092";

/// Relays an outbox table in PostgreSQL to Kafka, in order per aggregate.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArguments),
    Migrate(migrate::MigrateArguments),
    Check(check::CheckArguments),
    Health(health::HealthArguments),
    Status(status::StatusArguments),
    Top(top::TopArguments),
    Parked(parked::ParkedArguments),
    Capture(capture::CaptureArguments),
    Delivery(delivery::DeliveryArguments),
    Adopt(adopt::AdoptArguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    Wait(wait::WaitArguments),
    Topics(topics::TopicsArguments),
    Tap(tap::TapArguments),
    Replay(replay::ReplayArguments),
    #[cfg(feature = "demo")]
    Demo(demo::DemoArguments),
    Config(config::ConfigArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    if completions::answer_a_shell() {
        return ExitCode::SUCCESS;
    }
    let matched = match CommandLine::try_parse() {
        Ok(matched) => matched,
        Err(error) => {
            if error.kind() == clap::error::ErrorKind::InvalidUtf8
                && let Some(error) = not_text()
            {
                return output::report(&error);
            }
            let typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
            without_secrets(error, &typed.collect::<Vec<_>>()).exit()
        }
    };
    let ended = match matched.command {
        Command::Run(arguments) => run::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::Migrate(arguments) => migrate::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Parked(arguments) => parked::run(arguments),
        Command::Capture(arguments) => capture::run(arguments),
        Command::Delivery(arguments) => delivery::run(arguments),
        Command::Adopt(arguments) => adopt::run(arguments),
        Command::Pause(arguments) => pause::pause(arguments),
        Command::Resume(arguments) => pause::resume(&arguments),
        Command::Wait(arguments) => wait::run(arguments),
        Command::Topics(arguments) => topics::run(arguments),
        Command::Tap(arguments) => tap::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    ended.unwrap_or_else(|error| output::report(&error))
}

/// What was typed in the wrong place is not shown where it may hold a password: also a word behind a property
/// whose = was forgotten.
fn without_secrets(mut error: clap::Error, typed: &[String]) -> clap::Error {
    let names_property =
        typed.iter().any(|word| word.starts_with("-X") || word.starts_with("--property"));
    for place in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
        let is_doubtful = match error.get(place) {
            Some(ContextValue::String(text)) => {
                let text = text.to_ascii_lowercase();
                names_property && !text.starts_with('-')
                    || ["://", "@", "pass", "secret"].iter().any(|part| text.contains(part))
            }
            _ => false,
        };
        if is_doubtful {
            error.insert(place, ContextValue::String("…".to_owned()));
        }
    }
    error
}

/// Puts the file's settings below what was typed, and starts logging.
fn prepare(
    common: CommonSettings,
    relay: RelaySettings,
    default_level: &str,
) -> Result<(CommonSettings, RelaySettings, FileSettings)> {
    logging::ask_for(common.log_format);
    let below = file::read(common.config.as_deref())?;
    let of_environment = environment::properties(std::env::vars_os())?;
    let common = common.over(below.common.clone());
    let between = RelaySettings {
        property: of_environment.values,
        property_files: of_environment.files,
        ..RelaySettings::default()
    };
    let relay = relay.over(between).over(below.relay.clone());
    logging::start(common.log_format, common.log_level.as_deref().unwrap_or(default_level))?;
    for stranger in strangers() {
        tracing::warn!("the environment variable {stranger}");
    }
    schema::choose(crate::config::schema(&common)?)?;
    Ok((common, relay, below))
}

/// Whoever only looks may not be the relay, and needs no right to work as one.
fn for_lookers(error: Error, remedy: &str) -> Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    let code = cause.and_then(tokio_postgres::Error::code);
    if code != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return error;
    }
    Error::new(error.kind(), error.message().to_owned()).with_remedy(remedy)
}

/// Variables that look like ours and that nothing reads.
fn strangers() -> Vec<String> {
    environment::strangers(std::env::vars_os(), &variables(&CommandLine::command()))
}

/// The flag's variable that is no text, where it is one of these.
fn not_text() -> Option<Error> {
    let known = variables(&CommandLine::command());
    let name = known
        .into_iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| value.into_string().is_err()))?;
    let cause = format!("the environment variable {name} is not UTF-8");
    Some(
        Error::new(ErrorKind::Config, cause)
            .with_remedy(format!("correct or unset {name}, or give the flag")),
    )
}

/// The variables of all flags of a command and of those below it.
fn variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    let own = own.map(|variable| variable.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

/// A session for this purpose on a database that has the outbox.
async fn open_outbox(common: CommonSettings, purpose: &str) -> Result<Connection> {
    let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
    let connection = connect(&crate::config::database(&common)?, purpose).await?;
    load(connection.client(), &crate::config::outbox(&common)?).await?;
    Ok(connection)
}

/// Runs a command's work to its end.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("the runtime cannot start: {cause}"))
        })?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_word_that_strayed_behind_a_property_is_not_shown() {
        for (typed, is_shown) in [
            (vec!["postrider", "run", "-X", "sasl.password", "hunter2"], false),
            (vec!["postrider", "run", "-X", "linger.ms=1", "hunter2"], false),
            (vec!["postrider", "run", "-Xsasl.password=", "hunter2"], false),
            (vec!["postrider", "run", "hunter2"], true),
        ] {
            let error = CommandLine::try_parse_from(&typed).unwrap_err();
            let words: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
            let said = without_secrets(error, &words).to_string();
            assert_eq!(said.contains("hunter2"), is_shown, "{typed:?}: {said}");
        }
    }

    #[test]
    fn knows_the_variables_of_all_commands() {
        let known = variables(&CommandLine::command());
        for variable in ["POSTRIDER_SHARDS", "POSTRIDER_DATABASE_URL", "POSTRIDER_LOG_LEVEL"] {
            assert!(known.iter().any(|name| name == variable), "{variable}");
        }
    }
}
