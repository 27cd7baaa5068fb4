//! Every setting, as the flags describe it: what a file may say, and where a value comes from.
//!
//! Promises: knows exactly the keys that the file takes, as both come from the same flags; no secret is in a value
//! that it shows. Must not: resolve a setting.

use std::any::TypeId;
use std::num::{NonZeroU16, NonZeroU32};

use clap::builder::ArgAction;
use clap::{Arg, Args, Command};
use serde_json::{Map, Value, json};

use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::topics::TOPIC_RULES;

/// The file's name for librdkafka's properties.
pub const PROPERTIES: &str = "librdkafka";
/// The file's name for the files that hold the values of such properties.
pub const PROPERTY_FILES: &str = "librdkafka-files";

/// What most files say, in the order in which one would write it.
const COMMON: [&str; 4] = ["database-url", "outbox", "brokers", "topic"];
/// Parts of the names of properties whose values are shown nowhere.
const SECRET_PARTS: [&str; 8] =
    ["password", "secret", "key", "token", "pem", "jaas", "credential", "oauthbearer.config"];

/// What a value looks like in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingForm {
    /// Text, also for times and sizes.
    Text,
    /// A number.
    Integer,
    /// True or false.
    Boolean,
    /// Texts, separated by commas in a flag.
    List,
}

/// A setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its flag without dashes, and its key in the file.
    pub name: String,
    /// What clap calls it.
    pub id: String,
    /// Its environment variable.
    pub variable: Option<String>,
    /// What it is for; a sentence or two.
    pub help: String,
    /// Under what it stands in the help.
    pub heading: String,
    /// What holds where it is not set.
    pub default: Option<String>,
    /// What it can be, where that is a choice.
    pub choices: Vec<String>,
    /// How it is written.
    pub form: SettingForm,
}

/// All settings but `config`, those that most files have first.
pub fn settings() -> Vec<Setting> {
    let command = RelaySettings::augment_args(CommonSettings::augment_args(Command::new("file")));
    let flags = command.get_arguments().filter(|flag| flag.get_long().is_some());
    let mut all: Vec<Setting> =
        flags.filter_map(setting).filter(|setting| setting.name != "config").collect();
    all.sort_by_key(|setting| {
        COMMON.iter().position(|name| *name == setting.name).unwrap_or(COMMON.len())
    });
    all
}

fn setting(flag: &Arg) -> Option<Setting> {
    let help = flag.get_help()?.to_string();
    let choices = flag.get_possible_values();
    Some(Setting {
        name: flag.get_long()?.to_owned(),
        id: flag.get_id().to_string(),
        variable: flag.get_env().map(|name| name.to_string_lossy().into_owned()),
        heading: flag.get_help_heading().unwrap_or("Settings").to_owned(),
        default: default_in(&help).map(str::to_owned),
        choices: choices
            .iter()
            .filter(|choice| !choice.is_hide_set())
            .map(|choice| choice.get_name().to_owned())
            .collect(),
        form: form(flag),
        help,
    })
}

fn form(flag: &Arg) -> SettingForm {
    let kind = flag.get_value_parser().type_id();
    let is = |number: TypeId| kind == number;
    if flag.get_value_delimiter().is_some() || matches!(flag.get_action(), ArgAction::Append) {
        SettingForm::List
    } else if is(TypeId::of::<u32>())
        || is(TypeId::of::<NonZeroU16>())
        || is(TypeId::of::<NonZeroU32>())
    {
        SettingForm::Integer
    } else if is(TypeId::of::<bool>()) {
        SettingForm::Boolean
    } else {
        SettingForm::Text
    }
}

/// `100ms` of `Saves cursors this often [default: 100ms]`.
fn default_in(help: &str) -> Option<&str> {
    let (_, rest) = help.split_once("[default: ")?;
    rest.split_once(']').map(|(default, _)| default)
}

/// A file in which everything is said by comments.
pub fn template() -> String {
    let mut text = "# The settings of postrider. A flag wins over the environment, the environment over this file.\n\
                    # Secrets are better kept in files of their own: see database-password-file and [librdkafka-files].\n"
        .to_owned();
    let settings = settings();
    let (common, others) = settings.split_at(COMMON.len());
    push_section(&mut text, "Most files need no more", common.iter());
    let mut headings: Vec<&str> = Vec::new();
    for setting in others {
        if !headings.contains(&setting.heading.as_str()) {
            headings.push(&setting.heading);
        }
    }
    for heading in headings {
        let section = others.iter().filter(|setting| setting.heading == heading);
        push_section(&mut text, heading, section);
    }
    text.push_str(&format!(
        "\n## Topics\n\n# How topics are made that fit a pattern (* is any text); the first that fits holds.\n\
         # [{TOPIC_RULES}.\"outbox.event.*\"]\n# partitions = 32\n# replication-factor = 3\n\
         # config = {{ \"min.insync.replicas\" = \"2\" }}\n"
    ));
    text.push_str(&format!(
        "\n## librdkafka\n\n# Any property of librdkafka.\n# [{PROPERTIES}]\n# \"compression.type\" = \"zstd\"\n\
         \n# Files that hold the values of properties; those of the log-in are read again for each one.\n\
         # [{PROPERTY_FILES}]\n# \"sasl.password\" = \"/run/secrets/kafka\"\n"
    ));
    text
}

