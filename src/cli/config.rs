//! `postrider config`: a file to begin with, what holds and why, and the file's schema.
//!
//! Promises: shows the settings by which `run` would work, each with its origin, and no secret. Must not: connect,
//! or write files. Fails: for settings that have no meaning, after they were shown.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Subcommand};
use serde::Serialize;

use crate::cli::{CommandLine, output, prepare};
use crate::config;
use crate::config::Config;
use crate::config::catalogue::{
    PROPERTIES, PROPERTY_FILES, Setting, is_secret, schema, settings, template,
};
use crate::config::environment;
use crate::config::file;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::error::Result;

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

/// A setting that holds.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    /// None where it is not set and has no default.
    value: Option<String>,
    origin: Origin,
    /// Which variable, or which file.
    from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
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
    let mut table = file::values(&below)?;
    let path = below.path.as_ref().map(|path| path.display().to_string());
    let (properties, files) = (table.remove(PROPERTIES), table.remove(PROPERTY_FILES));
    let mut shown: Vec<Shown> = settings()
        .iter()
        .map(|setting| of_setting(setting, typed, &table, path.as_deref()))
        .map(|shown| without_secret(shown, &common))
        .collect();
    for (tables, is_file) in [(properties, false), (files, true)] {
        if let Some(toml::Value::Table(table)) = tables {
            let found = file::flat(table)?.into_iter().map(config::settings::Property::into_pair);
            shown.extend(
                found.map(|pair| of_property(pair, is_file, Origin::File, path.as_deref())),
            );
        }
    }
    let of_environment = environment::properties(std::env::vars_os())?;
    for (found, is_file) in [(of_environment.values, false), (of_environment.files, true)] {
        let found = found.into_iter().map(config::settings::Property::into_pair);
        shown.extend(found.map(|pair| of_property(pair, is_file, Origin::Environment, None)));
    }
    let found = flags.into_iter().map(config::settings::Property::into_pair);
    shown.extend(found.map(|pair| of_property(pair, false, Origin::Flag, None)));
    if json {
        output::answer_json(&shown)?;
    } else {
        let line = |one: &Shown| one.line(origin);
        output::answer(&shown.iter().map(line).collect::<String>())?;
    }
    Config::resolve(&common, &relay).map(drop)
}

fn of_setting(
    setting: &Setting,
    typed: &ArgMatches,
    table: &toml::Table,
    path: Option<&str>,
) -> Shown {
    let name = setting.name.clone();
    let values = typed.get_raw(&setting.id).map(|values| {
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        values.join(",")
    });
    let in_file = table.get(&name).map(plain);
    let (value, origin, from) = match (typed.value_source(&setting.id), in_file) {
        (Some(ValueSource::CommandLine), _) => (values, Origin::Flag, None),
        (Some(ValueSource::EnvVariable), _) => {
            (values, Origin::Environment, setting.variable.clone())
        }
        (_, Some(value)) => (Some(value), Origin::File, path.map(str::to_owned)),
        (_, None) => (setting.default.clone(), Origin::Default, None),
    };
    Shown { name, value, origin, from }
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
    origin: Origin,
    path: Option<&str>,
) -> Shown {
    let value = match (is_file, is_secret(&name)) {
        (true, _) => format!("the content of {value}"),
        (false, true) => MASKED.to_owned(),
        (false, false) => value,
    };
    Shown {
        name: format!("librdkafka.{name}"),
        value: Some(value),
        origin,
        from: path.map(str::to_owned),
    }
}

/// A URL may hold a password, and a command's arguments a key.
fn without_secret(mut shown: Shown, common: &CommonSettings) -> Shown {
    let is_default = shown.origin == Origin::Default;
    match shown.name.as_str() {
        // The variable that many platforms set, which is none of our own.
        "database-url" if is_default && std::env::var_os(DATABASE_URL).is_some() => {
            let named = config::database(common).map(|database| database.display_name());
            shown.value = Some(named.unwrap_or_else(|_| MASKED.to_owned()));
            (shown.origin, shown.from) = (Origin::Environment, Some(DATABASE_URL.to_owned()));
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

impl Shown {
    fn line(&self, with_origin: bool) -> String {
        let value = self.value.as_deref().unwrap_or("-");
        if !with_origin {
            return format!("{} = {value}\n", self.name);
        }
        let origin = match &self.from {
            Some(from) => format!("{} ({from})", self.origin.name()),
            None => self.origin.name().to_owned(),
        };
        format!("{:<28}  {origin:<42}  {value}\n", self.name)
    }
}
