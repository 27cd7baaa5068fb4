//! `bench`: the fixed set of published experiments.
//!
//! Promises: every experiment of the chosen groups is tried, and one that fails is in the result with
//! its error; figures are ranges over the runs. Must not: leave out what came out badly. Fails: at
//! the end, when an experiment failed or an audit found a fault.

mod experiments;
mod idle;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::{BenchArgs, DrainArgs, RunArgs, ShapeArgs, SourceArgs};
use crate::drain;
use crate::failure::Broken;
use crate::measure::environment::Environment;
use crate::measure::latency::Percentiles;
use crate::measure::process;
use crate::measure::range::Range;
use crate::measure::slot;
use crate::output;
use crate::report::summary::Summary;
use crate::run;
use crate::workload::outbox;
use crate::workload::outbox::{Ids, Outbox};
use crate::workload::session::{Capture, Workload};

pub(crate) use experiments::Group;
use experiments::{Experiment, WARM_UP_SECONDS, Way, Work};

/// How long a relay may bring nothing.
const STALL_LIMIT: Duration = Duration::from_secs(60);

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
    let set: Vec<Experiment> = experiments::all(args.scale).into_iter().filter(chosen).collect();
    output::talk(&plan(&set, args.runs));
    for experiment in set {
        output::talk(&format!("{:?}: {}", experiment.group, experiment.name));
        report.rows.push(attempt(args, &runtime, experiment));
        // Written after each experiment, so that an interrupted set keeps what it has.
        write(args, &report)?;
    }
    output::data(&table::markdown(&report));
    judge(&report)
}

/// What will be done, and how long it takes about.
fn plan(set: &[Experiment], runs: u32) -> String {
    let all_runs: u32 = set.iter().map(|one| one.runs(runs)).sum();
    let seconds = |one: &Experiment| one.estimated_seconds() * f64::from(one.runs(runs));
    let minutes = set.iter().map(seconds).sum::<f64>() / 60.0;
    let count = set.len();
    format!("{count} experiments, {all_runs} runs: about {minutes:.0} minutes on a quiet machine")
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
    let result = measure(args, runtime, &experiment, &folder);
    let left = leave(args, runtime, &experiment, &folder);
    match result.and_then(|measured| left.map(|()| measured)) {
        Ok((figures, faults)) => Row { experiment, figures, faults, error: None },
        Err(error) => {
            let error = format!("{error:#}");
            output::talk(&format!("  failed: {error}"));
            Row { experiment, figures: Figures::default(), faults: 0, error: Some(error) }
        }
    }
}

/// The relay's command line for this way of reading.
fn command(args: &BenchArgs, way: Way) -> String {
    format!("{} --capture {}", args.relay, way.name())
}

fn measure(
    args: &BenchArgs,
    runtime: &tokio::runtime::Runtime,
    experiment: &Experiment,
    folder: &Path,
) -> Result<(Figures, u64)> {
    let relay = format!("{} {}", command(args, experiment.capture), experiment.relay_flags);
    let runs = experiment.runs(args.runs);
    match experiment.work {
        Work::Live { rate, tx_size, seconds } => {
            if experiment.capture == Way::Message {
                runtime.block_on(empty(&args.source))?;
            }
            let runs = (1..=runs).map(|number| {
                let shape = live_shape(tx_size);
                let folder = folder.join(format!("run-{number}"));
                let run = live_args(args, (experiment.capture, &relay), shape, folder);
                run::measure(&RunArgs { rate, duration: seconds, ..run })
            });
            Ok(live_figures(&runs.collect::<Result<Vec<_>>>()?))
        }
        Work::Drain { events, tx_size, payload_bytes } => {
            let shape = shape_args(tx_size, payload_bytes);
            let drain = drain_args(args, relay, shape, folder.to_owned());
            let log_reader = experiment.capture != Way::Poll;
            runtime.block_on(drains(&DrainArgs { events, runs, log_reader, ..drain }))
        }
        Work::Idle { seconds } => idles(args, &relay, (seconds, runs), folder),
    }
}

