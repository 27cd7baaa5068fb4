//! What an instance tells of itself and of the tier, as JSON: `/api/v1/*`, and `postrider status --json`.
//!
//! Promises: each shape has a name with a number, which goes up when a member loses its meaning; members may be added
//! without. What is not known is null. `docs/api.md` describes them, and examples kept beside this file are compared in a
//! test. Must not: know where anything comes from.

mod instance;
mod setting;
mod tier;
mod waiting;

pub use crate::metrics::shape::instance::{
    Age, Cause, InFlightReport, InstanceCapture, InstanceCondition, InstanceReport, KafkaReport,
    LeaseReport, PauseReason, Rate, ReadSlot, ShardCondition, ShardReport, WorkTime,
};
pub use crate::metrics::shape::setting::{ConfigReport, ErrorReport, SettingOrigin, SettingStatus};
pub use crate::metrics::shape::tier::{
    BucketCondition, BucketReport, ParkedAggregate, ParkedReport, TierCapture, TierInstance,
    TierInstanceCondition, TierPause, TierReport, TierSlot,
};
pub use crate::metrics::shape::waiting::{BacklogReport, ParkedCounts};

/// The name of [`InstanceReport`].
pub const STATUS_SCHEMA: &str = "postrider/status/1";
/// The name of [`TierReport`].
pub const TIER_SCHEMA: &str = "postrider/tier/1";
/// The name of [`ParkedReport`].
pub const PARKED_SCHEMA: &str = "postrider/parked/1";
/// The name of the answer of `/api/v1/config`.
pub const CONFIG_SCHEMA: &str = "postrider/config/1";
/// The name of what is answered where nothing else can be.
pub const ERROR_SCHEMA: &str = "postrider/error/1";
/// The name of the answer to something that was asked to be done.
pub const DONE_SCHEMA: &str = "postrider/done/1";
