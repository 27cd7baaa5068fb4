//! What the inbox has to know of a record: the aggregate, and the event's place in it.
//!
//! Promises: everything is lent; a number is never taken from what is none. Must not: know a Kafka client. Fails: with
//! [`RecordFault`], for records that postrider has not written.

use std::str::FromStr as _;

use thiserror::Error;
use uuid::Uuid;

pub use crate::record::encode::REPLAY_HEADER;
use crate::record::encode::{AGGREGATE_TYPE_HEADER, ID_HEADER, POSITION_HEADER, SEQ_HEADER};

/// A position has so many digits at most.
const POSITION_DIGITS: usize = 28;

/// Why a record is none that the inbox knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// It has no key.
    #[error("the record has no key; postrider's have the aggregateid there")]
    NoKey,
    /// A part of it is no text.
    #[error("the record's {0} is no UTF-8 text")]
    NotText(&'static str),
    /// A header is no whole number.
    #[error(
        "the header {name} is {text:?}, which is no such number; does the relay run with --add-headers?"
    )]
    NoNumber {
        /// Which header.
        name: &'static str,
        /// What it says.
        text: String,
    },
    /// Nothing tells the event from others.
    #[error("the record has no header seq, position or id")]
    Nameless,
}

/// A record as the inbox knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRecord<'a> {
    /// The kind of aggregate: the header `aggregatetype`, else the topic.
    pub aggregate_type: &'a str,
    /// The aggregate: the key.
    pub aggregate_id: &'a str,
    /// The header `seq`, if there is one.
    pub seq: Option<i64>,
    /// The header `position`, if there is one: up to 28 digits.
    pub position: Option<&'a str>,
    /// The header `id`, if it is one.
    pub id: Option<Uuid>,
    /// Whether somebody asked for it to be sent once more.
    pub replay: Replay,
}

/// Whether a record is sent once more because somebody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It was asked for.
    Asked,
    /// It was not.
    No,
}

impl<'a> InboxRecord<'a> {
    /// Of the parts that every Kafka client gives.
    ///
    /// # Errors
    /// [`RecordFault`] for a record that postrider has not written, or not with these headers.
    pub fn of(
        topic: &'a str,
        key: Option<&'a [u8]>,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, RecordFault> {
        let aggregate_id = text("key", key.ok_or(RecordFault::NoKey)?)?;
        let (seq, position, id, replay) = (None, None, None, Replay::No);
        let mut record = Self { aggregate_type: topic, aggregate_id, seq, position, id, replay };
        for (name, value) in headers {
            let Some(value) = value else { continue };
            match name {
                AGGREGATE_TYPE_HEADER => {
                    record.aggregate_type = text(AGGREGATE_TYPE_HEADER, value)?
                }
                SEQ_HEADER => record.seq = Some(seq_of(text(SEQ_HEADER, value)?)?),
                POSITION_HEADER => {
                    record.position = Some(position_of(text(POSITION_HEADER, value)?)?)
                }
                ID_HEADER => record.id = Uuid::try_parse_ascii(value).ok(),
                REPLAY_HEADER => record.replay = Replay::Asked,
                _ => {}
            }
        }
        match record {
            Self { seq: None, position: None, id: None, .. } => Err(RecordFault::Nameless),
            _ => Ok(record),
        }
    }

    /// The same, known by its id alone: where writers keep no order and the table is polled, a `seq` may go back.
    ///
    /// # Errors
    /// [`RecordFault::Nameless`] for a record without an id.
    pub fn by_id(self) -> Result<Self, RecordFault> {
        match self.id {
            Some(_) => Ok(Self { seq: None, position: None, ..self }),
            None => Err(RecordFault::Nameless),
        }
    }
}

fn text<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, RecordFault> {
    str::from_utf8(bytes).map_err(|_| RecordFault::NotText(what))
}

fn seq_of(text: &str) -> Result<i64, RecordFault> {
    i64::from_str(text)
        .map_err(|_| RecordFault::NoNumber { name: SEQ_HEADER, text: text.to_owned() })
}

fn position_of(text: &str) -> Result<&str, RecordFault> {
    let is_number = !text.is_empty()
        && text.len() <= POSITION_DIGITS
        && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => Ok(text),
        false => Err(RecordFault::NoNumber { name: POSITION_HEADER, text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

    const ID: &[u8] = b"018f4e6a-5b1c-7def-8a00-0123456789ab";

    fn of<'a>(key: Option<&'a [u8]>, headers: Headers<'a>) -> Result<InboxRecord<'a>, RecordFault> {
        InboxRecord::of("outbox.event.order", key, headers.iter().copied())
    }

    #[test]
    fn a_record_is_read_as_far_as_the_relay_has_written_it() {
        let headers: Headers<'_> = &[
            ("id", Some(ID)),
            ("type", Some(b"Placed")),
            ("seq", Some(b"-7")),
            ("position", Some(b"9903520314283042199192993791")),
            ("aggregatetype", Some(b"order")),
            ("postrider.replay", Some(b"3")),
            ("other", None),
        ];
        let record = of(Some(b"4711"), headers).unwrap();
        assert_eq!((record.aggregate_type, record.aggregate_id), ("order", "4711"));
        assert_eq!((record.seq, record.position.map(str::len)), (Some(-7), Some(28)));
        assert_eq!((record.id.is_some(), record.replay), (true, Replay::Asked));
        let by_id = record.by_id().unwrap();
        assert_eq!((by_id.seq, by_id.position, by_id.id), (None, None, record.id));
        let plain = of(Some(b""), &headers[..2]).unwrap();
        assert_eq!((plain.aggregate_type, plain.replay), ("outbox.event.order", Replay::No));
    }

    #[test]
    fn what_postrider_has_not_written_is_refused() {
        let long = [b'1'; 29];
        for (key, name, value, words) in [
            (None, "seq", &b"1"[..], "no key"),
            (Some(&b"\xff"[..]), "seq", b"1", "key is no UTF-8"),
            (Some(b"a"), "seq", b"1.5", "header seq is \"1.5\""),
            (Some(b"a"), "seq", b"9223372036854775808", "no such number"),
            (Some(b"a"), "seq", b"\xff", "seq is no UTF-8"),
            (Some(b"a"), "position", b"-1", "header position"),
            (Some(b"a"), "position", b"", "header position"),
            (Some(b"a"), "position", &long, "no such number"),
            (Some(b"a"), "aggregatetype", b"\xff", "aggregatetype is no UTF-8"),
            (Some(b"a"), "id", b"4711", "no header seq, position or id"),
        ] {
            let fault = of(key, &[(name, Some(value))]).unwrap_err().to_string();
            assert!(fault.contains(words), "{words} in {fault}");
        }
        let nameless = of(Some(b"a"), &[("seq", Some(b"1"))]).unwrap().by_id();
        assert_eq!(nameless, Err(RecordFault::Nameless));
    }
}
