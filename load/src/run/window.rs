//! The measurement window: where the measured time of a run begins and ends.
//!
//! Promises: whole seconds; warm-up and settling are outside. Must not: look at a clock.

use crate::report::summary::RunPhase;
use crate::run::plan::RunPlan;
use crate::run::sampler::Moment;

/// The begin and the end of the measured time.
pub(crate) struct MeasurementWindow {
    warmup: u64,
    end: u64,
    /// At the begin.
    pub(crate) from: Moment,
    /// At the end, once it has passed.
    pub(crate) to: Option<Moment>,
}

impl MeasurementWindow {
    /// The window of a run that starts now.
    pub(crate) fn new(plan: &RunPlan, start: Moment) -> Self {
        let end = plan.warmup_seconds + plan.measured_seconds;
        Self { warmup: plan.warmup_seconds, end, from: start, to: None }
    }

    /// Where a second belongs.
    pub(crate) fn phase(&self, second: u64) -> RunPhase {
        if second <= self.warmup {
            RunPhase::Warmup
        } else if second <= self.end {
            RunPhase::Measure
        } else {
            RunPhase::Settle
        }
    }

    /// Notes the end of a second.
    pub(crate) fn pass(&mut self, second: u64, now: Moment) {
        if second == self.warmup {
            self.from = now;
        }
        if second == self.end {
            self.to = Some(now);
        }
    }
}
