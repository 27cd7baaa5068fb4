//! What a drain measured, as it is kept and shown.
//!
//! Promises: every run is in the report, and the ranges are over all of them. Must not: measure.
//! Fails: when the audit of a run found a fault.

use anyhow::{Context, Result};
use serde::Serialize;

use super::plan::DrainPlan;
use crate::failure::Broken;
use crate::measure::clock::RecordClock;
use crate::measure::process;
use crate::measure::range::Range;
use crate::output::{self, OutputFormat};
use crate::workload::outbox::Ids;
use postrider_testkit::audit::Verdict;
use postrider_testkit::figures::grouped;

/// One drained backlog.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainRun {
    /// Events in the backlog.
    pub(crate) events: u64,
    /// Time to fill it, in seconds.
    pub(crate) fill_seconds: f64,
    /// Whose clock stamped the records.
    pub(crate) record_clock: RecordClock,
    /// Events per second from the first to the last record's stamp.
    pub(crate) events_per_second: f64,
    /// Events per second from the start of the relay's process to the last record's stamp.
    pub(crate) events_per_second_from_start: f64,
    /// Seconds from the start of the relay's process to the first record's stamp.
    pub(crate) first_record_seconds: f64,
    /// CPU of the relay's process tree per event, in microseconds.
    pub(crate) relay_cpu_us_per_event: f64,
    /// Highest resident memory of the relay, in megabytes (10^6 bytes).
    pub(crate) relay_peak_megabytes: f64,
    /// CPU of the PostgreSQL server per event, when it runs on this machine.
    pub(crate) postgres_cpu_us_per_event: Option<f64>,
    /// CPU of the broker per event, when its process id was given.
    pub(crate) kafka_cpu_us_per_event: Option<f64>,
    /// What the audit found.
    pub(crate) audit: Option<Verdict>,
}

/// All runs, and the ranges of the main figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainReport {
    /// Names this layout.
    pub(crate) schema: &'static str,
    /// The relay's command line.
    pub(crate) relay: String,
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// Headers in each row.
    pub(crate) headers: u32,
    /// Who made the events' ids.
    pub(crate) ids: Ids,
    /// Number of aggregates.
    pub(crate) aggregates: u32,
    /// Connections that wrote.
    pub(crate) writers: u16,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// Range of the rate, first to last record.
    pub(crate) events_per_second: Range,
    /// Range of the relay's CPU per event.
    pub(crate) relay_cpu_us_per_event: Range,
    /// The runs.
    pub(crate) runs: Vec<DrainRun>,
}

impl DrainReport {
    /// The report of these runs.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(plan: &DrainPlan, partitions: i32, runs: Vec<DrainRun>) -> Result<Self> {
        let range = |figure: fn(&DrainRun) -> f64| {
            Range::of(runs.iter().map(figure)).context("there was no run")
        };
        Ok(Self {
            schema: "postrider-load/drain/1",
            relay: process::without_passwords(&plan.relay),
            tx_size: plan.shape.tx_size,
            payload_bytes: plan.shape.payload_bytes,
            headers: plan.shape.headers,
            ids: plan.shape.ids,
            aggregates: plan.shape.aggregates,
            writers: plan.shape.writers,
            partitions,
            events_per_second: range(|run| run.events_per_second)?,
            relay_cpu_us_per_event: range(|run| run.relay_cpu_us_per_event)?,
            runs,
        })
    }

    /// Shows the whole and judges it.
    ///
    /// # Errors
    /// When the audit of a run found a fault.
    pub(super) fn finish(&self, form: OutputFormat) -> Result<()> {
        if form == OutputFormat::Json {
            let json = serde_json::to_string_pretty(self).context("no JSON")?;
            output::data(&json);
        } else if self.runs.len() > 1 {
            output::data(&format!(
                "{} runs (min–median–max): {} events/s, relay {} µs of CPU per event",
                self.runs.len(),
                self.events_per_second.show(0),
                self.relay_cpu_us_per_event.show(2),
            ));
        }
        let faulty = self.runs.iter().filter_map(|run| run.audit.as_ref()).find(|v| !v.holds());
        match faulty {
            None => Ok(()),
            Some(verdict) => Err(Broken(format!("the audit found a fault: {}", verdict)).into()),
        }
    }
}

impl DrainRun {
    /// Shows one run.
    pub(super) fn show(&self, number: u32) {
        output::data(&format!(
            "run {number}: {} events at {}/s ({}/s from process start, first record after {:.2} s)",
            grouped(self.events),
            grouped(self.events_per_second as u64),
            grouped(self.events_per_second_from_start as u64),
            self.first_record_seconds,
        ));
        let also = |name: &str, figure: Option<f64>| {
            figure.map_or(String::new(), |figure| format!(", {name} {figure:.2} µs"))
        };
        output::data(&format!(
            "  CPU per event: relay {:.2} µs{}{}; relay peak memory {:.1} MB",
            self.relay_cpu_us_per_event,
            also("PostgreSQL", self.postgres_cpu_us_per_event),
            also("Kafka", self.kafka_cpu_us_per_event),
            self.relay_peak_megabytes,
        ));
        if self.record_clock == RecordClock::Create {
            output::data(
                "  the topic keeps the relay's stamps (CreateTime), so the rate is the sender's",
            );
        }
        if let Some(verdict) = &self.audit {
            output::data(&format!("  audit: {}", verdict));
        }
    }
}
