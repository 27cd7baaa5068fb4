//! What a set of experiments is to do, and the plan of each of its parts.
//!
//! Promises: experiments differ in what they say of themselves, and in nothing else. Must not: know of
//! flags.

use std::path::PathBuf;
use std::time::Duration;

use super::experiments::{CaptureMode, Experiment, Group, WARM_UP_SECONDS};
use crate::audit::topic::EventSink;
use crate::drain::plan::{DrainPlan, RelayStart};
use crate::measure::slot::RelayReads;
use crate::run::plan::{RelayProcess, RunPlan};
use crate::workload::outbox::EventSource;
use crate::workload::plan::EventPlan;
use crate::workload::session::{Workload, WriteForm};

/// How long a relay may bring nothing.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Each writer waits for its commits: four could not write 100,000/s on a slow disk.
const LIVE_WRITERS: u16 = 8;

/// What a set of experiments is to do.
#[derive(Clone, Debug)]
pub(crate) struct BenchPlan {
    /// Where the events go in.
    pub(crate) source: EventSource,
    /// Where they come out.
    pub(crate) sink: EventSink,
    /// The relay's command line, without what experiments add.
    pub(crate) relay: String,
    /// The groups to do; all of them when there is none here.
    pub(crate) only: Vec<Group>,
    /// How often to repeat each experiment.
    pub(crate) runs: u32,
    /// Factor on all numbers of events and durations.
    pub(crate) scale: f64,
    /// The broker's process id.
    pub(crate) kafka_pid: Option<u32>,
    /// What is remembered with the result.
    pub(crate) notes: Vec<(String, String)>,
    /// Folder of the results.
    pub(crate) out: PathBuf,
}

impl BenchPlan {
    /// Whether an experiment is to be done.
    pub(super) fn wants(&self, experiment: &Experiment) -> bool {
        self.only.is_empty() || self.only.contains(&experiment.group)
    }

    /// The relay's command line with this capture mode.
    pub(super) fn command(&self, mode: CaptureMode) -> String {
        format!("{} --capture {}", self.relay, mode.name())
    }

    /// The relay's command line of an experiment.
    pub(super) fn command_of(&self, experiment: &Experiment) -> String {
        format!("{} {}", self.command(experiment.capture), experiment.relay_flags)
    }

    /// The plan of a run at this rate for so many seconds.
    pub(super) fn live(
        &self,
        experiment: &Experiment,
        (rate, tx_size, measured_seconds): (f64, u32, u64),
        out: PathBuf,
    ) -> RunPlan {
        let writes_messages = experiment.capture == CaptureMode::Message;
        RunPlan {
            source: self.source.clone(),
            sink: self.sink.clone(),
            shape: EventPlan { writers: LIVE_WRITERS, ..EventPlan::published(tx_size, 200) },
            rate,
            warmup_seconds: WARM_UP_SECONDS,
            measured_seconds,
            skew: 0.0,
            workload: Workload::Events,
            capture: if writes_messages { WriteForm::Message } else { WriteForm::Table },
            reads: experiment.capture.reads(),
            relay: RelayProcess::Started { command: self.command_of(experiment) },
            kafka_pid: self.kafka_pid,
            thresholds: Vec::new(),
            verify: true,
            truncate: !writes_messages,
            stall_limit: STALL_LIMIT,
            name: format!("live, {}", experiment.capture.name()),
            notes: self.notes.clone(),
            out,
        }
    }

    /// The plan of a drain of so many events of this shape.
    pub(super) fn drain(
        &self,
        experiment: &Experiment,
        (events, shape): (u64, EventPlan),
        out: PathBuf,
    ) -> DrainPlan {
        let start = match experiment.capture.reads() {
            RelayReads::Table => RelayStart::Cold,
            RelayReads::Wal => RelayStart::WithSlot,
        };
        DrainPlan {
            source: self.source.clone(),
            sink: self.sink.clone(),
            shape,
            events,
            relay: self.command_of(experiment),
            start,
            runs: experiment.runs(self.runs),
            truncate: true,
            settle: true,
            verify: true,
            kafka_pid: self.kafka_pid,
            stall_limit: STALL_LIMIT,
            out,
        }
    }
}
