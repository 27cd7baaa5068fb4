//! Values as PostgreSQL prints them, read back.
//!
//! Promises: a row in text form becomes the row that the binary form would have been. Must not: know a
//! session; its settings are those of `sql/queries/session.sql`. Fails: with [`ErrorKind::Schema`]
//! for a text that PostgreSQL does not print with these settings.
//!
//! Source: the output functions of PostgreSQL, `src/backend/utils/adt`.

use bytes::Bytes;
use uuid::Uuid;

use crate::capture::log::pgoutput;
use crate::capture::log::pgoutput::{Message, Tuple, Value};
use crate::error::{Error, ErrorKind, Result};

/// Object identifiers of types, in `pg_type.dat`.
pub(super) const BYTEA_OID: u32 = 17;
pub(super) const INT8_OID: u32 = 20;
pub(super) const TEXT_OID: u32 = 25;
pub(super) const JSON_OID: u32 = 114;
pub(super) const TIMESTAMPTZ_OID: u32 = 1184;
pub(super) const UUID_OID: u32 = 2950;
pub(super) const JSONB_OID: u32 = 3802;
pub(super) const XID8_OID: u32 = 5069;
/// Before the text of a `jsonb` in binary form.
const JSONB_VERSION: u8 = 1;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// From 0000-03-01 to 2000-01-01 in days, where PostgreSQL begins to count.
const EPOCH_DAYS: i64 = 730_425;

/// The row with its values in binary form; `types` are those of its columns.
///
/// # Errors
/// [`ErrorKind::Schema`] when a value is not printed as its type is.
pub(in crate::capture) fn in_binary(row: &Tuple, types: &[u32]) -> Result<Tuple> {
    let mut message = b"I\0\0\0\0N".to_vec();
    let count = u16::try_from(row.len()).expect("it was read from two bytes");
    message.extend(count.to_be_bytes());
    for (value, type_oid) in row.values().zip(types) {
        match value {
            Value::Null => message.push(b'n'),
            Value::Unchanged => message.push(b'u'),
            Value::Binary(bytes) => push(&mut message, bytes),
            Value::Text(text) => match binary(*type_oid, text).ok_or_else(|| odd(text))? {
                None => push(&mut message, text),
                Some(bytes) => push(&mut message, &bytes),
            },
        }
    }
    match pgoutput::decode(Bytes::from(message)) {
        Ok(Message::Insert { row, .. }) => Ok(row),
        other => Err(Error::new(ErrorKind::Internal, format!("a row was not written: {other:?}"))),
    }
}

fn push(message: &mut Vec<u8>, bytes: &[u8]) {
    message.push(b'b');
    message.extend(u32::try_from(bytes.len()).expect("a message is below 4 GiB").to_be_bytes());
    message.extend_from_slice(bytes);
}

fn odd(text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    Error::new(ErrorKind::Schema, format!("the stream brings a value in no known form: {text:?}"))
        .with_remedy("restore the columns as `postrider migrate print` shows them")
}

/// The binary form of a printed value: none inside where it is the text itself.
fn binary(type_oid: u32, text: &[u8]) -> Option<Option<Vec<u8>>> {
    let words = || str::from_utf8(text).ok();
    Some(Some(match type_oid {
        BYTEA_OID => from_hex(text)?,
        INT8_OID => words()?.parse::<i64>().ok()?.to_be_bytes().to_vec(),
        XID8_OID => words()?.parse::<u64>().ok()?.to_be_bytes().to_vec(),
        UUID_OID => words()?.parse::<Uuid>().ok()?.into_bytes().to_vec(),
        TIMESTAMPTZ_OID => micros(words()?)?.to_be_bytes().to_vec(),
        JSONB_OID => [&[JSONB_VERSION], text].concat(),
        _ => return Some(None),
    }))
}

/// The bytes of a `bytea`.
pub(in crate::capture) fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    digits(text.strip_prefix(b"\\x")?)
}

/// Bytes in hexadecimal digits.
pub(in crate::capture) fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let mut bytes = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
        if high == NO_DIGIT || low == NO_DIGIT {
            return None;
        }
        bytes.push(high << 4 | low);
    }
    rest.is_empty().then_some(bytes)
}

