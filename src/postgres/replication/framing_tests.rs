//! Cutting: at any place, with lengths that are no lengths, and what stays alive.

use bytes::BufMut;
use proptest::prelude::*;

use crate::postgres::replication::framing::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.put_u32(u32::try_from(LENGTH_BYTES + body.len()).unwrap());
    message.extend_from_slice(body);
    message
}

/// Puts bytes in as a socket would: as many as there is room for.
fn feed(inbox: &mut ReceiveBuffer, mut bytes: &[u8], most: usize, mut taken: impl FnMut(Packet)) {
    while !bytes.is_empty() {
        let room = inbox.room().unwrap();
        let free = room.capacity() - room.len();
        assert!(free > 0, "a read without room would look like the end");
        let (now, later) = bytes.split_at(bytes.len().min(free).min(most));
        room.extend_from_slice(now);
        bytes = later;
        while let Some(packet) = inbox.take().unwrap() {
            taken(packet);
        }
    }
}

proptest! {
    #[test]
    fn messages_come_whole_however_they_are_cut(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..40),
        most in 1_usize..700,
    ) {
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
        let mut found = Vec::new();
        feed(&mut ReceiveBuffer::new(), &bytes, most, |packet| {
            assert_eq!(packet.kind(), b'd');
            found.push(packet.into_body().to_vec());
        });
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn any_bytes_give_messages_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut inbox = ReceiveBuffer::new();
        inbox.room().unwrap().extend_from_slice(&bytes);
        while let Ok(Some(packet)) = inbox.take() {
            // A message or a fault, no panic.
            drop(packet.parse());
        }
        prop_assert!(inbox.bytes.capacity() <= 2 * BUFFER_BYTES);
    }
}

