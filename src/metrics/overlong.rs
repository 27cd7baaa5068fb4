//! A transaction that took longer than its time-out, as people are told of it.
//!
//! Promises: the words name the true cause: how little Kafka takes. Must not: judge when that is so.

use std::fmt;

/// A transaction took longer than it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlongTransaction {
    /// Kafka took less than this ...
    pub bytes: u64,
    /// ... in so many seconds.
    pub seconds: u64,
}

impl fmt::Display for OverlongTransaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, seconds) = (show_size(self.bytes), self.seconds);
        write!(
            formatter,
            "transactions take longer than their time-out: Kafka takes less than {size} in {seconds} s"
        )
    }
}

/// `12.3 MiB`.
pub fn show_size(bytes: u64) -> String {
    const KIBI: f64 = 1_024.0;
    let size = bytes as f64;
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", size / KIBI),
        _ => format!("{:.1} MiB", size / KIBI / KIBI),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_little_kafka_takes() {
        let told = |bytes| OverlongTransaction { bytes, seconds: 20 }.to_string();
        let cause = "transactions take longer than their time-out: Kafka takes less than";
        for (bytes, size) in [(6 << 20, "6.0 MiB"), (1_536, "1.5 KiB"), (512, "512 B")] {
            assert_eq!(told(bytes), format!("{cause} {size} in 20 s"));
        }
    }
}
