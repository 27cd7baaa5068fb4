//! What was seen to wait in the database, and who this instance is.
//!
//! Promises: says of each figure whether all was looked at. Must not: look by itself.

use std::collections::BTreeMap;

use crate::metrics::shape::{ParkedAggregate, TierReport};

/// What waits in the buckets of one instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeenBacklog {
    /// When, since some moment that stays the same.
    pub at_millis: u64,
    /// By bucket, the age of its oldest event that is neither published nor parked; 0 where none waits.
    pub oldest_age_seconds: BTreeMap<u16, f64>,
    /// Events that wait and are not parked.
    pub backlog_events: u64,
    /// What they take in the table.
    pub backlog_bytes: u64,
    /// Whether not all rows were looked at.
    pub is_lower_bound: bool,
    /// Parked events, by reason.
    pub parked: BTreeMap<String, u64>,
    /// Whose they are.
    pub parked_aggregates: u64,
    /// Since when the oldest of them is parked; 0 where none is.
    pub parked_oldest_age_seconds: f64,
    /// Topics for which events are parked until they can be used.
    pub topics_held: u64,
}

/// What was seen of the whole tier.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTier {
    /// When, since some moment that stays the same.
    pub at_millis: u64,
    /// All instances and buckets.
    pub tier: TierReport,
    /// The first parked events of each aggregate; perhaps not all.
    pub parked: Vec<ParkedAggregate>,
}

/// Who an instance is, and how it reads and delivers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceInfo {
    /// Its name in the tier.
    pub name: String,
    /// How events are read.
    pub capture: String,
    /// What is promised of repeats.
    pub delivery: String,
    /// The server's timeline.
    pub timeline: Option<i32>,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u64,
}
