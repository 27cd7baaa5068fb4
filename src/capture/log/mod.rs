//! Events from the stream of the write-ahead log: taken apart, and held back until they are durable.

pub mod decode;
pub mod durability;
pub mod encoding;
pub mod flawed;
pub mod logged_event;
pub mod message;
pub mod misformed;
pub mod outbox_row;
pub mod pgoutput;
pub(super) mod printed;
pub mod sieve;
pub mod texts;
