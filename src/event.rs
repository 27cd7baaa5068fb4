//! The words of the domain: what an outbox row says.
//!
//! Promises: an [`Event`] borrows everything from the row it was claimed in; nothing is copied.
//! Must not: know a driver, a runtime or a clock.

use std::fmt;

use crate::order::refusal::Refusal;

/// A hash partition of the outbox: the unit of ownership, with one cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u16);

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The `id` column: sixteen bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// Length of the hyphenated text form, in bytes.
    pub const TEXT_BYTES: usize = 36;

    /// Writes the lower-case hyphenated form into `buffer` and lends it.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; Self::TEXT_BYTES]) -> &'a str {
        uuid::Uuid::from_bytes(self.0).hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(formatter)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One committed outbox row, lent by whatever holds its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// Place in the order of writing; unique in the outbox, rising per aggregate.
    pub seq: i64,
    /// Identity of the event: consumers drop repeats by it.
    pub id: EventId,
    /// Kind of aggregate; names the topic.
    pub aggregate_type: &'a str,
    /// The aggregate; becomes the record's key.
    pub aggregate_id: &'a str,
    /// Kind of event; becomes the header `type`.
    pub kind: &'a str,
    /// The record's value, byte for byte; none is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// A JSON object as text; its members become headers.
    pub headers: Option<&'a str>,
    /// The row's `created_at`, in microseconds since 1970-01-01 UTC.
    pub created_at_micros: i64,
}

impl Event<'_> {
    /// A copy of everything that it lends.
    pub fn to_owned(&self) -> OwnedEvent {
        OwnedEvent {
            seq: self.seq,
            id: self.id,
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: self.aggregate_id.to_owned(),
            kind: self.kind.to_owned(),
            payload: self.payload.map(<[u8]>::to_vec),
            headers: self.headers.map(str::to_owned),
            created_at_micros: self.created_at_micros,
        }
    }
}

/// Where the log brings an event: the place of its transaction's commit, then its own among the events of
/// that transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The place of the commit in the log, in bytes.
    pub commit_lsn: u64,
    /// How many events of the transaction come before it.
    pub index: u32,
}

/// By what an event is compared with others of its aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was read from a table: by its `seq`.
    Written,
    /// The log brought it: by its arrival.
    Committed(Arrival),
    /// It was set aside before, and is tried again behind those that were set aside earlier. Its arrival,
    /// if the log had brought it.
    Waiting(Option<Arrival>),
}

/// Where the whole of an event lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// What lends it has it.
    Lent,
    /// In this bucket of the outbox: it was not read.
    Outbox(Bucket),
    /// In `postrider.parked`, at this turn.
    Parked(i64),
}

/// Something that owns the bytes of one event and lends them.
pub trait LendEvent: Send + 'static {
    /// The event, borrowed from `self`.
    fn event(&self) -> Event<'_>;

    /// By what it is compared with others.
    fn standing(&self) -> Standing {
        Standing::Written
    }

    /// Where the whole of it lies.
    fn whereabouts(&self) -> Whereabouts {
        Whereabouts::Lent
    }

    /// Why it cannot be sent as it is, whatever Kafka would say of it; none for one that is lent whole. What is
    /// lent may be a part of it, or its place and its aggregate alone.
    fn flaw(&self) -> Option<&Refusal> {
        None
    }
}

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedEvent {
    /// As [`Event::seq`].
    pub seq: i64,
    /// As [`Event::id`].
    pub id: EventId,
    /// As [`Event::aggregate_type`].
    pub aggregate_type: String,
    /// As [`Event::aggregate_id`].
    pub aggregate_id: String,
    /// As [`Event::kind`].
    pub kind: String,
    /// As [`Event::payload`].
    pub payload: Option<Vec<u8>>,
    /// As [`Event::headers`].
    pub headers: Option<String>,
    /// As [`Event::created_at_micros`].
    pub created_at_micros: i64,
}

impl OwnedEvent {
    /// The bytes of its columns.
    pub fn size_bytes(&self) -> usize {
        let texts = [&self.aggregate_type, &self.aggregate_id, &self.kind];
        texts.iter().map(|text| text.len()).sum::<usize>()
            + self.payload.as_ref().map_or(0, Vec::len)
            + self.headers.as_ref().map_or(0, String::len)
    }
}

impl LendEvent for OwnedEvent {
    fn event(&self) -> Event<'_> {
        Event {
            seq: self.seq,
            id: self.id,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            kind: &self.kind,
            payload: self.payload.as_deref(),
            headers: self.headers.as_deref(),
            created_at_micros: self.created_at_micros,
        }
    }
}
