//! How events are read.
//!
//! Promises: what is handed on is committed, durable, and in the order of writing per aggregate.
//! Must not: know Kafka, or what was acknowledged. Fails: with the error of the connection; the
//! shard then goes back to its saved cursor.

pub mod adopted_copy;
mod adopted_query;
pub mod adopted_row;
pub mod adoption;
mod attached;
pub mod change;
pub mod encoding;
pub mod envelope;
pub mod failover;
pub mod fence;
pub mod flawed;
pub mod log_texts;
pub mod memory;
pub mod mode;
pub mod needs;
pub mod outbox_row;
pub mod pgoutput;
pub mod poll;
mod printed;
mod publication;
pub mod reader_lock;
pub mod sieve;
pub mod slot;
pub mod ticker;
pub mod wal;
