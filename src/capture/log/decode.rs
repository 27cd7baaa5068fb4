//! The outbox as its log tells it: rows of committed transactions, in the order of their commits.
//!
//! Promises: each row of the outbox that the slot's stream brings comes out once, in order, lent from the
//! receive buffer; what is not the outbox's is passed over. Must not: decide which rows are published,
//! or what is confirmed. Fails: with the connection's error; with [`ErrorKind::Schema`] when the stream
//! is not of the outbox's shape.
//!
//! A partition is a table of its own in the stream, so its name tells the bucket.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::capture::adopted::mapping::{Adopted, ValueForm};
use crate::capture::adopted::row::{AdoptedLeaf, Forms};
use crate::capture::log::encoding::Encoding;
use crate::capture::log::flawed::{EventOrigin, Flawed};
pub use crate::capture::log::logged_event::LoggedEvent;
use crate::capture::log::message;
use crate::capture::log::misformed::misformed;
use crate::capture::log::outbox_row::PartitionRelation;
use crate::capture::log::pgoutput;
use crate::capture::log::pgoutput::{Message, Relation, Scope, Tuple};
use crate::capture::log::sieve::{LongSieve, Rows, SievedPart};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::holds::{Reason, Refusal};
use crate::outbox::Outbox;
use crate::postgres::{Frame, LogStream, Timestamp};
pub use crate::postgres::{Lsn, ReplyWanted};
use crate::record::large::LargeRow;
use crate::schema::{self, Schema};

/// What is written behind the schema in the prefix of the ticks' messages.
const TICK_KIND: &str = "tick";

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
    /// A part of an event that is too large to be read at once.
    Part(LargePart),
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

/// A part of an event that is too large to be read at once. All parts come one after the other.
#[derive(Debug)]
pub struct LargePart {
    /// Where the event comes from.
    pub origin: EventOrigin,
    /// A row's value of this number; 0 for a message.
    pub value: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// With the last part.
    pub end: Option<LargeEnd>,
}

/// What is known of an event once all of its parts have come.
#[derive(Debug)]
pub enum LargeEnd {
    /// It is a message.
    Message {
        /// Its place in the order of writing.
        place: i64,
        /// When its transaction committed.
        committed_at_micros: i64,
    },
    /// It is a row of an adopted table.
    Row(Box<LargeRow>),
}

/// What counts as an event.
#[derive(Clone, Debug)]
pub enum Source {
    /// Rows of the outbox's partitions, by their object identifiers, and of the adopted tables.
    Table(Outbox, HashMap<u32, Bucket>, Box<AdoptedTables>),
    /// Transactional messages.
    Messages,
}

/// The adopted tables of a session, by their numbers, and how values look.
#[derive(Clone, Debug, Default)]
pub struct AdoptedTables {
    /// The tables.
    pub tables: Vec<Adopted>,
    /// They and those that inherit from them, by their object identifiers, with the number of the table.
    pub known: HashMap<u32, usize>,
    /// The forms of all types; needed for adopted tables alone.
    pub forms: Forms,
    /// In which form the stream brings values.
    pub form: ValueForm,
}

/// How the stream is to be read.
#[derive(Clone, Debug)]
pub struct StreamReading {
    /// How its texts are written.
    pub encoding: Encoding,
    /// An event above this size is not kept whole.
    pub event_bytes_max: usize,
    /// Whose messages are ours.
    pub schema: Schema,
}

/// The stream of one slot, taken apart.
#[derive(Debug)]
pub struct LogCapture {
    stream: LogStream,
    decoder: Decoder,
}

impl LogCapture {
    /// Takes a stream apart that has just begun.
    pub fn new(stream: LogStream, source: Source, reading: StreamReading) -> Self {
        Self { stream, decoder: Decoder::new(source, reading) }
    }

    /// What comes next. It may be dropped while it waits.
    ///
    /// # Errors
    /// When the connection fails, or the stream is not what the outbox's would be.
    pub async fn next(&mut self) -> Result<LogItem> {
        let frame = self.stream.next(&mut self.decoder.sieve).await.map_err(unusable)?;
        self.decoder.item(frame)
    }

