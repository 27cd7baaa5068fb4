//! What a drain is to do.
//!
//! Promises: whole: nothing is looked up or decided later. Must not: know of flags.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit::topic::EventSink;
use crate::workload::outbox::EventSource;
use crate::workload::plan::EventPlan;

/// In what state the relay meets the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayStart {
    /// It is started when the backlog is there.
    Cold,
    /// It publishes so many events first and is halted while the backlog is written.
    Warm {
        /// How many.
        events: u64,
    },
    /// It creates its slot and is stopped; the backlog is written after that.
    WithSlot,
}

/// What a drain is to do.
#[derive(Clone, Debug)]
pub(crate) struct DrainPlan {
    /// Where the events go in.
    pub(crate) source: EventSource,
    /// Where they come out.
    pub(crate) sink: EventSink,
    /// What they look like.
    pub(crate) shape: EventPlan,
    /// Events in the backlog.
    pub(crate) events: u64,
    /// The relay's command line.
    pub(crate) relay: String,
    /// How the relay meets the backlog.
    pub(crate) start: RelayStart,
    /// How often to repeat.
    pub(crate) runs: u32,
    /// Whether the outbox is emptied before each run.
    pub(crate) truncate: bool,
    /// Whether ANALYZE and CHECKPOINT come between filling and draining.
    pub(crate) settle: bool,
    /// Whether the topic is audited afterwards.
    pub(crate) verify: bool,
    /// The broker's process id.
    pub(crate) kafka_pid: Option<u32>,
    /// How long the relay may publish nothing.
    pub(crate) stall_limit: Duration,
    /// Folder of the results.
    pub(crate) out: PathBuf,
}
