//! Alerts and the board ask for figures that the relay tells.
//!
//! Promises: each name and each label in `deploy/prometheus` and `deploy/grafana` stands in docs/metrics.md, which has
//! the table of the code; an alert says how bad it is, what it means, and where its entry of the runbook is. Must not:
//! know what an expression means; `just rules` has Prometheus try them. Fails: with file, name and remedy.

use std::collections::BTreeMap;

use crate::report;
use crate::sources::files;

/// The alerts, in the order of the file.
const ALERTS: [&str; 15] = [
    "PostriderNoInstance",
    "PostriderStalled",
    "PostriderNotReady",
    "PostriderPausedLong",
    "PostriderBehind",
    "PostriderNeverEmpty",
    "PostriderParked",
    "PostriderTopicHeld",
    "PostriderOpenTransaction",
    "PostriderRingFull",
    "PostriderBucketFree",
    "PostriderSessionsEnding",
    "PostriderProducerReplaced",
    "PostriderSlotNearLost",
    "PostriderSlotNotSynced",
];

/// The rows of the board, in the order in which one asks.
const ROWS: [&str; 7] = [
    "Is it working?",
    "How far behind?",
    "What holds it?",
    "The tier",
    "PostgreSQL",
    "Kafka",
    "The slot",
];

/// What Prometheus adds to whatever it scrapes.
const SCRAPED: [&str; 3] = ["namespace", "job", "instance"];

/// What a histogram adds to its name, but for its buckets.
const SUMS: [&str; 2] = ["_count", "_sum"];

const RULES: &str = "deploy/prometheus/postrider.rules.yml";
const BOARD: &str = "deploy/grafana/postrider.json";
const RUNBOOK: &str = "docs/runbook.md";

fn text(path: &str) -> String {
    let (folder, _) = path.rsplit_once('/').expect("it lies in a folder");
    let found = files(folder, &[path]).into_iter().find(|file| file.path == path);
    found.unwrap_or_else(|| panic!("{path} is not there")).text
}

/// Each name of the page as it is asked for, with its labels.
fn told(page: &str) -> BTreeMap<String, Vec<String>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut told = BTreeMap::new();
    for (name, what) in rows.filter_map(|row| row.split_once('`')) {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}').split(',').map(|label| label.trim().to_owned());
        let labels: Vec<String> = labels.filter(|label| !label.is_empty()).collect();
        if what.contains("| histogram") {
            let with_bounds = labels.iter().cloned().chain(["le".to_owned()]).collect();
            told.extend(SUMS.map(|suffix| (format!("{name}{suffix}"), labels.clone())));
            told.insert(format!("{name}_bucket"), with_bounds);
        } else {
            told.insert(name.to_owned(), labels);
        }
    }
    told
}

/// The words of an expression, without what stands in quotes.
fn words(expression: &str) -> Vec<String> {
    let unquoted: String = expression.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let pieces = unquoted.split(|c| !is_word(c));
    pieces.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What stands between braces behind each name, and in the lists of `by` and `on`.
fn labels(expression: &str) -> Vec<String> {
    let unquoted: String = expression.split('"').step_by(2).collect::<Vec<_>>().join("");
    let between = |open: &str, close: char| -> Vec<String> {
        let parts = unquoted.split(open).skip(1).filter_map(|rest| rest.split_once(close));
        parts.flat_map(|(list, _)| words(list)).collect()
    };
    [between("{", '}'), between("by (", ')'), between("on (", ')')].concat()
}

/// What an expression asks for that nobody tells.
fn untold(expression: &str, told: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let is_figure = |word: &&String| word.starts_with("postrider_") || word.starts_with("process_");
    let words = words(expression);
    let figures: Vec<&String> = words.iter().filter(is_figure).collect();
    let known = |label: &str| {
        let has =
            |name: &&String| told.get(*name).is_some_and(|own| own.iter().any(|o| o == label));
        SCRAPED.contains(&label) || figures.iter().any(has)
    };
    let names = figures.iter().filter(|name| !told.contains_key(**name));
    let names = names.map(|name| format!("{name} is no figure of docs/metrics.md"));
    let labels = labels(expression).into_iter().filter(|label| !known(label));
    let labels = labels.map(|label| format!("{label} is no label of what is asked for"));
    let nothing = figures.is_empty().then(|| "it asks for no figure".to_owned());
    names.chain(labels).chain(nothing).collect()
}

/// An alert of the file.
#[derive(Debug, Default)]
struct Alert {
    name: String,
    fields: BTreeMap<String, String>,
}

/// The keys of an alert.
const KEYS: [&str; 8] =
    ["expr", "for", "labels", "severity", "annotations", "summary", "description", "runbook_url"];

/// The alerts of the file: a key to a line, and lines that begin with none go on with the one before.
fn alerts(text: &str) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    let mut key = "";
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
            continue;
        }
        let Some(alert) = alerts.last_mut() else { continue };
        let next = line.split_once(':').filter(|(next, _)| KEYS.contains(next));
        let more = next.map_or(line, |(_, value)| value.trim().trim_start_matches(['|', '>', '-']));
        key = next.map_or(key, |(next, _)| next);
        let field = alert.fields.entry(key.to_owned()).or_default();
        *field = format!("{field} {more}").trim().to_owned();
    }
    alerts
}

