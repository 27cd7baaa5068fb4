//! What records look like, as the file and the flags say it.
//!
//! Promises: a source of CloudEvents is a reference that a URI can be. Must not: make a record.
//! Fails: for a source that is none.

use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::record::encode;

/// The form of records.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RecordSettings {
    /// Makes records of this form [default: plain]. `cloudevents` adds the attributes of a CloudEvent in binary mode;
    /// key and value stay as they are.
    #[arg(long, env = "POSTRIDER_FORMAT", hide_env = true, help_heading = "Kafka")]
    pub format: Option<RecordForm>,

    /// Names where CloudEvents come from, ce_source [default: /DATABASE/SCHEMA/TABLE].
    #[arg(
        long,
        value_name = "URI",
        env = "POSTRIDER_CLOUDEVENTS_SOURCE",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub cloudevents_source: Option<String>,
}

/// A header that is added on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum HeaderName {
    /// The row's `created_at`, as RFC 3339 text.
    CreatedAt,
    /// The row's `seq`, in `poll` and `wal`.
    Seq,
    /// The event's place in the log, in `wal` and `message`.
    Position,
    /// The kind of aggregate, for topics that do not tell it.
    #[serde(rename = "aggregatetype")]
    #[value(name = "aggregatetype")]
    AggregateType,
}

impl From<HeaderName> for encode::AddedHeader {
    fn from(header: HeaderName) -> Self {
        match header {
            HeaderName::CreatedAt => Self::CreatedAt,
            HeaderName::Seq => Self::Seq,
            HeaderName::Position => Self::Position,
            HeaderName::AggregateType => Self::AggregateType,
        }
    }
}

/// How the headers of a record are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum RecordForm {
    /// `id`, `type` and the row's own.
    Plain,
    /// Those of a CloudEvent besides.
    CloudEvents,
}

/// What every record is, whatever its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Plain.
    Plain,
    /// CloudEvents that come from here.
    CloudEvents {
        /// Their `ce_source`.
        source: String,
    },
}

impl RecordSettings {
    /// What is typed here, and where it is silent what `below` says.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            format: self.format.or(below.format),
            cloudevents_source: self.cloudevents_source.or(below.cloudevents_source),
        }
    }

    /// What was typed means; `usual` is where events come from if nobody says so.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a source that is no reference.
    pub fn kind(&self, usual: impl FnOnce() -> String) -> Result<RecordKind> {
        let source = match &self.cloudevents_source {
            Some(source) if !is_reference(source) => {
                let cause = format!("--cloudevents-source {source:?} is no reference to a URI");
                return Err(Error::new(ErrorKind::Config, cause)
                    .with_remedy("write it like /shop/orders or https://shop.example/orders"));
            }
            source => source.clone(),
        };
        Ok(match self.format {
            None | Some(RecordForm::Plain) => RecordKind::Plain,
            Some(RecordForm::CloudEvents) => {
                RecordKind::CloudEvents { source: source.unwrap_or_else(usual) }
            }
        })
    }
}

/// Of the characters that a reference may have (RFC 3986), and not empty.
fn is_reference(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Where a record's timestamp comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampSource {
    /// The time of sending.
    Send,
    /// The row's `created_at`.
    Created,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_reference_or_refused() {
        let kind = |format, source: Option<&str>| {
            let cloudevents_source = source.map(str::to_owned);
            RecordSettings { format, cloudevents_source }.kind(|| "/usual".to_owned())
        };
        let cloud = Some(RecordForm::CloudEvents);
        let of = |source: &str| RecordKind::CloudEvents { source: source.to_owned() };
        assert_eq!(kind(None, None).expect("sound"), RecordKind::Plain);
        assert_eq!(kind(cloud, None).expect("sound"), of("/usual"));
        assert_eq!(kind(cloud, Some("https://a/b?c")).expect("sound"), of("https://a/b?c"));
        for wrong in ["", "a b", "\u{e4}", "a\nb"] {
            assert_eq!(kind(cloud, Some(wrong)).expect_err(wrong).kind(), ErrorKind::Config);
        }
    }
}
