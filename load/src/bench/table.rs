//! The result of a bench as a table that people can paste.
//!
//! Promises: machine and method above, one row for each experiment, failures included. Must not: round
//! away a range.

use std::fmt::Write;

use crate::measure::range::Range;

use super::report::{BenchReport, ExperimentRow};

/// The report in Markdown.
pub(crate) fn markdown(report: &BenchReport) -> String {
    let environment = &report.environment;
    let version = environment.postgres.get("server_version").map_or("", String::as_str);
    let mut text = format!(
        "{}, {} cores, {} MB, kernel {}; PostgreSQL {version} over {}; relay `{}`; ranges are \
         min–median–max of {} runs, scale {}.\n",
        environment.cpu,
        environment.cores,
        environment.memory_megabytes,
        environment.kernel,
        environment.postgres_transport,
        report.relay,
        report.runs,
        report.scale,
    );
    for (key, value) in &environment.notes {
        put(&mut text, format_args!("{key}: {value}\n"));
    }
    text.push_str(
        "\n| group | experiment | events/s | relay CPU µs/event | PostgreSQL CPU µs/event | \
         Kafka CPU µs/event | relay peak MB | commit to consumed p50 ms | p99 ms | \
         WAL kept MB | faults |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        put(&mut text, format_args!("{}\n", line(row)));
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes every write");
}

fn line(row: &ExperimentRow) -> String {
    let group = format!("{:?}", row.experiment.group).to_lowercase();
    let name = &row.experiment.name;
    if let Some(error) = &row.error {
        return format!(
            "| {group} | {name} | failed: {} | | | | | | | | |",
            error.replace('|', "/")
        );
    }
    let figures = &row.figures;
    let show = |range: Option<Range>, decimals| {
        range.map_or_else(|| "–".to_owned(), |range| range.show(decimals))
    };
    if let (Some(cpu), Some(queries)) =
        (figures.idle_cpu_percent, figures.idle_transactions_per_second)
    {
        return format!(
            "| {group} | {name} | {} % of a core, {} transactions/s | | | | {} | | | | |",
            cpu.show(2),
            queries.show(1),
            show(figures.relay_peak_megabytes, 0)
        );
    }
    format!(
        "| {group} | {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        show(figures.events_per_second, 0),
        show(figures.relay_cpu_us_per_event, 2),
        show(figures.postgres_cpu_us_per_event, 2),
        show(figures.kafka_cpu_us_per_event, 2),
        show(figures.relay_peak_megabytes, 0),
        show(figures.p50_ms, 1),
        show(figures.p99_ms, 1),
        show(figures.kept_log_megabytes, 0),
        row.faults
    )
}

#[cfg(test)]
mod tests {
    use super::super::experiments::all;
    use super::super::report::ExperimentFigures;
    use super::*;
    use crate::measure::environment::Environment;

    #[test]
    fn every_row_has_eleven_cells_and_failures_are_shown() {
        let experiment = all(1.0).remove(0);
        let figures = ExperimentFigures {
            events_per_second: Range::of([1.0, 2.0]),
            ..ExperimentFigures::default()
        };
        let good =
            ExperimentRow { experiment: experiment.clone(), figures, faults: 0, error: None };
        let error = Some("no | broker".to_owned());
        let bad =
            ExperimentRow { experiment, figures: ExperimentFigures::default(), faults: 0, error };
        let report = BenchReport {
            schema: "s",
            environment: Environment::default(),
            relay: "r".to_owned(),
            runs: 2,
            scale: 1.0,
            rows: vec![good, bad],
        };
        let text = markdown(&report);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.iter().all(|row| row.matches('|').count() == 12), "{text}");
        assert!(text.contains("1–2–2") && text.contains("failed: no / broker"));
    }
}
