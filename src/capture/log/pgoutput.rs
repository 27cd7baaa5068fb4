//! What PostgreSQL's `pgoutput` plug-in (protocol 1) says, taken apart without copying a value.
//!
//! Promises: any input gives a message or an error; a tuple stays in the buffer that it came in; what
//! is allocated is bounded by the input's length. Must not: know a connection, or what an event is.
//! Fails: with [`DecodeError`], which says what was being read.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::capture::log::encoding::Encoding;

/// The fewest bytes that a column of a Relation takes: flags, an empty name, type, modifier.
const COLUMN_BYTES_MIN: usize = 10;

/// Why bytes are no message of `pgoutput`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message ends too early.
    #[error("the message ends inside {0}")]
    Truncated(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// Protocol 1 has no such message.
    #[error("unknown message kind {0:#04x}")]
    UnknownKind(u8),
    /// A value that the protocol does not have.
    #[error("{what} has the unknown value {value:#04x}")]
    UnknownValue {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u8,
    },
    /// A name is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A committed transaction begins.
    Begin {
        /// Where its commit record begins.
        commit_lsn: u64,
        /// When it committed, in microseconds since 2000.
        commit_micros: i64,
        /// Its xid, without the epoch.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Where its commit record begins.
        commit_lsn: u64,
        /// Where its commit record ends: what may be confirmed.
        end_lsn: u64,
    },
    /// What the rows of a table look like from here on.
    Relation(Relation),
    /// A row.
    Insert {
        /// The table's object identifier.
        relation: u32,
        /// The row's values, in the order of the Relation's columns.
        row: Tuple,
    },
    /// What `pg_logical_emit_message` wrote.
    Logical {
        /// Whether it shares the fate of its transaction.
        scope: Scope,
        /// Where it was written.
        lsn: u64,
        /// Its prefix; anybody's, so it may be no text.
        prefix: Bytes,
        /// Its content.
        content: Bytes,
    },
    /// Of no use to an outbox.
    Ignored(Ignored),
}

/// Whether a logical message is rolled back with its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It is.
    Transactional,
    /// It survives a rollback.
    Immediate,
}

/// What is counted and passed over; its content is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Rows changed.
    Update,
    /// Rows removed.
    Delete,
    /// Tables emptied.
    Truncate,
    /// Where a transaction comes from.
    Origin,
    /// What a type is called.
    Type,
}

/// A text that is known to be UTF-8, still in the message's buffer if it was UTF-8 there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Bytes);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("checked when it was read")
    }
}

/// A table as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its object identifier.
    pub id: u32,
    /// Its schema; empty is `pg_catalog`.
    pub schema: Name,
    /// Its name.
    pub name: Name,
    /// Its columns, in the order of a row's values.
    pub columns: Vec<Column>,
}

/// A column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Name,
    /// The object identifier of its type.
    pub type_oid: u32,
}

/// The values of a row, checked, in the message's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuple {
    columns: u16,
    values: Bytes,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<T> {
    /// No value.
    Null,
    /// A value that was not sent because it did not change.
    Unchanged,
    /// In the type's text form.
    Text(T),
    /// In the type's binary form.
    Binary(T),
}

impl<T> Value<T> {
    fn map<U>(self, into: impl FnOnce(T) -> U) -> Value<U> {
        match self {
            Self::Null => Value::Null,
            Self::Unchanged => Value::Unchanged,
            Self::Text(value) => Value::Text(into(value)),
            Self::Binary(value) => Value::Binary(into(value)),
        }
    }
}

impl Tuple {
    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether the row has no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The values, in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = Value<&[u8]>> {
        let mut rest: &[u8] = &self.values;
        (0..self.columns).map(move |_| next_value(&mut rest).expect("checked when it was read"))
    }

