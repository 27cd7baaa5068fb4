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
pub struct LogPosition {
    /// The place of the commit in the log, in bytes.
    pub commit_lsn: u64,
    /// How many events of the transaction come before it.
    pub index: u32,
}

/// Records of the log begin at multiples of so many bytes, and are longer.
const RECORD_ALIGNMENT_BYTES: u64 = 8;

impl LogPosition {
    /// The same as one number, which grows as arrivals do: the place of the commit in units of eight bytes, then
    /// 32 bits for the index. None where no commit can lie (a copy of rows arrives there), and behind the last index.
    pub fn position(self) -> Option<u128> {
        let is_of_commit = self.commit_lsn.is_multiple_of(RECORD_ALIGNMENT_BYTES);
        (is_of_commit && self.index < u32::MAX).then(|| {
            u128::from(self.commit_lsn / RECORD_ALIGNMENT_BYTES) << u32::BITS
                | u128::from(self.index)
        })
    }
}

/// What gave an event its `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeqSource {
    /// The outbox's sequence: it is the row's own.
    #[default]
    Table,
    /// The log, or nobody knows: it says something inside the relay alone.
    Log,
}

/// The numbers by which a consumer knows an event's place among those of its aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPlace {
    /// Its row's `seq`; none for what is no row of the outbox.
    pub seq: Option<i64>,
    /// Where the log brought it; none for what was read from a table.
    pub position: Option<u128>,
}

impl EventPlace {
    /// Of an event with this `seq`.
    pub fn of(seq: i64, source: SeqSource, ordering_key: OrderingKey) -> Self {
        let seq = match source {
            SeqSource::Table => Some(seq),
            SeqSource::Log => None,
        };
        Self { seq, position: ordering_key.log_position().and_then(LogPosition::position) }
    }
}

/// By what an event is compared with others of its aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderingKey {
    /// It was read from a table: by its `seq`.
    Written,
    /// The log brought it: by its log position.
    Committed(LogPosition),
    /// It was set aside before, and is tried again behind those that were set aside earlier. Its log position,
    /// if the log had brought it.
    Waiting(Option<LogPosition>),
}

impl OrderingKey {
    /// Where the log brought the event, if it did.
    pub fn log_position(self) -> Option<LogPosition> {
        match self {
            Self::Written | Self::Waiting(None) => None,
            Self::Committed(log_position) | Self::Waiting(Some(log_position)) => Some(log_position),
        }
    }
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
    fn ordering_key(&self) -> OrderingKey {
        OrderingKey::Written
    }

    /// What gave it its `seq`.
    fn seq_source(&self) -> SeqSource {
        SeqSource::Table
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit_lsn: u64, index: u32) -> Option<u128> {
        LogPosition { commit_lsn, index }.position()
    }

    #[test]
    fn positions_grow_as_arrivals_do() {
        let arrivals = [(0, 0), (0, 1), (8, 0), (16, 0), (16, u32::MAX - 1), (24, 0), (!7, 0)];
        let positions = arrivals.map(|(commit, index)| at(commit, index).expect("it has one"));
        assert!(positions.is_sorted_by(|one, next| one < next), "{positions:?}");
        assert_eq!(positions[4], (2 << 32) + 4_294_967_294);
    }

    #[test]
    fn what_no_commit_brought_has_no_position() {
        assert_eq!(at(8 * 7 - 1, 0), None, "a copy of rows");
        assert_eq!(at(8, u32::MAX), None, "the count is full: more than one event may stand there");
    }

    #[test]
    fn a_place_says_what_is_known() {
        let log_position = LogPosition { commit_lsn: 16, index: 3 };
        let position = Some((2 << 32) + 3);
        for (source, ordering_key, seq, position) in [
            (SeqSource::Table, OrderingKey::Written, Some(7), None),
            (SeqSource::Table, OrderingKey::Committed(log_position), Some(7), position),
            (SeqSource::Log, OrderingKey::Committed(log_position), None, position),
            (SeqSource::Log, OrderingKey::Waiting(Some(log_position)), None, position),
            (SeqSource::Log, OrderingKey::Waiting(None), None, None),
        ] {
            let place = EventPlace::of(7, source, ordering_key);
            assert_eq!(place, EventPlace { seq, position }, "{source:?} {ordering_key:?}");
        }
    }
}
