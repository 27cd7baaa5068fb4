//! One load event: what its payload says, how it is written and how it is read back.
//!
//! Promises: `decode` gives back what `encode` wrote, also after PostgreSQL stored it as `jsonb`; a
//! payload that was cut, padded or altered does not decode as whole. Must not: touch the network or
//! a clock. Fails: a payload that is not of this form is [`Reading::Unreadable`].
//!
//! The payload is JSON with short names, so that 100 bytes are enough:
//! `r` run, `a` aggregate, `v` version of the aggregate, `w` writer, `t` transaction of the writer,
//! `s` intended time of sending in microseconds since 1970, `d` 1 when the transaction will be rolled
//! back, `p` padding.

use std::fmt::Write;

use serde::Deserialize;

/// What the key of every load event starts with; the aggregate's number follows.
pub(crate) const KEY_PREFIX: &str = "order-";

/// The smallest payload in which the fields always have room.
pub(crate) const SMALLEST_PAYLOAD_BYTES: u32 = 100;

/// What padding is cut from: 64 bytes.
const PADDING: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Whether the transaction of an event is meant to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It commits; the event must appear.
    Commit,
    /// It is rolled back; the event must never appear.
    RollBack,
}

/// What an event says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
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
    pub(crate) fate: Fate,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A whole load event.
    Whole(Mark),
    /// A load event whose padding was altered or cut.
    Altered(Mark),
    /// Not a load event.
    Unreadable,
}

#[derive(Deserialize)]
struct Wire<'a> {
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

impl Mark {
    /// The Kafka key: the aggregate's id.
    pub(crate) fn write_key(&self, key: &mut String) {
        key.clear();
        write!(key, "{KEY_PREFIX}{}", self.aggregate).expect("a String takes every write");
    }

    /// The payload, `payload_bytes` long; longer only when the fields alone need more.
    pub(crate) fn write_payload(&self, payload_bytes: u32, payload: &mut String) {
        payload.clear();
        self.write_fields(payload);
        let bare_bytes = payload.len() + 2;
        let mut left = (payload_bytes as usize).saturating_sub(bare_bytes);
        while left > 0 {
            let part = left.min(PADDING.len());
            payload.push_str(&PADDING[..part]);
            left -= part;
        }
        payload.push_str("\"}");
    }

    fn write_fields(&self, payload: &mut String) {
        let doomed = u8::from(self.fate == Fate::RollBack);
        write!(
            payload,
            r#"{{"r":{},"a":{},"v":{},"w":{},"t":{},"s":{},"d":{doomed},"p":""#,
            self.run,
            self.aggregate,
            self.version,
            self.writer,
            self.transaction,
            self.intended_unix_us,
        )
        .expect("a String takes every write");
    }

    /// How long the padding of this event is in a payload of `payload_bytes`.
    fn padding_bytes(&self, payload_bytes: u32) -> usize {
        let mut fields = String::with_capacity(SMALLEST_PAYLOAD_BYTES as usize);
        self.write_fields(&mut fields);
        (payload_bytes as usize).saturating_sub(fields.len() + 2)
    }
}

/// Reads a payload back; `payload_bytes` is the length with which the run wrote it.
pub(crate) fn decode(payload: &[u8], payload_bytes: u32) -> Reading {
    let Ok(wire) = serde_json::from_slice::<Wire<'_>>(payload) else {
        return Reading::Unreadable;
    };
    let mark = Mark {
        run: wire.r,
        aggregate: wire.a,
        version: wire.v,
        writer: wire.w,
        transaction: wire.t,
        intended_unix_us: wire.s,
        fate: if wire.d == 0 { Fate::Commit } else { Fate::RollBack },
    };
    let as_written = payload.len() == payload_bytes as usize;
    // `jsonb` reorders the fields and adds spaces, so the length of the whole says nothing there.
    let padding_whole = as_written || wire.p.len() == mark.padding_bytes(payload_bytes);
    if padding_whole && wire.p.bytes().all(|byte| byte == b'x') {
        Reading::Whole(mark)
    } else {
        Reading::Altered(mark)
    }
}

/// The aggregate's number in a record's key, if it is a key of the load generator.
pub(crate) fn aggregate_of_key(key: &[u8]) -> Option<u32> {
    let digits = key.strip_prefix(KEY_PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            run: 999_999_999,
            aggregate: 99_999,
            version: 1_234,
            writer: 3,
            transaction: 20_000,
            intended_unix_us: 1_764_000_000_000_000,
            fate: Fate::Commit,
        }
    }

    fn payload_of(mark: &Mark, payload_bytes: u32) -> String {
        let mut payload = String::new();
        mark.write_payload(payload_bytes, &mut payload);
        payload
    }

    #[test]
    fn payload_has_the_wanted_length_and_decodes_to_its_mark() {
        for payload_bytes in [100, 200, 1_000, 10_000] {
            let payload = payload_of(&mark(), payload_bytes);
            assert_eq!(payload.len(), payload_bytes as usize);
            assert_eq!(decode(payload.as_bytes(), payload_bytes), Reading::Whole(mark()));
        }
    }

    #[test]
    fn jsonb_text_decodes_to_the_same_mark() {
        let value: serde_json::Value = serde_json::from_str(&payload_of(&mark(), 200)).unwrap();
        let spaced = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(decode(spaced.as_bytes(), 200), Reading::Whole(mark()));
    }

    #[test]
    fn cut_or_altered_padding_is_seen() {
        let whole = payload_of(&mark(), 200);
        let cut = whole.replacen("xx", "x", 1);
        assert_eq!(decode(cut.as_bytes(), 200), Reading::Altered(mark()));
        let altered = whole.replacen('x', "y", 1);
        assert_eq!(decode(altered.as_bytes(), 200), Reading::Altered(mark()));
        assert_eq!(decode(&whole.as_bytes()[..150], 200), Reading::Unreadable);
    }

    #[test]
    fn the_fate_is_in_the_payload() {
        let doomed = Mark { fate: Fate::RollBack, ..mark() };
        let payload = payload_of(&doomed, 200);
        assert_eq!(decode(payload.as_bytes(), 200), Reading::Whole(doomed));
    }

    #[test]
    fn key_names_the_aggregate() {
        let mut key = String::new();
        mark().write_key(&mut key);
        assert_eq!(aggregate_of_key(key.as_bytes()), Some(99_999));
        assert_eq!(aggregate_of_key(b"customer-7"), None);
        assert_eq!(aggregate_of_key(b"order-x"), None);
    }
}