/// Messages leave the table alone; rows of an earlier experiment would be looked through by the relay.
async fn empty(source: &SourceArgs) -> Result<()> {
    let client = outbox::connect(&source.database_url).await?;
    Outbox::find(&client, &source.outbox).await?.truncate(&client).await
}

/// Leaves no slot behind: the log that is kept for it would weigh on what follows.
fn leave(
    args: &BenchArgs,
    runtime: &tokio::runtime::Runtime,
    experiment: &Experiment,
    folder: &Path,
) -> Result<()> {
    if experiment.capture == Way::Poll {
        return Ok(());
    }
    let (polling, log) = (command(args, Way::Poll), folder.join("relay-leaves-slot.log"));
    runtime.block_on(async {
        let client = outbox::connect(&args.source.database_url).await?;
        slot::release(&client, &polling, &log, STALL_LIMIT).await
    })
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
        ids: Ids::Given,
        aggregates: 100_000,
        writers: 4,
        rollback_percent: None,
        seed: 1,
    }
}

fn drain_args(args: &BenchArgs, relay: String, shape: ShapeArgs, out: PathBuf) -> DrainArgs {
    DrainArgs {
        source: args.source.clone(),
        sink: args.sink.clone(),
        shape,
        events: 1,
        relay,
        runs: 1,
        truncate: true,
        warm_up_events: 0,
        log_reader: false,
        no_settle: false,
        verify: true,
        kafka_pid: args.kafka_pid,
        stall_seconds: STALL_LIMIT.as_secs(),
        out,
        json: false,
    }
}

async fn drains(args: &DrainArgs) -> Result<(Figures, u64)> {
    let report = drain::measure(args, |number, run| {
        output::talk(&format!("  run {number}: {:.0} events/s", run.events_per_second));
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

/// Each writer waits for its commits: four could not write 100,000/s on a slow disk.
fn live_shape(tx_size: u32) -> ShapeArgs {
    ShapeArgs { writers: 8, ..shape_args(tx_size, 200) }
}

fn live_args(
    args: &BenchArgs,
    (way, relay): (Way, &str),
    shape: ShapeArgs,
    out: PathBuf,
) -> RunArgs {
    RunArgs {
        source: args.source.clone(),
        sink: args.sink.clone(),
        shape,
        rate: 1.0,
        duration: 1,
        warmup: WARM_UP_SECONDS,
        skew: 0.0,
        workload: Workload::Events,
        capture: if way == Way::Message { Capture::Message } else { Capture::Table },
        log_reader: way != Way::Poll,
        relay: Some(relay.to_owned()),
        relay_pid: None,
        kafka_pid: args.kafka_pid,
        threshold: Vec::new(),
        verify: true,
        truncate: way != Way::Message,
        stall_seconds: STALL_LIMIT.as_secs(),
        name: format!("live, {}", way.name()),
        note: args.note.clone(),
        out,
        json: false,
    }
}

fn live_figures(summaries: &[Summary]) -> (Figures, u64) {
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
        kept_log_megabytes: range(|one| one.cost.kept_log_peak_megabytes),
        ..Figures::default()
    };
    (figures, faults)
}

/// The latencies, unless no event of the measured time was written: writers that are far behind have
/// not come to its events when the schedule ends.
fn timed(summary: &Summary) -> Option<&Percentiles> {
    Some(&summary.latency.commit_to_consume).filter(|latency| latency.count > 0)
}

fn idles(
    args: &BenchArgs,
    command: &str,
    (seconds, runs): (u64, u32),
    folder: &Path,
) -> Result<(Figures, u64)> {
    let costs = (1..=runs)
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
        assert!(slugs.contains("live-poll-100000-s-100-per-transaction"), "{slugs:?}");
    }
}
