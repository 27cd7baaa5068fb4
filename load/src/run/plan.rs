//! What a run is to do.
//!
//! Promises: whole: nothing is looked up or decided later. Must not: know of flags.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit::topic::EventSink;
use crate::measure::slot::RelayReads;
use crate::report::threshold::Threshold;
use crate::workload::outbox::EventSource;
use crate::workload::plan::EventPlan;
use crate::workload::session::{Workload, WriteForm};

/// The relay whose work is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayProcess {
    /// This tool starts it and stops it.
    Started {
        /// Its command line.
        command: String,
    },
    /// It runs already.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// Its process is not known, so its CPU and memory are not either.
    Unknown,
}

impl RelayProcess {
    /// The command line, where this tool starts it.
    pub(crate) fn command(&self) -> Option<&str> {
        match self {
            Self::Started { command } => Some(command),
            Self::Running { .. } | Self::Unknown => None,
        }
    }

    /// The process id of one that runs already.
    pub(crate) fn running_pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid } => Some(*pid),
            Self::Started { .. } | Self::Unknown => None,
        }
    }
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// Where the events go in.
    pub(crate) source: EventSource,
    /// Where they come out.
    pub(crate) sink: EventSink,
    /// What they look like.
    pub(crate) shape: EventPlan,
    /// Events per second, over all writers.
    pub(crate) rate: f64,
    /// Seconds before the measured time.
    pub(crate) warmup_seconds: u64,
    /// Seconds that are measured.
    pub(crate) measured_seconds: u64,
    /// Zipf exponent of the choice of aggregates; 0 for even use.
    pub(crate) skew: f64,
    /// What a transaction holds.
    pub(crate) workload: Workload,
    /// How events are written.
    pub(crate) capture: WriteForm,
    /// Where the relay reads.
    pub(crate) reads: RelayReads,
    /// The relay.
    pub(crate) relay: RelayProcess,
    /// The broker's process id.
    pub(crate) kafka_pid: Option<u32>,
    /// What must hold.
    pub(crate) thresholds: Vec<Threshold>,
    /// Whether a fault that the audit finds fails the run.
    pub(crate) verify: bool,
    /// Whether the outbox is emptied first.
    pub(crate) truncate: bool,
    /// How long nothing may be delivered after the schedule's end.
    pub(crate) stall_limit: Duration,
    /// A name, shown in reports.
    pub(crate) name: String,
    /// What is remembered with the result.
    pub(crate) notes: Vec<(String, String)>,
    /// Folder of the results.
    pub(crate) out: PathBuf,
}
