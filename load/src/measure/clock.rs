//! The wall clock, as numbers: the system's, and that of a record's stamp.
//!
//! Promises: one place that turns system time into numbers. Must not: measure durations. Fails: when
//! the system's clock stands before 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Message};

/// Microseconds since 1970.
///
/// # Errors
/// When the clock stands before 1970.
pub(crate) fn unix_us(time: SystemTime) -> Result<u64> {
    let since = time.duration_since(UNIX_EPOCH).context("the system's clock stands before 1970")?;
    Ok(since.as_micros() as u64)
}

/// Milliseconds since 1970.
///
/// # Errors
/// When the clock stands before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> Result<i64> {
    Ok((unix_us(time)? / 1_000) as i64)
}

/// A number that tells this run from others: nine digits, different for runs of 30 years.
///
/// # Errors
/// When the clock stands before 1970.
pub(crate) fn new_run_id() -> Result<u32> {
    // A run takes longer than a second, so the seconds alone differ.
    Ok((unix_us(SystemTime::now())? / 1_000_000 % 1_000_000_000) as u32)
}

/// Whose clock stamped a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordClock {
    /// The broker's, when it appended the record.
    Append,
    /// The relay's, when it made the record.
    Create,
}

/// When a record was stamped, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Milliseconds since 1970.
    pub(crate) unix_ms: i64,
    /// Whose clock.
    pub(crate) clock: RecordClock,
}

impl Stamp {
    /// The earlier of two.
    pub(crate) fn earlier(self, other: Self) -> Self {
        if other.unix_ms < self.unix_ms { other } else { self }
    }

    /// The later of two.
    pub(crate) fn later(self, other: Self) -> Self {
        if other.unix_ms > self.unix_ms { other } else { self }
    }

    /// The stamp of a message; records without one do not come from a broker of this century.
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        match message.timestamp() {
            Timestamp::LogAppendTime(unix_ms) => Some(Self { unix_ms, clock: RecordClock::Append }),
            Timestamp::CreateTime(unix_ms) => Some(Self { unix_ms, clock: RecordClock::Create }),
            Timestamp::NotAvailable => None,
        }
    }
}
