//! The TOML file: the same settings as the flags, and a table of librdkafka properties.
//!
//! Promises: a key that means nothing is refused with the nearest one that does, and every error
//! names the file and the line. Must not: replace environment variables inside values.
//! Fails: with [`ErrorKind::Config`].

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::config::catalogue;
use crate::config::catalogue::{PROPERTIES, PROPERTY_FILES};
use crate::config::settings::{CommonSettings, Property, RelaySettings};
use crate::config::topics::TOPIC_RULES;
use crate::error::{Error, ErrorKind};
use crate::secret;

/// Read when it is there and no other file was named.
pub const DEFAULT_FILE: &str = "postrider.toml";

/// What a file says.
#[derive(Debug, Default)]
pub struct FileSettings {
    /// Which file was read, if any.
    pub path: Option<PathBuf>,
    /// Its keys and their values, as they stand there.
    pub values: FileValues,
    /// Its settings for every command.
    pub common: CommonSettings,
    /// Its settings for the relay.
    pub relay: RelaySettings,
}

/// What stands in a file, secrets too: they are not printed.
#[derive(Clone, Default)]
pub struct FileValues(pub toml::Table);

impl fmt::Debug for FileValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} keys", self.0.len())
    }
}

/// Reads the named file, or `postrider.toml` where there is one. Once: it may be a pipe.
///
/// # Errors
/// [`ErrorKind::Config`] when the named file cannot be read, or the file says something that has no
/// meaning.
pub fn read(named: Option<&Path>) -> crate::error::Result<FileSettings> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    if named.is_none() {
        refuse_of_others(path)?;
    }
    let text = match secret::read_file(path) {
        Ok(text) => text,
        Err(cause) if named.is_none() && cause.kind() == std::io::ErrorKind::NotFound => {
            return Ok(FileSettings::default());
        }
        Err(cause) => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the configuration file {} cannot be read: {cause}", path.display()),
            )
            .with_remedy("check --config (POSTRIDER_CONFIG) and the file's permissions"));
        }
    };
    let (common, relay, table) = parse(&text).map_err(|flaw| flaw.at(path))?;
    Ok(FileSettings { path: Some(path.to_owned()), values: FileValues(table), common, relay })
}