    /// Where the values lie in [`Tuple::bytes`], for whoever keeps the bytes.
    pub fn ranges(&self) -> impl Iterator<Item = Value<Range<u32>>> {
        let end = self.values.as_ptr_range().end.addr();
        let whole = self.values.len();
        self.values().map(move |value| {
            value.map(|bytes| {
                let start = whole - (end - bytes.as_ptr().addr());
                let place = |offset| u32::try_from(offset).expect("a message is below 4 GiB");
                place(start)..place(start + bytes.len())
            })
        })
    }

    /// The whole row as it came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.values
    }
}

/// Takes one message apart.
///
/// # Errors
///
/// When the bytes are not exactly one message of protocol 1.
pub fn decode(input: Bytes) -> Result<Message, DecodeError> {
    decode_in(input, &Encoding::Utf8)
}

/// The same, where names are written in another encoding.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_in(mut input: Bytes, encoding: &Encoding) -> Result<Message, DecodeError> {
    let kind = take_u8(&mut input, "the kind")?;
    let message = match kind {
        b'B' => begin(&mut input)?,
        b'C' => commit(&mut input)?,
        b'R' => Message::Relation(relation(&mut input, encoding)?),
        b'I' => insert(&mut input)?,
        b'M' => logical(&mut input)?,
        b'U' => return Ok(Message::Ignored(Ignored::Update)),
        b'D' => return Ok(Message::Ignored(Ignored::Delete)),
        b'T' => return Ok(Message::Ignored(Ignored::Truncate)),
        b'O' => return Ok(Message::Ignored(Ignored::Origin)),
        b'Y' => return Ok(Message::Ignored(Ignored::Type)),
        other => return Err(DecodeError::UnknownKind(other)),
    };
    if input.is_empty() { Ok(message) } else { Err(DecodeError::Trailing(input.len())) }
}

fn begin(input: &mut Bytes) -> Result<Message, DecodeError> {
    let commit_lsn = take_u64(input, "a Begin's position")?;
    let commit_micros = take_u64(input, "a Begin's time")?.cast_signed();
    let xid = take_u32(input, "a Begin's xid")?;
    Ok(Message::Begin { commit_lsn, commit_micros, xid })
}

fn commit(input: &mut Bytes) -> Result<Message, DecodeError> {
    take_u8(input, "a Commit's flags")?;
    let commit_lsn = take_u64(input, "a Commit's position")?;
    let end_lsn = take_u64(input, "a Commit's end")?;
    take_u64(input, "a Commit's time")?;
    Ok(Message::Commit { commit_lsn, end_lsn })
}

fn relation(input: &mut Bytes, encoding: &Encoding) -> Result<Relation, DecodeError> {
    let id = take_u32(input, "a Relation's identifier")?;
    let schema = take_name(input, encoding, "a Relation's schema")?;
    let name = take_name(input, encoding, "a Relation's name")?;
    take_u8(input, "a Relation's replica identity")?;
    let count = usize::from(take_u16(input, "a Relation's number of columns")?);
    if input.len() < count * COLUMN_BYTES_MIN {
        return Err(DecodeError::Truncated("a Relation's columns"));
    }
    let columns = (0..count).map(|_| column(input, encoding)).collect::<Result<_, _>>()?;
    Ok(Relation { id, schema, name, columns })
}

fn column(input: &mut Bytes, encoding: &Encoding) -> Result<Column, DecodeError> {
    take_u8(input, "a column's flags")?;
    let name = take_name(input, encoding, "a column's name")?;
    let type_oid = take_u32(input, "a column's type")?;
    take_u32(input, "a column's type modifier")?;
    Ok(Column { name, type_oid })
}

fn insert(input: &mut Bytes) -> Result<Message, DecodeError> {
    let relation = take_u32(input, "an Insert's relation")?;
    match take_u8(input, "an Insert's tuple")? {
        b'N' => Ok(Message::Insert { relation, row: tuple(input)? }),
        value => Err(DecodeError::UnknownValue { what: "an Insert's tuple", value }),
    }
}

