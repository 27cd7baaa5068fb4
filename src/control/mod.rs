//! postrider's own tables: cursors, leases, parked events, retention and the schema itself.

pub mod cursors;
pub mod delivery;
pub mod lease;
pub mod migrate;
pub mod moved;
pub mod parked;
pub mod retention;
pub mod unread;
