//! The outbox as its log tells it: rows of committed transactions, in the order of their commits.
//!
//! Promises: each row of the outbox that the slot's stream brings comes out once, in order, lent from the
//! receive buffer; what is not the outbox's is passed over. Must not: decide which rows are published,
//! or what is confirmed. Fails: with the connection's error; with [`ErrorKind::Schema`] when the stream
//! is not of the outbox's shape.
//!
//! A partition is a table of its own in the stream, so its name tells the bucket.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::adopted_row::{AdoptedLeaf, AdoptedRow, Forms};
use super::envelope::{self, Envelope};
use super::pgoutput::{self, Message, Name, Relation, Scope, Tuple, Value};
use super::printed;
use crate::adopted::{Adopted, Encoding};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, Event, EventId, LendEvent, OwnedEvent};
use crate::outbox::Outbox;
use crate::postgres::{Frame, LogStream, Timestamp};
pub use crate::postgres::{Lsn, ReplyWanted};

/// The prefix of the messages that are events.
pub const EVENT_PREFIX: &str = "postrider.outbox";
/// The prefix of the ticks' messages.
const TICK_PREFIX: &str = "postrider.tick";
/// So much of a message that is no event is shown.
const HEAD_SAID_BYTES: usize = 32;
/// The first byte of a `jsonb` value in binary form.
const JSONB_VERSION_BYTES: usize = 1;
/// `jsonb`'s object identifier, in `pg_type.dat`.
const JSONB_OID: u32 = 3802;

/// What the stream brings.
#[derive(Debug)]
pub enum LogItem {
    /// A committed transaction begins.
    Begin {
        /// Where its commit lies.
        commit: Lsn,
        /// Its id, without the epoch.
        xid: u32,
    },
    /// An event of it.
    Event(LoggedEvent),
    /// The transaction is a tick.
    Tick,
    /// The transaction is complete.
    Commit {
        /// Where the next begins at the earliest.
        end: Lsn,
    },
    /// The server has come this far, and has sent all that the stream has of it.
    KeepAlive {
        /// How far.
        end: Lsn,
        /// Whether it waits for an answer.
        reply: ReplyWanted,
    },
    /// Something that is not the outbox's.
    Other,
}

/// What counts as an event.
#[derive(Clone, Debug)]
pub enum Source {
    /// Rows of the table, and of the adopted ones.
    Table(Outbox, AdoptedTables),
    /// Transactional messages.
    Messages,
}

/// The adopted tables of a session, by their numbers, and how values look.
#[derive(Clone, Debug, Default)]
pub struct AdoptedTables {
    /// The tables.
    pub tables: Vec<Adopted>,
    /// The forms of all types; needed for adopted tables alone.
    pub forms: Forms,
    /// How the stream brings values.
    pub encoding: Encoding,
}

/// The stream of one slot, taken apart.
#[derive(Debug)]
pub struct LogCapture {
    stream: LogStream,
    decoder: Decoder,
}

impl LogCapture {
    /// Takes a stream apart that has just begun.
    pub fn new(stream: LogStream, source: Source) -> Self {
        Self {
            stream,
            decoder: Decoder {
                source,
                leaves: HashMap::new(),
                last: (0, 0),
                committed_at: Timestamp(0),
                early: 0,
            },
        }
    }

    /// What comes next. It may be dropped while it waits.
    ///
    /// # Errors
    /// When the connection fails, or the stream is not what the outbox's would be.
    pub async fn next(&mut self) -> Result<LogItem> {
        let frame = self.stream.next().await.map_err(unusable)?;
        self.decoder.item(frame)
    }

    /// What comes next, if it has arrived already.
    ///
    /// # Errors
    /// As [`LogCapture::next`].
    pub fn next_buffered(&mut self) -> Result<Option<LogItem>> {
        let frame = self.stream.next_buffered().map_err(unusable)?;
        frame.map(|frame| self.decoder.item(frame)).transpose()
    }

    /// Tells the server how far the stream has come, and up to where it is needed no more.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn confirm(&mut self, received: Lsn, delivered: Lsn) -> Result<()> {
        self.stream.confirm(received, delivered).await
    }

    /// Ends the stream, so that the slot is free.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn end(self) -> Result<()> {
        self.stream.end().await
    }
}

