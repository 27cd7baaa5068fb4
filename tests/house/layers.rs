//! Who may name whom, and who may know a driver.
//!
//! Promises: every file of `src` belongs to a row of [`MODULES`]; a row may name what its layer
//! names, and itself. Must not: read test modules, which may use anything. Fails: with file, module
//! named, and what the file may name instead.

use crate::report;
use crate::sources::{Source, files, take_apart};

/// The layers, and which layers each may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// What people start and touch.
    Process,
    /// Supervision.
    Relay,
    /// What flags mean.
    Settings,
    /// The order of the steps.
    Shard,
    /// The outside on PostgreSQL's side. Edges never name each other.
    PostgresEdge,
    /// The outside on Kafka's side.
    KafkaEdge,
    /// How a session with PostgreSQL is had.
    Access,
    /// What the operating system gives: programs and their output.
    System,
    /// No runtime, no driver, no clock.
    Core,
}

use Layer::{Access, Core, KafkaEdge, PostgresEdge, Process, Relay, Settings, Shard, System};

impl Layer {
    fn may_name(self) -> &'static [Layer] {
        match self {
            Process => &[Process, Relay, Settings, PostgresEdge, KafkaEdge, Access, Core],
            Relay => &[Settings, Shard, PostgresEdge, KafkaEdge, Access, Core],
            Settings => &[PostgresEdge, KafkaEdge, Access, System, Core],
            Shard => &[PostgresEdge, KafkaEdge, Core],
            PostgresEdge => &[Access, Core],
            KafkaEdge | Access => &[System, Core],
            System | Core => &[Core],
        }
    }
}

const TOKIO: &str = "tokio";
const POSTGRES: &str = "tokio_postgres";
const KAFKA: &str = "rdkafka";
/// What only the rows that list it may import.
const DRIVERS: &[&str] = &[TOKIO, POSTGRES, KAFKA];

/// What no module of the core may contain: a time that it was not given.
const CLOCKS: &[&str] = &["std::time", "Instant", "SystemTime", "Timestamp::now", "Zoned::now"];

/// Every folder, and the files above the folders: the layer, and the drivers that it may import. A part that
/// stands lower than its folder goes before the folder.
const MODULES: &[(&str, Layer, &[&str])] = &[
    ("main", Process, &[TOKIO]),
    ("cli", Process, &[TOKIO, POSTGRES]),
    ("demo", Process, &[TOKIO, POSTGRES, KAFKA]),
    ("metrics::beats", Core, &[]),
    ("metrics::counters", Core, &[]),
    ("metrics::describe", Core, &[]),
    ("metrics::estimate", Core, &[]),
    ("metrics::health", Core, &[]),
    ("metrics::histogram", Core, &[]),
    ("metrics::overlong", Core, &[]),
    ("metrics::progress", Core, &[]),
    ("metrics::recent", Core, &[]),
    ("metrics::seen", Core, &[]),
    ("metrics::sentence", Core, &[]),
    ("metrics::session_state", Core, &[]),
    ("metrics::shape", Core, &[]),
    ("metrics", Process, &[TOKIO]),
    ("logging", Process, &[]),
    ("fuzz", Process, &[]),
    ("relay", Relay, &[TOKIO]),
    ("config", Settings, &[]),
    ("shard", Shard, &[TOKIO]),
    ("capture::adopted::mapping", Core, &[]),
    ("capture::adopted::row", Core, &[]),
    ("capture::log::encoding", Core, &[]),
    ("capture::log::flawed", Core, &[]),
    ("capture::log::message", Core, &[]),
    ("capture::log::pgoutput", Core, &[]),
    ("capture::log::printed", Core, &[]),
    ("capture", PostgresEdge, &[TOKIO, POSTGRES]),
    ("control::lease::plan", Core, &[]),
    ("control", PostgresEdge, &[TOKIO, POSTGRES]),
    ("publish::kafka", KafkaEdge, &[TOKIO, KAFKA]),
    ("publish", KafkaEdge, &[TOKIO]),
    ("postgres", Access, &[TOKIO, POSTGRES]),
    ("secret", System, &[]),
    ("backoff", Core, &[]),
    ("error", Core, &[]),
    ("event", Core, &[]),
    ("inbox::record", Core, &[]),
    ("inbox", PostgresEdge, &[POSTGRES]),
    ("legible", Core, &[]),
    ("order", Core, &[]),
    ("outbox", Core, &[]),
    ("record", Core, &[]),
    ("schema", Core, &[]),
    ("throttle", Core, &[]),
];

