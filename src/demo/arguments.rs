//! What can be typed after `postrider demo`.
//!
//! Promises: values are in range when they get here. Must not: decide anything.
//! Fails: clap refuses what has no meaning, with exit code 2.

use std::num::NonZeroU16;

use clap::{Args, ValueEnum};

use crate::error::{Error, ErrorKind};

/// Try postrider here and now: starts a PostgreSQL and a Kafka of its own, writes orders, relays
/// their events, and checks that each committed one arrives in order and no other one does.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    postrider demo\n  \
    postrider demo --seconds 60 --rate 5000 --shards 4\n  \
    postrider demo --servers-only     # a PostgreSQL and a Kafka to play with, until Ctrl-C")]
pub struct DemoArguments {
    /// How long orders are written
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,

    /// Events to write per second; about one in twenty is rolled back
    #[arg(long, value_name = "EVENTS", default_value_t = 2000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,

    /// Claim loops of the relay [default: one per core]
    #[arg(long, value_name = "N")]
    pub shards: Option<NonZeroU16>,

    /// Which broker to start
    #[arg(long, value_enum, default_value_t = BrokerChoice::Kafka)]
    pub broker: BrokerChoice,

    /// One line per second instead of the live view; so it is without a terminal or with NO_COLOR
    #[arg(long)]
    pub plain: bool,

    /// Only start PostgreSQL and Kafka, print how to reach them, and keep them until Ctrl-C
    #[arg(long)]
    pub servers_only: bool,

    /// Kafka's Java heap in megabytes
    #[arg(long, value_name = "MB", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(256..=65_536))]
    pub kafka_heap_mb: u32,

    /// A setting for postgresql.conf, such as shared_buffers=1GB (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub postgres_setting: Vec<(String, String)>,
}

/// Which broker to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BrokerChoice {
    /// Apache Kafka; librdkafka's mock cluster where Java or Maven is missing
    Kafka,
    /// librdkafka's mock cluster, inside this process
    Mock,
}

/// The check remembers every event, with about 150 bytes for each.
const MOST_EVENTS: u64 = 10_000_000;

impl DemoArguments {
    /// Refuses what would fill the memory.
    pub(super) fn check(&self) -> Result<(), Error> {
        if u64::from(self.seconds) * u64::from(self.rate) <= MOST_EVENTS {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "the demo remembers every event: {} s at {} events/s are too many",
                self.seconds, self.rate
            ),
        )
        .with_remedy("stay below ten million events; postrider-load is made for more"))
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: DemoArguments,
    }

    fn parsed(words: &[&str]) -> Result<DemoArguments, clap::Error> {
        let words = std::iter::once(&"demo").chain(words);
        <Command as clap::Parser>::try_parse_from(words).map(|command| command.arguments)
    }

    #[test]
    fn more_than_the_memory_holds_is_refused() {
        assert!(parsed(&[]).unwrap().check().is_ok());
        let error = parsed(&["--seconds", "3600", "--rate", "9000"]).unwrap().check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("postrider-load"), "{error}");
    }

    #[test]
    fn values_without_meaning_are_refused() {
        for words in [["--seconds", "0"], ["--rate", "0"], ["--shards", "0"], ["--broker", "x"]] {
            assert!(parsed(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn setting_needs_a_name_and_a_value() {
        assert_eq!(parse_setting("a = b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_setting("a").is_err());
        assert!(parse_setting("=b").is_err());
    }
}
