//! Bytes that came, cut into messages without copying them.
//!
//! Promises: a message is lent from the buffer that it was read into. Buffers are of 256 KiB, made
//! again when one is full and something of it is still lent, so a lent message keeps no more than that
//! alive; only a longer message has a longer one, which grows with what really came. What goes through a
//! [`MessageSieve`] leaves only what that keeps.
//! Must not: know a socket, or what a message means.
//! Fails: a length that PostgreSQL never sends is refused before anything is made ready for it.
//!
//! Source: PostgreSQL, `src/interfaces/libpq/fe-protocol3.c`, `VALID_LONG_MESSAGE_TYPE`.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;

use crate::postgres::replication::fault::Fault;

/// How much is read at once, and how much one small lent message can keep alive.
const BUFFER_BYTES: usize = 256 * 1024;
/// With less room than this a read is not worth its call.
const ROOM_BYTES_MIN: usize = 16 * 1024;
/// What may be long without being one of ours.
const COPY_DATA: u8 = b'd';
/// One letter, then the length, which counts itself.
const HEAD_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;
/// PostgreSQL allocates no more for one value, and a message has one row or one value.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// What all other messages stay below.
const SHORT_MESSAGE_BYTES_MAX: usize = 30_000;
/// CopyData, DataRow, RowDescription, ErrorResponse, NoticeResponse, NotificationResponse.
const LONG_MESSAGES: &[u8] = b"dDTENA";

/// Keeps of a long message what is wanted, while it comes.
pub trait MessageSieve {
    /// A message of this length begins.
    fn begin(&mut self, whole_bytes: usize);

    /// Its next bytes, as many as happened to come at once. Answers how many it takes; where these are not all,
    /// whoever has the sieve takes something out of it first.
    fn pass(&mut self, bytes: &[u8], kept: &mut BytesMut) -> usize;

    /// It is over.
    fn end(&mut self, kept: &mut BytesMut);
}

/// What came and was not taken yet.
pub(super) struct ReceiveBuffer {
    bytes: BytesMut,
    long: Option<Long>,
}

/// A long message that goes through a sieve.
struct Long {
    kept: BytesMut,
    missing: usize,
}

/// What comes through a sieve.
pub(super) enum Passed {
    /// A message, as far as it was kept.
    Packet(Packet),
    /// The sieve is full.
    Paused,
}

/// One message, whole.
pub(super) struct Packet {
    bytes: BytesMut,
}

impl ReceiveBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::new(), long: None }
    }

    /// The next message, if it is here as a whole.
    ///
    /// # Errors
    /// When a head cannot be one of PostgreSQL's.
    pub(super) fn take(&mut self) -> Result<Option<Packet>, Fault> {
        Ok(self.expected()?.filter(|length| self.bytes.len() >= *length).map(|length| {
            let bytes = self.bytes.split_to(length);
            Packet { bytes }
        }))
    }

    /// The same, where the content of a CopyData that is longer than a buffer goes through a sieve. A wait may
    /// be given up meanwhile; the next call goes on with the same sieve.
    ///
    /// # Errors
    /// When a head cannot be one of PostgreSQL's.
    pub(super) fn take_through(
        &mut self,
        sieve: &mut impl MessageSieve,
    ) -> Result<Option<Passed>, Fault> {
        if self.long.is_none() && !self.begin_long(sieve)? {
            return Ok(self.take()?.map(Passed::Packet));
        }
        let Some(long) = &mut self.long else { return Ok(None) };
        let now = self.bytes.len().min(long.missing);
        let passed = sieve.pass(&self.bytes[..now], &mut long.kept);
        self.bytes.advance(passed);
        long.missing -= passed;
        if passed < now {
            return Ok(Some(Passed::Paused));
        }
        Ok(self.long.take_if(|long| long.missing == 0).map(|mut long| {
            sieve.end(&mut long.kept);
            let length = u32::try_from(long.kept.len() - 1).expect("no longer than it was");
            long.kept[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
            Passed::Packet(Packet { bytes: long.kept })
        }))
    }

    fn begin_long(&mut self, sieve: &mut impl MessageSieve) -> Result<bool, Fault> {
        let Some(length) = self.expected()?.filter(|length| *length > BUFFER_BYTES) else {
            return Ok(false);
        };
        if self.bytes[0] != COPY_DATA {
            return Ok(false);
        }
        let missing = length - HEAD_BYTES;
        self.long = Some(Long { kept: self.bytes.split_to(HEAD_BYTES), missing });
        sieve.begin(missing);
        Ok(true)
    }

    /// The whole length of the message that comes next, once its head is here.
    fn expected(&self) -> Result<Option<usize>, Fault> {
        let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let most = match LONG_MESSAGES.contains(&kind) {
            true => MESSAGE_BYTES_MAX,
            false => SHORT_MESSAGE_BYTES_MAX,
        };
        if !(LENGTH_BYTES..=most).contains(&length) {
            let cause = format!("a message of kind {kind:#04x} and {length} bytes");
            return Err(Fault::Protocol(cause));
        }
        Ok(Some(1 + length))
    }

    /// Where to read to; there is room in it. Call after [`ReceiveBuffer::take`] gave nothing.
    ///
    /// # Errors
    /// When a head cannot be one of PostgreSQL's.
    pub(super) fn room(&mut self) -> Result<&mut BytesMut, Fault> {
        let held = self.bytes.len();
        let missing = match &self.long {
            Some(long) => long.missing.min(BUFFER_BYTES),
            None => self.expected()?.map_or(0, |length| length.saturating_sub(held)),
        };
        let room = self.bytes.capacity() - held;
        if room >= ROOM_BYTES_MIN.max(missing.min(BUFFER_BYTES)) {
            return Ok(&mut self.bytes);
        }
        // At most twice what came: a length is only a claim.
        let wanted = (held + missing).clamp(BUFFER_BYTES, BUFFER_BYTES.max(2 * held));
        // What a long message left behind is no place for short ones.
        let reclaimed = self.bytes.try_reclaim(wanted - held);
        if !reclaimed || self.bytes.capacity() > 2 * wanted {
            let mut bytes = BytesMut::with_capacity(wanted);
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        Ok(&mut self.bytes)
    }
}

impl Packet {
    /// The letter that says what it is.
    pub(super) fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// What follows the head.
    pub(super) fn into_body(self) -> Bytes {
        let mut body = self.bytes.freeze();
        body.advance(HEAD_BYTES);
        body
    }

    /// Takes it apart.
    ///
    /// # Errors
    /// When it is not a message as the protocol has it.
    pub(super) fn parse(mut self) -> Result<Message, Fault> {
        let kind = self.kind();
        match Message::parse(&mut self.bytes) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => unreachable!("a packet is whole"),
            Err(cause) => Err(Fault::Protocol(format!("a message of kind {kind:#04x}: {cause}"))),
        }
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
