//! A row of the outbox in the stream, as an event.
//!
//! Promises: the values stay in the receive buffer, where they are UTF-8; a row that is no event as it is comes
//! all the same, with the reason and what can be read of it. Must not: know a connection, or what becomes of
//! an event. Fails: with [`ErrorKind::Schema`] when the table is not the outbox any more.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::capture::log::encoding::Encoding;
use crate::capture::log::flawed::{Flawed, ReadRow};
use crate::capture::log::pgoutput::{Name, Relation, Tuple, Value};
use crate::capture::log::printed;
use crate::capture::log::printed::{
    BYTEA_OID, INT8_OID, JSON_OID, JSONB_OID, TEXT_OID, TIMESTAMPTZ_OID, UUID_OID, XID8_OID,
};
use crate::capture::log::sieve::{HEAD_KEPT_BYTES, Keep};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, Event, EventId, OwnedEvent};
use crate::order::holds::{Reason, Refusal};
use crate::outbox::Cuts;
use crate::postgres::Timestamp;

/// The first byte of a `jsonb` value in binary form.
const JSONB_VERSION_BYTES: usize = 1;

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

/// The types that a column may have; none where it is a domain, which has a number of its own in each database.
fn types_of(place: usize) -> Option<&'static [u32]> {
    Some(match place {
        SEQ => &[INT8_OID],
        ID => &[UUID_OID],
        PAYLOAD => &[JSON_OID, JSONB_OID, TEXT_OID, BYTEA_OID],
        HEADERS => &[JSONB_OID],
        CREATED_AT => &[TIMESTAMPTZ_OID],
        TXID => return None,
        _ => &[TEXT_OID],
    })
}

/// A partition of the outbox as the stream describes it.
#[derive(Debug)]
pub struct PartitionRelation {
    bucket: Bucket,
    /// Which of [`COLUMNS`] stands at each place of a row.
    places: Vec<Option<usize>>,
    payload: Payload,
    /// How the values at each place of a row are printed: the types that the columns have, or are domains of.
    types: Vec<u32>,
}

/// What the column `payload` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Bytes,
    Text,
    Jsonb,
}

impl PartitionRelation {
    /// Finds the columns.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when one is not there, or has another type.
    pub fn new(bucket: Bucket, relation: &Relation) -> Result<Self> {
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
        let retyped = relation.columns.iter().zip(&places).find(|(column, place)| {
            place.is_some_and(|place| {
                !types_of(place).is_none_or(|types| types.contains(&column.type_oid))
            })
        });
        if let Some((column, _)) = retyped {
            let name = column.name.as_str();
            let cause =
                format!("the stream brings another type in the column {name} of the outbox");
            return Err(Error::new(ErrorKind::Schema, cause)
                .with_remedy("restore the columns as `postrider migrate print` shows them"));
        }
        let payload = places.iter().position(|place| *place == Some(PAYLOAD));
        let payload = match payload.map(|index| relation.columns[index].type_oid) {
            Some(JSONB_OID) => Payload::Jsonb,
            Some(BYTEA_OID) => Payload::Bytes,
            Some(_) | None => Payload::Text,
        };
        let types = relation.columns.iter().zip(&places);
        let types = types.map(|(column, place)| match *place {
            Some(TXID) => XID8_OID,
            Some(SEQ) => INT8_OID,
            Some(ID) => UUID_OID,
            Some(HEADERS) => JSONB_OID,
            Some(CREATED_AT) => TIMESTAMPTZ_OID,
            Some(_) | None => column.type_oid,
        });
        Ok(Self { bucket, payload, types: types.collect(), places })
    }

    /// A row in text form as it would be in binary form.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when a value is not printed as its type is.
    pub fn in_binary(&self, row: &Tuple) -> Result<Tuple> {
        printed::in_binary(row, &self.types)
    }

    /// What is kept of its columns where a row is too large to be kept whole: whatever names the aggregate
    /// tells which later events wait behind it.
    pub fn keeps(&self) -> Vec<Keep> {
        let keep = |place: &Option<usize>| match *place {
            Some(KIND | PAYLOAD | HEADERS) | None => Keep::Head,
            Some(_) => Keep::Whole,
        };
        self.places.iter().map(keep).collect()
    }

    /// A row that came whole.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when a value is missing or of another form.
    pub fn read(&self, row: &Tuple, encoding: &Encoding) -> Result<ReadRow<LoggedRow>> {
        let mut row = self.locate(row)?;
        if *encoding == Encoding::Utf8 || row.texts(self.payload).all(|(_, text)| text.is_ascii()) {
            return Ok(ReadRow::Whole(row));
        }
        Ok(match row.recode(self.payload, encoding) {
            Ok(()) => ReadRow::Whole(row),
            Err(detail) => ReadRow::Flawed(Box::new(row.into_unreadable(encoding, detail))),
        })
    }

