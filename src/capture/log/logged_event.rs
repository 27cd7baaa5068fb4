//! An event of the stream, whichever way it was written.
//!
//! Promises: it lends what it has; where it comes from is never forgotten. Must not: read the stream.

use crate::capture::adopted::row::AdoptedRow;
use crate::capture::log::flawed::{EventOrigin, Flawed, ReadRow};
use crate::capture::log::message::Envelope;
use crate::capture::log::outbox_row::LoggedRow;
use crate::event::{Event, LendEvent, OwnedEvent, SeqSource};
use crate::order::refusal::Refusal;

/// An event of the stream, in the receive buffer.
#[derive(Debug)]
pub enum LoggedEvent {
    /// A row of the outbox.
    Row(LoggedRow),
    /// A message, and its place in the order of writing.
    Message(Envelope, i64),
    /// A row of an adopted table.
    Adopted(AdoptedRow),
    /// A row of an adopted table that the stream does not bring.
    Copied(Box<OwnedEvent>),
    /// What cannot be sent as it is.
    Flawed(Box<Flawed>),
}

impl From<ReadRow<LoggedRow>> for LoggedEvent {
    fn from(read: ReadRow<LoggedRow>) -> Self {
        match read {
            ReadRow::Whole(row) => Self::Row(row),
            ReadRow::Flawed(flawed) => Self::Flawed(flawed),
        }
    }
}

impl From<ReadRow<AdoptedRow>> for LoggedEvent {
    fn from(read: ReadRow<AdoptedRow>) -> Self {
        match read {
            ReadRow::Whole(row) => Self::Adopted(row),
            ReadRow::Flawed(flawed) => Self::Flawed(flawed),
        }
    }
}

impl LoggedEvent {
    /// Its place in the order of writing.
    pub fn seq(&self) -> i64 {
        match self {
            Self::Row(row) => row.seq(),
            Self::Message(_, place) => *place,
            Self::Adopted(row) => row.place(),
            Self::Copied(event) => event.seq,
            Self::Flawed(flawed) => flawed.seq(),
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> EventOrigin {
        match self {
            Self::Row(row) => EventOrigin::Row(row.bucket, row.txid),
            Self::Adopted(row) => EventOrigin::Adopted(row.table),
            Self::Message(..) => EventOrigin::Message,
            Self::Copied(_) => EventOrigin::Copy,
            Self::Flawed(flawed) => flawed.origin(),
        }
    }

    /// The bytes that it keeps in memory.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Row(row) => row.size_bytes(),
            Self::Message(envelope, _) => envelope.size_bytes(),
            Self::Adopted(row) => row.size_bytes(),
            Self::Copied(event) => event.size_bytes(),
            Self::Flawed(flawed) => flawed.size_bytes(),
        }
    }

    /// What names the aggregate, to deal events to shards by it.
    pub fn aggregate_id(&self) -> &[u8] {
        match self {
            Self::Row(row) => row.aggregate_id(),
            Self::Message(envelope, _) => envelope.aggregate_id(),
            Self::Adopted(row) => row.aggregate_id(),
            Self::Copied(event) => event.aggregate_id.as_bytes(),
            Self::Flawed(flawed) => flawed.aggregate_id(),
        }
    }
}

impl LendEvent for LoggedEvent {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Row(row) => row.event(),
            Self::Message(envelope, place) => envelope.event(*place),
            Self::Adopted(row) => row.event(),
            Self::Copied(event) => event.event(),
            Self::Flawed(flawed) => flawed.event(),
        }
    }

    fn seq_source(&self) -> SeqSource {
        match self.origin() {
            EventOrigin::Row(..) => SeqSource::Table,
            EventOrigin::Adopted(_) | EventOrigin::Message | EventOrigin::Copy => SeqSource::Log,
        }
    }

    fn flaw(&self) -> Option<&Refusal> {
        match self {
            Self::Flawed(flawed) => Some(flawed.refusal()),
            Self::Row(_) | Self::Message(..) | Self::Adopted(_) | Self::Copied(_) => None,
        }
    }
}
