//! From what was measured to what is shown and kept.
//!
//! Promises: every file of a run, the lines for people and the verdict on the thresholds come from
//! one [`Summary`]. Must not: measure. Fails: when a file cannot be written, a threshold breaks or
//! the audit found a fault.

use std::fmt::Write;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::failure::Broken;
use crate::measure::clock;
use crate::measure::clock::RecordClock;
use crate::measure::environment::Environment;
use crate::measure::latency::{Latencies, PathStage, Percentiles};
use crate::output::{self, OutputFormat};
use crate::report::single;
use crate::report::summary::{
    AskedPlan, Cost, Judged, LatencyFigures, ProcessCost, SCHEMA, Second, Summary, Throughput,
};
use crate::report::threshold::{Metric, Threshold};
use crate::run::outcome::RunOutcome;
use crate::run::plan::RunPlan;
use postrider_testkit::figures::grouped;

/// Shows the result and judges it.
///
/// # Errors
/// When a threshold breaks or the audit found a fault.
pub(crate) fn finish(plan: &RunPlan, form: OutputFormat, summary: &Summary) -> Result<()> {
    if form == OutputFormat::Json {
        let json = serde_json::to_string_pretty(summary).context("the summary has no JSON")?;
        output::data(&json);
    } else {
        show(summary);
        output::data(&format!("files: {}", plan.out.display()));
    }
    verdict(plan, summary)
}

/// Puts everything that was measured into one summary, thresholds judged.
///
/// # Errors
/// When a threshold names what was not measured.
pub(crate) fn summarize(
    plan: &RunPlan,
    environment: &Environment,
    partitions: i32,
    outcome: &RunOutcome,
) -> Result<Summary> {
    let mut summary = Summary {
        schema: SCHEMA.to_owned(),
        plan: asked(plan, partitions)?,
        environment: environment.clone(),
        throughput: throughput(outcome),
        latency: latency(outcome),
        cost: cost(outcome),
        audit: outcome.seen.auditor.verdict(&outcome.committed_versions),
        thresholds: Vec::new(),
        series: outcome.rows.clone(),
        distribution: distribution(&merged(outcome)),
    };
    summary.thresholds = judge(&plan.thresholds, &summary)?;
    Ok(summary)
}

/// Writes summary.json, series.csv and report.html into the run's folder.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_files(plan: &RunPlan, summary: &Summary) -> Result<()> {
    let json = serde_json::to_string_pretty(summary).context("the summary has no JSON")?;
    write(&plan.out.join("summary.json"), &json)?;
    write(&plan.out.join("series.csv"), &csv(&summary.series))?;
    write(&plan.out.join("report.html"), &single::page(summary))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn verdict(plan: &RunPlan, summary: &Summary) -> Result<()> {
    if plan.verify && !summary.audit.holds() {
        bail!(Broken(format!("the audit found a fault: {}", summary.audit)));
    }
    match summary.thresholds.iter().find(|judged| !judged.held) {
        None => Ok(()),
        Some(judged) => {
            bail!(Broken(format!("{} does not hold: {:.3}", judged.threshold, judged.figure)))
        }
    }
}

/// What was asked, as the summary keeps it.
fn asked(plan: &RunPlan, partitions: i32) -> Result<AskedPlan> {
    let workload = plan.workload.to_possible_value().context("the workload has no name")?;
    let capture = plan.capture.to_possible_value().context("the capture has no name")?;
    let now_ms = clock::unix_ms(SystemTime::now())?;
    Ok(AskedPlan {
        name: plan.name.clone(),
        finished_unix_seconds: now_ms.unsigned_abs() / 1_000,
        rate: plan.rate,
        warmup_seconds: plan.warmup_seconds,
        duration_seconds: plan.measured_seconds,
        tx_size: plan.shape.tx_size,
        writers: plan.shape.writers,
        aggregates: plan.shape.aggregates,
        skew: plan.skew,
        payload_bytes: plan.shape.payload_bytes,
        headers: plan.shape.headers,
        ids: Some(plan.shape.ids),
        workload: workload.get_name().to_owned(),
        capture: capture.get_name().to_owned(),
        rollback_percent: plan.shape.rollback_percent,
        partitions,
    })
}

