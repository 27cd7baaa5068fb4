//! `bench`: the fixed set of published experiments.
//!
//! Promises: every experiment of the chosen groups is tried, and one that fails is in the result with
//! its error; figures are ranges over the runs. Must not: leave out what came out badly. Fails: at
//! the end, when an experiment failed or an audit found a fault.

mod experiments;
mod idle;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::{BenchArgs, DrainArgs, RunArgs, ShapeArgs};
use crate::environment::Environment;
use crate::failure::Broken;
use crate::latency::Percentiles;
use crate::range::Range;
use crate::session::{Capture, Workload};
use crate::summary::Summary;
use crate::{drain, outbox, process, run, screen};

pub(crate) use experiments::Group;
use experiments::{Experiment, Work};

/// What came out of one experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) experiment: Experiment,
    /// The figures, as far as this kind of work has them.
    pub(crate) figures: Figures,
    /// Events that the audits found missing or wrong, over all runs.
    pub(crate) faults: u64,
    /// Why it could not be done.
    pub(crate) error: Option<String>,
}

/// Ranges over the runs of an experiment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Figures {
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
    pub(crate) rows: Vec<Row>,
}

/// Does the command `bench`.
///
/// # Errors
/// As the module says.
pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let environment = runtime.block_on(async {
        let client = outbox::connect(&args.source.database_url).await?;
        Environment::look(&client, Some(&args.relay), &args.note).await
    })?;
    let mut report = BenchReport {
        schema: "postrider-load/bench/1",
        environment,
        relay: process::without_passwords(&args.relay),
        runs: args.runs,
        scale: args.scale,
        rows: Vec::new(),
    };
    let chosen = |one: &Experiment| args.only.is_empty() || args.only.contains(&one.group);
    for experiment in experiments::all(args.scale).into_iter().filter(chosen) {
        screen::talk(&format!("{:?}: {}", experiment.group, experiment.name));
        report.rows.push(attempt(args, &runtime, experiment));
        // Written after each experiment, so that an interrupted set keeps what it has.
        write(args, &report)?;
    }
    screen::data(&table::markdown(&report));
    judge(&report)
}

