//! What is kept of a long message of the stream while it comes.
//!
//! Promises: whatever comes, and however it is cut, what is kept is bounded by a small multiple of the limit and
//! is a message as `pgoutput` would have sent it, with shorter values; a message within the limit that may be an
//! event is kept whole; what is no event is not kept. Must not: know a connection, or gather what it drops.
//! Fails: never; what is torn stays torn, so that whoever takes the message apart finds it.
//!
//! The server sends every logical message of the database, whatever its prefix, and every row whole, each up to
//! 1 GB. Of a row of the outbox above the limit stay its small values, the names of its aggregate, and the beginnings
//! of its other values: enough to say what it is, and where it lies. An event that is a message is nowhere else, and
//! a row of an adopted table may be gone from there: what does not fit is handed on in parts.

use bytes::{BufMut, BytesMut};
use hashbrown::HashMap;

use crate::postgres::MessageSieve;

/// So much stays of a value that is not kept whole.
pub const HEAD_KEPT_BYTES: usize = 1024;
/// `w`, three places of eight bytes, the kind of the message.
const FRAME_BYTES: usize = 1 + 3 * 8 + 1;
/// The letter of a frame that holds a message.
const XLOG_DATA: u8 = b'w';
/// An Insert's relation, the mark of a new row, the number of values.
const ROW_HEAD_BYTES: usize = 4 + 1 + 2;
/// A logical message's flags and place.
const LOGICAL_HEAD_BYTES: usize = 1 + 8;
/// What is gathered of a prefix; all of ours are shorter: a name of 63 bytes, a dot and a word.
const PREFIX_BYTES_MAX: usize = 80;
const LENGTH_BYTES: usize = 4;
/// The content of an event above the limit comes in parts of this size.
const PART_BYTES: usize = 1024 * 1024;

/// How much of a column's values is kept in a row above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All, up to the limit: what comes later is compared with it.
    Whole,
    /// The beginning.
    Head,
    /// All that fits the limit beside what came before; of others the beginning, and the whole is handed on in
    /// parts.
    HandOn,
    /// The same of bytes, which count once where they come as two digits each.
    HandOnBytes,
    /// Nothing: it is no part of an event. It reads as null.
    Nothing,
}

/// What is kept of the rows of a table that are too long for a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Above the limit so much of each column, for the table has the whole; else all.
    Part(Vec<Keep>),
    /// So much of each column: a row is measured by what of it is an event.
    Adopted(Vec<Keep>),
}

/// A part of what is too long to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SievedPart {
    /// Of which of a row's values, counted from 0; 0 for a message.
    pub value: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is known of a message that was not kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversized {
    /// Its length; of a row that was handed on in parts, that of what is an event.
    pub bytes: usize,
    /// The values of a row that were handed on in parts, counted from 0.
    pub handed_on: Vec<u16>,
}