fn throughput(outcome: &RunOutcome) -> Throughput {
    let (from, to) = (&outcome.from, &outcome.to);
    let per_second = |now: u64, then: u64| (now - then) as f64 / to.seconds_since(from);
    let all = &outcome.written;
    let written = all.committed.load(Ordering::Relaxed) + all.rolled_back.load(Ordering::Relaxed);
    Throughput {
        in_per_second: per_second(to.committed, from.committed),
        out_per_second: per_second(to.delivered, from.delivered),
        rolled_back_per_second: per_second(to.rolled_back, from.rolled_back),
        unsent: outcome.scheduled.saturating_sub(written),
        backlog_at_end: to.committed.saturating_sub(to.delivered),
        settle_seconds: outcome.settle.as_secs_f64(),
    }
}

/// All stages of the measured time in one: the writers have some, the consumer the others.
fn merged(outcome: &RunOutcome) -> Latencies {
    let mut latencies = outcome.seen.book.measured();
    let book = outcome.written.book.lock().unwrap_or_else(PoisonError::into_inner);
    latencies.add(&book.measured());
    latencies
}

fn latency(outcome: &RunOutcome) -> LatencyFigures {
    let latencies = merged(outcome);
    LatencyFigures {
        total: latencies.percentiles(PathStage::Total),
        schedule: latencies.percentiles(PathStage::Schedule),
        insert: latencies.percentiles(PathStage::Insert),
        commit_to_stamp: latencies.percentiles(PathStage::CommitToStamp),
        stamp_to_consume: latencies.percentiles(PathStage::StampToConsume),
        commit_to_consume: latencies.percentiles(PathStage::CommitToConsume),
        record_clock: outcome.seen.record_clock,
        before_commit_answer: outcome.seen.before_commit_answer,
        commit_forgotten: outcome.seen.commit_forgotten,
    }
}

fn cost(outcome: &RunOutcome) -> Cost {
    let cost = outcome.to.cost_since(&outcome.from);
    Cost {
        relay: cost.relay,
        postgres: cost.postgres,
        kafka: cost.kafka,
        generator: cost.generator,
        kept_log_peak_megabytes: outcome.kept_wal_bytes.map(|bytes| bytes as f64 / 1e6),
    }
}

/// The total latency in steps that grow by a tenth: upper end in ms, events.
fn distribution(latencies: &Latencies) -> Vec<(f64, u64)> {
    let steps = latencies.of(PathStage::Total).iter_log(100, 1.1);
    steps
        .map(|step| (step.value_iterated_to() as f64 / 1_000.0, step.count_since_last_iteration()))
        .skip_while(|&(_, count)| count == 0)
        .collect()
}

fn judge(thresholds: &[Threshold], summary: &Summary) -> Result<Vec<Judged>> {
    thresholds
        .iter()
        .map(|threshold| {
            let figure = figure(threshold.metric, summary).with_context(|| {
                format!(
                    "{} cannot be judged: the relay was not watched; give --relay or --relay-pid",
                    threshold.text
                )
            })?;
            let held = threshold.holds(figure);
            Ok(Judged { threshold: threshold.text.clone(), figure, held })
        })
        .collect()
}