fn write(args: &BenchArgs, report: &BenchReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the report has no JSON")?;
    for (name, text) in [("bench.json", json), ("bench.md", table::markdown(report))] {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn judge(report: &BenchReport) -> Result<()> {
    if let Some(row) = report.rows.iter().find(|row| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        bail!("{:?}, {} failed: {error}", row.experiment.group, row.experiment.name);
    }
    match report.rows.iter().find(|row| row.faults > 0) {
        None => Ok(()),
        Some(row) => bail!(Broken(format!(
            "{:?}, {}: the audit found {} faults",
            row.experiment.group, row.experiment.name, row.faults
        ))),
    }
}

fn attempt(args: &BenchArgs, runtime: &tokio::runtime::Runtime, experiment: Experiment) -> Row {
    let folder = args.out.join(slug(&experiment));
    let command = format!("{} {}", args.relay, experiment.relay_flags);
    let result = match experiment.work {
        Work::Live { rate, tx_size, seconds } => {
            live(args, &command, (rate, tx_size, seconds), &folder)
        }
        Work::Drain { events, tx_size, payload_bytes } => {
            let shape = shape_args(tx_size, payload_bytes);
            let drain_args = drain_args(args, command, shape, events, folder);
            runtime.block_on(drains(&drain_args))
        }
        Work::Idle { seconds } => idles(args, &command, seconds, &folder),
    };
    match result {
        Ok((figures, faults)) => Row { experiment, figures, faults, error: None },
        Err(error) => {
            let error = format!("{error:#}");
            screen::talk(&format!("  failed: {error}"));
            Row { experiment, figures: Figures::default(), faults: 0, error: Some(error) }
        }
    }
}

/// A folder's name for an experiment.
fn slug(experiment: &Experiment) -> String {
    let text = format!("{:?} {}", experiment.group, experiment.name).to_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

fn shape_args(tx_size: u32, payload_bytes: u32) -> ShapeArgs {
    ShapeArgs {
        tx_size,
        payload_bytes,
        headers: 0,
        aggregates: 100_000,
        writers: 4,
        rollback_percent: None,
        seed: 1,
    }
}

fn drain_args(
    args: &BenchArgs,
    relay: String,
    shape: ShapeArgs,
    events: u64,
    out: PathBuf,
) -> DrainArgs {
    DrainArgs {
        source: args.source.clone(),
        sink: args.sink.clone(),
        shape,
        events,
        relay,
        runs: args.runs,
        truncate: true,
        warm_up_events: 0,
        no_settle: false,
        verify: true,
        kafka_pid: args.kafka_pid,
        stall_seconds: 60,
        out,
        json: false,
    }
}

async fn drains(args: &DrainArgs) -> Result<(Figures, u64)> {
    let report = drain::measure(args, |number, run| {
        screen::talk(&format!("  run {number}: {:.0} events/s", run.events_per_second));
    })
    .await?;
    let runs = &report.runs;
    let audits = runs.iter().filter_map(|run| run.audit.as_ref());
    let faults = audits.map(|verdict| verdict.missing + verdict.faults()).sum();
    let range =
        |figure: fn(&drain::DrainRun) -> Option<f64>| Range::of(runs.iter().filter_map(figure));
    let figures = Figures {
        events_per_second: range(|run| Some(run.events_per_second)),
        relay_cpu_us_per_event: range(|run| Some(run.relay_cpu_us_per_event)),
        postgres_cpu_us_per_event: range(|run| run.postgres_cpu_us_per_event),
        kafka_cpu_us_per_event: range(|run| run.kafka_cpu_us_per_event),
        relay_peak_megabytes: range(|run| Some(run.relay_peak_megabytes)),
        ..Figures::default()
    };
    Ok((figures, faults))
}

fn live(
    args: &BenchArgs,
    relay: &str,
    (rate, tx_size, seconds): (f64, u32, u64),
    folder: &std::path::Path,
) -> Result<(Figures, u64)> {
    let mut summaries = Vec::new();
    for number in 1..=args.runs {
        let run_args = RunArgs {
            source: args.source.clone(),
            sink: args.sink.clone(),
            // Each writer waits for its commits: four could not write 100,000/s on a slow disk.
            shape: ShapeArgs { writers: 8, ..shape_args(tx_size, 200) },
            rate,
            duration: seconds,
            warmup: 5,
            skew: 0.0,
            workload: Workload::Events,
            capture: Capture::Table,
            relay: Some(relay.to_owned()),
            relay_pid: None,
            kafka_pid: args.kafka_pid,
            threshold: Vec::new(),
            verify: true,
            truncate: true,
            stall_seconds: 30,
            name: format!("live {rate:.0}/s"),
            note: args.note.clone(),
            out: folder.join(format!("run-{number}")),
            json: false,
        };
        summaries.push(run::measure(&run_args)?);
    }
    let faults = summaries.iter().map(|one| one.audit.missing + one.audit.faults()).sum();
    let range =
        |figure: fn(&Summary) -> Option<f64>| Range::of(summaries.iter().filter_map(figure));
    let figures = Figures {
        events_per_second: range(|one| Some(one.throughput.out_per_second)),
        relay_cpu_us_per_event: range(|one| Some(one.cost.relay?.cpu_us_per_event)),
        postgres_cpu_us_per_event: range(|one| Some(one.cost.postgres?.cpu_us_per_event)),
        kafka_cpu_us_per_event: range(|one| Some(one.cost.kafka?.cpu_us_per_event)),
        relay_peak_megabytes: range(|one| Some(one.cost.relay?.peak_megabytes)),
        p50_ms: range(|one| timed(one).map(|latency| latency.p50_ms)),
        p99_ms: range(|one| timed(one).map(|latency| latency.p99_ms)),
        ..Figures::default()
    };
    Ok((figures, faults))
}

/// The latencies, unless no event of the measured time was written: writers that are far behind have
/// not come to its events when the schedule ends.
fn timed(summary: &Summary) -> Option<&Percentiles> {
    Some(&summary.latency.commit_to_consume).filter(|latency| latency.count > 0)
}

fn idles(
    args: &BenchArgs,
    command: &str,
    seconds: u64,
    folder: &std::path::Path,
) -> Result<(Figures, u64)> {
    let costs = (1..=args.runs)
        .map(|number| idle::measure(args, command, seconds, &folder.join(format!("run-{number}"))))
        .collect::<Result<Vec<_>>>()?;
    let range = |figure: fn(&idle::IdleCost) -> f64| Range::of(costs.iter().map(figure));
    let figures = Figures {
        idle_cpu_percent: range(|cost| cost.cpu_percent),
        idle_transactions_per_second: range(|cost| cost.transactions_per_second),
        relay_peak_megabytes: range(|cost| cost.peak_megabytes),
        ..Figures::default()
    };
    Ok((figures, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_a_folder_of_its_own() {
        let set = experiments::all(1.0);
        let slugs: hashbrown::HashSet<String> = set.iter().map(slug).collect();
        assert_eq!(slugs.len(), set.len());
        assert!(slugs.contains("live-100000-s-100-per-transaction"), "{slugs:?}");
    }
}