#[test]
fn a_part_waits_for_the_rest() {
    let whole = message(b'd', b"rest");
    for length in 0..whole.len() {
        let mut inbox = ReceiveBuffer::new();
        inbox.room().unwrap().extend_from_slice(&whole[..length]);
        assert!(inbox.take().unwrap().is_none(), "{length}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_room_is_made() {
    for (kind, length) in [
        (b'd', 0),
        (b'd', 3),
        (b'd', (1 << 30) + 1),
        (b'd', u32::MAX),
        (b'E', 0x8000_0000),
        (b'Z', 30_001),
        (b'H', 0x5454_502F), // HTTP/1.1
        (0, 0x0100_0000),
    ] {
        let mut inbox = ReceiveBuffer::new();
        let room = inbox.room().unwrap();
        room.put_u8(kind);
        room.put_u32(length);
        assert!(matches!(inbox.take(), Err(Fault::Protocol(_))), "{kind} {length}");
        assert!(inbox.room().is_err(), "{kind} {length}");
        assert!(inbox.bytes.capacity() <= BUFFER_BYTES);
    }
}

#[test]
fn room_follows_what_came_not_what_was_claimed() {
    let mut inbox = ReceiveBuffer::new();
    let room = inbox.room().unwrap();
    room.put_u8(b'd');
    room.put_u32(1 << 30);
    let mut came = HEAD_BYTES;
    while came < 40 * BUFFER_BYTES {
        let room = inbox.room().unwrap();
        let free = room.capacity() - room.len();
        assert!(room.capacity() <= 2 * came.max(BUFFER_BYTES), "{} of {came}", room.capacity());
        room.put_bytes(b'x', free);
        came += free;
    }
}

/// What is lent is not moved by what comes later, and nothing keeps more than a buffer alive.
#[test]
fn what_is_lent_stays_where_it_is() {
    let mut inbox = ReceiveBuffer::new();
    let mut lent: Vec<(usize, Bytes)> = Vec::new();
    let body = [7; 1000];
    let bytes: Vec<u8> = (0..2000).flat_map(|_| message(b'd', &body)).collect();
    feed(&mut inbox, &bytes, 9_999, |packet| {
        let body = packet.into_body();
        lent.push((body.as_ptr() as usize, body));
    });
    assert_eq!(lent.len(), 2000);
    for (place, body) in &lent {
        assert_eq!((body.as_ptr() as usize, body.as_ref()), (*place, &[7; 1000][..]));
    }
    assert!(inbox.bytes.capacity() <= BUFFER_BYTES);
}

/// Two messages are cut from one buffer: neither is a copy.
#[test]
fn neighbours_lie_in_one_buffer() {
    let mut inbox = ReceiveBuffer::new();
    let mut places = Vec::new();
    let bytes = [message(b'd', b"one"), message(b'd', b"two")].concat();
    feed(&mut inbox, &bytes, bytes.len(), |packet| places.push(packet.into_body()));
    assert_eq!(places[1].as_ptr() as usize - places[0].as_ptr() as usize, 3 + HEAD_BYTES);
}

#[test]
fn a_buffer_is_used_again_when_nothing_of_it_is_lent() {
    let mut inbox = ReceiveBuffer::new();
    let bytes: Vec<u8> = (0..5000).flat_map(|_| message(b'd', &[7; 500])).collect();
    let first = inbox.room().unwrap().as_ptr();
    feed(&mut inbox, &bytes, 100_000, drop);
    assert_eq!(inbox.bytes.len(), 0);
    inbox.bytes.reserve(BUFFER_BYTES);
    assert_eq!(inbox.bytes.as_ptr(), first, "no other buffer was made");
}

#[test]
fn a_long_message_leaves_no_long_buffer_behind() {
    let mut inbox = ReceiveBuffer::new();
    let long = message(b'd', &vec![7; 20 * BUFFER_BYTES]);
    let mut count = 0;
    feed(&mut inbox, &long, usize::MAX, |_| count += 1);
    assert_eq!(count, 1);
    let mut short = Vec::new();
    feed(&mut inbox, &message(b'd', b"short"), usize::MAX, |packet| short.push(packet));
    assert!(inbox.bytes.capacity() <= 2 * BUFFER_BYTES, "{}", inbox.bytes.capacity());
}

/// Keeps every third byte, and counts what went through.
#[derive(Default)]
struct Thirds {
    whole: usize,
    passed: usize,
    ends: usize,
}

impl MessageSieve for Thirds {
    fn begin(&mut self, whole_bytes: usize) {
        (self.whole, self.passed) = (whole_bytes, 0);
    }

    fn pass(&mut self, bytes: &[u8], kept: &mut BytesMut) -> usize {
        for byte in bytes {
            if self.passed.is_multiple_of(3) {
                kept.put_u8(*byte);
            }
            self.passed += 1;
        }
        bytes.len()
    }

    fn end(&mut self, _: &mut BytesMut) {
        assert_eq!(self.passed, self.whole);
        self.ends += 1;
    }
}

/// Short ones before and behind stay as they are; so does a long one that is no CopyData.
#[test]
fn a_long_message_leaves_what_its_sieve_keeps() {
    let long: Vec<u8> = (0..3 * BUFFER_BYTES).map(|place| place as u8).collect();
    let bodies = [&b"before"[..], &long, b"between", &long, b"behind"];
    let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
    for most in [1_000, 99_999, usize::MAX] {
        let (mut inbox, mut sieve, mut found) =
            (ReceiveBuffer::new(), Thirds::default(), Vec::new());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let room = inbox.room().unwrap();
            let free = room.capacity() - room.len();
            let (now, later) = rest.split_at(rest.len().min(free).min(most));
            room.extend_from_slice(now);
            rest = later;
            while let Some(Passed::Packet(packet)) = inbox.take_through(&mut sieve).unwrap() {
                assert_eq!(packet.kind(), b'd');
                found.push(packet.into_body().to_vec());
            }
            assert!(inbox.bytes.capacity() <= 2 * BUFFER_BYTES);
        }
        let thirds: Vec<u8> = long.iter().copied().step_by(3).collect();
        let expected = [&b"before"[..], &thirds, b"between", &thirds, b"behind"];
        assert_eq!((found, sieve.ends), (expected.map(<[u8]>::to_vec).to_vec(), 2));
    }
    let error = message(b'E', &long);
    let mut inbox = ReceiveBuffer::new();
    let mut sieve = Thirds::default();
    let mut count = 0;
    feed(&mut inbox, &error[..error.len() - 1], usize::MAX, |_| count += 1);
    inbox.room().unwrap().put_u8(0);
    assert!(inbox.take_through(&mut sieve).unwrap().is_some());
    assert_eq!((count, sieve.whole), (0, 0));
}