    /// What comes next, if it has arrived already.
    ///
    /// # Errors
    /// As [`LogCapture::next`].
    pub fn next_buffered(&mut self) -> Result<Option<LogItem>> {
        let frame = self.stream.next_buffered(&mut self.decoder.sieve).map_err(unusable)?;
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
    /// The prefixes of the messages that are events, and of those of ticks.
    event_prefix: String,
    tick_prefix: String,
    encoding: Encoding,
    sieve: LongSieve,
    /// When the transaction at hand committed.
    committed_at: Timestamp,
}

/// A table that brings events.
#[derive(Clone, Debug)]
enum TableLeaf {
    /// A partition of the outbox.
    Own(Arc<PartitionRelation>),
    Adopted(Arc<AdoptedLeaf>),
}

impl Decoder {
    fn new(source: Source, reading: StreamReading) -> Self {
        let event_prefix = reading.schema.message_prefix(message::KIND);
        let taken = matches!(source, Source::Messages).then(|| event_prefix.clone());
        Self {
            source,
            event_prefix,
            tick_prefix: reading.schema.message_prefix(TICK_KIND),
            leaves: HashMap::new(),
            last: (0, 0),
            committed_at: Timestamp(0),
            early: 0,
            encoding: reading.encoding,
            sieve: LongSieve::new(reading.event_bytes_max, taken),
        }
    }

    fn item(&mut self, frame: Frame) -> Result<LogItem> {
        let (start, message) = match frame {
            Frame::Data { start, message } => (start, message),
            Frame::KeepAlive { end, reply } => return Ok(LogItem::KeepAlive { end, reply }),
            Frame::Paused => return Ok(self.part(self.origin_at_hand(), None)),
        };
        let message = pgoutput::decode_in(message, &self.encoding).map_err(|cause| {
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
            Message::Insert { relation, row } => self.insert(start, relation, &row)?,
            Message::Logical { scope, prefix, content, .. } => {
                self.logical(start, scope, &prefix, content)
            }
            Message::Ignored(_) => LogItem::Other,
        })
    }

    fn form(&self) -> ValueForm {
        match &self.source {
            Source::Table(_, _, adopted) => adopted.form,
            Source::Messages => ValueForm::Binary,
        }
    }

    fn learn(&mut self, relation: &Relation) -> Result<()> {
        let Source::Table(outbox, parts, adopted) = &self.source else { return Ok(()) };
        // By its name only what is no partition any more.
        let bucket = parts.get(&relation.id).copied().or_else(|| bucket_of(outbox, relation));
        let leaf = match bucket {
            // A column that does not come is filtered, or gone; the next session looks at the table.
            Some(bucket) => Some(TableLeaf::Own(Arc::new(
                PartitionRelation::new(bucket, relation).map_err(|cause| misformed(cause, None))?,
            ))),
            None => adopted.leaf(relation)?,
        };
        // A row of an adopted table may be gone from there by now.
        let keeps = leaf.as_ref().map(|leaf| match leaf {
            TableLeaf::Own(leaf) => Rows::Part(leaf.keeps()),
            TableLeaf::Adopted(leaf) => Rows::Adopted(leaf.keeps(relation.columns.len())),
        });
        self.sieve.learn(relation.id, keeps);
        self.leaves.insert(relation.id, leaf);
        Ok(())
    }

    fn insert(&mut self, start: Lsn, relation: u32, row: &Tuple) -> Result<LogItem> {
        let (oversized, limit) = (self.sieve.take_oversized(), self.sieve.limit_bytes());
        let form = self.form();
        Ok(LogItem::Event(match self.leaves.get(&relation) {
            Some(Some(TableLeaf::Own(leaf))) => {
                let refusal = oversized.map(|row_is| too_large(row_is.bytes, limit));
                let read = read_own(leaf, row, form, &self.encoding, refusal);
                read.map_err(|cause| misformed(cause, None))?
            }
            Some(Some(TableLeaf::Adopted(leaf))) => {
                let (leaf, micros) = (Arc::clone(leaf), self.committed_at.0);
                let place = self.place(start);
                let Some(oversized) = oversized else {
                    let read = leaf.read(row, &self.encoding, place, micros)?;
                    return Ok(LogItem::Event(read.into()));
                };
                let row = leaf.read_large(row, &oversized, &self.encoding, place, micros)?;
                let end = LargeEnd::Row(Box::new(row));
                return Ok(self.part(EventOrigin::Adopted(leaf.table()), Some(end)));
            }
            Some(None) | None => return Ok(LogItem::Other),
        }))
    }

