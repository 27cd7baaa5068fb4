//! An event as a record: topic, partition, key, value, headers and size. No runtime, no driver, no clock.

pub mod cloud_events;
pub mod encode;
mod headers;
pub mod large;
pub mod size;
pub mod topic;
pub mod topic_rules;
mod trace;
pub mod unpublishable;
