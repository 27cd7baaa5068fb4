//! The wall clock, as numbers.
//!
//! Promises: one place that turns system time into numbers. Must not: measure durations. Fails: when
//! the system's clock stands before 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

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