/// Checks every value once, so that reading them later cannot fail.
fn tuple(input: &mut Bytes) -> Result<Tuple, DecodeError> {
    let columns = take_u16(input, "a row's number of values")?;
    let mut rest: &[u8] = input;
    for _ in 0..columns {
        next_value(&mut rest)?;
    }
    let length = input.len() - rest.len();
    Ok(Tuple { columns, values: input.split_to(length) })
}

fn next_value<'a>(rest: &mut &'a [u8]) -> Result<Value<&'a [u8]>, DecodeError> {
    match rest.try_get_u8().map_err(|_| DecodeError::Truncated("a row's values"))? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b't' => sized(rest).map(Value::Text),
        b'b' => sized(rest).map(Value::Binary),
        value => Err(DecodeError::UnknownValue { what: "a value's form", value }),
    }
}

fn sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = rest.try_get_u32().map_err(|_| DecodeError::Truncated("a value's length"))?;
    let (value, after) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(DecodeError::Truncated("a value"))?;
    *rest = after;
    Ok(value)
}

fn logical(input: &mut Bytes) -> Result<Message, DecodeError> {
    let scope = match take_u8(input, "a message's flags")? {
        0 => Scope::Immediate,
        1 => Scope::Transactional,
        value => return Err(DecodeError::UnknownValue { what: "a message's flags", value }),
    };
    let lsn = take_u64(input, "a message's position")?;
    let prefix = take_until_nul(input, "a message's prefix")?;
    let length = take_u32(input, "a message's length")?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if input.len() < length {
        return Err(DecodeError::Truncated("a message's content"));
    }
    Ok(Message::Logical { scope, lsn, prefix, content: input.split_to(length) })
}

fn take_until_nul(input: &mut Bytes, what: &'static str) -> Result<Bytes, DecodeError> {
    let end = input.iter().position(|byte| *byte == 0).ok_or(DecodeError::Truncated(what))?;
    let bytes = input.split_to(end);
    input.advance(1);
    Ok(bytes)
}

fn take_name(
    input: &mut Bytes,
    encoding: &Encoding,
    what: &'static str,
) -> Result<Name, DecodeError> {
    let bytes = take_until_nul(input, what)?;
    let recoded = match encoding.decode(&bytes).map_err(|_| DecodeError::NotUtf8(what))? {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(Bytes::from(text)),
    };
    Ok(Name(recoded.unwrap_or(bytes)))
}

fn take_u8(input: &mut Bytes, what: &'static str) -> Result<u8, DecodeError> {
    input.try_get_u8().map_err(|_| DecodeError::Truncated(what))
}

fn take_u16(input: &mut Bytes, what: &'static str) -> Result<u16, DecodeError> {
    input.try_get_u16().map_err(|_| DecodeError::Truncated(what))
}

fn take_u32(input: &mut Bytes, what: &'static str) -> Result<u32, DecodeError> {
    input.try_get_u32().map_err(|_| DecodeError::Truncated(what))
}

