//! What the page of one run and the comparison of two have in common.
//!
//! Promises: the same words for the same thing on both pages. Must not: judge.

use super::chart::ChartLine;
use super::summary::{Second, Summary};
use postrider_testkit::figures::grouped;

/// A row of the series that is shorter says nothing about a rate.
const SHORTEST_SECONDS: f64 = 0.5;

/// The line of one figure over a run's seconds.
pub(super) fn line(
    name: &str,
    colour: usize,
    rows: &[Second],
    figure: impl Fn(&Second) -> Option<f64>,
) -> ChartLine {
    let whole = rows.iter().filter(|row| row.seconds >= SHORTEST_SECONDS);
    let points = whole.filter_map(|row| Some((row.at, figure(row)?))).collect();
    ChartLine { name: name.to_owned(), colour, dashed: false, points }
}

/// The percentile of a second in which anything was delivered.
pub(super) fn delivered(row: &Second, figure: f64) -> Option<f64> {
    (row.total.count > 0).then_some(figure)
}

/// What was asked: name, value.
pub(super) fn plan_rows(summary: &Summary) -> Vec<Vec<String>> {
    let plan = &summary.plan;
    let rows = [
        ("rate", format!("{} events/s", grouped(plan.rate as u64))),
        ("measured", format!("{} s after {} s", plan.duration_seconds, plan.warmup_seconds)),
        ("events per transaction", plan.tx_size.to_string()),
        ("writers", plan.writers.to_string()),
        ("aggregates", grouped(u64::from(plan.aggregates))),
        ("skew (Zipf)", plan.skew.to_string()),
        ("payload", format!("{} B, {} row headers", plan.payload_bytes, plan.headers)),
        ("workload", plan.workload.clone()),
        ("events written as", plan.capture.clone()),
        ("rolled back", format!("{} % of transactions", plan.rollback_percent)),
        ("topic partitions", plan.partitions.to_string()),
    ];
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// Where it ran: name, value.
pub(super) fn environment_rows(summary: &Summary) -> Vec<Vec<String>> {
    let environment = &summary.environment;
    let mut rows = vec![
        ("processor".to_owned(), format!("{}, {} cores", environment.cpu, environment.cores)),
        ("memory".to_owned(), format!("{} MB", grouped(environment.memory_megabytes))),
        ("kernel".to_owned(), environment.kernel.clone()),
        ("writers reach PostgreSQL by".to_owned(), environment.postgres_transport.clone()),
    ];
    rows.extend(environment.relay.iter().map(|relay| ("relay".to_owned(), relay.clone())));
    rows.extend(
        environment.git_revision.iter().map(|rev| ("git revision".to_owned(), rev.clone())),
    );
    rows.extend(environment.notes.iter().map(|(key, value)| (key.clone(), value.clone())));
    let settings = environment.postgres.iter();
    rows.extend(settings.map(|(key, value)| (format!("PostgreSQL {key}"), value.clone())));
    rows.into_iter().map(|(name, value)| vec![name, value]).collect()
}
