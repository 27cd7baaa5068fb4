//! Frames from bytes, and the bytes of a confirmation.

use bytes::BufMut;
use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use crate::postgres::replication::stream::*;
use crate::postgres::replication::transport::Transport;

fn xlog_data(start: u64, message: &[u8]) -> Vec<u8> {
    let mut body = vec![XLOG_DATA];
    body.put_u64(start);
    body.put_u64(0);
    body.put_i64(0);
    body.extend_from_slice(message);
    body
}

fn keep_alive(end: u64, reply: u8) -> Vec<u8> {
    let mut body = vec![KEEP_ALIVE];
    body.put_u64(end);
    body.put_i64(-1);
    body.put_u8(reply);
    body
}

#[test]
fn frames_are_what_was_sent() {
    let data = |body: Vec<u8>| copied(Bytes::from(body)).unwrap();
    let message = Bytes::from_static(b"I");
    assert_eq!(data(xlog_data(77, b"I")), Frame::Data { start: Lsn(77), message });
    assert_eq!(data(xlog_data(78, b"")), Frame::Data { start: Lsn(78), message: Bytes::new() });
    for (byte, reply) in [(0, ReplyWanted::No), (1, ReplyWanted::Yes)] {
        assert_eq!(data(keep_alive(79, byte)), Frame::KeepAlive { end: Lsn(79), reply });
    }
}

#[test]
fn a_part_of_a_frame_is_refused() {
    for body in [xlog_data(1, b""), keep_alive(1, 1)] {
        for length in 0..body.len() {
            assert!(copied(Bytes::copy_from_slice(&body[..length])).is_err(), "{length}");
        }
    }
    let mut long = keep_alive(1, 1);
    long.push(0);
    assert!(copied(Bytes::from(long)).is_err());
    assert!(copied(Bytes::from_static(b"?")).is_err());
}

#[test]
fn a_confirmation_has_the_protocols_shape() {
    let status = status(Lsn(0x0102), Lsn(0x03), Timestamp::from_postgres(5));
    let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
    expected.put_u64(0x0102);
    expected.put_u64(0x03);
    expected.put_u64(0x03);
    expected.put_i64(5);
    expected.put_u8(0);
    assert_eq!(status.as_slice(), expected);
}

proptest! {
    #[test]
    fn any_bytes_give_a_frame_or_a_fault(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        // A frame or a fault, no panic.
        drop(copied(Bytes::from(body)));
    }
}

/// A server that does not read: confirmations return, no message is torn, the latest arrives last,
/// and those between are not kept.
#[tokio::test]
async fn a_confirmation_waits_for_no_room() {
    const CONFIRMATIONS: u64 = 200_000;
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let mut stream = LogStream::new(Wire::new(Transport::Unix(ours)));
    let confirming = async {
        for place in 1..=CONFIRMATIONS {
            stream.confirm(Lsn(place), Lsn(place)).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), confirming).await.expect("it never waits");
    let reading = async {
        let mut places = Vec::new();
        while places.last() != Some(&CONFIRMATIONS) {
            let mut message = [0; STATUS_BYTES];
            theirs.read_exact(&mut message).await.unwrap();
            let place = u64::from_be_bytes(*message[6..].first_chunk().unwrap());
            assert_eq!(message[..30], status(Lsn(place), Lsn(place), Timestamp(0))[..30]);
            places.push(place);
        }
        places
    };
    let mut everything = Everything;
    let places = tokio::select! {
        places = reading => places,
        frame = stream.next(&mut everything) => panic!("nothing was sent: {frame:?}"),
    };
    assert!(places.is_sorted());
    assert!(places.len() < 100_000, "{} were kept", places.len());
}
