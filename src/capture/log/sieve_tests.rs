//! What is kept, however the message is cut, and whatever it claims.

use bytes::Bytes;
use proptest::prelude::*;

use crate::capture::log::message::PREFIX;
use crate::capture::log::pgoutput::{DecodeError, Ignored, Message, Scope, Value, decode};
use crate::capture::log::sieve::*;

const LIMIT_BYTES: usize = 4096;
const OURS: u32 = 0x4001;
const KEEPS: [Keep; 3] = [Keep::Whole, Keep::Head, Keep::Head];
const ADOPTED: u32 = OURS + 1;
const ADOPTED_KEEPS: [Keep; 5] =
    [Keep::HandOn, Keep::Nothing, Keep::HandOnBytes, Keep::HandOn, Keep::Nothing];

fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'w'];
    frame.extend([7; 24]);
    frame.extend(message);
    frame
}

fn insert(relation: u32, values: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut message = vec![b'I'];
    message.put_u32(relation);
    message.put_u8(b'N');
    message.put_u16(u16::try_from(values.len()).expect("few"));
    for (form, value) in values {
        message.put_u8(*form);
        if matches!(form, b't' | b'b') {
            message.put_u32(u32::try_from(value.len()).expect("short"));
            message.put_slice(value);
        }
    }
    message
}

fn logical(prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let mut message = vec![b'M', 1];
    message.put_u64(9);
    message.put_slice(prefix);
    message.put_u8(0);
    message.put_u32(u32::try_from(content.len()).expect("short"));
    message.put_slice(content);
    message
}

fn sieve(takes_messages: bool) -> LongSieve {
    let mut sieve = LongSieve::new(LIMIT_BYTES, takes_messages.then(|| PREFIX.to_owned()));
    sieve.learn(OURS, Some(Rows::Part(KEEPS.to_vec())));
    sieve.learn(ADOPTED, Some(Rows::Adopted(ADOPTED_KEEPS.to_vec())));
    sieve
}

/// What is kept of a frame that comes in pieces of this size.
fn kept(sieve: &mut LongSieve, frame: &[u8], piece: usize) -> Bytes {
    let mut kept = BytesMut::new();
    sieve.begin(frame.len());
    for bytes in frame.chunks(piece) {
        assert_eq!(sieve.pass(bytes, &mut kept), bytes.len(), "it is not full");
    }
    sieve.end(&mut kept);
    kept.freeze()
}

/// The same, with what is handed on meanwhile.
fn kept_and_parts(sieve: &mut LongSieve, frame: &[u8], piece: usize) -> (Bytes, Vec<SievedPart>) {
    let (mut kept, mut parts) = (BytesMut::new(), Vec::new());
    sieve.begin(frame.len());
    for mut bytes in frame.chunks(piece) {
        while !bytes.is_empty() {
            let passed = sieve.pass(bytes, &mut kept);
            if passed < bytes.len() {
                parts.push(sieve.take_part());
            }
            bytes = &bytes[passed..];
        }
    }
    sieve.end(&mut kept);
    parts.push(sieve.take_part());
    (kept.freeze(), parts)
}

/// The message in what is kept.
fn message(kept: &Bytes) -> Result<Message, DecodeError> {
    decode(kept.slice(FRAME_BYTES - 1..))
}

fn value() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let bytes = (any::<u8>(), 0_usize..6000).prop_map(|(byte, count)| vec![byte; count]);
    (proptest::sample::select(b"nutb".to_vec()), bytes)
}

fn bytes_of(value: Value<&[u8]>) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => Some(bytes),
        Value::Null | Value::Unchanged => None,
    }
}

