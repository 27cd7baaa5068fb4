//! How topics are to be made: by the first pattern that their name fits.
//!
//! Promises: a name has one shape, whoever asks; what a rule leaves open is what the rule for all others says, and
//! then the brokers. Must not: know which topics there are.
//! Fails: for a pattern that no topic can fit.
//!
//! ```
//! use postrider::record::topic_rules::{TopicPattern, TopicRule, TopicRules, TopicShape};
//!
//! let orders: TopicPattern = "shop.order*".parse()?;
//! let shape = TopicShape { copies: std::num::NonZeroU16::new(3), ..TopicShape::default() };
//! let rules = TopicRules::new(vec![TopicRule { pattern: orders, shape }], TopicShape::default());
//! assert_eq!(rules.shape("shop.orders").copies.map(u16::from), Some(3));
//! assert_eq!(rules.shape("shop.basket").copies, None);
//! # Ok::<(), String>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use crate::record::topic::TOPIC_BYTES_MAX;

/// What a topic is made with. What is none here, the brokers decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions.
    pub partitions: Option<NonZeroU32>,
    /// How many copies of each: Kafka's replication factor.
    pub copies: Option<NonZeroU16>,
    /// Settings of the topic, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

impl fmt::Display for TopicShape {
    /// As the file has it, on one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions = self.partitions.map(|count| format!("partitions = {count}"));
        let copies = self.copies.map(|count| format!("replication-factor = {count}"));
        let settings = self.settings.iter().map(|(name, value)| format!("{name} = {value}"));
        let all: Vec<String> = partitions.into_iter().chain(copies).chain(settings).collect();
        formatter.write_str(if all.is_empty() { "as the brokers do" } else { "" })?;
        formatter.write_str(&all.join(", "))
    }
}

/// The names of topics, in which `*` stands for any text and `?` for one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(String);

/// How the topics are made that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics.
    pub pattern: TopicPattern,
    /// How.
    pub shape: TopicShape,
}

/// How each topic is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRules {
    rules: Vec<TopicRule>,
}

impl TopicPattern {
    /// Whether a topic's name fits.
    pub fn fits(&self, topic: &str) -> bool {
        fits(self.0.as_bytes(), topic.as_bytes())
    }

    /// The one topic that fits, where there are no others.
    pub fn name(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name of ASCII alone, so that a byte is a character. Where a `*` took too little it takes one byte more.
fn fits(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut at, mut taken, mut last_star) = (0, 0, None);
    while taken < topic.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, taken));
                at += 1;
            }
            Some(sign) if *sign == b'?' || *sign == topic[taken] => {
                at += 1;
                taken += 1;
            }
            _ => {
                let Some((star, until)) = last_star else { return false };
                last_star = Some((star, until + 1));
                at = star + 1;
                taken = until + 1;
            }
        }
    }
    pattern[at..].iter().all(|sign| *sign == b'*')
}

impl FromStr for TopicPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_sign = |sign: char| {
            sign.is_ascii_alphanumeric() || matches!(sign, '.' | '_' | '-' | '*' | '?')
        };
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX || !text.chars().all(is_sign) {
            return Err(format!(
                "no topic can have a name like {text:?}: write letters, digits, . _ - and * for any text"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TopicRules {
    /// These rules, in their order; what they leave open is as `otherwise` says.
    pub fn new(rules: Vec<TopicRule>, otherwise: TopicShape) -> Self {
        let filled = rules.into_iter().map(|rule| TopicRule {
            shape: TopicShape {
                partitions: rule.shape.partitions.or(otherwise.partitions),
                copies: rule.shape.copies.or(otherwise.copies),
                settings: rule.shape.settings,
            },
            pattern: rule.pattern,
        });
        let mut rules: Vec<TopicRule> = filled.collect();
        rules.push(TopicRule { pattern: TopicPattern("*".to_owned()), shape: otherwise });
        Self { rules }
    }

    /// How a topic of this name is made.
    pub fn shape(&self, topic: &str) -> TopicShape {
        let rule = self.rules.iter().find(|rule| rule.pattern.fits(topic));
        rule.map(|rule| rule.shape.clone()).unwrap_or_default()
    }

    /// Whether somebody has said how a topic of this name is made, other than for all.
    pub fn govern(&self, topic: &str) -> bool {
        let (_, own) = self.rules.split_last().unzip();
        own.is_some_and(|own: &[TopicRule]| own.iter().any(|rule| rule.pattern.fits(topic)))
    }

    /// The topics that are named one by one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| rule.pattern.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().expect("it is one")
    }

    #[test]
    fn a_star_is_any_text_and_a_mark_one_character() {
        for (text, topic, expected) in [
            ("outbox.event.*", "outbox.event.order", true),
            ("outbox.event.*", "outbox.event.", true),
            ("outbox.event.*", "outbox.event", false),
            ("*", "", true),
            ("*.dead-letter", "outbox.dead-letter", true),
            ("*.dead-letter", "outbox.dead-letters", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*bc", "abcbc", true),
            ("t-?", "t-1", true),
            ("t-?", "t-12", false),
            ("t", "t", true),
            ("t", "tt", false),
        ] {
            assert_eq!(pattern(text).fits(topic), expected, "{text} {topic}");
        }
        for text in ["", "a b", "ä*", "a/b", &"x".repeat(250)] {
            assert!(text.parse::<TopicPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_holds_and_the_last_fills_it_up() {
        let partitions =
            |count| TopicShape { partitions: NonZeroU32::new(count), ..Default::default() };
        let rules = TopicRules::new(
            vec![
                TopicRule { pattern: pattern("a.b"), shape: partitions(1) },
                TopicRule { pattern: pattern("a.*"), shape: partitions(2) },
                TopicRule { pattern: pattern("a.c"), shape: TopicShape::default() },
            ],
            TopicShape {
                partitions: NonZeroU32::new(9),
                copies: NonZeroU16::new(3),
                ..Default::default()
            },
        );
        let shape = |topic| {
            let TopicShape { partitions, copies, .. } = rules.shape(topic);
            (partitions.map(u32::from), copies.map(u16::from))
        };
        assert_eq!(shape("a.b"), (Some(1), Some(3)));
        assert_eq!(shape("a.c"), (Some(2), Some(3)), "the first that fits");
        assert_eq!(shape("b"), (Some(9), Some(3)));
        assert_eq!(rules.names().collect::<Vec<_>>(), ["a.b", "a.c"]);
        assert!(rules.govern("a.x") && !rules.govern("b"));
        assert_eq!(TopicRules::default().shape("t"), TopicShape::default());
        assert!(!TopicRules::default().govern("t"));
    }
}
