//! The page of one run.
//!
//! Promises: shows what summary.json says and nothing else. Must not: measure or judge again.

use super::chart::{self, Chart, ChartLine, Merge, Scale};
use super::page::{self, escape, table};
use super::rows::{delivered, environment_rows, line, plan_rows};
use super::summary::{ProcessCost, RunPhase, Sample, Second, Summary};
use crate::measure::latency::{PathStage, Percentiles};
use postrider_testkit::figures::grouped;

/// The page of one run.
pub(crate) fn page(summary: &Summary) -> String {
    let body = [
        head(summary),
        tiles(summary),
        format!("<div class=charts>{}</div>", charts(summary)),
        "<h2>Latency by stage</h2>".to_owned(),
        table(&["in ms", "mean", "p50", "p90", "p99", "p99.9", "max"], &latency_rows(summary)),
        "<h2>Cost in the measured time</h2>".to_owned(),
        table(
            &["", "CPU µs per event", "cores", "MB at start", "MB at end", "peak MB of a process"],
            &cost_rows(summary),
        ),
        "<h2>Audit</h2>".to_owned(),
        table(&[], &audit_rows(summary)),
        thresholds(summary),
        "<h2>What was asked, and where it ran</h2><div class='pair left'>".to_owned(),
        table(&[], &plan_rows(summary)),
        table(&[], &environment_rows(summary)),
        "</div>".to_owned(),
    ];
    page::page(&format!("{}: outbox load", summary.plan.name), &body.concat())
}

fn head(summary: &Summary) -> String {
    let plan = &summary.plan;
    let clean = summary.audit.holds();
    let (class, words) = if clean {
        ("good", "audit clean: nothing missing, nothing out of order")
    } else {
        ("bad", "audit found a fault")
    };
    let mut text = format!(
        "<h1>{}</h1><p class=soft>{} events/s wanted for {} s after {} s of warm-up; {} events per \
         transaction, {} writers, {} aggregates, {} B payload, workload {}</p>\
         <span class='badge {class}'>{words}</span>",
        escape(&plan.name),
        grouped(plan.rate as u64),
        plan.duration_seconds,
        plan.warmup_seconds,
        plan.tx_size,
        plan.writers,
        grouped(u64::from(plan.aggregates)),
        grouped(u64::from(plan.payload_bytes)),
        escape(&plan.workload),
    );
    for judged in &summary.thresholds {
        let (class, word) = if judged.held { ("good", "holds") } else { ("bad", "does not hold") };
        let threshold = escape(&judged.threshold);
        text.push_str(&format!("<span class='badge {class}'>{threshold} {word}</span>"));
    }
    if let Some(line) = summary.saturation() {
        text.push_str(&format!("<p class=warn>{}</p>", escape(&line)));
    }
    text
}

fn tiles(summary: &Summary) -> String {
    let (throughput, latency) = (&summary.throughput, &summary.latency);
    let mut tiles = vec![
        ("events in", grouped(throughput.in_per_second as u64), "/s"),
        ("events out", grouped(throughput.out_per_second as u64), "/s"),
        ("commit to consumed, p50", format!("{:.1}", latency.commit_to_consume.p50_ms), "ms"),
        ("commit to consumed, p99", format!("{:.1}", latency.commit_to_consume.p99_ms), "ms"),
        ("intended to consumed, p99", format!("{:.1}", latency.total.p99_ms), "ms"),
    ];
    if let Some(relay) = summary.cost.relay {
        tiles.push(("relay CPU per event", format!("{:.2}", relay.cpu_us_per_event), "µs"));
        tiles.push(("relay memory, peak", format!("{:.0}", relay.peak_megabytes), "MB"));
    }
    tiles.push(("repeats", grouped(summary.audit.repeats), ""));
    let cells: String = tiles
        .iter()
        .map(|(name, figure, unit)| {
            format!("<div class=tile><span>{name}</span><b>{figure}</b><small>{unit}</small></div>")
        })
        .collect();
    format!("<div class=tiles>{cells}</div>")
}

/// Where the measured time begins and ends.
fn measured(summary: &Summary) -> Option<(f64, f64)> {
    let rows = &summary.series;
    let last_of = |phase| rows.iter().rfind(|row| row.phase == phase).map(|row| row.at);
    Some((last_of(RunPhase::Warmup).unwrap_or(0.0), last_of(RunPhase::Measure)?))
}

