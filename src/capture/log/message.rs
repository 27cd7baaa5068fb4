//! An event as the content of a logical message: the form, version 1, and its codec.
//!
//! Promises: any input is an event or an error; what is decoded lies in the buffer that it came in, and
//! its texts and time are such as PostgreSQL's columns take. Must not: know a connection or a clock, or
//! judge what an event says (an empty `aggregateid`, or headers that are no JSON object, are a later
//! check's business). Fails: with [`EnvelopeError`].
//!
//! A transaction writes an event with `pg_logical_emit_message(true, 'postrider.outbox', content)`.
//! Numbers are in network byte order; texts are UTF-8, whatever the database's encoding, without NUL:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 16 | `id` |
//! | 8 | `created_at`: signed, microseconds since 1970-01-01 UTC |
//! | 1 | flags: 1 a payload follows (else it is a tombstone), 2 headers follow; other bits are 0 |
//! | 4, 4, 4, 4 | lengths in bytes of `aggregatetype`, `aggregateid`, `type` and headers, unsigned |
//! | … | `aggregatetype`, `aggregateid`, `type`, one after the other |
//! | … | headers as JSON text; of length 0 without flag 2 |
//! | … | the payload: all the rest; nothing without flag 1 |
//!
//! `postrider.event_message` (`sql/migrations/0006_log.sql`) writes it in SQL.

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::event::{Event, EventId};

/// What is written behind the schema in the prefix of the messages that are events.
pub const KIND: &str = "outbox";
/// The prefix of these messages in the usual schema.
pub const PREFIX: &str = "postrider.outbox";

/// The version of the form.
pub const VERSION: u8 = 1;

/// Everything before the texts.
pub const HEAD_BYTES: usize = 1 + 16 + 8 + 1 + 4 * TEXTS.len();
/// The first time that PostgreSQL has, 4714-11-24 BC, in microseconds since 1970. Its last one lies
/// beyond what the form can say.
const FIRST_MICROS: i64 = -210_866_803_200_000_000;
const HAS_PAYLOAD: u8 = 1;
const HAS_HEADERS: u8 = 2;
/// The texts, in the order of the form.
const TEXTS: [&str; 4] = ["aggregatetype", "aggregateid", "type", "headers"];

/// Why bytes are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Nothing is there.
    #[error("the message is empty")]
    Empty,
    /// Another form than this program knows.
    #[error("the message has form {0}; this version of postrider knows form 1")]
    UnknownVersion(u8),
    /// The message ends too early.
    #[error("the message ends inside {0}")]
    Truncated(&'static str),
    /// A flag that the form does not have.
    #[error("the message has unknown flags {0:#04x}")]
    UnknownFlags(u8),
    /// Headers that the flags deny.
    #[error("{0} bytes of headers in a message without headers")]
    UnflaggedHeaders(u32),
    /// Bytes after the end of a message without payload.
    #[error("{0} bytes follow the end of a message without payload")]
    Trailing(usize),
    /// A text is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// A text holds the character that no text of PostgreSQL has.
    #[error("{0} holds a NUL")]
    Nul(&'static str),
    /// Microseconds since 1970 that are before PostgreSQL's first time.
    #[error("created_at is {0} microseconds from 1970, before all times of PostgreSQL")]
    TooEarly(i64),
}

/// One event as a message brought it, in the message's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    id: EventId,
    created_at_micros: i64,
    /// The texts and the payload, one after the other.
    body: Bytes,
    /// Where each text ends in `body`; checked, and each a border between characters.
    ends: [usize; TEXTS.len()],
    flags: u8,
}