fn push_section<'a>(text: &mut String, heading: &str, settings: impl Iterator<Item = &'a Setting>) {
    text.push_str(&format!("\n## {heading}\n"));
    for setting in settings {
        text.push_str(&format!("\n{}# {}\n", comment(&setting.help), example(setting)));
    }
}

fn comment(help: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in help.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.len() + word.len() > 98 {
            lines.push(format!("# {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The key with its default, or with a value of the right form.
fn example(setting: &Setting) -> String {
    let Setting { name, default, choices, form, .. } = setting;
    let is_value = |text: &&String| !text.contains(' ') && !text.contains(',');
    let text = default.as_ref().filter(is_value).or(choices.first());
    let value = match (form, text) {
        (SettingForm::Integer, Some(number)) if number.parse::<u32>().is_ok() => number.clone(),
        (SettingForm::Integer, _) => "1".to_owned(),
        (SettingForm::Boolean, _) => "false".to_owned(),
        (SettingForm::List, Some(text)) => format!("[{text:?}]"),
        (SettingForm::List, None) => "[]".to_owned(),
        (SettingForm::Text, Some(text)) => format!("{text:?}"),
        (SettingForm::Text, None) => "\"\"".to_owned(),
    };
    format!("{name} = {value}")
}

/// A JSON Schema of the file.
///
/// Source: JSON Schema, draft 2020-12.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for setting in settings() {
        properties.insert(setting.name.clone(), property(&setting));
    }
    let any = json!({"type": ["string", "number", "boolean", "object"]});
    properties.insert(
        PROPERTIES.to_owned(),
        json!({"type": "object", "description": "Properties of librdkafka.", "additionalProperties": any}),
    );
    properties.insert(
        PROPERTY_FILES.to_owned(),
        json!({"type": "object", "description": "Files that hold the values of properties.",
            "additionalProperties": {"type": ["string", "object"]}}),
    );
    properties.insert(TOPIC_RULES.to_owned(), topic_rules());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "postrider.toml",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn topic_rules() -> Value {
    let count = json!({"type": "integer", "minimum": 1});
    let config = json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}});
    let rule = json!({
        "type": "object",
        "properties": {"partitions": count, "replication-factor": count, "config": config},
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "description": "How topics are made, by patterns of their names; the first that fits holds.",
        "additionalProperties": rule,
    })
}

fn property(setting: &Setting) -> Value {
    let mut text = json!({"type": "string"});
    if !setting.choices.is_empty() {
        text["enum"] = json!(setting.choices);
    }
    let mut property = match setting.form {
        SettingForm::Text => text,
        SettingForm::Integer => json!({"type": "integer", "minimum": 1}),
        SettingForm::Boolean => json!({"type": "boolean"}),
        SettingForm::List => json!({"type": "array", "items": text}),
    };
    property["description"] = json!(setting.help);
    property
}

/// Whether the value of a librdkafka property may be shown to nobody.
pub fn is_secret(property: &str) -> bool {
    let name = property.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part)) && !name.ends_with(".location")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forms_defaults_and_choices_off_the_flags() {
        let all = settings();
        let one = |name: &str| all.iter().find(|setting| setting.name == name).expect(name);
        assert_eq!(
            (one("shards").form, one("page-rows").form),
            (SettingForm::Integer, SettingForm::Integer)
        );
        assert_eq!(one("add-headers").form, SettingForm::List);
        assert_eq!(
            (one("tick-min").form, one("tick-min").default.as_deref()),
            (SettingForm::Text, Some("5ms"))
        );
        assert_eq!(one("capture").choices, ["poll", "wal", "message"]);
        assert_eq!(all[0].name, "database-url");
    }

    #[test]
    fn secrets_are_known_by_name() {
        for name in [
            "sasl.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "ssl.keystore.password",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["linger.ms", "ssl.key.location", "compression.type", "security.protocol"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
