//! The environment beyond the flags' own variables: librdkafka's properties, and names that mean nothing.
//!
//! Promises: `POSTRIDER_X_SASL_PASSWORD` is the property `sasl.password`, and with `_FILE` behind it the
//! file that holds it; a variable that looks like one of ours and means nothing is told. Must not: show a
//! value. Fails: with [`ErrorKind::Config`], naming the variable.

use std::ffi::OsString;

use crate::config::file::nearest;
use crate::config::settings::Property;
use crate::error::{Error, ErrorKind, Result};

const OURS: &str = "POSTRIDER_";
/// Begins the name of a property of librdkafka.
const PROPERTY: &str = "POSTRIDER_X_";
/// Ends the name of a variable that holds the path of a file instead of the value.
const FILE: &str = "_FILE";
/// librdkafka has properties of its own that end in `.file`.
const FILES_OF_LIBRDKAFKA: &str = "SASL_OAUTHBEARER_ASSERTION";

/// Of the demo, and of the project's own tests.
const OTHERS: &[&str] = &[
    "POSTRIDER_CACHE",
    "POSTRIDER_MUTANTS",
    "POSTRIDER_SEED",
    "POSTRIDER_SIMULATIONS",
    "POSTRIDER_SOAK_",
    "POSTRIDER_TEST_",
];

/// What the environment says of librdkafka.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnvironmentProperties {
    /// Properties with their values.
    pub values: Vec<Property>,
    /// Properties with the paths of the files that hold their values.
    pub files: Vec<Property>,
}

/// The properties among the variables; a variable without a value says nothing.
///
/// # Errors
/// [`ErrorKind::Config`] when a value is not text, or a property is given in both ways.
pub fn properties(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<EnvironmentProperties> {
    let mut found = EnvironmentProperties::default();
    for (variable, value) in variables {
        let Some(variable) = variable.to_str().filter(|name| name.starts_with(PROPERTY)) else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().map_err(|_| {
            Error::new(ErrorKind::Config, format!("{variable} is not UTF-8"))
                .with_remedy(format!("correct or unset {variable}"))
        })?;
        let name = &variable[PROPERTY.len()..];
        let file = name.strip_suffix(FILE).filter(|_| !name.starts_with(FILES_OF_LIBRDKAFKA));
        let into = if file.is_some() { &mut found.files } else { &mut found.values };
        into.push(Property::new(property_name(file.unwrap_or(name)), value));
    }
    let twice =
        found.values.iter().find(|one| found.files.iter().any(|file| file.name() == one.name()));
    if let Some(property) = twice {
        let variable =
            format!("{PROPERTY}{}", property.name().to_ascii_uppercase().replace('.', "_"));
        let cause = format!("{variable} and {variable}{FILE} are both given");
        return Err(Error::new(ErrorKind::Config, cause).with_remedy("give one of them"));
    }
    Ok(found)
}

/// `SASL_PASSWORD` is `sasl.password`.
fn property_name(variable: &str) -> String {
    variable.to_ascii_lowercase().replace('_', ".")
}

/// A sentence for each variable that looks like ours and means nothing. `known` are the flags' own.
pub fn strangers(
    variables: impl Iterator<Item = (OsString, OsString)>,
    known: &[String],
) -> Vec<String> {
    let is_known = |name: &str| {
        known.iter().any(|known| known == name)
            || name.starts_with(PROPERTY)
            || OTHERS.iter().any(|other| name.starts_with(other))
    };
    let mut told = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.to_str().filter(|name| name.starts_with(OURS)) else { continue };
        if is_known(name) || is_of_kubernetes(name, &value.to_string_lossy()) {
            continue;
        }
        told.push(match nearest(name, known) {
            Some(known) => format!("{name} means nothing; did you mean {known}?"),
            None => format!("{name} means nothing"),
        });
    }
    told.sort();
    told
}

/// Kubernetes sets these for a service that is called `postrider…`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        let owned = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        pairs.iter().map(owned).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn a_variable_is_a_property_or_the_file_of_one() {
        let found = properties(variables(&[
            ("POSTRIDER_X_SASL_PASSWORD", "a=b"),
            ("POSTRIDER_X_SSL_KEY_PASSWORD_FILE", "/run/key"),
            ("POSTRIDER_X_SASL_OAUTHBEARER_ASSERTION_FILE", "/run/assertion"),
            ("POSTRIDER_X_LINGER_MS", ""),
            ("POSTRIDER_SHARDS", "3"),
        ]));
        let expected = EnvironmentProperties {
            values: vec![
                Property::new("sasl.password", "a=b"),
                Property::new("sasl.oauthbearer.assertion.file", "/run/assertion"),
            ],
            files: vec![Property::new("ssl.key.password", "/run/key")],
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_value_and_the_file_of_one_contradict_each_other() {
        let both =
            [("POSTRIDER_X_SASL_PASSWORD", "hush"), ("POSTRIDER_X_SASL_PASSWORD_FILE", "/f")];
        let error = properties(variables(&both)).unwrap_err();
        let expected =
            "POSTRIDER_X_SASL_PASSWORD and POSTRIDER_X_SASL_PASSWORD_FILE are both given";
        assert_eq!(error.message(), expected);
    }

    #[test]
    fn what_means_nothing_is_told_with_the_nearest_name() {
        let known = ["POSTRIDER_SHARDS".to_owned(), "POSTRIDER_BROKERS".to_owned()];
        let told = strangers(
            variables(&[
                ("POSTRIDER_SHARD", "3"),
                ("POSTRIDER_ZZZZZZZZZZZZZZZZZZZZ", "hush"),
                ("POSTRIDER_SHARDS", "3"),
                ("POSTRIDER_X_SASL_PASSWORD", "hush"),
                ("POSTRIDER_SERVICE_HOST", "10.0.0.1"),
                ("POSTRIDER_PORT", "tcp://10.0.0.1:9187"),
                ("POSTRIDER_PORT_9187_TCP_ADDR", "10.0.0.1"),
                ("POSTRIDER_TEST_POSTGRES", "fetched"),
                ("PATH", "/bin"),
            ]),
            &known,
        );
        assert_eq!(
            told,
            [
                "POSTRIDER_SHARD means nothing; did you mean POSTRIDER_SHARDS?",
                "POSTRIDER_ZZZZZZZZZZZZZZZZZZZZ means nothing",
            ]
        );
    }
}