/// Whatever the server says of a stream, the next session looks at the slot and knows what to do.
pub fn unusable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::PostgresUnavailable | ErrorKind::Config => error,
        _ => {
            let unusable = Error::new(ErrorKind::SlotUnusable, error.message().to_owned());
            match error.remedy() {
                Some(remedy) => unusable.with_remedy(remedy.to_owned()),
                None => unusable,
            }
            .with_source(error)
        }
    }
}

/// Whether the server cannot go on with a stream because there was no publication at that place of the
/// log. One that is made later does not mend it.
pub fn lacked_publication(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    error.kind() == ErrorKind::SlotUnusable
        && source.is_some_and(|cause| cause.kind() == ErrorKind::Schema)
}

#[derive(Debug)]
struct Decoder {
    source: Source,
    /// The tables of the stream by their object identifiers; none for those that are not ours.
    leaves: HashMap<u32, Option<TableLeaf>>,
    /// Place of the last message, and how many came at it.
    last: (u64, i64),
    /// Messages that were not bound to their transactions.
    early: u64,
    /// When the transaction at hand committed.
    committed_at: Timestamp,
}

/// A table that brings events.
#[derive(Clone, Debug)]
enum TableLeaf {
    /// A partition of the outbox.
    Own(Arc<Leaf>),
    Adopted(Arc<AdoptedLeaf>),
}

impl Decoder {
    fn item(&mut self, frame: Frame) -> Result<LogItem> {
        let (start, message) = match frame {
            Frame::Data { start, message } => (start, message),
            Frame::KeepAlive { end, reply } => return Ok(LogItem::KeepAlive { end, reply }),
        };
        let message = pgoutput::decode(message).map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("the stream at {start}: {cause}"))
        })?;
        Ok(match message {
            Message::Begin { commit_lsn, commit_micros, xid } => {
                self.committed_at = Timestamp::from_postgres(commit_micros);
                LogItem::Begin { commit: Lsn(commit_lsn), xid }
            }
            Message::Commit { end_lsn, .. } => LogItem::Commit { end: Lsn(end_lsn) },
            Message::Relation(relation) => {
                self.learn(&relation)?;
                LogItem::Other
            }
            Message::Insert { relation, row } => match self.leaves.get(&relation) {
                Some(Some(TableLeaf::Own(leaf))) => LogItem::Event(match self.encoding() {
                    Encoding::Binary => leaf.read(&row)?,
                    Encoding::Text => leaf.read(&printed::in_binary(&row, &leaf.types)?)?,
                }),
                Some(Some(TableLeaf::Adopted(leaf))) => {
                    let leaf = Arc::clone(leaf);
                    let (place, committed_at) = (self.place(start), self.committed_at.0);
                    let row = leaf.read(&row, place, committed_at)?;
                    LogItem::Event(LoggedEvent::Adopted(row))
                }
                Some(None) | None => LogItem::Other,
            },
            Message::Logical { scope, prefix, content, .. } => {
                self.logical(start, scope, &prefix, content)
            }
            Message::Ignored(_) => LogItem::Other,
        })
    }

    fn encoding(&self) -> Encoding {
        match &self.source {
            Source::Table(_, adopted) => adopted.encoding,
            Source::Messages => Encoding::Binary,
        }
    }

    fn learn(&mut self, relation: &Relation) -> Result<()> {
        let Source::Table(outbox, adopted) = &self.source else { return Ok(()) };
        let leaf = match bucket_of(outbox, relation) {
            Some(bucket) => Some(TableLeaf::Own(Arc::new(Leaf::new(bucket, relation)?))),
            None => adopted.leaf(relation)?,
        };
        self.leaves.insert(relation.id, leaf);
        Ok(())
    }

    /// A message that is not bound to its transaction would come although that is rolled back.
    fn logical(&mut self, start: Lsn, scope: Scope, prefix: &Name, content: Bytes) -> LogItem {
        match (scope, prefix.as_str(), &self.source) {
            (Scope::Transactional, TICK_PREFIX, _) => LogItem::Tick,
            (Scope::Transactional, EVENT_PREFIX, Source::Messages) => self.event(start, content),
            (Scope::Immediate, EVENT_PREFIX, Source::Messages) => {
                self.early += 1;
                // One who writes one of them writes many: the log of ours must not fill up with it.
                if self.early.is_power_of_two() {
                    tracing::warn!(
                        lsn = %start,
                        count = self.early,
                        "a message that is not transactional is no event: it would survive a rollback"
                    );
                }
                LogItem::Other
            }
            _ => LogItem::Other,
        }
    }

    /// Anybody may write under the prefix. What is no event has no aggregate to be parked with, and
    /// must not stop all others: it is said and passed over.
    fn event(&mut self, start: Lsn, content: Bytes) -> LogItem {
        let head = content.slice(..content.len().min(HEAD_SAID_BYTES));
        match envelope::decode(content) {
            Ok(envelope) => LogItem::Event(LoggedEvent::Message(envelope, self.place(start))),
            Err(cause) => {
                tracing::error!(
                    lsn = %start,
                    begins = ?head,
                    %cause,
                    remedy = "write messages by postrider.emit or postrider.event_message",
                    "a message under the prefix postrider.outbox is no event; it is not published"
                );
                LogItem::Other
            }
        }
    }

    /// The order of writing: one record of the log may bring several messages.
    fn place(&mut self, start: Lsn) -> i64 {
        let (last, count) = self.last;
        self.last = if last == start.0 { (last, count + 1) } else { (start.0, 0) };
        start.0.cast_signed() + self.last.1
    }
}

