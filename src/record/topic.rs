//! Where an event goes: its topic, and the topic partition of its key.
//!
//! Promises: a rendered topic is one that Kafka accepts; [`partition`] answers as the Java client
//! does, so that a key keeps its partition when a JVM relay is replaced. Must not: know a producer,
//! or which topics exist. Fails: a template that can never name a topic is refused when it is read,
//! a name that an event makes illegal is refused for that event.
//!
//! ```
//! use std::num::NonZeroU32;
//! use postrider::record::topic::{TopicTemplate, partition};
//!
//! let template: TopicTemplate = "shop.{aggregatetype}".parse()?;
//! assert!(!template.is_fixed());
//! assert!("shop.{aggregate}".parse::<TopicTemplate>().is_err());
//! assert_eq!(partition(b"order-1", NonZeroU32::MIN), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::event::Event;

/// The template when none is given: Debezium's event router names topics so.
pub const DEFAULT_TOPIC_TEMPLATE: &str = "outbox.event.{aggregatetype}";

/// Kafka's limit for the length of a topic name.
///
/// Source: Apache Kafka, `org.apache.kafka.common.internals.Topic`.
pub const TOPIC_BYTES_MAX: usize = 249;

/// Where the brokers keep their own state. Of their other topics a refused record tells.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// How many bytes of a refused name an error repeats.
const QUOTED_BYTES_MAX: usize = 80;

/// How the topic of an event is made: fixed text and columns of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    pieces: Vec<TopicPiece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TopicPiece {
    Text(String),
    AggregateType,
    Type,
}

impl TopicPiece {
    /// The piece that a placeholder's name stands for.
    fn named(name: &str) -> Option<Self> {
        match name {
            "aggregatetype" => Some(Self::AggregateType),
            "type" => Some(Self::Type),
            _ => None,
        }
    }

    fn render<'a>(&'a self, event: &Event<'a>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::AggregateType => event.aggregate_type,
            Self::Type => event.kind,
        }
    }
}

impl TopicTemplate {
    /// Whether the topic's name tells the kind of aggregate.
    pub fn names_aggregate_type(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, TopicPiece::AggregateType))
    }

    /// Whether every event goes to the same topic.
    pub fn is_fixed(&self) -> bool {
        matches!(self.pieces.as_slice(), [TopicPiece::Text(_)])
    }

    /// The event's topic, written into `buffer` unless the template is fixed text.
    ///
    /// # Errors
    /// [`IllegalTopic`] when the event's columns make a name that Kafka does not accept.
    pub fn render<'a>(
        &'a self,
        event: &Event<'_>,
        buffer: &'a mut String,
    ) -> Result<&'a str, IllegalTopic> {
        if let [TopicPiece::Text(topic)] = self.pieces.as_slice() {
            return Ok(topic);
        }
        buffer.clear();
        for piece in &self.pieces {
            buffer.push_str(piece.render(event));
        }
        check(buffer).map_err(|flaw| IllegalTopic { topic: shorten(buffer), flaw })?;
        Ok(buffer)
    }
}

impl FromStr for TopicTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let pieces = split(text)?;
        if pieces.is_empty() {
            return Err(InvalidTemplate::Illegal { text: String::new(), flaw: TopicFlaw::Empty });
        }
        check_fixed_text(&pieces)
            .map_err(|flaw| InvalidTemplate::Illegal { text: text.to_owned(), flaw })?;
        Ok(Self { pieces })
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            TopicPiece::Text(text) => formatter.write_str(text),
            TopicPiece::AggregateType => formatter.write_str("{aggregatetype}"),
            TopicPiece::Type => formatter.write_str("{type}"),
        })
    }
}

/// Cuts a template into text and placeholders; two pieces of text never touch.
fn split(text: &str) -> Result<Vec<TopicPiece>, InvalidTemplate> {
    let unbalanced = || InvalidTemplate::Unbalanced { text: text.to_owned() };
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (fixed, after) = match rest.split_once('{') {
            Some((fixed, after)) => (fixed, Some(after)),
            None => (rest, None),
        };
        if fixed.contains('}') {
            return Err(unbalanced());
        }
        if !fixed.is_empty() {
            pieces.push(TopicPiece::Text(fixed.to_owned()));
        }
        let Some(after) = after else { break };
        let (name, remainder) = after.split_once('}').ok_or_else(unbalanced)?;
        let unknown = || InvalidTemplate::UnknownPlaceholder { name: name.to_owned() };
        pieces.push(TopicPiece::named(name).ok_or_else(unknown)?);
        rest = remainder;
    }
    Ok(pieces)
}

/// Refuses what no event can turn into a legal name.
fn check_fixed_text(pieces: &[TopicPiece]) -> Result<(), TopicFlaw> {
    if let [TopicPiece::Text(text)] = pieces {
        return check(text);
    }
    let fixed = || {
        pieces.iter().filter_map(|piece| match piece {
            TopicPiece::Text(text) => Some(text.as_str()),
            TopicPiece::AggregateType | TopicPiece::Type => None,
        })
    };
    fixed().try_for_each(check_characters)?;
    check_length(fixed().map(str::len).sum())
}

