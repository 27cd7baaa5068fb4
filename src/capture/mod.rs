//! How events are read.
//!
//! Promises: what is handed on is committed, durable, and in the order of writing per aggregate.
//! Must not: know Kafka, or what was acknowledged. Fails: with the error of the connection; the
//! shard then goes back to its saved cursor.

pub mod adopted;
pub mod barrier;
pub mod log;
pub mod mode;
pub mod mode_change;
pub mod mode_switch;
pub mod replay;
pub mod slot;
pub mod table;
pub mod tier_look;