impl Envelope {
    /// The event; its place in the order comes from where the message stood.
    #[must_use]
    pub fn event(&self, seq: i64) -> Event<'_> {
        Event {
            seq,
            id: self.id,
            aggregate_type: self.text(0),
            aggregate_id: self.text(1),
            kind: self.text(2),
            payload: (self.flags & HAS_PAYLOAD != 0).then(|| &self.body[self.ends[3]..]),
            headers: (self.flags & HAS_HEADERS != 0).then(|| self.text(3)),
            created_at_micros: self.created_at_micros,
        }
    }

    /// The bytes of the event's `aggregateid`.
    #[must_use]
    pub fn aggregate_id(&self) -> &[u8] {
        &self.body[self.ends[0]..self.ends[1]]
    }

    /// The length of the whole message.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    fn text(&self, place: usize) -> &str {
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        str::from_utf8(&self.body[begin..self.ends[place]]).expect("checked when it was read")
    }
}

/// What stands before the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// As [`Event::id`].
    pub id: EventId,
    /// As [`Event::created_at_micros`].
    pub created_at_micros: i64,
    /// Of `aggregatetype`, `aggregateid`, `type` and headers, in bytes.
    pub lengths: [u32; TEXTS.len()],
    flags: u8,
}

impl Head {
    /// Whether a payload follows the texts.
    #[must_use]
    pub fn has_payload(&self) -> bool {
        self.flags & HAS_PAYLOAD != 0
    }

    /// Whether there are headers.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.flags & HAS_HEADERS != 0
    }

    /// Whether a message of this length is what the head says, as far as lengths tell.
    ///
    /// # Errors
    /// When it is not.
    pub fn fits(&self, message_bytes: u64) -> Result<(), EnvelopeError> {
        let mut left = message_bytes.saturating_sub(HEAD_BYTES as u64);
        for (what, length) in TEXTS.into_iter().zip(self.lengths) {
            left = left.checked_sub(length.into()).ok_or(EnvelopeError::Truncated(what))?;
        }
        match self.has_payload() {
            false if left > 0 => Err(EnvelopeError::Trailing(left as usize)),
            _ => Ok(()),
        }
    }
}

/// Takes one message apart.
///
/// # Errors
/// When the bytes are not exactly one event in the form of [`VERSION`].
pub fn decode(mut content: Bytes) -> Result<Envelope, EnvelopeError> {
    let Head { id, created_at_micros, lengths, flags } = head(&mut content)?;
    let ends = check_texts(&content, &lengths)?;
    let rest = content.len() - ends[3];
    if flags & HAS_PAYLOAD == 0 && rest != 0 {
        return Err(EnvelopeError::Trailing(rest));
    }
    Ok(Envelope { id, created_at_micros, body: content, ends, flags })
}

/// Takes the head off a message.
///
/// # Errors
/// When it is none in the form of [`VERSION`].
pub fn head(content: &mut Bytes) -> Result<Head, EnvelopeError> {
    match content.first() {
        None => return Err(EnvelopeError::Empty),
        Some(&VERSION) => {}
        Some(&other) => return Err(EnvelopeError::UnknownVersion(other)),
    }
    if content.len() < HEAD_BYTES {
        return Err(EnvelopeError::Truncated("the head"));
    }
    content.advance(1);
    let mut id = [0; 16];
    content.copy_to_slice(&mut id);
    let created_at_micros = content.get_i64();
    if created_at_micros < FIRST_MICROS {
        return Err(EnvelopeError::TooEarly(created_at_micros));
    }
    let flags = content.get_u8();
    if flags & !(HAS_PAYLOAD | HAS_HEADERS) != 0 {
        return Err(EnvelopeError::UnknownFlags(flags));
    }
    let lengths: [u32; TEXTS.len()] = std::array::from_fn(|_| content.get_u32());
    if flags & HAS_HEADERS == 0 && lengths[3] != 0 {
        return Err(EnvelopeError::UnflaggedHeaders(lengths[3]));
    }
    Ok(Head { id: EventId(id), created_at_micros, lengths, flags })
}

