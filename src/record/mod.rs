//! An event as a record: topic, partition, key, value, headers and size. No runtime, no driver, no clock.

pub mod encode;
pub mod large;
pub mod topic;