    /// A message that is not bound to its transaction would come although that is rolled back.
    fn logical(&mut self, start: Lsn, scope: Scope, prefix: &[u8], content: Bytes) -> LogItem {
        let is_event = prefix == self.event_prefix.as_bytes();
        match (scope, &self.source) {
            (Scope::Transactional, _) if prefix == self.tick_prefix.as_bytes() => LogItem::Tick,
            (Scope::Transactional, Source::Messages) if is_event => self.event(start, content),
            (Scope::Immediate, Source::Messages) if is_event => {
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

    /// Anybody may write under the prefix. What is no event names no aggregate that could wait for it, and
    /// must not stop any: it is set aside as it came.
    fn event(&mut self, start: Lsn, content: Bytes) -> LogItem {
        let place = self.place(start);
        if self.sieve.take_oversized().is_some() {
            let committed_at_micros = self.committed_at.0;
            let end = LargeEnd::Message { place, committed_at_micros };
            return self.part(EventOrigin::Message, Some(end));
        }
        LogItem::Event(match message::decode(content.clone()) {
            Ok(envelope) => LoggedEvent::Message(envelope, place),
            Err(cause) => {
                let emit = schema::chosen().of("emit");
                let detail = format!("{cause}; write messages by {emit} or event_message");
                let micros = self.committed_at.0;
                let flawed =
                    Flawed::of_bytes(EventOrigin::Message, place, micros, &content, detail);
                LoggedEvent::Flawed(Box::new(flawed))
            }
        })
    }

    /// Where that comes from of which the sieve is full.
    fn origin_at_hand(&self) -> EventOrigin {
        let leaf = self.sieve.relation().and_then(|relation| self.leaves.get(&relation));
        match leaf {
            Some(Some(TableLeaf::Adopted(leaf))) => EventOrigin::Adopted(leaf.table()),
            Some(Some(TableLeaf::Own(_)) | None) | None => EventOrigin::Message,
        }
    }

    fn part(&mut self, origin: EventOrigin, end: Option<LargeEnd>) -> LogItem {
        let SievedPart { value, bytes } = self.sieve.take_part();
        LogItem::Part(LargePart { origin, value, bytes, end })
    }

    /// The order of writing: one record of the log may bring several messages.
    fn place(&mut self, start: Lsn) -> i64 {
        let (last, count) = self.last;
        self.last = if last == start.0 { (last, count + 1) } else { (start.0, 0) };
        start.0.cast_signed() + self.last.1
    }
}

/// A row of the outbox; one that is too large has a refusal.
fn read_own(
    leaf: &PartitionRelation,
    row: &Tuple,
    form: ValueForm,
    encoding: &Encoding,
    refusal: Option<Refusal>,
) -> Result<LoggedEvent> {
    let row = match form {
        ValueForm::Binary => Cow::Borrowed(row),
        ValueForm::Text => Cow::Owned(leaf.in_binary(row)?),
    };
    Ok(match refusal {
        None => leaf.read(&row, encoding)?.into(),
        Some(refusal) => leaf.read_part(&row, encoding, refusal)?.into(),
    })
}

fn too_large(bytes: usize, limit: usize) -> Refusal {
    let detail = format!("the row has {bytes} bytes in the log; up to {limit} are read");
    Refusal { reason: Reason::TooLarge, detail, topic: None }
}

impl AdoptedTables {
    fn leaf(&self, relation: &Relation) -> Result<Option<TableLeaf>> {
        let is_named = |table: &Adopted| {
            let names = (relation.schema.as_str(), relation.name.as_str());
            names == (table.name.schema.as_str(), table.name.table.as_str())
        };
        // By its name only what was made since: the log has the name that a table had when the row was written.
        let by_name = || self.tables.iter().position(is_named);
        let Some(number) = self.known.get(&relation.id).copied().or_else(by_name) else {
            return Ok(None);
        };
        let table = &self.tables[number];
        let leaf = AdoptedLeaf::new(number, table, relation, &self.forms);
        let leaf = leaf.map_err(|cause| misformed(cause, Some(&table.name)))?;
        Ok(Some(TableLeaf::Adopted(Arc::new(leaf))))
    }
}

/// The bucket of which a table was a partition by its name; none for other tables.
fn bucket_of(outbox: &Outbox, relation: &Relation) -> Option<Bucket> {
    let leaf = relation.name.as_str().strip_prefix(outbox.table.as_str())?.strip_prefix("_b")?;
    let (bucket, _generation) = leaf.split_once("_g")?;
    let bucket = Bucket(bucket.parse().ok()?);
    (relation.schema.as_str() == outbox.schema && bucket.0 < outbox.buckets).then_some(bucket)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
