//! Which events are set aside, why, and which aggregates wait behind them.
//!
//! Promises: as long as an aggregate is held, none of its events from the held one on is sent, so
//! that consumers never see 2, 3, 1. What comes after the held one is told by the order in which both were
//! read: in the log by their log position, else by `seq`. Must not: know a producer, a table or a clock.
//!
//! ```
//! use postrider::event::{Event, EventId, LogPosition, OrderingKey};
//! use postrider::order::holds::{AggregateKey, HeldFrom, Holds};
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
//! holds.hold(AggregateKey::of(&event(5, "42")), HeldFrom::new(5, OrderingKey::Written));
//! assert!(holds.catch(&event(6, "42"), OrderingKey::Written));
//! assert!(!holds.catch(&event(4, "42"), OrderingKey::Written), "what lies before does not wait");
//! assert!(!holds.catch(&event(6, "43"), OrderingKey::Written), "nor does any other aggregate");
//!
//! let at = |commit_lsn| OrderingKey::Committed(LogPosition { commit_lsn, index: 0 });
//! holds.hold(AggregateKey::of(&event(9, "44")), HeldFrom::new(9, at(100)));
//! assert!(holds.catch(&event(8, "44"), at(200)), "written earlier, but committed later");
//! ```

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use crate::event::{Event, LogPosition, OrderingKey};
pub use crate::order::refusal::{Reason, Refusal};

/// So many held aggregates lie in memory, at most: some 150 bytes each. Of more than these it is looked
/// before each batch which of its aggregates are held.
pub const HELD_MAX: usize = 50_000;

/// An event that was not sent, and why.
#[derive(Debug)]
pub struct SetAside<R> {
    /// What lends the event.
    pub row: R,
    /// Why it was not sent.
    pub refusal: Refusal,
}

/// An aggregate, known by a digest of its name: whoever writes events chooses how long names are, and what
/// is held is to take the same few bytes each.
///
/// `postrider.aggregate_digest` computes the same of what is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey([u8; Self::BYTES]);

impl AggregateKey {
    /// How long a key is.
    pub const BYTES: usize = 16;

    /// The aggregate of an event.
    pub fn of(event: &Event<'_>) -> Self {
        Self::named(event.aggregate_type, event.aggregate_id)
    }

    /// The aggregate of that name.
    pub fn named(aggregate_type: &str, aggregate_id: &str) -> Self {
        let mut hasher = Sha256::new();
        // The length keeps ('a', 'bc') and ('ab', 'c') apart.
        hasher.update((aggregate_type.len() as u64).to_be_bytes());
        hasher.update(aggregate_type);
        hasher.update(aggregate_id);
        let digest = hasher.finalize();
        Self(*digest.first_chunk().expect("a digest has 32 bytes"))
    }

    /// As PostgreSQL has computed it; none of another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As PostgreSQL computes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// From where on an aggregate is held: the first of its events that are set aside, in each order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFrom {
    /// The lowest `seq` of all.
    pub seq: i64,
    /// The lowest `seq` of those that have no log position.
    pub written: Option<i64>,
    /// The first log position of those that have one.
    pub committed: Option<LogPosition>,
}

impl HeldFrom {
    /// From one event on.
    pub fn new(seq: i64, ordering_key: OrderingKey) -> Self {
        match ordering_key {
            OrderingKey::Committed(log_position) | OrderingKey::Waiting(Some(log_position)) => {
                Self { seq, written: None, committed: Some(log_position) }
            }
            OrderingKey::Written | OrderingKey::Waiting(None) => {
                Self { seq, written: Some(seq), committed: None }
            }
        }
    }

    /// Whether an event comes at the first one or after it. Of one that polling has set aside the log
    /// does not know when it came: then `seq` tells.
    fn covers(&self, seq: i64, ordering_key: OrderingKey) -> bool {
        match ordering_key {
            OrderingKey::Written => seq >= self.seq,
            OrderingKey::Committed(log_position) => {
                self.committed.is_some_and(|first| log_position >= first)
                    || self.written.is_some_and(|first| seq >= first)
            }
            OrderingKey::Waiting(_) => true,
        }
    }

