//! One load event: what its payload says, how it is written and how it is read back.
//!
//! Promises: `decode` gives back what `encode` wrote, also after PostgreSQL stored it as `jsonb`; a
//! payload that was cut, padded or altered does not decode as whole. Must not: touch the network or
//! a clock. Fails: a payload that is not of this form is [`PayloadReading::Unreadable`].
//!
//! The payload is JSON with short names, so that 100 bytes are enough:
//! `r` run, `a` aggregate, `v` version of the aggregate, `w` writer, `t` transaction of the writer,
//! `s` intended time of sending in microseconds since 1970, `d` 1 when the transaction will be rolled
//! back, `p` padding.

use serde::Deserialize;

/// What the key of every load event starts with; the aggregate's number follows.
pub(crate) const KEY_PREFIX: &str = "order-";

/// The smallest payload in which the fields always have room.
pub(crate) const SMALLEST_PAYLOAD_BYTES: u32 = 100;

/// The byte of all padding.
const PADDING: u8 = b'x';

/// Padding is compared in pieces of so many bytes.
const PADDING_PIECE: [u8; 64] = [PADDING; 64];

/// Whether the transaction of an event is meant to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It commits; the event must appear.
    Commit,
    /// It is rolled back; the event must never appear.
    RollBack,
}

/// What an event says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventMark {
    /// Tells the events of one run from those of another in the same topic.
    pub(crate) run: u32,
    /// The aggregate's number.
    pub(crate) aggregate: u32,
    /// Counts the committed events of the aggregate from 1, without a gap.
    pub(crate) version: u32,
    /// The writer; it alone writes this aggregate.
    pub(crate) writer: u16,
    /// Counts the writer's transactions from 1.
    pub(crate) transaction: u32,
    /// When the schedule wanted the event sent.
    pub(crate) intended_unix_us: u64,
    /// What will become of its transaction.
    pub(crate) intent: Intent,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadReading {
    /// A whole load event.
    Whole(EventMark),
    /// A load event whose padding was altered or cut.
    Altered(EventMark),
    /// Not a load event.
    Unreadable,
}

#[derive(Deserialize)]
struct PayloadWire<'a> {
    r: u32,
    a: u32,
    v: u32,
    w: u16,
    t: u32,
    s: u64,
    d: u8,
    #[serde(borrow)]
    p: &'a str,
}

impl EventMark {
    /// Appends the Kafka key: the aggregate's id.
    pub(crate) fn write_key(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(KEY_PREFIX.as_bytes());
        write_number(self.aggregate, key);
    }

    /// Appends the payload, `payload_bytes` long; longer only when the fields alone need more.
    pub(crate) fn write_payload(&self, payload_bytes: u32, payload: &mut Vec<u8>) {
        let begin = payload.len();
        self.write_fields(payload);
        let bare_bytes = payload.len() - begin + 2;
        let padding_bytes = (payload_bytes as usize).saturating_sub(bare_bytes);
        payload.resize(payload.len() + padding_bytes, PADDING);
        payload.extend_from_slice(b"\"}");
    }

    fn write_fields(&self, payload: &mut Vec<u8>) {
        let doomed = u32::from(self.intent == Intent::RollBack);
        let mut field = |name: &[u8], number: u64| {
            payload.extend_from_slice(name);
            write_number(number, payload);
        };
        field(FIELDS[0], u64::from(self.run));
        field(FIELDS[1], u64::from(self.aggregate));
        field(FIELDS[2], u64::from(self.version));
        field(FIELDS[3], u64::from(self.writer));
        field(FIELDS[4], u64::from(self.transaction));
        field(FIELDS[5], self.intended_unix_us);
        field(FIELDS[6], u64::from(doomed));
        payload.extend_from_slice(BEFORE_PADDING);
    }

    /// How long the padding of this event is in a payload of `payload_bytes`.
    fn padding_bytes(&self, payload_bytes: u32) -> usize {
        let mut fields = Vec::with_capacity(SMALLEST_PAYLOAD_BYTES as usize);
        self.write_fields(&mut fields);
        (payload_bytes as usize).saturating_sub(fields.len() + 2)
    }
}

/// What stands before each number of a payload, in the order in which they are written.
const FIELDS: [&[u8]; 7] =
    [b"{\"r\":", b",\"a\":", b",\"v\":", b",\"w\":", b",\"t\":", b",\"s\":", b",\"d\":"];

/// What stands before the padding.
const BEFORE_PADDING: &[u8] = b",\"p\":\"";

fn write_number(number: impl itoa::Integer, text: &mut Vec<u8>) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Reads a payload back; `payload_bytes` is the length with which the run wrote it.
pub(crate) fn decode(payload: &[u8], payload_bytes: u32) -> PayloadReading {
    // Byte for byte as it was written, which is every record of a `json` or `text` column.
    if payload.len() == payload_bytes as usize
        && let Some((mark, padding)) = read_as_written(payload)
        && is_padding(padding)
    {
        return PayloadReading::Whole(mark);
    }
    read_as_json(payload, payload_bytes)
}