/// The row of a module, by the longest path that fits.
fn row(module: &[&str]) -> Option<(&'static str, Layer, &'static [&'static str])> {
    let fits = |path: &str| {
        let path: Vec<&str> = path.split("::").collect();
        module.starts_with(&path)
    };
    MODULES.iter().copied().find(|(path, _, _)| fits(path))
}

/// The paths in this crate that the code names, each as its segments.
fn named_paths(code: &str, depth: usize) -> Vec<Vec<&str>> {
    let upwards = "super::".repeat(depth);
    let mut paths = Vec::new();
    for root in ["crate::", "postrider::", upwards.as_str()] {
        for (start, _) in code.match_indices(root) {
            let before = code[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            collect_paths(&code[start + root.len()..], &[], &mut paths);
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// `a::b` is one path; `a::{b, c::{d, e}}` is three. What is left of the text behind them.
pub(crate) fn collect_paths<'a>(
    text: &'a str,
    above: &[&'a str],
    paths: &mut Vec<Vec<&'a str>>,
) -> &'a str {
    let mut path = above.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = collect_paths(group, &path, paths).trim_start();
                group = group.strip_prefix(',').unwrap_or(group).trim_start();
                if let Some(behind) = group.strip_prefix('}') {
                    return behind;
                }
                assert!(!group.is_empty(), "a group of imports ends");
            }
        }
        let name = identifier(rest);
        if !name.is_empty() && name != "self" {
            path.push(name);
        }
        rest = &rest[name.len()..];
        let Some(behind) = rest.strip_prefix("::") else { break };
        rest = behind;
    }
    paths.push(path);
    let end = rest.find([',', '}', ';']).unwrap_or(rest.len());
    &rest[end..]
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Whether the code holds the word or path, not as a part of a longer one.
fn holds(code: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(in_word) && !after.is_some_and(in_word)
    })
}

/// What of a file breaks a rule of this module.
fn findings(source: &Source) -> Vec<String> {
    let path = &source.path;
    let module = source.module();
    if module == ["lib"] {
        return Vec::new();
    }
    let Some((own, layer, drivers)) = row(&module) else {
        return vec![format!("{path}: no row of MODULES names it; give it a layer")];
    };
    let code = take_apart(source.without_tests()).code;
    let mut findings = Vec::new();
    for path_named in named_paths(&code, module.len()) {
        let Some((other, theirs, _)) = row(&path_named) else { continue };
        let same_folder = path_named[0] == module[0];
        if !same_folder && !layer.may_name().contains(&theirs) {
            let allowed = layer.may_name();
            let finding = format!("{path}: {layer:?} names {other} ({theirs:?}); may: {allowed:?}");
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    for driver in DRIVERS.iter().filter(|driver| !drivers.contains(driver)) {
        if holds(&code, driver) {
            findings.push(format!("{path}: {own} imports {driver}; its row does not list it"));
        }
    }
    for clock in CLOCKS.iter().filter(|clock| layer == Core && holds(&code, clock)) {
        findings.push(format!("{path}: the core uses {clock}; let the caller pass the time"));
    }
    findings
}

#[test]
fn modules_name_only_what_lies_below() {
    let sources = files("src", &[".rs"]);
    assert!(sources.len() > 5, "src was not found");
    report(&sources.iter().flat_map(findings).collect::<Vec<_>>());
}

#[test]
fn a_broken_layer_is_found() {
    let found = |path: &str, text: &str| {
        findings(&Source { path: path.to_owned(), text: text.to_owned() }).len()
    };
    for (path, text) in [
        ("src/order/tick.rs", "use crate::publish::Publisher;"),
        ("src/order/tick.rs", "use crate::{order::snapshot::Snapshot, shard};"),
        ("src/order/tick.rs", "fn f() { super::super::relay::run() }"),
        ("src/order/tick.rs", "use tokio::sync::watch;"),
        ("src/order/tick.rs", "fn f(at: std::time::Duration) {}"),
        ("src/record/encode.rs", "fn f() { jiff::Timestamp::now(); }"),
        ("src/publish/kafka/producer.rs", "use crate::postgres::connect;"),
        ("src/publish/kafka/producer.rs", "use crate::capture;"),
        ("src/publish/kafka/producer.rs", "use super::super::super::capture;"),
        ("src/publish/dispatch.rs", "use rdkafka::config::ClientConfig;"),
        ("src/capture/table/claim.rs", "use crate::control::cursors::Store;"),
        ("src/capture/table/claim.rs", "use crate::control::{migrate::{Outbox, up}, cursors};"),
        ("src/outbox.rs", "use crate::control::migrate;"),
        ("src/capture/table/claim.rs", "use rdkafka::config::ClientConfig;"),
        ("src/capture/log/pgoutput.rs", "use tokio_postgres::types::Type;"),
        ("src/shard/mod.rs", "use crate::config::Config;"),
        ("src/novel.rs", ""),
    ] {
        assert_eq!(found(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("src/order/tick.rs", "use crate::order::snapshot::Snapshot; // not crate::relay"),
        ("src/order/tick.rs", "//! [`crate::relay`]\nconst S: &str = \"tokio crate::relay\";"),
        ("src/order/tick.rs", "#[cfg(test)]\nmod tests { use crate::relay; }"),
        (
            "src/capture/table/claim.rs",
            "use super::ticker; use crate::{postgres, order::tick::Tick};",
        ),
        ("src/capture/table/claim.rs", "use tokio_postgres::Client;"),
        ("src/publish/kafka/clients.rs", "use rdkafka::config; use crate::record::encode;"),
        ("src/cli/mod.rs", "use crate::{relay, config::Config, demo};"),
        ("src/main.rs", "use postrider::{cli, error};"),
    ] {
        assert_eq!(found(path, text), 0, "{path}: {text}");
    }
}