fn take_u64(input: &mut Bytes, what: &'static str) -> Result<u64, DecodeError> {
    input.try_get_u64().map_err(|_| DecodeError::Truncated(what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn insert_message(values: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut message = b"I\0\0\x40\x01N".to_vec();
        message.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
        for (form, value) in values {
            message.push(*form);
            if matches!(form, b't' | b'b') {
                message.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
                message.extend(value);
            }
        }
        message
    }

    fn relation_message() -> Vec<u8> {
        let mut message = b"R\0\0\x40\x01public\0outbox\0d\0\x02".to_vec();
        message.extend(b"\0seq\0\0\0\0\x14\xff\xff\xff\xff");
        message.extend(b"\0payload\0\0\0\0\x72\xff\xff\xff\xff");
        message
    }

    fn logical_message(flags: u8) -> Vec<u8> {
        let mut message = vec![b'M', flags];
        message.extend(7_u64.to_be_bytes());
        message.extend(b"postrider.tick\0\0\0\0\x02hi");
        message
    }

    #[test]
    fn a_transactions_ends_are_read() {
        let mut begin = vec![b'B'];
        begin.extend(5_u64.to_be_bytes());
        begin.extend(1_u64.to_be_bytes());
        begin.extend(9_u32.to_be_bytes());
        assert_eq!(
            decode(begin.into()),
            Ok(Message::Begin { commit_lsn: 5, commit_micros: 1, xid: 9 })
        );
        let mut commit = vec![b'C', 0];
        for number in [5_u64, 6, 1] {
            commit.extend(number.to_be_bytes());
        }
        assert_eq!(decode(commit.into()), Ok(Message::Commit { commit_lsn: 5, end_lsn: 6 }));
    }

    #[test]
    fn a_relation_names_its_columns() {
        let Ok(Message::Relation(relation)) = decode(relation_message().into()) else {
            panic!("a Relation");
        };
        assert_eq!((relation.schema.as_str(), relation.name.as_str()), ("public", "outbox"));
        let columns: Vec<_> =
            relation.columns.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
        assert_eq!(columns, [("seq", 20), ("payload", 114)]);
    }

    #[test]
    fn a_logical_message_says_whether_it_is_transactional() {
        for (flags, expected) in [(0, Scope::Immediate), (1, Scope::Transactional)] {
            let Ok(Message::Logical { scope, lsn, prefix, content }) =
                decode(logical_message(flags).into())
            else {
                panic!("a logical message");
            };
            assert_eq!((scope, lsn, &prefix[..]), (expected, 7, &b"postrider.tick"[..]));
            assert_eq!(&content[..], b"hi");
        }
        assert!(decode(logical_message(2).into()).is_err());
    }

    #[test]
    fn values_stay_in_the_buffer_that_they_came_in() {
        let buffer = Bytes::from(insert_message(&[(b't', b"abc".to_vec())]));
        let range = buffer.as_ptr_range();
        let Ok(Message::Insert { row, .. }) = decode(buffer.clone()) else { panic!("an Insert") };
        let Some(Value::Text(text)) = row.values().next() else { panic!("a text") };
        assert!(range.contains(&text.as_ptr()));
    }

    fn value() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        (proptest::sample::select(b"nutb".to_vec()), bytes)
    }

    proptest! {
        #[test]
        fn a_row_comes_back_as_written(values in proptest::collection::vec(value(), 0..20)) {
            let Ok(Message::Insert { relation, row }) = decode(insert_message(&values).into())
            else { panic!("an Insert") };
            prop_assert_eq!((relation, row.len()), (0x4001, values.len()));
            for (read, (form, written)) in row.values().zip(&values) {
                let expected = match form {
                    b'n' => Value::Null,
                    b'u' => Value::Unchanged,
                    b't' => Value::Text(&written[..]),
                    _ => Value::Binary(&written[..]),
                };
                prop_assert_eq!(read, expected);
            }
            for (read, range) in row.values().zip(row.ranges()) {
                prop_assert_eq!(read, range.map(|range| {
                    &row.bytes()[range.start as usize..range.end as usize]
                }));
            }
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(
            values in proptest::collection::vec(value(), 0..6), cut in any::<prop::sample::Index>(),
        ) {
            for whole in [insert_message(&values), relation_message(), logical_message(1)] {
                let shorter = Bytes::copy_from_slice(&whole[..cut.index(whole.len())]);
                prop_assert!(matches!(decode(shorter), Err(DecodeError::Truncated(_))));
                let longer = [&whole[..], b"x"].concat();
                prop_assert_eq!(decode(longer.into()), Err(DecodeError::Trailing(1)));
            }
        }

        #[test]
        fn garbage_never_panics(
            kind in proptest::sample::select(b"BCRIMUDTOYx".to_vec()),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let input = [&[kind][..], &rest].concat();
            if let Ok(Message::Insert { row, .. }) = decode(input.into()) {
                prop_assert_eq!(row.values().count(), row.len());
            }
        }
    }
}