const NO_DIGIT: u8 = u8::MAX;
/// What each byte stands for as a hexadecimal digit.
const DIGITS: [u8; 256] = {
    let (mut digits, mut value) = ([NO_DIGIT; 256], 0);
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// A `timestamptz` or a `timestamp` in microseconds since 2000, with the extremes for both infinities.
pub(in crate::capture) fn micros(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, is_before_christ) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (date, time) = text.strip_suffix("+00").unwrap_or(text).split_once(' ')?;
    let [year, month, day] = parts(date, '-')?;
    let year = if is_before_christ { 1 - year } else { year };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = parts(clock, ':')?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=6).contains(digits))?;
    let fraction = fraction.parse::<i64>().ok()? * 10_i64.pow(6 - digits);
    let seconds = days(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
    seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(fraction)
}

fn parts(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<i64>().ok());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Days from 2000-01-01. A year is counted from March, so that a leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + of_year - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_hexadecimal() {
        assert_eq!(from_hex(b"\\x00ff5c"), Some(vec![0, 0xff, 0x5c]));
        assert_eq!(from_hex(b"\\x"), Some(vec![]));
        for odd in ["00", "\\x0", "\\xzz", "\\x+1", ""] {
            assert_eq!(from_hex(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_printed() {
        let day = SECONDS_PER_DAY * MICROS_PER_SECOND;
        for (text, expected) in [
            ("2000-01-01 00:00:00+00", 0),
            ("2000-01-01 00:00:00", 0),
            ("2000-03-01 00:00:00.5+00", 60 * day + 500_000),
            ("1999-12-31 23:59:59.999999+00", -1),
            ("1970-01-01 00:00:00+00", -946_684_800_000_000),
            ("2026-11-29 17:34:18.12+00", 849_288_858_120_000),
            ("294276-12-31 23:59:59.999999+00", 9_223_371_331_199_999_999),
            ("4714-11-24 00:00:00+00 BC", -211_813_488_000_000_000),
            ("infinity", i64::MAX),
            ("-infinity", i64::MIN),
        ] {
            assert_eq!(micros(text), Some(expected), "{text}");
        }
        for odd in ["", "2000-01-01", "2000-01-01 00:00", "29/11/2026 00:00:00", "now 1:2:3"] {
            assert_eq!(micros(odd), None, "{odd}");
        }
    }

    fn insert(values: &[(u8, &[u8])]) -> Tuple {
        let mut message = b"I\0\0\0\0N".to_vec();
        message.extend((values.len() as u16).to_be_bytes());
        for (form, value) in values {
            message.push(*form);
            if *form == b't' {
                message.extend((value.len() as u32).to_be_bytes());
                message.extend(*value);
            }
        }
        match pgoutput::decode(message.into()) {
            Ok(Message::Insert { row, .. }) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_printed_row_becomes_the_row_in_binary_form() {
        let id = uuid::uuid!("00112233-4455-6677-8899-aabbccddeeff");
        let row = insert(&[
            (b't', b"-7"),
            (b't', b"18446744073709551615"),
            (b't', id.to_string().as_bytes()),
            (b't', b"\\x0aff"),
            (b't', b"{\"a\": 1}"),
            (b't', b"a text"),
            (b'n', b""),
        ]);
        let types = [INT8_OID, XID8_OID, UUID_OID, BYTEA_OID, JSONB_OID, 25, 25];
        let read = in_binary(&row, &types).expect("each is printed as its type is");
        let values: Vec<_> = read.values().collect();
        assert_eq!(values[0], Value::Binary(&(-7_i64).to_be_bytes()[..]));
        assert_eq!(values[1], Value::Binary(&u64::MAX.to_be_bytes()[..]));
        assert_eq!(values[2], Value::Binary(&id.as_bytes()[..]));
        assert_eq!(values[3], Value::Binary(&[0x0a, 0xff][..]));
        assert_eq!(values[4], Value::Binary(&b"\x01{\"a\": 1}"[..]));
        assert_eq!((values[5], values[6]), (Value::Binary(&b"a text"[..]), Value::Null));
        assert!(in_binary(&insert(&[(b't', b"seven")]), &types).is_err());
    }
}
