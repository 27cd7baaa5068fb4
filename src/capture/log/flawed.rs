//! Events of the stream that cannot be sent as they are, with the reason.
//!
//! Promises: each is named by what could be read of it. Must not: know a connection, or what becomes of it.

use uuid::Uuid;

use crate::event::{Bucket, Event, EventId, LendEvent, OwnedEvent};
use crate::order::holds::{Reason, Refusal};
use crate::order::snapshot::TransactionId;
use crate::outbox::{Cuts, InTable};

/// The kind of aggregate of what names none; no topic can be called so.
pub const UNREADABLE_TYPE: &str = "(unreadable)";
/// Ids of what has none are made from its place under this name.
const ID_NAMESPACE: Uuid = uuid::uuid!("5f1d6f0a-62f0-4a3c-8a55-0e6c0d6e7b42");

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOrigin {
    /// The outbox: its bucket, and the transaction that the row claims.
    Row(Bucket, u64),
    /// An adopted table, by its number.
    Adopted(usize),
    /// A message.
    Message,
    /// The copy of an adopted table, before the stream.
    Copy,
}

/// The id of what has none, by its place in the order of writing.
pub fn id_at(place: i64) -> EventId {
    EventId(Uuid::new_v5(&ID_NAMESPACE, &place.to_be_bytes()).into_bytes())
}

/// One such event.
#[derive(Debug)]
pub struct Flawed {
    event: OwnedEvent,
    refusal: Refusal,
    origin: EventOrigin,
    in_table: Option<InTable>,
}

impl Flawed {
    /// A row of the outbox.
    pub fn of_row(event: OwnedEvent, refusal: Refusal, bucket: Bucket, txid: u64) -> Self {
        Self { event, refusal, origin: EventOrigin::Row(bucket, txid), in_table: None }
    }

    /// A row of an adopted table, by the table's number.
    pub fn of_adopted(event: OwnedEvent, refusal: Refusal, table: usize) -> Self {
        Self { event, refusal, origin: EventOrigin::Adopted(table), in_table: None }
    }

    /// A row of an adopted table that the stream does not bring.
    pub fn of_copied(event: OwnedEvent, refusal: Refusal) -> Self {
        Self { event, refusal, origin: EventOrigin::Copy, in_table: None }
    }

    /// Bytes that say of no aggregate that it is theirs. They are kept as they came, as a payload.
    pub fn of_bytes(
        origin: EventOrigin,
        place: i64,
        created_at_micros: i64,
        bytes: &[u8],
        detail: String,
    ) -> Self {
        let event = OwnedEvent {
            seq: place,
            id: id_at(place),
            aggregate_type: UNREADABLE_TYPE.to_owned(),
            aggregate_id: String::new(),
            kind: String::new(),
            payload: Some(bytes.to_vec()),
            headers: None,
            created_at_micros,
        };
        let refusal = Refusal { reason: Reason::Unreadable, detail, topic: None };
        Self { event, refusal, origin, in_table: None }
    }

    /// The same, where only a part of it came.
    #[must_use]
    pub fn in_table(self, bucket: Bucket, cuts: Cuts) -> Self {
        Self { in_table: Some(InTable { bucket, cuts, written_by: None }), ..self }
    }

    /// This transaction brought it.
    pub fn note_writer(&mut self, txid: TransactionId) {
        if let Some(in_table) = &mut self.in_table {
            in_table.written_by = Some(txid);
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> EventOrigin {
        self.origin
    }

    /// Where the whole is, if this is a part.
    pub fn whole(&self) -> Option<InTable> {
        self.in_table
    }

    /// Why it cannot be sent.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// Its place in the order of writing.
    pub fn seq(&self) -> i64 {
        self.event.seq
    }

    /// The bytes that it keeps in memory.
    pub fn size_bytes(&self) -> usize {
        self.event.size_bytes() + self.refusal.detail.len()
    }

    /// The bytes of the event's `aggregateid`.
    pub fn aggregate_id(&self) -> &[u8] {
        self.event.aggregate_id.as_bytes()
    }

    /// As an event.
    pub fn event(&self) -> Event<'_> {
        self.event.event()
    }
}

/// A row that was read.
#[derive(Debug)]
pub enum ReadRow<T> {
    /// It can be sent, as far as its form goes.
    Whole(T),
    /// It cannot be sent as it is.
    Flawed(Box<Flawed>),
}
