//! Which events are set aside, why, and which aggregates wait behind them.
//!
//! Promises: as long as an aggregate is held, none of its events from the held one on is sent, so
//! that consumers never see 2, 3, 1. Must not: know a producer, a table or a clock. Fails: never.
//!
//! ```
//! use postrider::event::{Event, EventId};
//! use postrider::hold::{AggregateKey, Holds};
//!
//! let event = |seq, aggregate_id| Event {
//!     seq,
//!     id: EventId([0; 16]),
//!     aggregate_type: "order",
//!     aggregate_id,
//!     kind: "placed",
//!     payload: None,
//!     headers: None,
//!     created_at_micros: 0,
//! };
//! let mut holds = Holds::default();
//! holds.hold(AggregateKey::of(&event(5, "42")), 5);
//! assert!(holds.covers(&event(6, "42")));
//! assert!(!holds.covers(&event(4, "42")), "what lies before the held event does not wait");
//! assert!(!holds.covers(&event(6, "43")), "nor does any other aggregate");
//! ```

use std::fmt;
use std::str::FromStr;

use hashbrown::{Equivalent, HashMap};

use crate::event::Event;

/// Why an event is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record is larger than its topic takes.
    TooLarge,
    /// The topic's name is not one that Kafka accepts.
    IllegalTopic,
    /// `headers` is not a JSON object of headers.
    BadHeaders,
    /// `created_at` cannot be written as a header.
    BadTime,
    /// The topic is not there, has no leader, or this user may not write to it.
    TopicUnavailable,
    /// An earlier event of the aggregate is set aside.
    Follows,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TooLarge,
        Self::IllegalTopic,
        Self::BadHeaders,
        Self::BadTime,
        Self::TopicUnavailable,
        Self::Follows,
    ];

    /// As it is stored and typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::IllegalTopic => "illegal-topic",
            Self::BadHeaders => "bad-headers",
            Self::BadTime => "bad-time",
            Self::TopicUnavailable => "topic-unavailable",
            Self::Follows => "follows",
        }
    }

    /// Whether the event itself is at fault: no other topic and no later time would mend it.
    pub fn is_poison(self) -> bool {
        !matches!(self, Self::TopicUnavailable | Self::Follows)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|reason| reason.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", names()))
    }
}

/// Why this event is not sent, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The same with its circumstances; empty for one that only follows.
    pub detail: String,
    /// Where it would go, as far as that is known.
    pub topic: Option<String>,
}

impl Refusal {
    /// An event that only waits for an earlier one.
    pub fn follows() -> Self {
        Self { reason: Reason::Follows, detail: String::new(), topic: None }
    }
}

/// An event that was not sent, and why.
#[derive(Debug)]
pub struct SetAside<R> {
    /// What lends the event.
    pub row: R,
    /// Why it was not sent.
    pub refusal: Refusal,
}

/// An aggregate by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey {
    /// The event's `aggregatetype`.
    pub aggregate_type: String,
    /// The event's `aggregateid`.
    pub aggregate_id: String,
}

impl AggregateKey {
    /// The aggregate of an event.
    pub fn of(event: &Event<'_>) -> Self {
        Self {
            aggregate_type: event.aggregate_type.to_owned(),
            aggregate_id: event.aggregate_id.to_owned(),
        }
    }
}

/// The same, borrowed; its fields are hashed in the same order.
#[derive(Hash)]
struct BorrowedKey<'a> {
    aggregate_type: &'a str,
    aggregate_id: &'a str,
}

impl Equivalent<AggregateKey> for BorrowedKey<'_> {
    fn equivalent(&self, key: &AggregateKey) -> bool {
        self.aggregate_id == key.aggregate_id && self.aggregate_type == key.aggregate_type
    }
}

/// An aggregate, and the `seq` of the first of its events that is set aside.
pub type Hold = (AggregateKey, i64);

/// The aggregates that are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    first: HashMap<AggregateKey, i64>,
}

impl Holds {
    /// Whether none is held: all that an event costs as long as nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether the event has to wait.
    pub fn covers(&self, event: &Event<'_>) -> bool {
        let key =
            BorrowedKey { aggregate_type: event.aggregate_type, aggregate_id: event.aggregate_id };
        self.first.get(&key).is_some_and(|first| event.seq >= *first)
    }

    /// Holds an aggregate from this event on. One that is held from an earlier one stays so.
    pub fn hold(&mut self, key: AggregateKey, seq: i64) {
        self.first.entry(key).and_modify(|first| *first = seq.min(*first)).or_insert(seq);
    }

    /// Lets an aggregate go.
    pub fn release(&mut self, key: &AggregateKey) {
        self.first.remove(key);
    }
}

impl IntoIterator for Holds {
    type Item = Hold;
    type IntoIter = hashbrown::hash_map::IntoIter<AggregateKey, i64>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter()
    }
}

impl FromIterator<Hold> for Holds {
    fn from_iter<I: IntoIterator<Item = Hold>>(held: I) -> Self {
        let mut holds = Self::default();
        held.into_iter().for_each(|(key, seq)| holds.hold(key, seq));
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> AggregateKey {
        AggregateKey { aggregate_type: "t".to_owned(), aggregate_id: name.to_owned() }
    }

    #[test]
    fn reasons_are_read_as_they_are_written() {
        for reason in Reason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        assert!("poison".parse::<Reason>().unwrap_err().contains("too-large, illegal-topic"));
    }

    #[test]
    fn the_earliest_held_event_counts() {
        let mut holds = Holds::from_iter([(key("a"), 7)]);
        holds.hold(key("a"), 9);
        holds.hold(key("b"), 3);
        assert_eq!(holds, Holds::from_iter([(key("b"), 3), (key("a"), 9), (key("a"), 7)]));
        holds.release(&key("a"));
        assert_eq!((holds.len(), holds.is_empty()), (1, false));
    }
}
