//! `bench`: the fixed set of published experiments.
//!
//! Promises: every experiment of the chosen groups is tried, and one that fails is in the result with
//! its error; figures are ranges over the runs. Must not: leave out what came out badly. Fails: at
//! the end, when an experiment failed or an audit found a fault.

pub(crate) mod experiments;
mod idle;
pub(crate) mod plan;
mod report;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

use experiments::{CaptureMode, Experiment, Work};
use plan::{BenchPlan, STALL_LIMIT};
use report::{
    BenchReport, ExperimentFigures, ExperimentRow, drain_figures, idle_figures, live_figures,
};

use crate::drain::plan::DrainPlan;
use crate::measure::environment::Environment;
use crate::measure::{process, slot};
use crate::workload::outbox::{self, EventSource, EventTable};
use crate::workload::plan::EventPlan;
use crate::{drain, output, run};

/// Does the command `bench`.
///
/// # Errors
/// As the module says.
pub(crate) fn bench(plan: &BenchPlan) -> Result<()> {
    std::fs::create_dir_all(&plan.out)
        .with_context(|| format!("the folder {} cannot be made", plan.out.display()))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let environment = runtime.block_on(async {
        let client = outbox::connect(&plan.source.database_url).await?;
        Environment::look(&client, Some(&plan.relay), &plan.notes).await
    })?;
    let mut report = BenchReport {
        schema: "postrider-load/bench/1",
        environment,
        relay: process::without_passwords(&plan.relay),
        runs: plan.runs,
        scale: plan.scale,
        rows: Vec::new(),
    };
    let chosen = |one: &Experiment| plan.wants(one);
    let set: Vec<Experiment> = experiments::all(plan.scale).into_iter().filter(chosen).collect();
    output::talk(&announcement(&set, plan.runs));
    for experiment in set {
        output::talk(&format!("{:?}: {}", experiment.group, experiment.name));
        report.rows.push(attempt(plan, &runtime, experiment));
        // Written after each experiment, so that an interrupted set keeps what it has.
        write(plan, &report)?;
    }
    output::data(&table::markdown(&report));
    report.judge()
}

/// What will be done, and how long it takes about.
fn announcement(set: &[Experiment], runs: u32) -> String {
    let all_runs: u32 = set.iter().map(|one| one.runs(runs)).sum();
    let seconds = |one: &Experiment| one.estimated_seconds() * f64::from(one.runs(runs));
    let minutes = set.iter().map(seconds).sum::<f64>() / 60.0;
    let count = set.len();
    format!("{count} experiments, {all_runs} runs: about {minutes:.0} minutes on a quiet machine")
}

fn write(plan: &BenchPlan, report: &BenchReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the report has no JSON")?;
    for (name, text) in [("bench.json", json), ("bench.md", table::markdown(report))] {
        let path = plan.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn attempt(
    plan: &BenchPlan,
    runtime: &tokio::runtime::Runtime,
    experiment: Experiment,
) -> ExperimentRow {
    let folder = plan.out.join(slug(&experiment));
    let result = measure(plan, runtime, &experiment, &folder);
    let left = leave(plan, runtime, &experiment, &folder);
    match result.and_then(|measured| left.map(|()| measured)) {
        Ok((figures, faults)) => ExperimentRow { experiment, figures, faults, error: None },
        Err(error) => {
            let error = format!("{error:#}");
            output::talk(&format!("  failed: {error}"));
            ExperimentRow {
                experiment,
                figures: ExperimentFigures::default(),
                faults: 0,
                error: Some(error),
            }
        }
    }
}

fn measure(
    plan: &BenchPlan,
    runtime: &tokio::runtime::Runtime,
    experiment: &Experiment,
    folder: &Path,
) -> Result<(ExperimentFigures, u64)> {
    match experiment.work {
        Work::Live { rate, tx_size, seconds } => {
            if experiment.capture == CaptureMode::Message {
                runtime.block_on(empty(&plan.source))?;
            }
            let runs = (1..=experiment.runs(plan.runs)).map(|number| {
                let folder = folder.join(format!("run-{number}"));
                run::measure(&plan.live(experiment, (rate, tx_size, seconds), folder))
            });
            Ok(live_figures(&runs.collect::<Result<Vec<_>>>()?))
        }
        Work::Drain { events, tx_size, payload_bytes } => {
            let shape = EventPlan::published(tx_size, payload_bytes);
            let drain = plan.drain(experiment, (events, shape), folder.to_owned());
            runtime.block_on(drains(&drain))
        }
        Work::Idle { seconds } => idles(plan, experiment, seconds, folder),
    }
}

/// Messages leave the table alone; rows of an earlier experiment would be looked through by the relay.
async fn empty(source: &EventSource) -> Result<()> {
    let client = outbox::connect(&source.database_url).await?;
    EventTable::find(&client, &source.outbox).await?.truncate(&client).await
}

/// Leaves no slot behind: the WAL that is kept for it would weigh on what follows.
fn leave(
    plan: &BenchPlan,
    runtime: &tokio::runtime::Runtime,
    experiment: &Experiment,
    folder: &Path,
) -> Result<()> {
    if experiment.capture == CaptureMode::Poll {
        return Ok(());
    }
    let (polling, log) = (plan.command(CaptureMode::Poll), folder.join("relay-leaves-slot.log"));
    runtime.block_on(async {
        let client = outbox::connect(&plan.source.database_url).await?;
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

async fn drains(plan: &DrainPlan) -> Result<(ExperimentFigures, u64)> {
    let report = drain::measure(plan, |number, run| {
        output::talk(&format!("  run {number}: {:.0} events/s", run.events_per_second));
    })
    .await?;
    Ok(drain_figures(&report))
}

fn idles(
    plan: &BenchPlan,
    experiment: &Experiment,
    seconds: u64,
    folder: &Path,
) -> Result<(ExperimentFigures, u64)> {
    let command = plan.command_of(experiment);
    let costs = (1..=experiment.runs(plan.runs))
        .map(|number| {
            let folder = folder.join(format!("run-{number}"));
            idle::measure(&plan.source, &command, seconds, &folder)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((idle_figures(&costs), 0))
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