impl AdoptedTables {
    fn leaf(&self, relation: &Relation) -> Result<Option<TableLeaf>> {
        let is_named = |table: &Adopted| {
            let names = (relation.schema.as_str(), relation.name.as_str());
            names == (table.name.schema.as_str(), table.name.table.as_str())
        };
        let Some(number) = self.tables.iter().position(is_named) else { return Ok(None) };
        let leaf = AdoptedLeaf::new(number, &self.tables[number], relation, &self.forms)?;
        Ok(Some(TableLeaf::Adopted(Arc::new(leaf))))
    }
}

/// The bucket of which a table is a leaf; none for other tables.
fn bucket_of(outbox: &Outbox, relation: &Relation) -> Option<Bucket> {
    let leaf = relation.name.as_str().strip_prefix(outbox.table.as_str())?.strip_prefix("_b")?;
    let (bucket, _generation) = leaf.split_once("_g")?;
    let bucket = Bucket(bucket.parse().ok()?);
    (relation.schema.as_str() == outbox.schema && bucket.0 < outbox.buckets).then_some(bucket)
}

/// The columns of a row that matter.
const COLUMNS: [&str; 9] = [
    "txid",
    "seq",
    "id",
    "aggregatetype",
    "aggregateid",
    "type",
    "payload",
    "headers",
    "created_at",
];
const TXID: usize = 0;
const SEQ: usize = 1;
const ID: usize = 2;
const AGGREGATE_TYPE: usize = 3;
const AGGREGATE_ID: usize = 4;
const KIND: usize = 5;
const PAYLOAD: usize = 6;
const HEADERS: usize = 7;
const CREATED_AT: usize = 8;

/// A partition of the outbox as the stream describes it.
#[derive(Debug)]
struct Leaf {
    bucket: Bucket,
    /// Which of [`COLUMNS`] stands at each place of a row.
    places: Vec<Option<usize>>,
    payload_start: usize,
    /// The type of each column.
    types: Vec<u32>,
}

