//! Everything that a run measured.
//!
//! Promises: all that the result is made of. Must not: judge.

use std::time::Duration;

use crate::audit::consumer::Consumed;
use crate::report::summary::Second;
use crate::run::sampler::Moment;
use crate::workload::writer::WriterTotals;

/// Everything that was measured.
pub(crate) struct RunOutcome {
    /// At the begin of the measured time.
    pub(crate) from: Moment,
    /// At its end.
    pub(crate) to: Moment,
    /// The seconds.
    pub(crate) rows: Vec<Second>,
    /// From the end of the schedule to the last delivery.
    pub(crate) settle: Duration,
    /// The last committed version of every aggregate.
    pub(crate) committed_versions: Vec<u32>,
    /// What the writers noted.
    pub(crate) written: WriterTotals,
    /// What the consumer saw.
    pub(crate) seen: Consumed,
    /// Events of the schedule.
    pub(crate) scheduled: u64,
    /// The most WAL that the server kept for slots, if any were looked at.
    pub(crate) kept_wal_bytes: Option<u64>,
}
