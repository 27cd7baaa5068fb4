//! An event as a logical message, in the form that postrider documents: version 1, network byte order.
//!
//! Promises: the form of docs/message-format.md, written out here so that the tool stays a black box. Must
//! not: touch the network or a clock.

use crate::workload::outbox::{AGGREGATE_TYPE, EVENT_TYPE};

/// The prefix of the messages that are events.
pub(crate) const PREFIX: &str = "postrider.outbox";

const VERSION: u8 = 1;
const HAS_PAYLOAD: u8 = 1;
const HAS_HEADERS: u8 = 2;

/// Appends one event; its id has 16 bytes, and its texts are short of 4 GiB, as every array element is.
pub(crate) fn write(
    id: &[u8],
    created_unix_us: u64,
    (key, payload): (&[u8], &[u8]),
    headers: Option<&str>,
    message: &mut Vec<u8>,
) {
    let flags = HAS_PAYLOAD | if headers.is_some() { HAS_HEADERS } else { 0 };
    let headers = headers.unwrap_or_default();
    let texts = [AGGREGATE_TYPE.as_bytes(), key, EVENT_TYPE.as_bytes(), headers.as_bytes()];
    message.push(VERSION);
    message.extend_from_slice(id);
    message.extend_from_slice(&created_unix_us.to_be_bytes());
    message.push(flags);
    for text in texts {
        message.extend_from_slice(&(text.len() as u32).to_be_bytes());
    }
    for part in texts {
        message.extend_from_slice(part);
    }
    message.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_as_documented() {
        let mut message = Vec::new();
        write(b"0123456789abcdef", 258, (b"order-7", b"{}"), None, &mut message);
        let expected = b"\x010123456789abcdef\0\0\0\0\0\0\x01\x02\x01\
            \0\0\0\x05\0\0\0\x07\0\0\0\x0c\0\0\0\0orderorder-7OrderChanged{}";
        assert_eq!(message, expected);
        message.clear();
        write(b"0123456789abcdef", 258, (b"order-7", b""), Some("{}"), &mut message);
        assert!(
            message.ends_with(
                b"\x03\0\0\0\x05\0\0\0\x07\0\0\0\x0c\0\0\0\x02orderorder-7OrderChanged{}"
            )
        );
    }
}
