//! How topics are made, as the file and the flags say it.
//!
//! Promises: rules keep the order of the file, as the first that fits holds. Must not: know which topics there are.
//! Fails: for a pattern that no topic fits, and for a key that means nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use toml::Spanned;

use crate::record::topic_rules::{TopicRule, TopicRules, TopicShape};

/// The file's name for the rules.
pub const TOPIC_RULES: &str = "topics";

/// Whether missing topics are made, and how.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TopicCreationSettings {
    /// Makes a topic that is missing before its first event is sent, as the file's [topics."pattern"] say
    /// [default: false].
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
        env = "POSTRIDER_CREATE_TOPICS",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub create_topics: Option<bool>,

    /// Makes topics with this many partitions, where no pattern says otherwise [default: as the brokers do].
    #[arg(
        long,
        value_name = "COUNT",
        env = "POSTRIDER_TOPIC_PARTITIONS",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub topic_partitions: Option<NonZeroU32>,

    /// Makes topics with this many copies, where no pattern says otherwise [default: as the brokers do].
    #[arg(
        long,
        value_name = "COUNT",
        env = "POSTRIDER_TOPIC_REPLICATION_FACTOR",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub topic_replication_factor: Option<NonZeroU16>,

    /// The file's table of patterns.
    #[arg(skip)]
    #[serde(deserialize_with = "rules")]
    pub topics: Vec<TopicRule>,
}

impl TopicCreationSettings {
    /// What is typed here, and where it is silent what `below` says.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            create_topics: self.create_topics.or(below.create_topics),
            topic_partitions: self.topic_partitions.or(below.topic_partitions),
            topic_replication_factor: self
                .topic_replication_factor
                .or(below.topic_replication_factor),
            topics: if self.topics.is_empty() { below.topics } else { self.topics },
        }
    }

    /// How each topic is made.
    pub fn rules(&self) -> TopicRules {
        let otherwise = TopicShape {
            partitions: self.topic_partitions,
            copies: self.topic_replication_factor,
            settings: BTreeMap::new(),
        };
        TopicRules::new(self.topics.clone(), otherwise)
    }
}

/// A rule as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RuleInFile {
    partitions: Option<NonZeroU32>,
    replication_factor: Option<NonZeroU16>,
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
}

impl RuleInFile {
    fn shape(self) -> Result<TopicShape, String> {
        let text = |(name, value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(number) => Ok((name, number.to_string())),
            toml::Value::Boolean(flag) => Ok((name, flag.to_string())),
            toml::Value::Float(number) => Ok((name, number.to_string())),
            toml::Value::Table(_) => Err(format!(
                "the setting {name}.… of a topic needs quotes: config = {{ \"{name}.…\" = \"…\" }}"
            )),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                Err(format!("the setting {name} of a topic must be text, a number or a boolean"))
            }
        };
        Ok(TopicShape {
            partitions: self.partitions,
            copies: self.replication_factor,
            settings: self.config.into_iter().map(text).collect::<Result<_, _>>()?,
        })
    }
}

/// The rules in the order in which they stand, whatever order a table has in memory.
fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TopicRule>, D::Error> {
    struct Rules;

    impl<'de> Visitor<'de> for Rules {
        type Value = Vec<TopicRule>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a table of patterns: [topics.\"outbox.event.*\"]")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some((key, rule)) = map.next_entry::<Spanned<String>, RuleInFile>()? {
                let place = key.span().start;
                let pattern = key.into_inner().parse().map_err(A::Error::custom)?;
                let shape = rule.shape().map_err(A::Error::custom)?;
                found.push((place, TopicRule { pattern, shape }));
            }
            found.sort_by_key(|(place, _)| *place);
            Ok(found.into_iter().map(|(_, rule)| rule).collect())
        }
    }

    deserializer.deserialize_map(Rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<TopicCreationSettings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_first_pattern_of_the_file_holds() {
        let settings = parsed(
            "create-topics = true\ntopic-partitions = 6\n\
             [topics.\"z.*\"]\npartitions = 32\nreplication-factor = 3\n\
             config = { \"min.insync.replicas\" = \"2\", \"retention.ms\" = 1000 }\n\
             [topics.\"*\"]\npartitions = 1\n[topics.\"a.*\"]\npartitions = 2\n",
        )
        .expect("it is sound");
        assert_eq!(settings.create_topics, Some(true));
        let rules = settings.rules();
        let shape = rules.shape("z.order");
        assert_eq!(
            (shape.partitions.map(u32::from), shape.copies.map(u16::from)),
            (Some(32), Some(3))
        );
        assert_eq!(shape.settings["retention.ms"], "1000");
        assert_eq!(
            rules.shape("a.order").partitions.map(u32::from),
            Some(1),
            "by place, not by name"
        );
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, words) in [
            ("[topics.\"a b\"]\n", "no topic can have"),
            ("[topics.t]\npartition = 3\n", "partition"),
            ("[topics.t]\npartitions = 0\n", "nonzero"),
            ("[topics.t]\nconfig = { retention.ms = 1 }\n", "needs quotes"),
            ("[topics.t]\nconfig = { \"a\" = [1] }\n", "must be text"),
            ("topics = 3\n", "a table of patterns"),
        ] {
            let said = parsed(text).expect_err(text).to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_is_typed_wins() {
        let below = parsed("create-topics = true\n[topics.t]\npartitions = 3\n").expect("sound");
        let typed = TopicCreationSettings { create_topics: Some(false), ..Default::default() };
        let both = typed.over(below);
        assert_eq!((both.create_topics, both.topics.len()), (Some(false), 1));
    }
}
