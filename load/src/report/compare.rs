//! Two runs side by side.
//!
//! Promises: every figure of both, and their ratio; what was asked differently is listed first, for a
//! ratio of unlike runs says little. Must not: call one the better.

use crate::measure::latency::PathStage;
use postrider_testkit::figures::grouped;

use super::chart::{self, Chart, ChartLine, Merge, Scale, short};
use super::page::{self, escape, table};
use super::rows::{delivered, environment_rows, line, plan_rows};
use super::summary::{ProcessCost, Second, Summary};

/// One figure of two runs.
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: String,
    /// Of the first run.
    pub(crate) first: f64,
    /// Of the second run.
    pub(crate) second: f64,
}

impl Figure {
    fn ratio(&self) -> String {
        if self.first == 0.0 {
            "–".to_owned()
        } else {
            format!("{:.2}", self.second / self.first)
        }
    }

    /// The figure as cells: name, first, second, ratio of the second to the first.
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), short_figure(self.first), short_figure(self.second), self.ratio()]
    }
}

fn short_figure(value: f64) -> String {
    if value.abs() >= 1_000.0 { grouped(value as u64) } else { short(value) }
}

/// All figures that both runs have.
pub(crate) fn figures(first: &Summary, second: &Summary) -> Vec<Figure> {
    let both = |name: &str, figure: fn(&Summary) -> f64| Figure {
        name: name.to_owned(),
        first: figure(first),
        second: figure(second),
    };
    let mut figures = vec![
        both("in, events/s", |run| run.throughput.in_per_second),
        both("out, events/s", |run| run.throughput.out_per_second),
    ];
    for stage in PathStage::ALL {
        let (a, b) = (first.latency.of(stage), second.latency.of(stage));
        let title = stage.title(first.latency.record_clock).trim();
        let name = |percentile| format!("{title}, {percentile} ms");
        figures.push(Figure { name: name("p50"), first: a.p50_ms, second: b.p50_ms });
        figures.push(Figure { name: name("p99"), first: a.p99_ms, second: b.p99_ms });
    }
    figures.extend(costs(first, second));
    figures.extend([
        both("backlog at the end, events", |run| run.throughput.backlog_at_end as f64),
        both("missing", |run| run.audit.missing as f64),
        both("out of order", |run| run.audit.out_of_order as f64),
        both("repeats", |run| run.audit.repeats as f64),
    ]);
    figures
}

fn costs(first: &Summary, second: &Summary) -> Vec<Figure> {
    let figure = |name: &str, what: &str, a: f64, b: f64| Figure {
        name: format!("{name}, {what}"),
        first: a,
        second: b,
    };
    let both = |(name, a): (&'static str, ProcessCost)| {
        let (_, b) = second.cost.named().into_iter().find(|(other, _)| *other == name)?;
        Some([
            figure(name, "CPU µs per event", a.cpu_us_per_event, b.cpu_us_per_event),
            figure(name, "peak MB of a process", a.peak_megabytes, b.peak_megabytes),
        ])
    };
    first.cost.named().into_iter().filter_map(both).flatten().collect()
}

/// What was asked or given differently: name, first, second.
fn differences(first: &Summary, second: &Summary) -> Vec<Vec<String>> {
    let rows = |run: &Summary| [plan_rows(run), environment_rows(run)].concat();
    let (mine, theirs) = (rows(first), rows(second));
    let mut names: Vec<&String> = Vec::new();
    for row in mine.iter().chain(&theirs) {
        if !names.contains(&&row[0]) {
            names.push(&row[0]);
        }
    }
    let value = |rows: &[Vec<String>], name: &str| {
        rows.iter().find(|row| row[0] == name).map_or_else(|| "–".to_owned(), |row| row[1].clone())
    };
    names
        .into_iter()
        .map(|name| vec![name.clone(), value(&mine, name), value(&theirs, name)])
        .filter(|row| row[1] != row[2])
        .collect()
}

