//! What one instance tells of itself.
//!
//! Promises, must not, fails: as its parent.

use serde::{Deserialize, Serialize};

use crate::metrics::shape::tier::BucketReport;
use crate::metrics::shape::waiting::{BacklogReport, ParkedCounts};

/// `/api/v1/status`: one instance, by what is in its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// [`crate::metrics::shape::STATUS_SCHEMA`].
    pub schema: String,
    /// The schema of the control tables, where it is another than `postrider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_schema: Option<String>,
    /// Its name in the tier.
    pub instance: String,
    /// Of the program.
    pub version: String,
    /// Since the process began its work.
    pub uptime_seconds: f64,
    /// How things are.
    pub sentence: String,
    /// The same in a word.
    pub state: InstanceCondition,
    /// Why it does not get on, where it does not.
    pub causes: Vec<Cause>,
    /// How events are read.
    pub capture: InstanceCapture,
    /// What is promised of repeats.
    pub delivery: String,
    /// None while publishing goes on.
    pub paused: Option<PauseReason>,
    /// Events in a second.
    pub rate: Rate,
    /// From an event's `created_at` to its acknowledgement.
    pub age: Age,
    /// What waits in the own buckets.
    pub backlog: BacklogReport,
    /// Between claim and acknowledgement.
    pub in_flight: InFlightReport,
    /// What is parked of the own buckets; none where it was not seen.
    pub parked: Option<ParkedCounts>,
    /// What takes how long.
    pub time: WorkTime,
    /// What works side by side in this instance.
    pub shards: Vec<ShardReport>,
    /// The own buckets, as they were seen last.
    pub buckets: Vec<BucketReport>,
    /// The way to Kafka.
    pub kafka: KafkaReport,
    /// Until nothing more is sent.
    pub lease: LeaseReport,
}

/// What an instance is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceCondition {
    /// It publishes what comes, or waits for something to come.
    Publishing,
    /// Another instance reads the log.
    StandingBy,
    /// It stops, and what is in flight lands.
    Draining,
    /// People have paused publishing.
    Paused,
    /// It has work and does not get on, or may not.
    Stalled,
    /// It has no session with PostgreSQL.
    NoSession,
}

/// Why an instance does not get on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// The check of `/readyz` that is not well.
    pub what: String,
    /// Since when; none where that is not known.
    pub since_seconds: Option<f64>,
    /// What it is.
    pub words: String,
    /// What helps.
    pub fix: String,
}

/// How an instance reads events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceCapture {
    /// None before the first session.
    pub mode: Option<String>,
    /// In the instance that reads it.
    pub slot: Option<ReadSlot>,
}

/// A slot, as its reader sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadSlot {
    /// What the server keeps of its log for it.
    pub retained_bytes: u64,
    /// What may be written until it is lost; none where there is no limit.
    pub safe_bytes: Option<u64>,
    /// Since it was not confirmed further, although the log went on.
    pub age_seconds: u64,
}

/// Why publishing is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReason {
    /// As people gave it.
    pub reason: String,
}

/// Events in a second, over the last ten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// That came into the own buckets: those that went, and by how much what waits has grown. None where not all that
    /// waits was counted.
    pub r#in: Option<f64>,
    /// That Kafka acknowledged; none in the first second.
    pub out: Option<f64>,
}

/// Ages of events when they were acknowledged. By the buckets of the histogram, and so not exact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Age {
    /// In seconds; none where nothing was published.
    pub p50: Option<f64>,
    /// In seconds; none where nothing was published.
    pub p99: Option<f64>,
    /// Of how long.
    pub window_seconds: f64,
}

/// What is between claim and acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightReport {
    /// In all shards.
    pub bytes: u64,
    /// What may be.
    pub limit_bytes: u64,
}

/// What takes how long, over the last minute; none where nothing was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkTime {
    /// From the claim of a page to its first rows.
    pub claim_ms: Option<f64>,
    /// From a batch's sending to its last acknowledgement.
    pub ack_ms: Option<f64>,
}

/// One of those that work side by side in an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: usize,
    /// What it works on.
    pub buckets: Vec<u16>,
    /// Events in a second.
    pub rate: Option<f64>,
    /// Between claim and acknowledgement.
    pub in_flight_bytes: u64,
    /// Aggregates that wait behind a parked event.
    pub held: u64,
    /// How often it began again with another producer.
    pub replaced: u64,
    /// What it is at.
    pub state: ShardCondition,
    /// Why it does not get on, where it does not.
    pub words: Option<String>,
}

/// What a shard is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardCondition {
    /// Something is in flight, or to be claimed.
    Publishing,
    /// Nothing waits.
    Idle,
    /// It has work and does not get on.
    Stalled,
}

/// The way to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaReport {
    /// For how long nothing of what is in flight was acknowledged; none where nothing is.
    pub unacknowledged_seconds: Option<f64>,
    /// What librdkafka told last, unless something was acknowledged since.
    pub trouble: Option<String>,
    /// Topics for which events are parked until they can be used; none where it was not seen.
    pub topics_held: Option<u64>,
}

/// The lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// None without one.
    pub left_seconds: Option<f64>,
    /// How long it is for.
    pub length_seconds: u64,
}
