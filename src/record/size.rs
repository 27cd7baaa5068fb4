//! How large a record is.
//!
//! Promises: no record takes more in a batch of its own than is said here. Must not: count what compression saves.

/// The most that a batch with only this record takes, without compression: what a topic's `max.message.bytes` is
/// compared with. By the lengths of key, value and of each header's name and value.
///
/// Source: Kafka's record format v2; the same bound as the Java client's
/// `AbstractRecords.estimateSizeInBytesUpperBound`.
pub fn size_bytes_of(
    key: usize,
    value: Option<usize>,
    headers: impl Iterator<Item = (usize, Option<usize>)>,
) -> usize {
    const BATCH_OVERHEAD_BYTES: usize = 61;
    // Length 5, attributes 1, timestamp 10, offset 5: the longest forms.
    const RECORD_OVERHEAD_BYTES: usize = 21;

    let (mut count, mut bytes) = (0, BATCH_OVERHEAD_BYTES + RECORD_OVERHEAD_BYTES);
    for (name, value) in headers {
        count += 1;
        bytes += prefixed_bytes(name) + value.map_or(1, prefixed_bytes);
    }
    bytes + prefixed_bytes(key) + value.map_or(1, prefixed_bytes) + varint_bytes(count)
}

/// A length in its zig-zag form, and as many bytes.
fn prefixed_bytes(length: usize) -> usize {
    varint_bytes(length) + length
}

/// Bytes of a length as a zig-zag varint: seven bits in each.
fn varint_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}