/// A file that merely lies in the current folder says where passwords go: it must be ours.
#[cfg(unix)]
fn refuse_of_others(path: &Path) -> crate::error::Result<()> {
    use std::os::unix::fs::MetadataExt;
    // What is not there, or cannot be read, is told by the reading.
    let Ok(file) = std::fs::metadata(path) else { return Ok(()) };
    let account = std::fs::metadata("/proc/self").map(|process| process.uid());
    let is_ours = file.uid() == 0 || account.is_ok_and(|account| account == file.uid());
    let group = std::fs::metadata("/proc/self").map(|process| process.gid());
    let is_our_group = file.gid() == 0 || group.is_ok_and(|group| group == file.gid());
    if let Some(reason) = distrust(is_ours, is_our_group, file.mode()) {
        let cause = format!("the configuration file {} {reason}", path.display());
        return Err(Error::new(ErrorKind::Config, cause).with_remedy(
            "name it by --config if it is to be believed, or give it to this user and chmod go-w",
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_of_others(_: &Path) -> crate::error::Result<()> {
    Ok(())
}

/// Why a file that nobody named is not believed.
fn distrust(is_ours: bool, is_our_group: bool, mode: u32) -> Option<&'static str> {
    const GROUP_WRITES: u32 = 0o020;
    const OTHERS_WRITE: u32 = 0o002;
    match (is_ours, mode & OTHERS_WRITE != 0, mode & GROUP_WRITES != 0 && !is_our_group) {
        (false, ..) => Some("belongs to another user"),
        (true, true, _) => Some("can be written by others"),
        (true, false, true) => Some("can be written by a group that is not this user's"),
        (true, false, false) => None,
    }
}

/// What is wrong with a file, and where.
#[derive(Debug)]
struct Flaw {
    line: Option<usize>,
    message: String,
    remedy: Option<String>,
}

impl Flaw {
    fn of(cause: &toml::de::Error, text: &str) -> Self {
        let line = cause.span().map(|span| line_of(text, span.start));
        // The first line is the cause; further ones repeat the text, which may hold a password.
        let message = without_text(cause.message().lines().next().unwrap_or("not TOML"));
        let remedy = form_remedy(&message).map(str::to_owned);
        Self { line, message, remedy }
    }

    fn at(self, path: &Path) -> Error {
        let place = match self.line {
            Some(line) => format!("{}:{line}", path.display()),
            None => path.display().to_string(),
        };
        let error = Error::new(ErrorKind::Config, format!("{place}: {}", self.message));
        match self.remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }
}

/// How a value is written that was written in another form.
fn form_remedy(message: &str) -> Option<&'static str> {
    let (found, expected) = message.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    let is = |kind: &str| found.starts_with(kind);
    if is("sequence") {
        Some(
            "write one text in quotes; where it may have several parts, separated by commas, as in brokers = \"a:9092,b:9092\"",
        )
    } else if expected.starts_with("a sequence") {
        Some("write a list, as in add-headers = [\"seq\", \"position\"]")
    } else if is("a text") {
        Some("write it without quotes: it is a number, or true or false")
    } else if is("integer") || is("floating point") || is("boolean") {
        Some("write it in quotes; times and sizes have a unit, as in tick-max = \"20ms\"")
    } else {
        None
    }
}

/// A text that stands where none may stand can be a secret in the wrong place.
fn without_text(message: &str) -> String {
    match (message.strip_prefix("invalid type: string "), message.rsplit_once(", expected ")) {
        (Some(_), Some((_, expected))) => format!("invalid type: a text, expected {expected}"),
        _ => message.to_owned(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn parse(text: &str) -> Result<(CommonSettings, RelaySettings, toml::Table), Flaw> {
    let table: toml::Table = typed(text)?;
    let known = keys();
    for key in table.keys() {
        if !known.iter().any(|name| name == key) {
            return Err(unknown(key, &known, text));
        }
    }
    let relay = RelaySettings { creation: typed(text)?, records: typed(text)?, ..typed(text)? };
    Ok((typed(text)?, relay, table))
}

fn typed<T: DeserializeOwned>(text: &str) -> Result<T, Flaw> {
    toml::from_str(text).map_err(|cause| Flaw::of(&cause, text))
}

/// Every key that a file may have: the long flags but `config`, the tables of properties, and that of topics.
fn keys() -> Vec<String> {
    let flags = catalogue::settings().into_iter().map(|setting| setting.name);
    flags.chain([PROPERTIES, PROPERTY_FILES, TOPIC_RULES].map(str::to_owned)).collect()
}

/// The properties of a table of librdkafka's, each with its dotted name.
///
/// # Errors
/// As [`read`].
pub fn flat(table: toml::Table) -> crate::error::Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (name, value) in table {
        let refused = |cause| Error::new(ErrorKind::Config, cause);
        flatten(name, value, &mut properties).map_err(refused)?;
    }
    Ok(properties)
}

fn unknown(key: &str, known: &[String], text: &str) -> Flaw {
    let named = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    let line = text.lines().position(named).map(|index| index + 1);
    let remedy = match nearest(key, known) {
        Some(name) => {
            format!("did you mean {name:?}? Keys are named like the flags of postrider run")
        }
        None => {
            "keys are named like the flags of postrider run; see postrider run --help".to_owned()
        }
    };
    Flaw { line, message: format!("there is no setting {key:?}"), remedy: Some(remedy) }
}

/// The known name that is most like this one, if one is.
pub(super) fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    let steps = known.iter().map(|name| (distance(word, name), name));
    steps.min().filter(|(steps, name)| *steps <= name.len().div_ceil(2)).map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, candidate) in other.iter().enumerate() {
            let change = diagonal + usize::from(letter != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// librdkafka's properties are text, but people write `linger.ms = 20`, which TOML takes for a table.
pub(super) fn properties<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Property>, D::Error> {
    struct Properties;

    impl<'de> Visitor<'de> for Properties {
        type Value = Vec<Property>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a table of librdkafka properties")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut properties = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, toml::Value>()? {
                flatten(name, value, &mut properties).map_err(A::Error::custom)?;
            }
            Ok(properties)
        }
    }

    deserializer.deserialize_map(Properties)
}

fn flatten(name: String, value: toml::Value, into: &mut Vec<Property>) -> Result<(), String> {
    let text = match value {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Table(table) => {
            for (part, value) in table {
                flatten(format!("{name}.{part}"), value, into)?;
            }
            return Ok(());
        }
        toml::Value::Array(_) | toml::Value::Datetime(_) => {
            return Err(format!(
                "the librdkafka property {name} must be text, a number or a boolean"
            ));
        }
    };
    into.push(Property::new(name, text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().at(Path::new("p.toml")).to_string()
    }

    #[test]
    fn reads_what_the_flags_know() {
        let (common, relay, table) = parse(
            "outbox = 'app.events'\nshards = 3\ntick-max = '20ms'\nadd-headers = ['created_at']\n\
             [librdkafka]\nlinger.ms = 20\n'compression.type' = 'zstd'\n",
        )
        .unwrap();
        assert_eq!(common.outbox.as_deref(), Some("app.events"));
        assert_eq!(relay.shards.map(u16::from), Some(3));
        assert_eq!(table.len(), 5);
        assert!(relay.properties.contains(&Property::new("linger.ms", "20")));
        assert!(relay.properties.contains(&Property::new("compression.type", "zstd")));
    }

    /// What the template shows in comments is a file, once their marks are gone, but for empty texts.
    #[test]
    fn the_template_is_a_file() {
        let template = catalogue::template();
        let is_setting = |line: &&str| {
            let line = line.trim_start_matches("# ");
            line.starts_with('[')
                || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
        };
        let lines: Vec<&str> = template
            .lines()
            .filter(is_setting)
            .map(|line| line.trim_start_matches("# "))
            .filter(|line| !line.ends_with("\"\""))
            .collect();
        let (_, relay, _) = parse(&lines.join("\n")).expect("it is one");
        assert_eq!(relay.page_rows.map(u32::from), Some(5_000));
        for key in keys() {
            assert!(template.contains(&key), "{key}");
        }
        assert!(template.lines().all(|line| line.chars().count() <= 100), "{template}");
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = catalogue::schema();
        let known = schema["properties"].as_object().expect("it is a table");
        let known: std::collections::BTreeSet<String> = known.keys().cloned().collect();
        assert_eq!(known, keys().into_iter().collect());
    }

    #[test]
    fn refuses_unknown_keys_with_the_nearest() {
        let said = refused("# pace\nshards = 2\ntick_min = '5ms'\n");
        assert!(said.contains("p.toml:3: there is no setting \"tick_min\""), "{said}");
        assert!(said.contains("did you mean \"tick-min\""), "{said}");
        let said = refused("[kafka]\nbrokers = 'b:1'\n");
        assert!(said.contains("p.toml:1"), "{said}");
        assert!(!refused("zzzzzzzzzzzzz = 1").contains("did you mean"));
    }

    #[test]
    fn refuses_values_with_their_line() {
        let said = refused("outbox = 'o'\nshards = 'many'\n");
        assert!(said.contains("p.toml:2"), "{said}");
        let said = refused("outbox = 'o'\n[topics.\"a b\"]\npartitions = 1\n");
        assert!(said.contains("p.toml:2") && said.contains("no topic can have"), "{said}");
        let said = refused("[topics.t]\n\npartition = 1\n");
        assert!(said.contains("p.toml:3") && said.contains("partition"), "{said}");
        let said = refused("tick-min = 'soon'");
        assert!(said.contains("p.toml:1") && said.contains("100ms"), "{said}");
        assert!(refused("outbox = \n").contains("p.toml:1"));
        for (text, hint) in [
            ("brokers = ['a:1', 'b:2']", "separated by commas"),
            ("topic = ['t']", "separated by commas"),
            ("add-headers = 'seq,position'", "write a list"),
            ("shards = '3'", "without quotes"),
            ("tick-max = 20", "have a unit"),
        ] {
            let said = refused(text);
            assert!(said.contains(hint) && said.contains("p.toml:1"), "{text}: {said}");
        }
        assert!(refused("[librdkafka]\n'a.b' = [1]").contains("must be text"));
        assert!(refused("config = 'other.toml'").contains("no setting"), "a file names no file");
    }

    #[test]
    fn shows_no_text_in_the_wrong_place() {
        for text in
            ["librdkafka = 'sasl.password=hush'", "shards = 'hush'\n", "add-headers = 'hush'"]
        {
            assert!(!refused(text).contains("hush"), "{}", refused(text));
        }
    }

    #[test]
    fn a_file_of_others_is_not_believed() {
        assert_eq!(distrust(true, false, 0o100_644), None);
        assert_eq!(distrust(true, true, 0o100_664), None);
        assert!(distrust(true, false, 0o100_664).unwrap().contains("group"));
        assert!(distrust(true, false, 0o100_620).unwrap().contains("group"));
        assert!(distrust(true, true, 0o100_646).unwrap().contains("written by others"));
        assert!(distrust(false, true, 0o100_600).unwrap().contains("another user"));
    }

    #[test]
    fn measures_distance() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("ab", "ab"), 0);
    }
}
