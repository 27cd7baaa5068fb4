//! What is thrown at the bytes of a server.
//!
//! Promises: as `crate::fuzz` says. Must not: be a part of what is built to run. Fails: by a panic, when a rule
//! does not hold.

use crate::postgres::replication::framing::ReceiveBuffer;

/// Bytes of a server: however they are cut, they are the same messages, and a claimed length takes no memory.
pub fn inbox(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let whole = messages(bytes, usize::MAX);
    let parts = messages(bytes, 1 + usize::from(*first));
    assert_eq!(whole, parts, "the cut makes no difference");
}

/// The messages up to the first fault, each as its letter and body, and whether there was a fault.
fn messages(mut bytes: &[u8], most: usize) -> (Vec<(u8, Vec<u8>)>, bool) {
    /// Two buffers.
    const MEMORY_BYTES_MAX: usize = 512 * 1024;
    let (mut inbox, mut found) = (ReceiveBuffer::new(), Vec::new());
    loop {
        let Ok(room) = inbox.room() else { return (found, true) };
        assert!(room.capacity() <= MEMORY_BYTES_MAX, "a length is only a claim");
        let free = room.capacity() - room.len();
        assert!(free > 0, "a read without room would look like the end");
        let (now, later) = bytes.split_at(bytes.len().min(free).min(most));
        room.extend_from_slice(now);
        bytes = later;
        loop {
            match inbox.take() {
                Ok(Some(packet)) => {
                    let kind = packet.kind();
                    found.push((kind, packet.into_body().to_vec()));
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        if bytes.is_empty() {
            return (found, false);
        }
    }
}