fn charts(summary: &Summary) -> String {
    let rows = &summary.series;
    let chart = |title, unit, scale, merge, lines| {
        Chart { title, unit, scale, merge, lines, measured: measured(summary) }.figure()
    };
    let (mean, highest) = (Merge::Mean, Merge::Highest);
    let throughput = vec![
        line("in", 1, rows, |row| Some(row.in_per_second)),
        line("out", 0, rows, |row| Some(row.out_per_second)),
    ];
    let latency = vec![
        line("p50", 2, rows, |row| delivered(row, row.total.p50_ms)),
        line("p90", 0, rows, |row| delivered(row, row.total.p90_ms)),
        line("p99", 3, rows, |row| delivered(row, row.total.p99_ms)),
        line("max", 1, rows, |row| delivered(row, row.total.max_ms)),
    ];
    let parts = vec![
        line("schedule", 1, rows, |row| delivered(row, row.schedule.p99_ms)),
        line("insert", 2, rows, |row| delivered(row, row.insert.p99_ms)),
        line("commit to consumed", 0, rows, |row| delivered(row, row.commit_to_consume.p99_ms)),
    ];
    let backlog = vec![line("backlog", 0, rows, |row| Some(row.backlog as f64))];
    let cpu = processes(rows, |sample| sample.cores);
    let memory = processes(rows, |sample| sample.megabytes);
    [
        chart("Throughput", "events/s", Scale::Linear, mean, throughput),
        chart("Latency, intended to consumed", "ms", Scale::Decades, highest, latency),
        chart::distribution(
            "Distribution of latency, intended to consumed",
            "% of events by ms",
            &[(summary.plan.name.clone(), &summary.distribution)],
        ),
        chart("Who is late: p99 by stage", "ms", Scale::Decades, highest, parts),
        chart("CPU", "cores", Scale::Linear, mean, cpu),
        chart("Resident memory", "MB", Scale::Decades, highest, memory),
        chart("Committed and not yet delivered", "events", Scale::Linear, highest, backlog),
    ]
    .concat()
}

/// One line for each process that was watched.
fn processes(rows: &[Second], figure: fn(&Sample) -> f64) -> Vec<ChartLine> {
    let of =
        |pick: fn(&Second) -> Option<Sample>| move |row: &Second| pick(row).as_ref().map(figure);
    let lines = [
        line("relay", 0, rows, of(|row| row.relay)),
        line("PostgreSQL", 1, rows, of(|row| row.postgres)),
        line("Kafka", 2, rows, of(|row| row.kafka)),
        line("load generator", 3, rows, of(|row| row.generator)),
    ];
    lines.into_iter().filter(|line| !line.points.is_empty()).collect()
}

fn latency_rows(summary: &Summary) -> Vec<Vec<String>> {
    let row = |name: &str, figures: &Percentiles| {
        let cells = [
            figures.mean_ms,
            figures.p50_ms,
            figures.p90_ms,
            figures.p99_ms,
            figures.p999_ms,
            figures.max_ms,
        ];
        let cells = cells.map(|cell| format!("{cell:.2}"));
        [name.to_owned()].into_iter().chain(cells).collect()
    };
    PathStage::ALL
        .into_iter()
        .map(|stage| {
            row(stage.title(summary.latency.record_clock).trim(), summary.latency.of(stage))
        })
        .collect()
}

fn cost_rows(summary: &Summary) -> Vec<Vec<String>> {
    let row = |(name, cost): (&str, ProcessCost)| {
        vec![
            name.to_owned(),
            format!("{:.2}", cost.cpu_us_per_event),
            format!("{:.2}", cost.cores),
            format!("{:.0}", cost.megabytes_at_start),
            format!("{:.0}", cost.megabytes_at_end),
            format!("{:.0}", cost.peak_megabytes),
        ]
    };
    summary.cost.named().into_iter().map(row).collect()
}

fn audit_rows(summary: &Summary) -> Vec<Vec<String>> {
    let audit = &summary.audit;
    let rows = [
        ("committed", audit.committed),
        ("delivered, each counted once", audit.delivered),
        ("missing", audit.missing),
        ("rolled back but published", audit.rolled_back),
        ("invented", audit.invented),
        ("out of order", audit.out_of_order),
        ("altered", audit.altered),
        ("misplaced: in another partition", audit.misplaced),
        ("repeats; at-least-once allows them", audit.repeats),
        ("records that are not of this run", audit.foreign),
    ];
    rows.into_iter().map(|(name, count)| vec![name.to_owned(), grouped(count)]).collect()
}

fn thresholds(summary: &Summary) -> String {
    if summary.thresholds.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = summary
        .thresholds
        .iter()
        .map(|judged| {
            let word = if judged.held { "holds" } else { "does not hold" };
            vec![judged.threshold.clone(), format!("{:.3}", judged.figure), word.to_owned()]
        })
        .collect();
    format!("<h2>Thresholds</h2>{}", table(&["", "figure", ""], &rows))
}