/// Where each text ends. Checks every text once, so that reading it later cannot fail.
fn check_texts(
    body: &[u8],
    lengths: &[u32; TEXTS.len()],
) -> Result<[usize; TEXTS.len()], EnvelopeError> {
    let mut ends = [0; TEXTS.len()];
    let mut rest = body;
    for ((what, length), end) in TEXTS.into_iter().zip(lengths).zip(&mut ends) {
        let (text, after) = usize::try_from(*length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(EnvelopeError::Truncated(what))?;
        str::from_utf8(text).map_err(|_| EnvelopeError::NotUtf8(what))?;
        if text.contains(&0) {
            return Err(EnvelopeError::Nul(what));
        }
        rest = after;
        *end = body.len() - rest.len();
    }
    Ok(ends)
}

/// A text is longer than the form can say: 4 GiB or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is longer than a message can say")]
pub struct TooLong(&'static str);

/// Appends an event in the form of [`VERSION`]; its `seq` is not part of it.
///
/// # Errors
/// When a text is 4 GiB or longer; nothing is appended then.
pub fn encode(event: &Event<'_>, content: &mut Vec<u8>) -> Result<(), TooLong> {
    let headers = event.headers.unwrap_or_default();
    let texts = [event.aggregate_type, event.aggregate_id, event.kind, headers];
    let mut lengths = [0; TEXTS.len()];
    for ((what, text), length) in TEXTS.into_iter().zip(texts).zip(&mut lengths) {
        *length = u32::try_from(text.len()).map_err(|_| TooLong(what))?;
    }
    let payload = event.payload.unwrap_or_default();
    let texts_bytes: usize = texts.iter().map(|text| text.len()).sum();
    content.reserve(HEAD_BYTES + texts_bytes + payload.len());
    content.push(VERSION);
    content.extend_from_slice(&event.id.0);
    content.extend_from_slice(&event.created_at_micros.to_be_bytes());
    let payload_flag = if event.payload.is_some() { HAS_PAYLOAD } else { 0 };
    let headers_flag = if event.headers.is_some() { HAS_HEADERS } else { 0 };
    content.push(payload_flag | headers_flag);
    lengths.iter().for_each(|length| content.extend_from_slice(&length.to_be_bytes()));
    texts.iter().for_each(|text| content.extend_from_slice(text.as_bytes()));
    content.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{LendEvent, OwnedEvent};

    fn events() -> impl Strategy<Value = OwnedEvent> {
        const TEXT: &str = "[^\0]{0,40}";
        let texts = (TEXT, TEXT, TEXT, option::of(TEXT));
        let payload = option::of(prop::collection::vec(any::<u8>(), 0..200));
        (any::<[u8; 16]>(), FIRST_MICROS.., texts, payload).prop_map(
            |(id, created_at_micros, (aggregate_type, aggregate_id, kind, headers), payload)| {
                OwnedEvent {
                    seq: 7,
                    id: EventId(id),
                    aggregate_type,
                    aggregate_id,
                    kind,
                    payload,
                    headers,
                    created_at_micros,
                }
            },
        )
    }

    fn encoded(event: &Event<'_>) -> Vec<u8> {
        let mut content = Vec::new();
        encode(event, &mut content).expect("short");
        content
    }

    fn small() -> Event<'static> {
        Event {
            seq: 0,
            id: EventId(*b"0123456789abcdef"),
            aggregate_type: "order",
            aggregate_id: "4711 \u{20ac}",
            kind: "T",
            payload: Some(b"\0{}"),
            headers: Some("{}"),
            created_at_micros: -2,
        }
    }

    const SMALL: &[u8] = b"\x010123456789abcdef\xff\xff\xff\xff\xff\xff\xff\xfe\x03\
        \0\0\0\x05\0\0\0\x08\0\0\0\x01\0\0\0\x02order4711 \xe2\x82\xacT{}\0{}";

    #[test]
    fn the_form_is_as_documented() {
        assert_eq!(encoded(&small()), SMALL);
        assert_eq!(decode(Bytes::from_static(SMALL)).unwrap().event(0), small());
    }

    #[test]
    fn nothing_is_not_an_empty_text() {
        for payload in [None, Some(&b""[..])] {
            for headers in [None, Some("")] {
                let event = Event { payload, headers, aggregate_id: "", ..small() };
                let envelope = decode(encoded(&event).into()).unwrap();
                assert_eq!(envelope.event(0), event);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |content: &[u8]| decode(Bytes::copy_from_slice(content)).unwrap_err();
        let with = |place: usize, byte: u8| {
            let mut content = SMALL.to_vec();
            content[place] = byte;
            content
        };
        assert_eq!(error(b""), EnvelopeError::Empty);
        assert_eq!(error(b"{}"), EnvelopeError::UnknownVersion(b'{'));
        assert_eq!(error(&SMALL[..41]), EnvelopeError::Truncated("the head"));
        assert_eq!(error(&SMALL[..46]), EnvelopeError::Truncated("aggregatetype"));
        assert_eq!(error(&with(25, 7)), EnvelopeError::UnknownFlags(7));
        assert_eq!(error(&with(25, 1)), EnvelopeError::UnflaggedHeaders(2));
        assert_eq!(error(&with(25, 2)), EnvelopeError::Trailing(3));
        assert_eq!(error(&with(30, 0xff)), EnvelopeError::Truncated("aggregateid"));
        assert_eq!(error(&with(42, 0xff)), EnvelopeError::NotUtf8("aggregatetype"));
        assert_eq!(error(&with(43, 0)), EnvelopeError::Nul("aggregatetype"));
        assert!(matches!(error(&with(17, 0x80)), EnvelopeError::TooEarly(i64::MIN..0)));
        // A border inside a character.
        assert_eq!(error(&with(33, 7)), EnvelopeError::NotUtf8("aggregateid"));
    }

    #[test]
    fn a_decoded_event_lies_where_it_came() {
        let content = Bytes::from_static(SMALL);
        let envelope = decode(content.clone()).unwrap();
        let range = content.as_ptr_range();
        let event = envelope.event(0);
        for part in [event.aggregate_type, event.aggregate_id, event.kind, event.headers.unwrap()] {
            assert!(range.contains(&part.as_ptr()));
        }
        assert!(range.contains(&event.payload.unwrap().as_ptr()));
        assert_eq!(envelope.size_bytes(), SMALL.len());
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_the_same(event in events()) {
            let content = encoded(&event.event());
            let envelope = decode(content.clone().into()).unwrap();
            prop_assert_eq!(envelope.event(7), event.event());
            prop_assert_eq!(envelope.size_bytes(), content.len());
        }

        /// A message that was cut loses bytes of its payload, or is none.
        #[test]
        fn a_cut_message_is_no_other_event(event in events(), cut in any::<prop::sample::Index>()) {
            let content = encoded(&event.event());
            let cut = cut.index(content.len());
            if let Ok(envelope) = decode(content[..cut].to_vec().into()) {
                let whole = event.event();
                let read = envelope.event(7);
                prop_assert!(whole.payload.unwrap().starts_with(read.payload.unwrap()));
                prop_assert_eq!(Event { payload: whole.payload, ..read }, whole);
            }
        }

        #[test]
        fn any_input_gives_an_event_or_an_error(input in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(envelope) = decode(input.clone().into()) {
                prop_assert_eq!(encoded(&envelope.event(0)), input);
            }
        }

        /// Damage near the truth: each byte of a good message changed.
        #[test]
        fn a_damaged_message_never_panics(
            event in events(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut content = encoded(&event.event());
            let place = place.index(content.len());
            content[place] = byte;
            if let Ok(envelope) = decode(content.clone().into()) {
                prop_assert_eq!(encoded(&envelope.event(0)), content);
            }
        }
    }
}
