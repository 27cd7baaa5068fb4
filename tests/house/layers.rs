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
    /// Servers that the demo and the tests start.
    Embedded,
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

use Layer::{
    Access, Core, Embedded, KafkaEdge, PostgresEdge, Process, Relay, Settings, Shard, System,
};

impl Layer {
    fn may_name(self) -> &'static [Layer] {
        match self {
            Process => &[Process, Embedded, Relay, Settings, PostgresEdge, KafkaEdge, Access, Core],
            Embedded => &[Core],
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

/// Every module: its layer, and the drivers that it may import. A longer path goes before a shorter.
const MODULES: &[(&str, Layer, &[&str])] = &[
    ("main", Process, &[TOKIO]),
    ("cli", Process, &[TOKIO, POSTGRES, KAFKA]),
    ("admin", Process, &[TOKIO]),
    ("logging", Process, &[]),
    ("embedded", Embedded, &[KAFKA]),
    ("relay", Relay, &[TOKIO]),
    ("config", Settings, &[]),
    ("shard", Shard, &[TOKIO]),
    ("capture::adopted_row", Core, &[]),
    ("capture::encoding", Core, &[]),
    ("capture::envelope", Core, &[]),
    ("capture::flawed", Core, &[]),
    ("capture::pgoutput", Core, &[]),
    ("capture", PostgresEdge, &[TOKIO, POSTGRES]),
    ("cursors", PostgresEdge, &[TOKIO, POSTGRES]),
    ("lease::plan", Core, &[]),
    ("lease", PostgresEdge, &[TOKIO, POSTGRES]),
    ("migrate", PostgresEdge, &[TOKIO, POSTGRES]),
    ("parked", PostgresEdge, &[TOKIO, POSTGRES]),
    ("retention", PostgresEdge, &[TOKIO, POSTGRES]),
    ("publish", KafkaEdge, &[TOKIO, KAFKA]),
    ("postgres", Access, &[TOKIO, POSTGRES]),
    ("secret", System, &[]),
    ("adopted", Core, &[]),
    ("audit", Core, &[]),
    ("cursor", Core, &[]),
    ("cutover", Core, &[]),
    ("encode", Core, &[]),
    ("error", Core, &[]),
    ("event", Core, &[]),
    ("fuzz", Process, &[]),
    ("hold", Core, &[]),
    ("large", Core, &[]),
    ("ledger", Core, &[]),
    ("legible", Core, &[]),
    ("monitor", Core, &[]),
    ("outbox", Core, &[]),
    ("repeats", Core, &[]),
    ("route", Core, &[]),
    ("snapshot", Core, &[]),
    ("streamed", Core, &[]),
    ("tick", Core, &[]),
];

/// The row of a module, by the longest path that fits.
fn row(module: &[&str]) -> Option<(&'static str, Layer, &'static [&'static str])> {
    let fits = |path: &str| {
        let path: Vec<&str> = path.split("::").collect();
        module.starts_with(&path)
    };
    MODULES.iter().copied().find(|(path, _, _)| fits(path))
}

/// The modules of this crate that the code names, by their first segment.
fn named_modules(code: &str, depth: usize) -> Vec<String> {
    let upwards = "super::".repeat(depth);
    let mut names = Vec::new();
    for root in ["crate::", "postrider::", upwards.as_str()] {
        for (start, _) in code.match_indices(root) {
            let before = code[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            names.extend(first_segments(&code[start + root.len()..]));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// `a::b` names a; `{a::b, c::{d, e}}` names a and c.
fn first_segments(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![identifier(path).to_owned()];
    };
    let mut depth = 1;
    let mut names = Vec::new();
    let mut expected = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => expected = depth == 1,
            c if c.is_whitespace() => {}
            _ if expected => {
                names.push(identifier(&group[at..]).to_owned());
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
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
    for name in named_modules(&code, module.len()) {
        let Some((other, theirs, _)) = row(&[name.as_str()]) else { continue };
        let same = module[0] == name;
        if !same && !layer.may_name().contains(&theirs) {
            let allowed = layer.may_name();
            findings
                .push(format!("{path}: {layer:?} names {other} ({theirs:?}); may: {allowed:?}"));
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
        ("src/tick.rs", "use crate::publish::Publisher;"),
        ("src/tick.rs", "use crate::{snapshot::Snapshot, shard};"),
        ("src/tick.rs", "fn f() { super::relay::run() }"),
        ("src/tick.rs", "use tokio::sync::watch;"),
        ("src/tick.rs", "fn f(at: std::time::Duration) {}"),
        ("src/encode.rs", "fn f() { jiff::Timestamp::now(); }"),
        ("src/publish/kafka.rs", "use crate::postgres::connect;"),
        ("src/publish/kafka.rs", "use crate::capture;"),
        ("src/publish/kafka.rs", "use super::super::capture;"),
        ("src/capture/poll.rs", "use crate::cursors::Store;"),
        ("src/capture/poll.rs", "use crate::migrate::Outbox;"),
        ("src/outbox.rs", "use crate::migrate;"),
        ("src/capture/poll.rs", "use rdkafka::config::ClientConfig;"),
        ("src/capture/pgoutput.rs", "use tokio_postgres::types::Type;"),
        ("src/shard.rs", "use crate::config::Config;"),
        ("src/novel.rs", ""),
    ] {
        assert_eq!(found(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("src/tick.rs", "use crate::snapshot::Snapshot; // not crate::relay"),
        ("src/tick.rs", "//! [`crate::relay`]\nconst S: &str = \"tokio crate::relay\";"),
        ("src/tick.rs", "#[cfg(test)]\nmod tests { use crate::relay; }"),
        ("src/capture/poll.rs", "use super::ticker; use crate::{postgres, tick::Tick};"),
        ("src/capture/poll.rs", "use tokio_postgres::Client;"),
        ("src/publish/mod.rs", "use rdkafka::config; use crate::encode;"),
        ("src/cli/mod.rs", "use crate::{relay, config::Config, embedded};"),
        ("src/main.rs", "use postrider::{cli, error};"),
    ] {
        assert_eq!(found(path, text), 0, "{path}: {text}");
    }
}