fn figure(metric: Metric, summary: &Summary) -> Option<f64> {
    let relay = summary.cost.relay;
    match metric {
        Metric::Latency(stage, percentile) => Some(percentile.pick(summary.latency.of(stage))),
        Metric::RateIn => Some(summary.throughput.in_per_second),
        Metric::RateOut => Some(summary.throughput.out_per_second),
        Metric::Missing => Some(summary.audit.missing as f64),
        Metric::OutOfOrder => Some(summary.audit.out_of_order as f64),
        Metric::Repeats => Some(summary.audit.repeats as f64),
        Metric::RelayCpu => relay.map(|cost| cost.cpu_us_per_event),
        Metric::RelayMemory => relay.map(|cost| cost.peak_megabytes),
    }
}

fn show(summary: &Summary) {
    let (plan, throughput) = (&summary.plan, &summary.throughput);
    output::data(&format!(
        "in {}/s, out {}/s; wanted {}/s for {} s, {} events per transaction",
        grouped(throughput.in_per_second as u64),
        grouped(throughput.out_per_second as u64),
        grouped(plan.rate as u64),
        plan.duration_seconds,
        plan.tx_size,
    ));
    if let Some(line) = summary.saturation() {
        output::data(&line);
    }
    output::data(&format!(
        "{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "latency in ms", "p50", "p90", "p99", "p99.9", "max"
    ));
    for stage in PathStage::ALL {
        output::data(&latency_line(stage, summary.latency.of(stage), summary.latency.record_clock));
    }
    for (name, cost) in summary.cost.named() {
        output::data(&cost_line(name, &cost));
    }
    output::data(&format!(
        "backlog at the end {}, delivered {:.2} s later",
        grouped(throughput.backlog_at_end),
        throughput.settle_seconds
    ));
    if let Some(megabytes) = summary.cost.kept_log_peak_megabytes {
        output::data(&format!("WAL kept for slots: at most {megabytes:.1} MB"));
    }
    output::data(&format!("audit: {}", summary.audit));
    for judged in &summary.thresholds {
        let word = if judged.held { "holds" } else { "DOES NOT HOLD" };
        output::data(&format!("threshold {} {word}: {:.3}", judged.threshold, judged.figure));
    }
}

fn latency_line(stage: PathStage, figures: &Percentiles, clock: Option<RecordClock>) -> String {
    format!(
        "  {:<32}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
        stage.title(clock),
        figures.p50_ms,
        figures.p90_ms,
        figures.p99_ms,
        figures.p999_ms,
        figures.max_ms
    )
}

fn cost_line(name: &str, cost: &ProcessCost) -> String {
    format!(
        "{name}: {:.2} µs of CPU per event, {:.2} cores, {:.0} MB (peak of one process {:.0} MB)",
        cost.cpu_us_per_event, cost.cores, cost.megabytes_at_end, cost.peak_megabytes
    )
}

fn csv(series: &[Second]) -> String {
    let mut text = String::from(
        "at_s,phase,in_per_s,out_per_s,backlog,repeats,faults,total_p50_ms,total_p99_ms,\
         total_max_ms,commit_to_consume_p50_ms,commit_to_consume_p99_ms,schedule_p99_ms,\
         insert_p99_ms,relay_cores,relay_mb,postgres_cores,postgres_mb,kafka_cores,kafka_mb,\
         generator_cores,generator_mb\n",
    );
    for row in series {
        write!(
            text,
            "{:.3},{},{:.0},{:.0},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3}",
            row.at,
            row.phase.name(),
            row.in_per_second,
            row.out_per_second,
            row.backlog,
            row.repeats,
            row.faults,
            row.total.p50_ms,
            row.total.p99_ms,
            row.total.max_ms,
            row.commit_to_consume.p50_ms,
            row.commit_to_consume.p99_ms,
            row.schedule.p99_ms,
            row.insert.p99_ms,
        )
        .expect("a String takes every write");
        for sample in [row.relay, row.postgres, row.kafka, row.generator] {
            match sample {
                Some(sample) => write!(text, ",{:.3},{:.1}", sample.cores, sample.megabytes),
                None => write!(text, ",,"),
            }
            .expect("a String takes every write");
        }
        text.push('\n');
    }
    text
}
