//! What came of a set of experiments.
//!
//! Promises: figures are ranges over the runs; what failed has its error. Must not: measure. Fails:
//! when an experiment failed or an audit found a fault.

use anyhow::{Result, bail};
use serde::Serialize;

use super::experiments::Experiment;
use super::idle::IdleCost;
use crate::drain::report::{DrainReport, DrainRun};
use crate::failure::Broken;
use crate::measure::environment::Environment;
use crate::measure::latency::Percentiles;
use crate::measure::range::Range;
use crate::report::summary::Summary;

/// What came out of one experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExperimentRow {
    /// What was done.
    pub(crate) experiment: Experiment,
    /// The figures, as far as this kind of work has them.
    pub(crate) figures: ExperimentFigures,
    /// Events that the audits found missing or wrong, over all runs.
    pub(crate) faults: u64,
    /// Why it could not be done.
    pub(crate) error: Option<String>,
}

/// Ranges over the runs of an experiment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct ExperimentFigures {
    /// Delivered events per second.
    pub(crate) events_per_second: Option<Range>,
    /// Relay CPU per event, in microseconds.
    pub(crate) relay_cpu_us_per_event: Option<Range>,
    /// PostgreSQL's CPU per event, in microseconds; in live runs with the inserts.
    pub(crate) postgres_cpu_us_per_event: Option<Range>,
    /// Kafka's CPU per event, in microseconds.
    pub(crate) kafka_cpu_us_per_event: Option<Range>,
    /// Highest resident memory of the relay, in megabytes.
    pub(crate) relay_peak_megabytes: Option<Range>,
    /// Commit to consumer, median, in milliseconds.
    pub(crate) p50_ms: Option<Range>,
    /// Commit to consumer, 99 %, in milliseconds.
    pub(crate) p99_ms: Option<Range>,
    /// The most that the server kept of its log for the relay's slot, in megabytes.
    pub(crate) kept_log_megabytes: Option<Range>,
    /// CPU of an idle relay, in percent of a core.
    pub(crate) idle_cpu_percent: Option<Range>,
    /// Transactions per second in the database of an idle relay.
    pub(crate) idle_transactions_per_second: Option<Range>,
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    /// Names this layout.
    pub(crate) schema: &'static str,
    /// Where it ran.
    pub(crate) environment: Environment,
    /// The relay's command line, without what experiments add.
    pub(crate) relay: String,
    /// How often each experiment was repeated.
    pub(crate) runs: u32,
    /// The factor on events and durations.
    pub(crate) scale: f64,
    /// The experiments.
    pub(crate) rows: Vec<ExperimentRow>,
}

impl BenchReport {
    /// Whether everything was done and every audit was clean.
    ///
    /// # Errors
    /// With the first experiment that failed, or the first whose audit found a fault.
    pub(super) fn judge(&self) -> Result<()> {
        if let Some(row) = self.rows.iter().find(|row| row.error.is_some()) {
            let error = row.error.as_deref().unwrap_or_default();
            bail!("{:?}, {} failed: {error}", row.experiment.group, row.experiment.name);
        }
        match self.rows.iter().find(|row| row.faults > 0) {
            None => Ok(()),
            Some(row) => bail!(Broken(format!(
                "{:?}, {}: the audit found {} faults",
                row.experiment.group, row.experiment.name, row.faults
            ))),
        }
    }
}

/// The figures of live runs, and the faults that their audits found.
pub(super) fn live_figures(summaries: &[Summary]) -> (ExperimentFigures, u64) {
    let faults = summaries.iter().map(|one| one.audit.missing + one.audit.faults()).sum();
    let range =
        |figure: fn(&Summary) -> Option<f64>| Range::of(summaries.iter().filter_map(figure));
    let figures = ExperimentFigures {
        events_per_second: range(|one| Some(one.throughput.out_per_second)),
        relay_cpu_us_per_event: range(|one| Some(one.cost.relay?.cpu_us_per_event)),
        postgres_cpu_us_per_event: range(|one| Some(one.cost.postgres?.cpu_us_per_event)),
        kafka_cpu_us_per_event: range(|one| Some(one.cost.kafka?.cpu_us_per_event)),
        relay_peak_megabytes: range(|one| Some(one.cost.relay?.peak_megabytes)),
        p50_ms: range(|one| timed(one).map(|latency| latency.p50_ms)),
        p99_ms: range(|one| timed(one).map(|latency| latency.p99_ms)),
        kept_log_megabytes: range(|one| one.cost.kept_log_peak_megabytes),
        ..ExperimentFigures::default()
    };
    (figures, faults)
}

/// The latencies, unless no event of the measured time was written: writers that are far behind have
/// not come to its events when the schedule ends.
fn timed(summary: &Summary) -> Option<&Percentiles> {
    Some(&summary.latency.commit_to_consume).filter(|latency| latency.count > 0)
}

/// The figures of drains, and the faults that their audits found.
pub(super) fn drain_figures(report: &DrainReport) -> (ExperimentFigures, u64) {
    let runs = &report.runs;
    let audits = runs.iter().filter_map(|run| run.audit.as_ref());
    let faults = audits.map(|verdict| verdict.missing + verdict.faults()).sum();
    let range = |figure: fn(&DrainRun) -> Option<f64>| Range::of(runs.iter().filter_map(figure));
    let figures = ExperimentFigures {
        events_per_second: range(|run| Some(run.events_per_second)),
        relay_cpu_us_per_event: range(|run| Some(run.relay_cpu_us_per_event)),
        postgres_cpu_us_per_event: range(|run| run.postgres_cpu_us_per_event),
        kafka_cpu_us_per_event: range(|run| run.kafka_cpu_us_per_event),
        relay_peak_megabytes: range(|run| Some(run.relay_peak_megabytes)),
        ..ExperimentFigures::default()
    };
    (figures, faults)
}

/// The figures of relays without traffic.
pub(super) fn idle_figures(costs: &[IdleCost]) -> ExperimentFigures {
    let range = |figure: fn(&IdleCost) -> f64| Range::of(costs.iter().map(figure));
    ExperimentFigures {
        idle_cpu_percent: range(|cost| cost.cpu_percent),
        idle_transactions_per_second: range(|cost| cost.transactions_per_second),
        relay_peak_megabytes: range(|cost| cost.peak_megabytes),
        ..ExperimentFigures::default()
    }
}