/// What is wrong with an alert.
fn alert_findings(alert: &Alert, told: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let missing = |field: &&str| alert.fields.get(*field).is_none_or(String::is_empty);
    let missing = ["expr", "severity", "summary", "description"].into_iter().filter(missing);
    let entry = format!("{RUNBOOK}#{}", alert.name.to_lowercase());
    let has_entry = alert.fields.get("runbook_url") == Some(&entry);
    missing
        .map(|field| format!("it has no {field}"))
        .chain((!has_entry).then(|| format!("its runbook_url is not {entry}")))
        .chain(untold(alert.fields.get("expr").map_or("", String::as_str), told))
        .map(|finding| format!("{RULES}: {}: {finding}", alert.name))
        .collect()
}

#[test]
fn the_alerts_ask_for_figures_that_are_told() {
    let told = told(&text("docs/metrics.md"));
    assert!(told.len() > 50, "the page was not read: {told:?}");
    let alerts = alerts(&text(RULES));
    let names: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names, ALERTS);
    report(&alerts.iter().flat_map(|alert| alert_findings(alert, &told)).collect::<Vec<_>>());
}

/// All texts of a key, wherever it stands.
fn texts(value: &serde_json::Value, key: &str) -> Vec<String> {
    match value {
        serde_json::Value::Object(fields) => {
            let own = fields.get(key).and_then(|text| text.as_str()).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(|inner| texts(inner, key))).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(|item| texts(item, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_board_asks_for_figures_that_are_told_in_the_order_of_the_questions() {
    let told = told(&text("docs/metrics.md"));
    let board: serde_json::Value = serde_json::from_str(&text(BOARD)).expect("it is JSON");
    let panels = board["panels"].as_array().expect("it has panels");
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(rows, ROWS);
    let expressions = texts(&board, "expr");
    assert!(expressions.len() > 30, "{expressions:?}");
    let findings = expressions.iter().flat_map(|expression| {
        let found = untold(expression, &told).into_iter();
        found.map(move |finding| format!("{BOARD}: {expression}: {finding}"))
    });
    report(&findings.collect::<Vec<_>>());
}

#[test]
fn what_nobody_tells_is_found() {
    let page = "| `a_total{x, y}` | counts | |\n| `postrider_a_total{x}` | counts | |\n\
                | `postrider_b_seconds` | histogram, of times | |\n";
    let told = told(page);
    assert_eq!(told["postrider_b_seconds_bucket"], ["le"]);
    for (expression, findings) in [
        ("sum by (job) (rate(postrider_a_total{x=\"postrider_c\"}[5m])) > 3", 0),
        ("sum by (job, x) (postrider_a_total) and on (instance) postrider_b_seconds_count", 0),
        ("postrider_a", 1),
        ("sum by (y) (postrider_a_total)", 1),
        ("postrider_a_total{le=\"1\"}", 1),
        ("postrider_b_seconds", 1),
        ("vector(1)", 1),
    ] {
        assert_eq!(untold(expression, &told).len(), findings, "{expression}");
    }
    let rules = "groups:\n  - name: p\n    rules:\n      # one: two\n      - alert: PostriderA\n        expr: |\n          postrider_a_total\n            > 3\n        for: 1m\n        labels:\n          severity: warning\n        annotations:\n          summary: a\n          description: >-\n            b:\n            c\n          runbook_url: docs/runbook.md#postridera\n";
    let alerts = alerts(rules);
    assert_eq!(alert_findings(&alerts[0], &told), Vec::<String>::new(), "{alerts:?}");
    assert_eq!(alerts[0].fields["expr"], "postrider_a_total > 3");
    assert_eq!(alerts[0].fields["description"], "b: c");
    for (from, to) in [("severity", "so"), ("#postridera", "#other"), ("_total\n", "\n")] {
        let broken = self::alerts(&rules.replace(from, to));
        assert_eq!(alert_findings(&broken[0], &told).len(), 1, "{from}");
    }
}