/// Whether Kafka accepts the name.
fn check(topic: &str) -> Result<(), TopicFlaw> {
    match topic {
        "" => return Err(TopicFlaw::Empty),
        "." | ".." => return Err(TopicFlaw::Dots),
        CLUSTER_METADATA => return Err(TopicFlaw::Reserved),
        _ if is_of_cursors(topic) => return Err(TopicFlaw::Cursors),
        _ => {}
    }
    check_length(topic.len())?;
    check_characters(topic)
}

/// Whether a relay, of this database or another, keeps its cursors under such a name: a row that named it could write one.
fn is_of_cursors(topic: &str) -> bool {
    let digits =
        |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit()).len() < text.len();
    topic
        .strip_prefix("postrider-")
        .and_then(|rest| rest.strip_suffix("-cursors"))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(system, database)| {
            system.bytes().all(|byte| byte.is_ascii_digit()) && digits(database)
        })
}

fn check_length(bytes: usize) -> Result<(), TopicFlaw> {
    if bytes > TOPIC_BYTES_MAX { Err(TopicFlaw::TooLong { bytes }) } else { Ok(()) }
}

fn check_characters(text: &str) -> Result<(), TopicFlaw> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.bytes().all(legal) {
        return Ok(());
    }
    let character = text.chars().find(|character| !u8::try_from(*character).is_ok_and(legal));
    Err(TopicFlaw::Character { character: character.expect("a byte of it is not legal") })
}

/// The name as far as an error repeats it.
fn shorten(topic: &str) -> String {
    if topic.len() <= TOPIC_BYTES_MAX {
        return topic.to_owned();
    }
    let end = (0..=QUOTED_BYTES_MAX).rev().find(|end| topic.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &topic[..end])
}

/// Why Kafka does not accept a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicFlaw {
    /// There is no text.
    Empty,
    /// The name is `.` or `..`.
    Dots,
    /// The brokers keep their own state under this name, and neither show nor create such a topic.
    Reserved,
    /// A relay keeps its cursors under such a name, where events are delivered exactly once.
    Cursors,
    /// The name is longer than [`TOPIC_BYTES_MAX`].
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A character other than ASCII letters, digits, dot, underscore and hyphen.
    Character {
        /// The first such character.
        character: char,
    },
}

impl fmt::Display for TopicFlaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("it is empty"),
            Self::Reserved => formatter.write_str("Kafka keeps it for itself"),
            Self::Cursors => formatter.write_str("postrider keeps cursors under such a name"),
            Self::Dots => formatter.write_str("Kafka reserves the names . and .."),
            Self::TooLong { bytes } => {
                write!(formatter, "it has {bytes} bytes, Kafka allows {TOPIC_BYTES_MAX}")
            }
            Self::Character { character } => {
                write!(formatter, "{character:?} is not one of a-z A-Z 0-9 . _ -")
            }
        }
    }
}

/// An event's columns make a topic name that Kafka does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topic name {topic:?} is not legal: {flaw}")]
pub struct IllegalTopic {
    /// The name; only its beginning when it is longer than a legal one.
    pub topic: String,
    /// What is wrong with it.
    pub flaw: TopicFlaw,
}

/// The text is not a topic template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A placeholder that does not exist.
    #[error("no topic placeholder {{{name}}}; there are {{aggregatetype}} and {{type}}")]
    UnknownPlaceholder {
        /// The text between the braces.
        name: String,
    },
    /// A brace without its partner.
    #[error(
        "the topic template {text:?} has a brace without its partner; write {{aggregatetype}} or {{type}}"
    )]
    Unbalanced {
        /// The whole template.
        text: String,
    },
    /// No event can make a legal name of it.
    #[error("the topic template {text:?} can never name a topic: {flaw}")]
    Illegal {
        /// The whole template.
        text: String,
        /// What is wrong with it.
        flaw: TopicFlaw,
    },
}

/// The 32-bit murmur2 hash with the seed of Kafka's Java client.
///
/// Source: Austin Appleby's MurmurHash2; Kafka's `Utils.murmur2` for the seed and byte order. The
/// vectors in `tests/vectors` come from that client.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    // Only the low 32 bits of the length enter: Java's lengths have no more.
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