    /// From the first of both on, in each order.
    fn join(&mut self, other: Self) {
        self.seq = self.seq.min(other.seq);
        self.written = earlier(self.written, other.written);
        self.committed = earlier(self.committed, other.committed);
    }
}

fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How an aggregate's id begins: enough to tell where its events go, however long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdHead(String);

impl IdHead {
    /// Characters of a head.
    pub const CHARACTERS: usize = 256;

    /// Of an id, or of a head of it.
    pub fn of(aggregate_id: &str) -> Self {
        let head = aggregate_id.get(..Self::cut(aggregate_id.as_bytes()).len());
        Self(head.expect("it is cut between characters").to_owned())
    }

    /// The same, lent, of an id in UTF-8.
    pub fn cut(aggregate_id: &[u8]) -> &[u8] {
        // As many bytes are never more characters.
        if aggregate_id.len() <= Self::CHARACTERS {
            return aggregate_id;
        }
        let begins_character = |(_, byte): &(usize, &u8)| **byte & 0xC0 != 0x80;
        let end = aggregate_id.iter().enumerate().filter(begins_character).nth(Self::CHARACTERS);
        end.map_or(aggregate_id, |(end, _)| &aggregate_id[..end])
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An aggregate, how its id begins, and from where on it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The aggregate.
    pub key: AggregateKey,
    /// How its id begins.
    pub head: IdHead,
    /// From where on.
    pub from: HeldFrom,
}

/// The aggregates that are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    held: HashMap<AggregateKey, HeldFrom>,
}

impl Holds {
    /// Whether none is held: all that an event costs as long as nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the event has to wait. One that does is among those that hold its aggregate.
    pub fn catch(&mut self, event: &Event<'_>, ordering_key: OrderingKey) -> bool {
        let Some(held) = self.held.get_mut(&AggregateKey::of(event)) else { return false };
        let is_caught = held.covers(event.seq, ordering_key);
        if is_caught {
            held.join(HeldFrom::new(event.seq, ordering_key));
        }
        is_caught
    }

    /// Holds an aggregate from there on. One that is held from an earlier place stays so.
    pub fn hold(&mut self, key: AggregateKey, from: HeldFrom) {
        self.held.entry(key).and_modify(|held| held.join(from)).or_insert(from);
    }

    /// Lets an aggregate go.
    pub fn release(&mut self, key: &AggregateKey) {
        self.held.remove(key);
    }
}

impl FromIterator<(AggregateKey, HeldFrom)> for Holds {
    fn from_iter<I: IntoIterator<Item = (AggregateKey, HeldFrom)>>(held: I) -> Self {
        let mut holds = Self::default();
        held.into_iter().for_each(|(key, from)| holds.hold(key, from));
        holds
    }
}

