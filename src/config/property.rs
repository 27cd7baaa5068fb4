//! A property of librdkafka, as it is typed.
//!
//! Promises: its value shows nowhere, not even when it is refused. Must not: know which properties there are.
//! Fails: clap refuses what is no name with a value.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Arg, Command};

/// A librdkafka property; its value may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    name: String,
    value: String,
}

impl Property {
    /// A property of this name.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name and its value.
    pub fn into_pair(self) -> (String, String) {
        (self.name, self.value)
    }
}

impl std::fmt::Debug for Property {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}=***", self.name)
    }
}

impl FromStr for Property {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok(Self::new(name.trim(), value)),
            _ => Err("write a property as name=value, like linger.ms=20"),
        }
    }
}

/// As clap's own parser, but a text that is refused is not shown: it may hold a secret.
#[derive(Clone, Debug)]
pub(super) struct PropertyParser;

impl TypedValueParser for PropertyParser {
    type Value = Property;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Property, clap::Error> {
        let property = value.to_str().ok_or("a property must be UTF-8").and_then(str::parse);
        property.map_err(|cause| {
            let cause = format!("invalid value for '-X <NAME=VALUE>': {cause}\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, cause).with_cmd(command)
        })
    }
}