/// The sieve of one stream.
#[derive(Debug)]
pub struct LongSieve {
    limit_bytes: usize,
    /// The prefix of the messages that are events, where these are taken.
    event_prefix: Option<String>,
    relations: HashMap<u32, Rows>,
    whole_bytes: usize,
    step: SieveStep,
    /// What came of the part that is gathered.
    head: Vec<u8>,
    relation: u32,
    columns: std::vec::IntoIter<Keep>,
    /// Of the value at hand.
    keep: Keep,
    /// How many bytes of it are one of the event.
    bytes_per_byte: usize,
    values: u16,
    values_left: u16,
    /// How many bytes of the row at hand may still be kept, and how many are an event's.
    room_bytes: usize,
    event_bytes: usize,
    handed_on: Vec<u16>,
    /// The message at hand shares the fate of its transaction: others are no events.
    is_transactional: bool,
    /// The last message was above the limit, and kept in part.
    oversized: Option<usize>,
    /// Of the content of an event above the limit, what nobody has taken yet.
    spilled: SievedPart,
    /// What comes next belongs to another value than that.
    is_other_value: bool,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SieveStep {
    /// So many bytes that are read as one.
    Gather(usize, RowPart),
    /// A prefix, up to its NUL.
    Prefix,
    /// A value of which a part is kept.
    Value { keep: usize, drop: usize },
    /// The content of an event above the limit, which is handed on part by part.
    Spill(usize),
    /// The same of a row's value, of which the beginning is kept, too.
    SpillValue { head: usize, left: usize },
    /// All that follows is kept.
    KeepRest,
    /// Nothing that follows is.
    DropRest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowPart {
    Frame,
    RowHead,
    Form,
    ValueLength,
    LogicalHead,
    ContentLength,
}

impl LongSieve {
    /// One that keeps up to `limit_bytes` of an event; messages of a prefix are events where one is given.
    pub fn new(limit_bytes: usize, event_prefix: Option<String>) -> Self {
        Self {
            limit_bytes,
            event_prefix,
            relations: HashMap::new(),
            whole_bytes: 0,
            step: SieveStep::DropRest,
            head: Vec::new(),
            relation: 0,
            columns: Vec::new().into_iter(),
            keep: Keep::Head,
            bytes_per_byte: 1,
            values: 0,
            values_left: 0,
            room_bytes: 0,
            event_bytes: 0,
            handed_on: Vec::new(),
            is_transactional: false,
            oversized: None,
            spilled: SievedPart::default(),
            is_other_value: false,
        }
    }

    /// The limit.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// A table's rows are events, or are not.
    pub fn learn(&mut self, relation: u32, rows: Option<Rows>) {
        match rows {
            Some(rows) => self.relations.insert(relation, rows),
            None => self.relations.remove(&relation),
        };
    }

    /// What is missing of the message that came last, if it may be an event and was not kept whole.
    pub fn take_oversized(&mut self) -> Option<Oversized> {
        let handed_on = std::mem::take(&mut self.handed_on);
        let whole = if handed_on.is_empty() { self.oversized.take()? } else { self.event_bytes };
        Some(Oversized { bytes: whole, handed_on })
    }

    /// What has gathered of the content of an event above the limit.
    pub fn take_part(&mut self) -> SievedPart {
        self.is_other_value = false;
        let value = self.value();
        std::mem::replace(&mut self.spilled, SievedPart { value, bytes: Vec::new() })
    }

    /// The table whose row is at hand; none where it is something else.
    pub fn relation(&self) -> Option<u32> {
        Some(self.relation).filter(|relation| *relation != 0)
    }

    fn is_full(&self) -> bool {
        self.spilled.bytes.len() >= PART_BYTES || self.is_other_value
    }

    /// The number of the value at hand.
    fn value(&self) -> u16 {
        self.values.saturating_sub(1)
    }

    fn is_above_limit(&self) -> bool {
        self.whole_bytes > self.limit_bytes
    }

    /// Reads a part that is complete in `head`.
    fn read(&mut self, part: RowPart, kept: &mut BytesMut) -> SieveStep {
        let head = std::mem::take(&mut self.head);
        let step = match part {
            RowPart::Frame => self.read_frame(&head, kept),
            RowPart::RowHead => self.read_row_head(&head, kept),
            RowPart::Form => self.read_form(head[0], kept),
            RowPart::ValueLength => self.read_value_length(&head, kept),
            RowPart::LogicalHead => {
                kept.put_slice(&head);
                self.is_transactional = head[0] != 0;
                SieveStep::Prefix
            }
            RowPart::ContentLength if self.is_above_limit() => {
                kept.put_u32(0);
                self.oversized = Some(self.whole_bytes);
                SieveStep::Spill(
                    u32::from_be_bytes(head[..].try_into().expect("it is complete")) as usize
                )
            }
            RowPart::ContentLength => {
                kept.put_slice(&head);
                SieveStep::KeepRest
            }
        };
        self.head = head;
        self.head.clear();
        step
    }

    fn read_frame(&mut self, head: &[u8], kept: &mut BytesMut) -> SieveStep {
        kept.put_slice(head);
        match (head[0], head[FRAME_BYTES - 1]) {
            (XLOG_DATA, b'I') => SieveStep::Gather(ROW_HEAD_BYTES, RowPart::RowHead),
            (XLOG_DATA, b'M') => SieveStep::Gather(LOGICAL_HEAD_BYTES, RowPart::LogicalHead),
            (XLOG_DATA, b'R') if !self.is_above_limit() => SieveStep::KeepRest,
            _ => SieveStep::DropRest,
        }
    }

    fn read_row_head(&mut self, head: &[u8], kept: &mut BytesMut) -> SieveStep {
        let [a, b, c, d, mark, high, low] = *head else { unreachable!("so many were gathered") };
        let relation = u32::from_be_bytes([a, b, c, d]);
        let Some(rows) = self.relations.get(&relation) else {
            kept.put_u32(relation);
            kept.put_slice(&[mark, 0, 0]);
            return SieveStep::DropRest;
        };
        kept.put_slice(head);
        let columns = match rows {
            Rows::Part(_) if !self.is_above_limit() => return SieveStep::KeepRest,
            Rows::Part(columns) => {
                self.oversized = Some(self.whole_bytes);
                columns
            }
            Rows::Adopted(columns) => columns,
        };
        self.columns = columns.clone().into_iter();
        self.relation = relation;
        self.values_left = u16::from_be_bytes([high, low]);
        self.next_value()
    }

    fn next_value(&mut self) -> SieveStep {
        match self.values_left.checked_sub(1) {
            Some(left) => {
                self.values_left = left;
                self.values += 1;
                SieveStep::Gather(1, RowPart::Form)
            }
            None => SieveStep::DropRest,
        }
    }

    fn read_form(&mut self, form: u8, kept: &mut BytesMut) -> SieveStep {
        self.keep = self.columns.next().unwrap_or(Keep::Head);
        let is_in_digits = form == b't' && self.keep == Keep::HandOnBytes;
        self.bytes_per_byte = if is_in_digits { 2 } else { 1 };
        match form {
            b't' | b'b' => {
                kept.put_u8(if self.keep == Keep::Nothing { b'n' } else { form });
                SieveStep::Gather(LENGTH_BYTES, RowPart::ValueLength)
            }
            b'n' | b'u' => {
                kept.put_u8(form);
                self.next_value()
            }
            _ => {
                kept.put_u8(form);
                SieveStep::DropRest
            }
        }
    }

    fn read_value_length(&mut self, head: &[u8], kept: &mut BytesMut) -> SieveStep {
        let length = u32::from_be_bytes(head.try_into().expect("so many were gathered")) as usize;
        let most = match self.keep {
            Keep::Nothing => return SieveStep::Value { keep: 0, drop: length },
            Keep::Whole => self.limit_bytes,
            Keep::Head => HEAD_KEPT_BYTES,
            Keep::HandOn | Keep::HandOnBytes => {
                return self.read_adopted_length(length, kept);
            }
        };
        let keep = if length <= most { length } else { HEAD_KEPT_BYTES.min(length) };
        kept.put_u32(u32::try_from(keep).expect("no longer than it was"));
        SieveStep::Value { keep, drop: length - keep }
    }

    fn read_adopted_length(&mut self, length: usize, kept: &mut BytesMut) -> SieveStep {
        let event_bytes = length / self.bytes_per_byte;
        let fits = event_bytes <= self.room_bytes;
        let keep = if fits { length } else { HEAD_KEPT_BYTES.min(length) };
        kept.put_u32(u32::try_from(keep).expect("no longer than it was"));
        self.event_bytes = self.event_bytes.saturating_add(event_bytes);
        if fits {
            self.room_bytes -= event_bytes;
            return SieveStep::Value { keep, drop: 0 };
        }
        self.begin_to_hand_on();
        SieveStep::SpillValue { head: keep, left: length }
    }

    fn begin_to_hand_on(&mut self) {
        self.handed_on.push(self.value());
        self.is_other_value = !self.spilled.bytes.is_empty();
        if !self.is_other_value {
            self.spilled.value = self.value();
        }
    }

    /// Up to its NUL, or until it is none of ours.
    fn pass_prefix(&mut self, bytes: &[u8], kept: &mut BytesMut) -> (usize, SieveStep) {
        let room = PREFIX_BYTES_MAX - self.head.len();
        let end = bytes.iter().take(room).position(|byte| *byte == 0);
        let taken = end.map_or(bytes.len().min(room), |end| end + 1);
        self.head.extend_from_slice(&bytes[..taken]);
        if end.is_none() && self.head.len() < PREFIX_BYTES_MAX {
            return (taken, SieveStep::Prefix);
        }
        let prefix = std::mem::take(&mut self.head);
        let prefix = prefix.strip_suffix(&[0]).unwrap_or(&prefix);
        kept.put_slice(prefix);
        kept.put_u8(0);
        let ours = self.event_prefix.as_ref().map(String::as_bytes);
        if end.is_some() && ours == Some(prefix) && self.is_transactional {
            return (taken, SieveStep::Gather(LENGTH_BYTES, RowPart::ContentLength));
        }
        // Without its content.
        kept.put_u32(0);
        (taken, SieveStep::DropRest)
    }

    /// Puts aside what there is room for; says how many bytes that were.
    fn spill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(PART_BYTES - self.spilled.bytes.len());
        self.spilled.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Takes some of the bytes, at least one; says how many, and what follows.
    fn pass_some(&mut self, bytes: &[u8], kept: &mut BytesMut) -> (usize, SieveStep) {
        match self.step {
            SieveStep::Gather(wanted, part) => {
                let taken = bytes.len().min(wanted - self.head.len());
                self.head.extend_from_slice(&bytes[..taken]);
                let is_whole = self.head.len() == wanted;
                (taken, if is_whole { self.read(part, kept) } else { self.step })
            }
            SieveStep::Prefix => self.pass_prefix(bytes, kept),
            SieveStep::Value { keep: 0, drop } => {
                let taken = bytes.len().min(drop);
                (taken, SieveStep::Value { keep: 0, drop: drop - taken })
            }
            SieveStep::Value { keep, drop } => {
                let taken = bytes.len().min(keep);
                kept.put_slice(&bytes[..taken]);
                (taken, SieveStep::Value { keep: keep - taken, drop })
            }
            SieveStep::Spill(left) => {
                let taken = self.spill(&bytes[..bytes.len().min(left)]);
                (taken, SieveStep::Spill(left - taken))
            }
            SieveStep::SpillValue { head, left } => {
                let taken = self.spill(&bytes[..bytes.len().min(left)]);
                kept.put_slice(&bytes[..taken.min(head)]);
                (taken, SieveStep::SpillValue { head: head - taken.min(head), left: left - taken })
            }
            SieveStep::KeepRest => {
                kept.put_slice(bytes);
                (bytes.len(), SieveStep::KeepRest)
            }
            SieveStep::DropRest => (bytes.len(), SieveStep::DropRest),
        }
    }
}

impl MessageSieve for LongSieve {
    fn begin(&mut self, whole_bytes: usize) {
        self.whole_bytes = whole_bytes;
        self.oversized = None;
        self.relation = 0;
        (self.values, self.event_bytes, self.room_bytes) = (0, 0, self.limit_bytes);
        self.handed_on.clear();
        self.spilled = SievedPart::default();
        self.is_other_value = false;
        self.head.clear();
        self.step = SieveStep::Gather(FRAME_BYTES, RowPart::Frame);
    }

    fn pass(&mut self, bytes: &[u8], kept: &mut BytesMut) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_full() {
            let (taken, step) = self.pass_some(rest, kept);
            rest = &rest[taken..];
            self.step = match step {
                SieveStep::Value { keep: 0, drop: 0 } | SieveStep::SpillValue { left: 0, .. } => {
                    self.next_value()
                }
                SieveStep::Spill(0) => SieveStep::DropRest,
                step => step,
            };
        }
        bytes.len() - rest.len()
    }

    /// What was gathered and is not complete is a torn message; so is a value that is shorter than it claims.
    fn end(&mut self, kept: &mut BytesMut) {
        match self.step {
            SieveStep::Gather(..) | SieveStep::Prefix => kept.put_slice(&self.head),
            SieveStep::Value { .. } | SieveStep::Spill(_) | SieveStep::SpillValue { .. } => {
                kept.truncate(kept.len().saturating_sub(1))
            }
            SieveStep::KeepRest | SieveStep::DropRest => {}
        }
    }
}

#[cfg(test)]
#[path = "sieve_tests.rs"]
mod tests;
