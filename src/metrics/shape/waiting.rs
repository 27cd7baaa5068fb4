//! What waits, and what is parked: a part of several shapes.
//!
//! Promises, must not, fails: as its parent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What waits, but for parked events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacklogReport {
    /// None where it was not seen.
    pub events: Option<u64>,
    /// Whether more may wait.
    pub is_lower_bound: bool,
    /// Since when the oldest waits; none where nothing waits, or it was not seen.
    pub oldest_seconds: Option<f64>,
    /// When all of it will be published; none where that is not known.
    pub time_to_empty_seconds: Option<f64>,
    /// Whether something waits, or is in flight, and nothing of it moves.
    pub stands_still: bool,
    /// How long ago was looked what waits: it is as old as that. None where it was not seen.
    pub seen_seconds_ago: Option<f64>,
}

/// How much is parked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParkedCounts {
    /// Parked events.
    pub events: u64,
    /// Whose they are.
    pub aggregates: u64,
    /// Since when the oldest is parked.
    pub oldest_seconds: Option<f64>,
    /// Events by why.
    pub by_reason: BTreeMap<String, u64>,
}