proptest! {
    #[test]
    fn a_row_keeps_its_shape(values in prop::collection::vec(value(), 0..6), piece in 1_usize..3000) {
        let frame = frame(&insert(OURS, &values));
        let mut sieve = sieve(false);
        let kept = kept(&mut sieve, &frame, piece);
        let oversized = sieve.take_oversized().map(|oversized| oversized.bytes);
        if frame.len() <= LIMIT_BYTES {
            prop_assert_eq!(oversized, None);
            prop_assert_eq!(&kept[..], &frame[..]);
            return Ok(());
        }
        prop_assert_eq!(oversized, Some(frame.len()));
        let Ok(Message::Insert { relation, row }) = message(&kept) else { panic!("an Insert") };
        prop_assert_eq!((relation, row.len()), (OURS, values.len()));
        for (column, (read, (form, written))) in row.values().zip(&values).enumerate() {
            let Some(read) = bytes_of(read) else {
                prop_assert!(matches!(form, b'n' | b'u'));
                continue;
            };
            let is_whole = match KEEPS.get(column) {
                Some(Keep::Whole) => written.len() <= LIMIT_BYTES,
                _ => written.len() <= HEAD_KEPT_BYTES,
            };
            let expected = if is_whole { &written[..] } else { &written[..HEAD_KEPT_BYTES] };
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn rows_of_others_leave_nothing(values in prop::collection::vec(value(), 0..6), piece in 1_usize..3000) {
        let kept = kept(&mut sieve(true), &frame(&insert(5, &values)), piece);
        prop_assert!(kept.len() <= FRAME_BYTES + ROW_HEAD_BYTES);
        let Ok(Message::Insert { relation, row }) = message(&kept) else { panic!("an Insert") };
        prop_assert_eq!((relation, row.len()), (5, 0));
    }

    #[test]
    fn a_row_that_is_nowhere_else_is_kept_or_handed_on(
        values in prop::collection::vec(value(), 0..6), piece in 1_usize..3000,
    ) {
        let frame = frame(&insert(ADOPTED, &values));
        let mut sieve = sieve(true);
        let (kept, parts) = kept_and_parts(&mut sieve, &frame, piece);
        prop_assert_eq!(sieve.relation(), Some(ADOPTED));
        let oversized = sieve.take_oversized();
        prop_assert_eq!(sieve.take_oversized(), None, "it is said once");
        let handed_on = oversized.map(|row| row.handed_on).unwrap_or_default();
        let Ok(Message::Insert { relation, row }) = message(&kept) else { panic!("an Insert") };
        prop_assert_eq!((relation, row.len()), (ADOPTED, values.len()));
        let mut room = LIMIT_BYTES;
        for (column, (read, (form, written))) in row.values().zip(&values).enumerate() {
            let is_value = matches!(form, b't' | b'b');
            let parts: Vec<u8> = parts.iter().filter(|part| usize::from(part.value) == column)
                .flat_map(|part| part.bytes.clone()).collect();
            let is_handed_on = handed_on.contains(&(column as u16));
            prop_assert_eq!(is_handed_on, !parts.is_empty());
            match ADOPTED_KEEPS.get(column) {
                Some(Keep::Nothing) => prop_assert!(!is_value || read == Value::Null),
                Some(keep) if is_value => {
                    let is_in_digits = *keep == Keep::HandOnBytes && *form == b't';
                    let event_bytes = written.len() / if is_in_digits { 2 } else { 1 };
                    prop_assert_eq!(is_handed_on, event_bytes > room);
                    if is_handed_on {
                        prop_assert_eq!(&parts, written);
                        let head = &written[..written.len().min(HEAD_KEPT_BYTES)];
                        prop_assert_eq!(bytes_of(read), Some(head));
                    } else {
                        room -= event_bytes;
                        prop_assert_eq!(bytes_of(read), Some(&written[..]));
                    }
                }
                _ => prop_assert!(!is_handed_on),
            }
        }
        let event_bytes = LIMIT_BYTES - room;
        prop_assert!(kept.len() <= 2 * event_bytes + frame.len().min(6 * (HEAD_KEPT_BYTES + 5) + 64));
    }

    #[test]
    fn messages_of_others_leave_nothing(
        prefix in "[^\0]{0,100}", length in 0_usize..20_000, piece in 1_usize..3000,
    ) {
        prop_assume!(prefix != PREFIX);
        let kept = kept(&mut sieve(true), &frame(&logical(prefix.as_bytes(), &vec![b'x'; length])), piece);
        prop_assert!(kept.len() <= FRAME_BYTES + LOGICAL_HEAD_BYTES + PREFIX_BYTES_MAX + 5);
        let Ok(Message::Logical { scope, prefix: read, content, .. }) = message(&kept) else {
            panic!("a message")
        };
        prop_assert_eq!((scope, content.len()), (Scope::Transactional, 0));
        prop_assert!(prefix.as_bytes().starts_with(&read));
        prop_assert!(read != PREFIX.as_bytes());
    }

    #[test]
    fn an_event_stays_whole_where_it_is_one(content in prop::collection::vec(any::<u8>(), 0..9000), piece in 1_usize..3000) {
        let frame = frame(&logical(PREFIX.as_bytes(), &content));
        let mut taking = sieve(true);
        let whole = kept(&mut taking, &frame, piece);
        if frame.len() <= LIMIT_BYTES {
            prop_assert_eq!(&whole[..], &frame[..]);
        } else {
            prop_assert_eq!(taking.take_oversized().map(|event| event.bytes), Some(frame.len()));
            prop_assert_eq!(taking.take_part().bytes, content);
            prop_assert!(message(&whole).is_ok());
        }
        let kept = kept(&mut sieve(false), &frame, piece);
        let Ok(Message::Logical { content, .. }) = message(&kept) else { panic!("a message") };
        prop_assert_eq!(content.len(), 0);
    }

    /// A cut message is refused by whoever takes it apart, unless nothing of it was wanted.
    #[test]
    fn what_is_torn_stays_torn(
        values in prop::collection::vec(value(), 3), cut in any::<prop::sample::Index>(), piece in 1_usize..3000,
    ) {
        let whole = frame(&insert(OURS, &values));
        let end = FRAME_BYTES + cut.index(whole.len() - FRAME_BYTES);
        let kept = kept(&mut sieve(false), &whole[..end], piece);
        prop_assert!(message(&kept).is_err(), "{end} of {}", whole.len());
    }

    /// Of the last value as much may be wanted as has come: whether that is torn does not show.
    #[test]
    fn what_is_torn_of_an_adopted_row_stays_torn(
        values in prop::collection::vec(value(), 5), cut in any::<prop::sample::Index>(), piece in 1_usize..3000,
    ) {
        let whole = frame(&insert(ADOPTED, &values));
        let last_bytes = if matches!(values[4].0, b't' | b'b') { 5 + values[4].1.len() } else { 1 };
        let end = FRAME_BYTES + cut.index(whole.len() - last_bytes - FRAME_BYTES);
        let (kept, _) = kept_and_parts(&mut sieve(false), &whole[..end], piece);
        prop_assert!(message(&kept).is_err(), "{end} of {}", whole.len());
    }

    #[test]
    fn whatever_comes_is_bounded(
        kind in proptest::sample::select(b"BCRIMUDTOYx".to_vec()), inner in prop::collection::vec(any::<u8>(), 0..300),
        length in 0_usize..30_000, piece in 1_usize..5000,
    ) {
        let mut content = vec![kind];
        content.extend(inner);
        content.resize(content.len() + length, 0);
        let frame = frame(&content);
        let kept = kept(&mut sieve(false), &frame, piece);
        let most = FRAME_BYTES + 3 * LIMIT_BYTES + content.len().min(LIMIT_BYTES);
        prop_assert!(kept.len() <= most, "{} of {}", kept.len(), frame.len());
    }
}

#[test]
fn a_message_that_survives_a_rollback_is_no_event() {
    let mut immediate = logical(PREFIX.as_bytes(), &[b'x'; 9000]);
    immediate[1] = 0;
    let kept = kept(&mut sieve(true), &frame(&immediate), 100);
    let Ok(Message::Logical { scope, content, .. }) = message(&kept) else { panic!("a message") };
    assert_eq!((scope, content.len()), (Scope::Immediate, 0));
}

#[test]
fn a_large_event_comes_in_parts() {
    let content: Vec<u8> = (0..3 * PART_BYTES + 5).map(|place| (place / 7) as u8).collect();
    let frame = frame(&logical(PREFIX.as_bytes(), &content));
    for missing in [0, 1, PART_BYTES] {
        let (mut sieve, mut kept, mut parts) = (sieve(true), BytesMut::new(), Vec::new());
        sieve.begin(frame.len());
        let mut rest = &frame[..frame.len() - missing];
        while !rest.is_empty() {
            rest = &rest[sieve.pass(&rest[..rest.len().min(99_999)], &mut kept)..];
            if sieve.is_full() {
                parts.push(sieve.take_part().bytes);
            }
        }
        sieve.end(&mut kept);
        parts.push(sieve.take_part().bytes);
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
        assert_eq!(parts.concat(), content[..content.len() - missing]);
        let is_torn = message(&kept.freeze()).is_err();
        assert_eq!(is_torn, missing > 0, "{missing}");
    }
}

#[test]
fn changes_of_rows_leave_their_kind() {
    let kept = kept(&mut sieve(true), &frame(&[&b"U"[..], &[b'x'; 90_000]].concat()), 700);
    assert_eq!(message(&kept), Ok(Message::Ignored(Ignored::Update)));
}

/// A length that is a claim: nothing is made ready for it.
#[test]
fn a_forged_length_is_no_value() {
    let mut forged = insert(OURS, &[]);
    forged.truncate(6);
    forged.put_u16(1);
    forged.put_u8(b'b');
    forged.put_u32(u32::MAX);
    forged.resize(9000, b'x');
    let kept = kept(&mut sieve(false), &frame(&forged), 100);
    assert!(matches!(message(&kept), Err(DecodeError::Truncated(_))));
    assert!(kept.len() < 5 * LIMIT_BYTES);
}