impl Leaf {
    fn new(bucket: Bucket, relation: &Relation) -> Result<Self> {
        let place = |name: &Name| COLUMNS.iter().position(|column| *column == name.as_str());
        let places: Vec<Option<usize>> =
            relation.columns.iter().map(|column| place(&column.name)).collect();
        if let Some(missing) = (0..COLUMNS.len()).find(|column| !places.contains(&Some(*column))) {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the stream brings no column {} of the outbox", COLUMNS[missing]),
            )
            .with_remedy("restore the column, or the publication without a list of columns"));
        }
        let payload = places.iter().position(|place| *place == Some(PAYLOAD));
        let is_jsonb = payload.is_some_and(|index| relation.columns[index].type_oid == JSONB_OID);
        let payload_start = if is_jsonb { JSONB_VERSION_BYTES } else { 0 };
        let types = relation.columns.iter().map(|column| column.type_oid).collect();
        Ok(Self { bucket, places, payload_start, types })
    }

    /// Finds the columns in a row.
    fn read(&self, row: &Tuple) -> Result<LoggedEvent> {
        let mut found: [Option<Range<u32>>; COLUMNS.len()] = Default::default();
        for (value, place) in row.ranges().zip(&self.places) {
            if let (Value::Binary(range), Some(place)) = (value, place) {
                found[*place] = Some(range);
            }
        }
        let bytes = row.bytes();
        let fixed = |column: usize| {
            found[column].as_ref().map(|range| &bytes[range.start as usize..range.end as usize])
        };
        let torn = || {
            Error::new(ErrorKind::Schema, "a row of the outbox in the stream lacks a value")
                .with_remedy("restore the columns as `postrider migrate print` shows them")
        };
        let number = |column| {
            let bytes: [u8; 8] = fixed(column)?.try_into().ok()?;
            Some(i64::from_be_bytes(bytes))
        };
        let skip = |start: usize, range: Option<Range<u32>>| {
            range.map(|range| (range.start + start as u32).min(range.end)..range.end)
        };
        Ok(LoggedEvent::Row(LoggedRow {
            bucket: self.bucket,
            txid: number(TXID).ok_or_else(torn)?.cast_unsigned(),
            seq: number(SEQ).ok_or_else(torn)?,
            id: EventId(fixed(ID).and_then(|id| id.try_into().ok()).ok_or_else(torn)?),
            created_at: Timestamp::from_postgres(number(CREATED_AT).ok_or_else(torn)?),
            aggregate_type: found[AGGREGATE_TYPE].clone().ok_or_else(torn)?,
            aggregate_id: found[AGGREGATE_ID].clone().ok_or_else(torn)?,
            kind: found[KIND].clone().ok_or_else(torn)?,
            payload: skip(self.payload_start, found[PAYLOAD].clone()),
            headers: skip(JSONB_VERSION_BYTES, found[HEADERS].clone()),
            bytes: bytes.clone(),
        }))
    }
}

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
}

/// A row of the outbox in the receive buffer.
#[derive(Debug)]
pub struct LoggedRow {
    /// The bucket that it lies in.
    pub bucket: Bucket,
    /// The transaction that wrote it.
    pub txid: u64,
    seq: i64,
    id: EventId,
    created_at: Timestamp,
    aggregate_type: Range<u32>,
    aggregate_id: Range<u32>,
    kind: Range<u32>,
    payload: Option<Range<u32>>,
    headers: Option<Range<u32>>,
    bytes: Bytes,
}

impl LoggedRow {
    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn text(&self, range: &Range<u32>) -> &str {
        std::str::from_utf8(self.slice(range)).expect("the session's encoding is UTF-8")
    }
}

impl LoggedEvent {
    /// Its place in the order of writing.
    pub fn seq(&self) -> i64 {
        match self {
            Self::Row(row) => row.seq,
            Self::Message(_, place) => *place,
            Self::Adopted(row) => row.place(),
            Self::Copied(event) => event.seq,
        }
    }

    /// The bytes that it keeps in memory.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Row(row) => row.bytes.len(),
            Self::Message(envelope, _) => envelope.size_bytes(),
            Self::Adopted(row) => row.size_bytes(),
            Self::Copied(event) => event.size_bytes(),
        }
    }

    /// What names the aggregate, to deal events to shards by it.
    pub fn aggregate_id(&self) -> &[u8] {
        match self {
            Self::Row(row) => row.slice(&row.aggregate_id),
            Self::Message(envelope, _) => envelope.aggregate_id(),
            Self::Adopted(row) => row.aggregate_id(),
            Self::Copied(event) => event.aggregate_id.as_bytes(),
        }
    }
}

impl LendEvent for LoggedEvent {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Row(row) => Event {
                seq: row.seq,
                id: row.id,
                aggregate_type: row.text(&row.aggregate_type),
                aggregate_id: row.text(&row.aggregate_id),
                kind: row.text(&row.kind),
                payload: row.payload.as_ref().map(|range| row.slice(range)),
                headers: row.headers.as_ref().map(|range| row.text(range)),
                created_at_micros: row.created_at.0,
            },
            Self::Message(envelope, place) => envelope.event(*place),
            Self::Adopted(row) => row.event(),
            Self::Copied(event) => event.event(),
        }
    }
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