/// The lines for a terminal, and the page.
pub(crate) fn compare(first: &Summary, second: &Summary) -> (Vec<String>, String) {
    let names = names(first, second);
    let figures = figures(first, second);
    let mut lines = vec![format!("{:<44}{:>16}{:>16}{:>9}", "", names.0, names.1, "ratio")];
    for row in differences(first, second) {
        lines.push(format!("differs: {:<35}{:>16}{:>16}", row[0], row[1], row[2]));
    }
    for figure in &figures {
        let cells = figure.cells();
        lines.push(format!("{:<44}{:>16}{:>16}{:>9}", cells[0], cells[1], cells[2], cells[3]));
    }
    let page = comparison_page(first, second, &names, &figures);
    (lines, page)
}

/// The runs' names, told apart when both have the same.
fn names(first: &Summary, second: &Summary) -> (String, String) {
    let (a, b) = (&first.plan.name, &second.plan.name);
    if a == b { (format!("{a} A"), format!("{b} B")) } else { (a.clone(), b.clone()) }
}

fn comparison_page(
    first: &Summary,
    second: &Summary,
    names: &(String, String),
    figures: &[Figure],
) -> String {
    let heads = ["", &names.0, &names.1, &format!("{} / {}", names.1, names.0)];
    let rows: Vec<Vec<String>> = figures.iter().map(Figure::cells).collect();
    let differences = differences(first, second);
    let differing = if differences.is_empty() {
        "<p class=soft>Both runs were asked the same, in the same place.</p>".to_owned()
    } else {
        format!("<h2>What differs</h2>{}", table(&["", &names.0, &names.1], &differences))
    };
    let body = [
        format!("<h1>{} and {}</h1>", escape(&names.0), escape(&names.1)),
        differing,
        "<h2>Figures</h2>".to_owned(),
        table(&heads, &rows),
        "<h2>Over time</h2>".to_owned(),
        format!("<div class=charts>{}</div>", charts(first, second, names)),
    ];
    page::page(&format!("{} and {}", names.0, names.1), &body.concat())
}

fn charts(first: &Summary, second: &Summary, names: &(String, String)) -> String {
    let pair = |figure: fn(&Second) -> Option<f64>| -> Vec<ChartLine> {
        let mut other = line(&names.1, 1, &second.series, figure);
        other.dashed = true;
        vec![line(&names.0, 0, &first.series, figure), other]
    };
    let chart = |title, unit, scale, merge, lines| {
        Chart { title, unit, scale, merge, lines, measured: None }.figure()
    };
    let highest = Merge::Highest;
    [
        chart("Out", "events/s", Scale::Linear, Merge::Mean, pair(|row| Some(row.out_per_second))),
        chart("In", "events/s", Scale::Linear, Merge::Mean, pair(|row| Some(row.in_per_second))),
        chart(
            "Commit to consumed, p50",
            "ms",
            Scale::Decades,
            highest,
            pair(|row| delivered(row, row.commit_to_consume.p50_ms)),
        ),
        chart(
            "Commit to consumed, p99",
            "ms",
            Scale::Decades,
            highest,
            pair(|row| delivered(row, row.commit_to_consume.p99_ms)),
        ),
        chart::distribution(
            "Distribution of latency, intended to consumed",
            "% of events by ms",
            &[(names.0.clone(), &first.distribution), (names.1.clone(), &second.distribution)],
        ),
        chart("Relay CPU", "cores", Scale::Linear, Merge::Mean, pair(|row| Some(row.relay?.cores))),
        chart("Relay memory", "MB", Scale::Linear, highest, pair(|row| Some(row.relay?.megabytes))),
        chart(
            "PostgreSQL CPU",
            "cores",
            Scale::Linear,
            Merge::Mean,
            pair(|row| Some(row.postgres?.cores)),
        ),
    ]
    .concat()
}
