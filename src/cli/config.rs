//! `postrider config`: a file to begin with, what holds and why, and the file's schema.
//!
//! Promises: shows the settings by which `run` would work, each with its origin, and no secret. Must not: connect,
//! or write files. Fails: for settings that have no meaning, after they were shown.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Subcommand};

use crate::cli::{CommandLine, output, prepare};
use crate::config;
use crate::config::Config;
use crate::config::catalogue::{
    PROPERTIES, PROPERTY_FILES, Setting, is_secret, schema, settings, template,
};
use crate::config::environment;
use crate::config::file;
use crate::config::file::FileSettings;
use crate::config::settings::{CommonSettings, Property, RelaySettings};
use crate::config::topics::TOPIC_RULES;
use crate::error::Result;
use crate::metrics::shape::{SettingOrigin, SettingStatus};
use crate::record::topic_rules::TopicRule;

const MASKED: &str = "***";
const DATABASE_URL: &str = "DATABASE_URL";

/// Writes a file to begin with, shows the settings that hold, or the file's schema.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  postrider config init > postrider.toml
  postrider config show --origin
  postrider config schema > postrider.schema.json")]
pub(super) struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints a configuration file in which every setting is explained, and none is set.
    Init,
    /// Shows the settings by which `run` would work, without secrets.
    Show(Box<ShowConfigArguments>),
    /// Prints the JSON Schema of the configuration file.
    Schema,
}

#[derive(Args, Debug)]
struct ShowConfigArguments {
    /// Says where each value comes from: flag, environment, file or default.
    #[arg(long)]
    origin: bool,

    /// Prints JSON, always with origins.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,
}

pub(super) fn run(arguments: ConfigArguments) -> Result<ExitCode> {
    match arguments.command {
        ConfigCommand::Init => output::answer(&template())?,
        ConfigCommand::Schema => output::answer_json(&schema())?,
        ConfigCommand::Show(arguments) => show(*arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: ShowConfigArguments) -> Result<()> {
    let ShowConfigArguments { origin, json, relay, common } = arguments;
    let typed = CommandLine::command().get_matches();
    let typed =
        typed.subcommand_matches("config").and_then(|found| found.subcommand_matches("show"));
    let typed = typed.expect("this is the command that was typed");
    let flags = relay.property.clone();
    let (common, relay, below) = prepare(common, relay, "warn")?;
    let shown = holding(typed, flags, &common, &below)?;
    if json {
        output::answer_json(&shown)?;
    } else {
        let line = |one: &SettingStatus| line(one, origin);
        output::answer(&shown.iter().map(line).collect::<String>())?;
    }
    Config::resolve(&common, &relay).map(drop)
}

/// The settings that hold, each with its origin, and no secret.
///
/// # Errors
/// When a table of properties in the file has no meaning.
pub(super) fn holding(
    typed: &ArgMatches,
    flags: Vec<Property>,
    common: &CommonSettings,
    below: &FileSettings,
) -> Result<Vec<SettingStatus>> {
    let mut table = below.values.0.clone();
    let path = below.path.as_ref().map(|path| path.display().to_string());
    let (properties, files) = (table.remove(PROPERTIES), table.remove(PROPERTY_FILES));
    table.remove(TOPIC_RULES);
    let mut shown: Vec<SettingStatus> = settings()
        .iter()
        .map(|setting| of_setting(setting, typed, &table, path.as_deref()))
        .map(|shown| without_secret(shown, common))
        .collect();
    shown.extend(below.relay.creation.topics.iter().map(|rule| of_rule(rule, path.as_deref())));
    for (tables, is_file) in [(properties, false), (files, true)] {
        if let Some(toml::Value::Table(table)) = tables {
            let found = file::flat(table)?.into_iter().map(Property::into_pair);
            let path = path.as_deref();
            shown.extend(found.map(|pair| of_property(pair, is_file, SettingOrigin::File, path)));
        }
    }
    let of_environment = environment::properties(std::env::vars_os())?;
    for (found, is_file) in [(of_environment.values, false), (of_environment.files, true)] {
        let (found, origin) =
            (found.into_iter().map(Property::into_pair), SettingOrigin::Environment);
        shown.extend(found.map(|pair| of_property(pair, is_file, origin, None)));
    }
    let found = flags.into_iter().map(Property::into_pair);
    shown.extend(found.map(|pair| of_property(pair, false, SettingOrigin::Flag, None)));
    Ok(shown)
}

fn of_setting(
    setting: &Setting,
    typed: &ArgMatches,
    table: &toml::Table,
    path: Option<&str>,
) -> SettingStatus {
    let name = setting.name.clone();
    let values = typed.get_raw(&setting.id).map(|values| {
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        values.join(",")
    });
    let in_file = table.get(&name).map(plain);
    let (value, origin, from) = match (typed.value_source(&setting.id), in_file) {
        (Some(ValueSource::CommandLine), _) => (values, SettingOrigin::Flag, None),
        (Some(ValueSource::EnvVariable), _) => {
            (values, SettingOrigin::Environment, setting.variable.clone())
        }
        (_, Some(value)) => (Some(value), SettingOrigin::File, path.map(str::to_owned)),
        (_, None) => (setting.default.clone(), SettingOrigin::Default, None),
    };
    SettingStatus { name, value, origin, from }
}

/// A value of the file as it would be typed.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn of_property(
    (name, value): (String, String),
    is_file: bool,
    origin: SettingOrigin,
    path: Option<&str>,
) -> SettingStatus {
    let value = match (is_file, is_secret(&name)) {
        (true, _) => format!("the content of {value}"),
        (false, true) => MASKED.to_owned(),
        (false, false) => value,
    };
    SettingStatus {
        name: format!("librdkafka.{name}"),
        value: Some(value),
        origin,
        from: path.map(str::to_owned),
    }
}

fn of_rule(rule: &TopicRule, path: Option<&str>) -> SettingStatus {
    SettingStatus {
        name: format!("{TOPIC_RULES}.\"{}\"", rule.pattern),
        value: Some(rule.shape.to_string()),
        origin: SettingOrigin::File,
        from: path.map(str::to_owned),
    }
}

/// A URL may hold a password, and a command's arguments a key.
fn without_secret(mut shown: SettingStatus, common: &CommonSettings) -> SettingStatus {
    let is_default = shown.origin == SettingOrigin::Default;
    match shown.name.as_str() {
        // The variable that many platforms set, which is none of our own.
        "database-url" if is_default && std::env::var_os(DATABASE_URL).is_some() => {
            let named = config::database(common).map(|database| database.display_name());
            shown.value = Some(named.unwrap_or_else(|_| MASKED.to_owned()));
            (shown.origin, shown.from) =
                (SettingOrigin::Environment, Some(DATABASE_URL.to_owned()));
        }
        _ if is_default => {}
        "database-url" => {
            let named = config::database(common).map(|database| database.display_name());
            shown.value = Some(named.unwrap_or_else(|_| MASKED.to_owned()));
        }
        "database-password-command" | "kafka-token-command" => {
            let program = shown.value.as_deref().and_then(|value| value.split_whitespace().next());
            shown.value = program.map(|program| format!("{program} …"));
        }
        _ => {}
    }
    shown
}

fn line(setting: &SettingStatus, with_origin: bool) -> String {
    let SettingStatus { name, value, origin, from } = setting;
    let value = value.as_deref().unwrap_or("-");
    if !with_origin {
        return format!("{name} = {value}\n");
    }
    let origin = match from {
        Some(from) => format!("{} ({from})", origin.name()),
        None => origin.name().to_owned(),
    };
    format!("{name:<28}  {origin:<42}  {value}\n")
}
