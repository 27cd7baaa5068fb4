//! `postrider completions`: what shells need to complete the command line.
//!
//! Promises: besides commands, flags and their values the names of librdkafka's properties are completed, and topics, if the
//! brokers tell them within a second. Must not: write files, run a command of the settings, or say anything on
//! the way. Fails: when stdout cannot be written.
//!
//! The script asks this program at each Tab, by a variable that nothing else reads.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Args, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::{CommandLine, output};
use crate::config;
use crate::config::settings::RelaySettings;
use crate::config::{environment, file};
use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::config::producer_config;
use crate::publish::kafka::topic_check::listed;

/// By this variable a script asks.
const VARIABLE: &str = "_POSTRIDER_COMPLETE";
const PROGRAM: &str = "postrider";
/// librdkafka's properties of a producer that may be set, one per line.
const PROPERTIES: &str = include_str!("properties.txt");
/// Whoever presses Tab waits for no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What clap calls the arguments that name a property, or a topic.
const PROPERTY: &str = "property";
const TOPICS: [&str; 4] = ["topic", "topics", "to_topic", "dead_letter_topic"];

/// Prints what a shell needs to complete the command line, with properties of librdkafka and topics.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(postrider completions bash)
  postrider completions bash > /etc/bash_completion.d/postrider
  postrider completions fish > ~/.config/fish/completions/postrider.fish

Topics come from the brokers that POSTRIDER_BROKERS, postrider.toml or --brokers names, where they
answer within a second; no token command is run for it.")]
pub(super) struct CompletionsArguments {
    /// The shell.
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<ExitCode> {
    let shells = Shells::builtins();
    let shell = shells.completer(&arguments.shell).ok_or_else(|| {
        Error::new(ErrorKind::Internal, format!("there is no script for {}", arguments.shell))
    })?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script).map_err(
        |cause| Error::new(ErrorKind::Internal, format!("the script cannot be written: {cause}")),
    )?;
    output::answer(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether it was a shell that asked, and has its answer.
pub(super) fn answer_a_shell() -> bool {
    let asked = CompleteEnv::with_factory(completed).var(VARIABLE);
    let folder = std::env::current_dir().ok();
    // To a script of another version no answer is as good as a wrong one, and whatever is said disturbs the line.
    asked.try_complete(std::env::args_os(), folder.as_deref()).unwrap_or(true)
}

/// The command line, with what its values may be.
fn completed() -> Command {
    with_values(CommandLine::command())
}

fn with_values(command: Command) -> Command {
    command.mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        PROPERTY => argument.add(ArgValueCompleter::new(properties)),
        id if TOPICS.contains(&id) => argument.add(ArgValueCompleter::new(topics)),
        _ => argument,
    }
}

fn properties(begun: &OsStr) -> Vec<CompletionCandidate> {
    let named = PROPERTIES.lines().map(|name| format!("{name}="));
    that_begin_with(begun, named)
}

fn topics(begun: &OsStr) -> Vec<CompletionCandidate> {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // Whatever is wrong with the settings, or with the way to the brokers: there is nothing to offer.
    that_begin_with(begun, topics_of_brokers(&words).unwrap_or_default().into_iter())
}

fn that_begin_with(begun: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    names.filter(|name| name.starts_with(&*begun)).map(CompletionCandidate::new).collect()
}

/// The topics that the brokers have, of those that the line, the environment or the file names.
fn topics_of_brokers(words: &[String]) -> Result<Vec<String>> {
    let named = typed(words, "--config").or_else(|| std::env::var("POSTRIDER_CONFIG").ok());
    let below = file::read(named.as_deref().map(std::path::Path::new))?.relay;
    let of_environment = environment::properties(std::env::vars_os())?;
    let brokers = typed(words, "--brokers").or_else(|| std::env::var("POSTRIDER_BROKERS").ok());
    let relay = RelaySettings {
        brokers,
        property: of_environment.values,
        property_files: of_environment.files,
        ..RelaySettings::default()
    };
    let kafka = config::kafka_side(&relay.over(below))?;
    if kafka.token_command.is_some() || std::env::var_os("POSTRIDER_KAFKA_TOKEN_COMMAND").is_some()
    {
        return Ok(Vec::new());
    }
    let producer = producer_config(&kafka.brokers, &kafka.properties, None, &kafka.login_files)?;
    listed(&producer, PATIENCE)
}

/// What was typed behind this flag.
fn typed(words: &[String], flag: &str) -> Option<String> {
    let place = words.iter().position(|word| {
        word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
    })?;
    match words[place].split_once('=') {
        Some((_, value)) => Some(value.to_owned()),
        None => words.get(place + 1).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap_complete::engine::complete;

    use super::*;
    use crate::publish::kafka::config::is_known_property;

    fn offered(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let last = words.len() - 1;
        let mut command = completed();
        let found = complete(&mut command, words, last, None).expect("it completes");
        found.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn properties_are_offered_by_their_names() {
        for words in
            [&["postrider", "run", "-X", "linger"][..], &["postrider", "check", "-X", "linger"]]
        {
            assert_eq!(offered(words), ["linger.ms="], "{words:?}");
        }
        assert_eq!(offered(&["postrider", "run", "-Xlinger"]), ["-Xlinger.ms="]);
        assert!(offered(&["postrider", "run", "-X", "acks"]).is_empty(), "it may not be set");
        assert!(
            offered(&["postrider", "run", "--max-in-fl"])
                .contains(&"--max-in-flight-bytes".to_owned())
        );
        assert!(
            offered(&["postrider", "run", "--delivery", ""]).contains(&"exactly-once".to_owned())
        );
    }

    /// One that librdkafka does not know, or that is refused, would be a bad counsel.
    #[test]
    fn each_property_that_is_offered_may_be_set() {
        for name in PROPERTIES.lines() {
            assert!(is_known_property(name), "{name}");
        }
        assert!(!is_known_property("acks") && !is_known_property("sasl.passwrod"));
    }

    #[test]
    fn what_was_typed_says_where_to_ask() {
        let words =
            ["postrider", "--", "topics", "--brokers", "b:1", "--config=p.toml"].map(str::to_owned);
        assert_eq!(typed(&words, "--brokers").as_deref(), Some("b:1"));
        assert_eq!(typed(&words, "--config").as_deref(), Some("p.toml"));
        assert_eq!(typed(&words[..4], "--brokers"), None);
        assert_eq!(typed(&words, "--topic"), None);
    }
}
