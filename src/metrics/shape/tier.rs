//! What is known of the whole tier.
//!
//! Promises, must not, fails: as its parent.

use serde::{Deserialize, Serialize};

use crate::metrics::shape::waiting::{BacklogReport, ParkedCounts};

/// `/api/v1/tier`: all instances and buckets, as PostgreSQL told when it was asked last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierReport {
    /// [`crate::metrics::shape::TIER_SCHEMA`].
    pub schema: String,
    /// The schema of the control tables, where it is another than `postrider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_schema: Option<String>,
    /// How old all of it is.
    pub seen_seconds_ago: f64,
    /// How things are.
    pub sentence: String,
    /// How events are read.
    pub capture: TierCapture,
    /// None while publishing goes on.
    pub paused: Option<TierPause>,
    /// What waits in all buckets.
    pub backlog: BacklogReport,
    /// What is parked in all buckets.
    pub parked: ParkedCounts,
    /// The instances that are known, alive or not.
    pub instances: Vec<TierInstance>,
    /// All buckets.
    pub buckets: Vec<BucketReport>,
}

/// How the tier reads events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierCapture {
    /// `poll`, `wal` or `message`.
    pub mode: String,
    /// Since when.
    pub changed_at: String,
    /// By whose word.
    pub changed_by: String,
    /// Where one is known.
    pub slot: Option<TierSlot>,
}

/// A slot, as any session sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierSlot {
    /// Its name.
    pub name: String,
    /// What the server keeps of its log for it; none where it is not there.
    pub retained_bytes: Option<u64>,
    /// What may be written until it is lost; none where there is no limit.
    pub safe_bytes: Option<u64>,
    /// What was written since the place that is confirmed.
    pub behind_bytes: Option<u64>,
    /// Since nobody reads it; only PostgreSQL 17 and later know.
    pub inactive_seconds: Option<f64>,
    /// Up to where it is confirmed.
    pub confirmed_lsn: Option<String>,
    /// Up to where all is published.
    pub delivered_lsn: Option<String>,
}

/// A pause that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierPause {
    /// Why.
    pub reason: String,
    /// By whom: a role of the database.
    pub by: String,
    /// For how long already.
    pub for_seconds: f64,
    /// None where only `postrider resume` ends it.
    pub left_seconds: Option<f64>,
}

/// An instance, as the others see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierInstance {
    /// Its name.
    pub name: String,
    /// How many work side by side in it.
    pub shards: u16,
    /// How many buckets it owns.
    pub buckets: u64,
    /// Since it began.
    pub age_seconds: f64,
    /// Below zero when it has run out.
    pub lease_left_seconds: f64,
    /// Whether it is alive.
    pub state: TierInstanceCondition,
}

/// Whether an instance is alive, as far as others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TierInstanceCondition {
    /// Its lease goes on.
    Alive,
    /// Its lease has run out: it is dead, or hangs.
    Dead,
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketReport {
    /// Its number.
    pub bucket: u16,
    /// How often it was taken.
    pub epoch: i64,
    /// None where nobody owns it.
    pub owner: Option<String>,
    /// How far it is published, by `seq`.
    pub position: i64,
    /// Since its cursor was saved; none where nobody owns it.
    pub saved_age_seconds: Option<f64>,
    /// Events that wait; none where it was not seen.
    pub unpublished: Option<u64>,
    /// Whether more may wait.
    pub unpublished_is_lower_bound: bool,
    /// Since when the oldest waits; none where nothing waits, or it was not seen.
    pub oldest_seconds: Option<f64>,
    /// Parked events.
    pub parked: u64,
    /// What becomes of it.
    pub state: BucketCondition,
}

/// What becomes of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketCondition {
    /// Its owner is alive, and nothing waits.
    Idle,
    /// Its owner is alive, and events wait.
    Publishing,
    /// Its owner is alive; what waits was not seen.
    Owned,
    /// Publishing is paused.
    Paused,
    /// Nobody owns it.
    Free,
    /// Its owner is dead, or hangs.
    Orphaned,
    /// Its cursor is of another cluster, or of a later state of this one.
    Strange,
}

/// `/api/v1/parked`: the first parked events of each aggregate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedReport {
    /// [`crate::metrics::shape::PARKED_SCHEMA`].
    pub schema: String,
    /// How old all of it is.
    pub seen_seconds_ago: f64,
    /// How much is parked altogether.
    #[serde(flatten)]
    pub counts: ParkedCounts,
    /// In the order in which they were read; perhaps not all.
    pub listed: Vec<ParkedAggregate>,
}

/// A parked event that others of its aggregate wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedAggregate {
    /// The bucket.
    pub bucket: u16,
    /// The aggregate's type; of a long one the beginning.
    pub aggregatetype: String,
    /// The aggregate's id; of a long one the beginning.
    pub aggregateid: String,
    /// The event's id.
    pub event: String,
    /// The event's type.
    pub r#type: String,
    /// Why it is parked.
    pub reason: String,
    /// The same in words.
    pub detail: String,
    /// Where it would go; none as long as nobody has tried.
    pub topic: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// Events of the aggregate that are parked.
    pub events: u64,
    /// Whether more may be.
    pub events_is_lower_bound: bool,
    /// Since it is parked.
    pub since_seconds: f64,
    /// Whether the aggregate is to be tried again.
    pub is_requested: bool,
    /// What helps.
    pub fix: String,
}

impl TierReport {
    /// How many instances are alive.
    pub fn alive(&self) -> usize {
        self.instances.iter().filter(|one| one.state == TierInstanceCondition::Alive).count()
    }
}

impl BucketCondition {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Publishing => "publishing",
            Self::Owned => "owned",
            Self::Paused => "paused",
            Self::Free => "free",
            Self::Orphaned => "orphaned",
            Self::Strange => "strange",
        }
    }
}
