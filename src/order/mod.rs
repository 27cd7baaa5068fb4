//! The order of events: snapshots, ticks, cursors, and what is held back. No runtime, no driver, no clock.

pub mod control_record;
pub mod cursor;
pub mod history;
pub mod holds;
pub mod later;
pub mod ledger;
pub mod log_cursor;
pub mod refusal;
pub mod saved_cursor;
pub mod seq_ranges;
pub mod snapshot;
pub mod tick;