    /// A row of which a part came: the table has the whole.
    ///
    /// # Errors
    /// As [`PartitionRelation::read`].
    pub fn read_part(
        &self,
        row: &Tuple,
        encoding: &Encoding,
        refusal: Refusal,
    ) -> Result<ReadRow<LoggedRow>> {
        let row = self.locate(row)?;
        let (bucket, txid) = (row.bucket, row.txid);
        // A value of just this length may be whole: then the table has the same.
        let has = |range: &Range<u32>, bytes| row.slice(range).len() == bytes;
        let is_cut = |range: &Range<u32>| has(range, HEAD_KEPT_BYTES);
        let cuts = Cuts {
            aggregate_type: is_cut(&row.aggregate_type),
            aggregate_id: is_cut(&row.aggregate_id),
            kind: is_cut(&row.kind),
            headers: row.headers.as_ref().is_some_and(|range| {
                is_cut(range) || has(range, HEAD_KEPT_BYTES - JSONB_VERSION_BYTES)
            }),
        };
        let event = row.into_owned(|bytes| match encoding {
            Encoding::Utf8 | Encoding::Unknown => encoding.escape(without_torn_end(bytes)),
            Encoding::Bytes(_) | Encoding::Characters(_) => encoding.escape(bytes),
        });
        let flawed = Flawed::of_row(event, refusal, bucket, txid).in_table(bucket, cuts);
        Ok(ReadRow::Flawed(Box::new(flawed)))
    }

    /// Finds the columns in a row.
    fn locate(&self, row: &Tuple) -> Result<LoggedRow> {
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
        let payload_start = if self.payload == Payload::Jsonb { JSONB_VERSION_BYTES } else { 0 };
        Ok(LoggedRow {
            bucket: self.bucket,
            txid: number(TXID).ok_or_else(torn)?.cast_unsigned(),
            seq: number(SEQ).ok_or_else(torn)?,
            id: EventId(fixed(ID).and_then(|id| id.try_into().ok()).ok_or_else(torn)?),
            created_at: Timestamp::from_postgres(number(CREATED_AT).ok_or_else(torn)?),
            aggregate_type: found[AGGREGATE_TYPE].clone().ok_or_else(torn)?,
            aggregate_id: found[AGGREGATE_ID].clone().ok_or_else(torn)?,
            kind: found[KIND].clone().ok_or_else(torn)?,
            payload: skip(payload_start, found[PAYLOAD].clone()),
            headers: skip(JSONB_VERSION_BYTES, found[HEADERS].clone()),
            bytes: bytes.clone(),
        })
    }
}