/// The topic partition of a key, as Java's default partitioner and librdkafka's `murmur2_random`
/// choose it.
pub fn partition(key: &[u8], partitions: NonZeroU32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive % partitions).expect("the sign bit is cleared")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventId;

    fn event<'a>(aggregate_type: &'a str, kind: &'a str) -> Event<'a> {
        Event {
            seq: 1,
            id: EventId([0; 16]),
            aggregate_type,
            aggregate_id: "42",
            kind,
            payload: None,
            headers: None,
            created_at_micros: 0,
        }
    }

    fn render(template: &str, event: &Event<'_>) -> Result<String, IllegalTopic> {
        let template: TopicTemplate = template.parse().unwrap();
        template.render(event, &mut String::new()).map(str::to_owned)
    }

    #[test]
    fn fills_in_the_columns() {
        let event = event("order", "placed");
        for (template, topic) in [
            (DEFAULT_TOPIC_TEMPLATE, "outbox.event.order"),
            ("{type}", "placed"),
            ("a.{type}-{aggregatetype}_{type}", "a.placed-order_placed"),
            ("{aggregatetype}{type}", "orderplaced"),
            ("events", "events"),
        ] {
            assert_eq!(render(template, &event).unwrap(), topic);
            assert_eq!(template.parse::<TopicTemplate>().unwrap().to_string(), template);
        }
    }

    #[test]
    fn fixed_text_is_lent_and_leaves_the_buffer_alone() {
        let template: TopicTemplate = "events".parse().unwrap();
        let mut buffer = String::new();
        assert!(template.is_fixed());
        assert_eq!(template.render(&event("ä", "ä"), &mut buffer).unwrap(), "events");
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn refuses_a_template_that_can_never_name_a_topic() {
        for (template, message) in [
            ("", "it is empty"),
            ("..", "reserves"),
            ("a b", "' ' is not one of"),
            ("größe.{type}", "'ö' is not one of"),
            ("a/{type}", "'/' is not one of"),
            (
                "{aggregate}",
                "no topic placeholder {aggregate}; there are {aggregatetype} and {type}",
            ),
            ("{}", "no topic placeholder {}"),
            ("{{type}}", "no topic placeholder {{type}"),
            ("a{type", "without its partner"),
            ("a}b", "without its partner"),
            ("{type}}", "without its partner"),
        ] {
            let refused = template.parse::<TopicTemplate>().unwrap_err().to_string();
            assert!(refused.contains(message), "{template}: {refused}");
        }
        let longest = "a".repeat(TOPIC_BYTES_MAX);
        assert!(longest.parse::<TopicTemplate>().is_ok());
        assert!(format!("{longest}a").parse::<TopicTemplate>().is_err());
        assert!(format!("{longest}{{type}}a").parse::<TopicTemplate>().is_err());
    }

    #[test]
    fn refuses_a_name_that_an_event_makes_illegal() {
        for (template, kind, message) in [
            ("{type}", "", "it is empty"),
            ("{type}", "..", "reserves"),
            (".{type}", ".", "reserves"),
            ("{type}", "a b", "' ' is not one of"),
            ("{type}", "a\0", r"'\0' is not one of"),
            ("{type}", "日", "'日' is not one of"),
            ("{type}", "postrider-7450-16384-cursors", "keeps cursors"),
            ("postrider-{type}", "7450-16384.abc-cursors", "keeps cursors"),
        ] {
            let refused = render(template, &event("order", kind)).unwrap_err();
            assert!(refused.to_string().contains(message), "{refused}");
        }
        for kind in
            ["postrider-a-1-cursors", "postrider-1-a-cursors", "postrider-1-cursors", "x-cursors"]
        {
            assert_eq!(render("{type}", &event("order", kind)).as_deref(), Ok(kind));
        }
        let long = "ä".repeat(1_000_000);
        let refused = render("x{type}", &event("order", &long)).unwrap_err();
        assert_eq!(refused.flaw, TopicFlaw::TooLong { bytes: 2_000_001 });
        assert!(refused.to_string().len() < 200, "{refused}");
    }

    #[test]
    fn the_java_client_chooses_the_same_partitions() {
        let vectors = include_str!("../../tests/vectors/partition.csv");
        let mut count = 0;
        for line in vectors.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [key, partitions, expected] = fields[..] else { panic!("not a vector: {line}") };
            let key = from_hexadecimal(key);
            assert_eq!(
                partition(&key, partitions.parse().unwrap()).to_string(),
                expected,
                "{line}"
            );
            count += 1;
        }
        assert!(count > 1000, "only {count} vectors");
    }

    fn from_hexadecimal(text: &str) -> Vec<u8> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        assert!(rest.is_empty(), "{text}");
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        pairs.iter().map(|pair| byte(pair)).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_rendered_is_a_legal_name(kind in ".{0,300}", aggregate_type in "[a-z._-]{0,9}") {
            if let Ok(topic) = render("{aggregatetype}{type}", &event(&aggregate_type, &kind)) {
                prop_assert!((1..=TOPIC_BYTES_MAX).contains(&topic.len()));
                prop_assert!(topic != "." && topic != "..");
                prop_assert!(topic.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
                prop_assert_eq!(topic, format!("{aggregate_type}{kind}"));
            }
        }

        #[test]
        fn a_template_reads_what_it_writes(text in r"([a-z._-]|\{type\}|\{aggregatetype\}){1,20}") {
            if let Ok(template) = text.parse::<TopicTemplate>() {
                prop_assert_eq!(template.to_string(), text);
            }
        }
    }
}
