//! The order of events: snapshots, ticks, cursors, and what is held back. No runtime, no driver, no clock.

pub mod cursor;
pub mod holds;
pub mod ledger;
pub mod log_cursor;
pub mod refusal;
pub mod snapshot;
pub mod tick;