/// Without the part of a character at its end, where a text was cut.
fn without_torn_end(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(cause) if cause.error_len().is_none() => &bytes[..cause.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

/// A row of the outbox in the receive buffer.
#[derive(Debug)]
pub struct LoggedRow {
    /// The bucket that it lies in.
    pub bucket: Bucket,
    /// The transaction that it says has written it. Anybody may say anything.
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
    /// Its place in the order of writing.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// The bytes that it keeps in memory.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the event's `aggregateid`.
    pub fn aggregate_id(&self) -> &[u8] {
        self.slice(&self.aggregate_id)
    }

    /// As an event.
    pub fn event(&self) -> Event<'_> {
        Event {
            seq: self.seq,
            id: self.id,
            aggregate_type: self.text(&self.aggregate_type),
            aggregate_id: self.text(&self.aggregate_id),
            kind: self.text(&self.kind),
            payload: self.payload.as_ref().map(|range| self.slice(range)),
            headers: self.headers.as_ref().map(|range| self.text(range)),
            created_at_micros: self.created_at.0,
        }
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn text(&self, range: &Range<u32>) -> &str {
        std::str::from_utf8(self.slice(range)).expect("the server or we have made it UTF-8")
    }

    /// Its texts, each with the name of its column.
    fn texts(&self, payload: Payload) -> impl Iterator<Item = (&'static str, &[u8])> {
        let payload = self.payload.as_ref().filter(|_| payload != Payload::Bytes);
        [
            (AGGREGATE_TYPE, Some(&self.aggregate_type)),
            (AGGREGATE_ID, Some(&self.aggregate_id)),
            (KIND, Some(&self.kind)),
            (HEADERS, self.headers.as_ref()),
            (PAYLOAD, payload),
        ]
        .into_iter()
        .filter_map(|(column, range)| Some((COLUMNS[column], self.slice(range?))))
    }

    /// Puts its texts into UTF-8; where they are something else, in a buffer of their own.
    fn recode(&mut self, payload: Payload, encoding: &Encoding) -> std::result::Result<(), String> {
        let decode = |(column, bytes)| {
            let text = encoding.decode(bytes);
            text.map_err(|cause| format!("{column} cannot be read: {cause}"))
        };
        let texts: Vec<Cow<'_, str>> =
            self.texts(payload).map(decode).collect::<std::result::Result<_, String>>()?;
        if texts.iter().all(|text| matches!(text, Cow::Borrowed(_))) {
            return Ok(());
        }
        let bytes = if payload == Payload::Bytes { self.payload.as_ref() } else { None };
        let bytes = bytes.map(|range| self.slice(range)).unwrap_or_default();
        let mut recoded = bytes.to_vec();
        let mut ranges = texts.into_iter().map(|text| {
            let start = place(recoded.len());
            recoded.extend_from_slice(text.as_bytes());
            start..place(recoded.len())
        });
        let mut next = || ranges.next().expect("each text was decoded");
        let names = [next(), next(), next()];
        let headers = self.headers.is_some().then(&mut next);
        let text = (self.payload.is_some() && payload != Payload::Bytes).then(&mut next);
        let end = place(bytes.len());
        drop(ranges);
        self.payload = self.payload.take().map(|_| text.unwrap_or(0..end));
        self.headers = headers;
        [self.aggregate_type, self.aggregate_id, self.kind] = names;
        self.bytes = recoded.into();
        Ok(())
    }

    fn into_owned(self, text: impl Fn(&[u8]) -> String) -> OwnedEvent {
        OwnedEvent {
            seq: self.seq,
            id: self.id,
            aggregate_type: text(self.slice(&self.aggregate_type)),
            aggregate_id: text(self.slice(&self.aggregate_id)),
            kind: text(self.slice(&self.kind)),
            payload: self.payload.as_ref().map(|range| self.slice(range).to_vec()),
            headers: self.headers.as_ref().map(|range| text(self.slice(range))),
            created_at_micros: self.created_at.0,
        }
    }

    fn into_unreadable(self, encoding: &Encoding, detail: String) -> Flawed {
        let (bucket, txid) = (self.bucket, self.txid);
        let refusal = Refusal { reason: Reason::Unreadable, detail, topic: None };
        Flawed::of_row(self.into_owned(|bytes| encoding.escape(bytes)), refusal, bucket, txid)
    }
}

fn place(offset: usize) -> u32 {
    u32::try_from(offset).expect("a row and its texts once more are below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::log::pgoutput;
    use crate::capture::log::pgoutput::Message;

    /// The outbox's columns with their types; that of `txid` is a domain.
    const OUTBOX: [(&str, u32); 9] = [
        ("txid", 16_384),
        ("seq", 20),
        ("id", 2950),
        ("aggregatetype", 25),
        ("aggregateid", 25),
        ("type", 25),
        ("payload", 114),
        ("headers", 3802),
        ("created_at", 1184),
    ];

    fn learn(columns: &[(&str, u32)]) -> Result<PartitionRelation> {
        let mut message = b"R\0\0\x40\x01public\0outbox_b00_g0\0d".to_vec();
        message.extend((columns.len() as u16).to_be_bytes());
        for (name, oid) in columns {
            message.push(0);
            message.extend(name.as_bytes());
            message.push(0);
            message.extend(oid.to_be_bytes());
            message.extend([0xff; 4]);
        }
        match pgoutput::decode(message.into()) {
            Ok(Message::Relation(relation)) => PartitionRelation::new(Bucket(0), &relation),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_column_with_another_type_is_not_read_as_if_it_had_its_own() {
        for payload in [114, 3802, 25, 17] {
            let mut columns = OUTBOX;
            columns[PAYLOAD].1 = payload;
            learn(&columns).expect("a payload may be any of four types");
        }
        for (place, other) in
            [(SEQ, 23), (KIND, 17), (PAYLOAD, 23), (HEADERS, 25), (CREATED_AT, 1114)]
        {
            let mut columns = OUTBOX;
            columns[place].1 = other;
            let error = learn(&columns).expect_err("it has another type");
            assert_eq!(error.kind(), ErrorKind::Schema);
            assert!(error.message().contains(columns[place].0), "{error}");
        }
        assert_eq!(learn(&OUTBOX[..8]).expect_err("one is missing").kind(), ErrorKind::Schema);
    }
}