impl FromIterator<Hold> for Holds {
    fn from_iter<I: IntoIterator<Item = Hold>>(held: I) -> Self {
        let mut holds = Self::default();
        held.into_iter().for_each(|Hold { key, from, .. }| holds.hold(key, from));
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;

    fn key(name: &str) -> AggregateKey {
        AggregateKey::named("t", name)
    }

    #[test]
    fn reasons_are_read_as_they_are_written() {
        for reason in Reason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        assert!("poison".parse::<Reason>().unwrap_err().contains("too-large, illegal-topic"));
    }

    fn written(seq: i64) -> HeldFrom {
        HeldFrom::new(seq, OrderingKey::Written)
    }

    fn at(commit_lsn: u64, index: u32) -> OrderingKey {
        OrderingKey::Committed(LogPosition { commit_lsn, index })
    }

    fn catches(holds: &mut Holds, seq: i64, ordering_key: OrderingKey) -> bool {
        let event = Event {
            seq,
            id: EventId([0; 16]),
            aggregate_type: "t",
            aggregate_id: "a",
            kind: "",
            payload: None,
            headers: None,
            created_at_micros: 0,
        };
        holds.catch(&event, ordering_key)
    }

    #[test]
    fn keys_differ_where_names_do_and_stay_short() {
        let long = "x".repeat(5_000_000);
        let names = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), (&long, ""), ("", &long)];
        let behind = [("t", long.clone() + "1"), ("t", long.clone() + "2")];
        let keys = names.iter().map(|(kind, id)| AggregateKey::named(kind, id));
        let keys = keys.chain(behind.iter().map(|(kind, id)| AggregateKey::named(kind, id)));
        let different: std::collections::BTreeSet<AggregateKey> = keys.collect();
        assert_eq!(different.len(), names.len() + behind.len());
        assert!(size_of::<(AggregateKey, HeldFrom)>() <= 64, "the bound counts on it");
        let key = AggregateKey::named("order", "42");
        assert_eq!(AggregateKey::from_bytes(key.as_bytes()), Some(key));
        assert_eq!(AggregateKey::from_bytes(&[0; 15]), None);
    }

    #[test]
    fn a_head_is_cut_between_characters() {
        assert_eq!(IdHead::of("42").as_str(), "42");
        let long = "ä".repeat(300);
        assert_eq!(IdHead::of(&long).as_str(), "ä".repeat(256));
        assert_eq!(IdHead::of(&"ä".repeat(200)).as_str(), "ä".repeat(200));
        assert_eq!(
            IdHead::of(IdHead::of(&long).as_str()),
            IdHead::of(&long),
            "as of what the server cuts"
        );
    }

    #[test]
    fn the_earliest_held_event_counts() {
        let mut holds = Holds::from_iter([(key("a"), written(7))]);
        holds.hold(key("a"), written(9));
        holds.hold(key("b"), written(3));
        let all = [(key("b"), 3), (key("a"), 9), (key("a"), 7)];
        assert_eq!(holds, all.map(|(key, seq)| (key, written(seq))).into_iter().collect());
        holds.release(&key("a"));
        assert_eq!((holds.len(), holds.is_empty()), (1, false));
    }

    #[test]
    fn in_the_log_the_arrival_counts_and_not_the_order_of_writing() {
        let mut holds = Holds::from_iter([(key("a"), HeldFrom::new(5, at(100, 1)))]);
        assert!(!catches(&mut holds, 9, at(90, 0)), "it came before");
        assert!(!catches(&mut holds, 9, at(100, 0)), "in the same transaction, too");
        assert!(catches(&mut holds, 5, at(100, 1)), "the first one itself");
        assert!(catches(&mut holds, 2, at(100, 2)));
        assert!(catches(&mut holds, 1, at(110, 0)));
        assert!(
            catches(&mut holds, 1, OrderingKey::Written),
            "polling meets those that are held, too"
        );
        assert!(!catches(&mut holds, 0, OrderingKey::Written));
    }

    #[test]
    fn between_both_ways_the_order_of_writing_counts() {
        let mut holds = Holds::from_iter([(key("a"), written(5))]);
        assert!(!catches(&mut holds, 4, at(100, 0)));
        assert!(catches(&mut holds, 6, at(110, 0)));
        assert!(catches(&mut holds, 4, at(120, 0)), "it comes after one that is held");
        assert!(!catches(&mut holds, 3, OrderingKey::Written));
        assert!(catches(&mut holds, 4, OrderingKey::Written), "it is held itself");
    }

    #[test]
    fn what_is_tried_again_waits_for_whatever_is_held() {
        let mut holds = Holds::from_iter([(key("a"), HeldFrom::new(5, at(100, 0)))]);
        assert!(catches(&mut holds, 2, OrderingKey::Waiting(None)));
        assert!(catches(&mut holds, 3, at(90, 0)), "one of 2 is held now, without an arrival");
        holds.release(&key("a"));
        assert!(!catches(&mut holds, 2, OrderingKey::Waiting(None)));
    }
}