/// The mark and the padding of a payload in the very form in which it was written.
fn read_as_written(payload: &[u8]) -> Option<(EventMark, &[u8])> {
    let mut numbers = [0; FIELDS.len()];
    let mut rest = payload;
    for (name, number) in FIELDS.iter().zip(&mut numbers) {
        (*number, rest) = read_number(rest.strip_prefix(*name)?)?;
    }
    let padding = rest.strip_prefix(BEFORE_PADDING)?.strip_suffix(b"\"}")?;
    let [run, aggregate, version, writer, transaction, intended_unix_us, doomed] = numbers;
    let mark = EventMark {
        run: run.try_into().ok()?,
        aggregate: aggregate.try_into().ok()?,
        version: version.try_into().ok()?,
        writer: writer.try_into().ok()?,
        transaction: transaction.try_into().ok()?,
        intended_unix_us,
        intent: if doomed == 0 { Intent::Commit } else { Intent::RollBack },
    };
    Some((mark, padding))
}

/// The number that a text begins with, and what follows it.
fn read_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Nineteen digits always fit.
    if digits == 0 || digits > 19 {
        return None;
    }
    let (number, rest) = text.split_at(digits);
    let value = number.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, rest))
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.chunks(PADDING_PIECE.len()).all(|piece| *piece == PADDING_PIECE[..piece.len()])
}

/// Reads any JSON with these fields: a payload that PostgreSQL stored as `jsonb`, or a damaged one.
fn read_as_json(payload: &[u8], payload_bytes: u32) -> PayloadReading {
    let Ok(wire) = serde_json::from_slice::<PayloadWire<'_>>(payload) else {
        return PayloadReading::Unreadable;
    };
    let mark = EventMark {
        run: wire.r,
        aggregate: wire.a,
        version: wire.v,
        writer: wire.w,
        transaction: wire.t,
        intended_unix_us: wire.s,
        intent: if wire.d == 0 { Intent::Commit } else { Intent::RollBack },
    };
    let as_written = payload.len() == payload_bytes as usize;
    // `jsonb` reorders the fields and adds spaces, so the length of the whole says nothing there.
    let padding_whole = as_written || wire.p.len() == mark.padding_bytes(payload_bytes);
    if padding_whole && is_padding(wire.p.as_bytes()) {
        PayloadReading::Whole(mark)
    } else {
        PayloadReading::Altered(mark)
    }
}

/// The aggregate's number in a record's key, if it is a key of the load generator.
pub(crate) fn aggregate_of_key(key: &[u8]) -> Option<u32> {
    match read_number(key.strip_prefix(KEY_PREFIX.as_bytes())?)? {
        (number, []) => number.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> EventMark {
        EventMark {
            run: 999_999_999,
            aggregate: 99_999,
            version: 1_234,
            writer: 3,
            transaction: 20_000,
            intended_unix_us: 1_764_000_000_000_000,
            intent: Intent::Commit,
        }
    }

    fn payload_of(mark: &EventMark, payload_bytes: u32) -> String {
        let mut payload = Vec::new();
        mark.write_payload(payload_bytes, &mut payload);
        String::from_utf8(payload).unwrap()
    }

    #[test]
    fn payload_has_the_wanted_length_and_decodes_to_its_mark() {
        for payload_bytes in [100, 200, 1_000, 10_000] {
            let payload = payload_of(&mark(), payload_bytes);
            assert_eq!(payload.len(), payload_bytes as usize);
            assert_eq!(decode(payload.as_bytes(), payload_bytes), PayloadReading::Whole(mark()));
        }
    }

    #[test]
    fn jsonb_text_decodes_to_the_same_mark() {
        let value: serde_json::Value = serde_json::from_str(&payload_of(&mark(), 200)).unwrap();
        let spaced = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(decode(spaced.as_bytes(), 200), PayloadReading::Whole(mark()));
    }

    #[test]
    fn cut_or_altered_padding_is_seen() {
        let whole = payload_of(&mark(), 200);
        let cut = whole.replacen("xx", "x", 1);
        assert_eq!(decode(cut.as_bytes(), 200), PayloadReading::Altered(mark()));
        let altered = whole.replacen('x', "y", 1);
        assert_eq!(decode(altered.as_bytes(), 200), PayloadReading::Altered(mark()));
        assert_eq!(decode(&whole.as_bytes()[..150], 200), PayloadReading::Unreadable);
    }

    #[test]
    fn both_ways_of_reading_agree() {
        for payload_bytes in [100, 163, 164, 10_000] {
            for intent in [Intent::Commit, Intent::RollBack] {
                let mark = EventMark { intent, ..mark() };
                let payload = payload_of(&mark, payload_bytes);
                let (read, padding) = read_as_written(payload.as_bytes()).expect("as written");
                assert!(is_padding(padding));
                let json = read_as_json(payload.as_bytes(), payload_bytes);
                assert_eq!((json, read), (PayloadReading::Whole(mark), mark));
            }
        }
    }

    #[test]
    fn the_fate_is_in_the_payload() {
        let doomed = EventMark { intent: Intent::RollBack, ..mark() };
        let payload = payload_of(&doomed, 200);
        assert_eq!(decode(payload.as_bytes(), 200), PayloadReading::Whole(doomed));
    }

    #[test]
    fn key_names_the_aggregate() {
        let mut key = Vec::new();
        mark().write_key(&mut key);
        assert_eq!(aggregate_of_key(&key), Some(99_999));
        assert_eq!(aggregate_of_key(b"customer-7"), None);
        assert_eq!(aggregate_of_key(b"order-x"), None);
        assert_eq!(aggregate_of_key(b"order-7x"), None);
        assert_eq!(aggregate_of_key(b"order-4294967296"), None);
    }
}
