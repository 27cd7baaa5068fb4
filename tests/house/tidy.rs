//! Sizes, heads and words.
//!
//! Promises: a file is short, says what it promises, keeps SQL in `sql/`, and leaves nothing for
//! later. Must not: judge what a compiler or clippy judges. Fails: with file, line and remedy.

use crate::report;
use crate::sources::{Source, files, take_apart};

/// Lines of a Rust file, its test module not counted.
const FILE_LINES_MAX: usize = 500;

/// Lines of code, but for lists of modules, up to which a file needs no promises.
const LISTING_LINES_MAX: usize = 5;

/// An opening says what its file promises, or so much else.
const HEAD_WORDS_MIN: usize = 12;

/// What an opening need not say.
const FORMULA: &str = concat!("Fails:", " never.");

/// Words that leave something for later. Written in halves, as this file is searched too.
const WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
];

/// Endings of the files that people write.
const WRITTEN: &[&str] = &[
    ".rs",
    ".sql",
    ".toml",
    ".md",
    ".java",
    ".xml",
    ".yml",
    ".yaml",
    ".sh",
    "Dockerfile",
    "justfile",
];

/// Where a Rust string may hold SQL, and why.
const SQL_ALLOWED: &[(&str, &str)] = &[
    ("testkit/src/servers/", "sets up a server before any outbox exists"),
    ("src/demo/", "writes the demo's own business rows"),
];

/// A statement is known by these words, in this order.
const STATEMENTS: &[&[&str]] = &[
    &["select", "from"],
    &["insert", "into"],
    &["update", "set"],
    &["delete", "from"],
    &["create", "table"],
    &["truncate", "table"],
];

fn rust() -> Vec<Source> {
    ["src", "load/src", "testkit", "tests", "benches", "examples"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

#[test]
fn files_are_short() {
    let long = |source: &Source| {
        let lines = source.without_tests().lines().count();
        let path = &source.path;
        (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines} lines; cut it by what it does"))
    };
    report(&rust().iter().filter_map(long).collect::<Vec<_>>());
}

/// What is wrong with a module's opening.
fn head_finding(source: &Source) -> Option<String> {
    let path = &source.path;
    if source.is_test_module() {
        return None;
    }
    if !source.text.starts_with("//!") {
        return Some(format!("{path}: does not open with //! and what it promises"));
    }
    let head: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
    let is_listing = |line: &str| {
        let line = line.trim();
        ["mod ", "pub mod ", "pub use ", "use ", "#!["].iter().any(|start| line.starts_with(start))
    };
    let code = take_apart(source.without_tests()).code;
    let lines = code.lines().filter(|line| !line.trim().is_empty() && !is_listing(line)).count();
    if head.iter().any(|line| line.ends_with(FORMULA)) {
        return Some(format!("{path}: its opening has {FORMULA:?}, which says nothing"));
    }
    let words = head.iter().flat_map(|line| line.split_whitespace()).filter(|word| *word != "//!");
    let is_bare =
        words.count() < HEAD_WORDS_MIN && !head.iter().any(|line| line.contains("Promises"));
    (lines > LISTING_LINES_MAX && is_bare)
        .then(|| format!("{path}: its opening says neither what it Promises nor much else"))
}

#[test]
fn modules_say_what_they_promise() {
    report(
        &["src", "testkit/src"]
            .iter()
            .flat_map(|folder| files(folder, &[".rs"]))
            .filter_map(|source| head_finding(&source))
            .collect::<Vec<_>>(),
    );
}

/// Which words an SQL file's opening comment lacks.
fn missing_words(source: &Source) -> Vec<String> {
    let head: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("--")).collect();
    let needed: &[&str] = match source.path.starts_with("sql/queries/") {
        true => &["Purpose:", "Locks:", "Plan:", "Hazard:"],
        false => &["Purpose:"],
    };
    let lacks = |word: &&&str| !head.iter().any(|line| line.contains(**word));
    let path = &source.path;
    needed.iter().filter(lacks).map(|word| format!("{path}: its opening has no {word}")).collect()
}

#[test]
fn sql_files_say_what_they_do() {
    let sources = files("sql", &[".sql"]);
    assert!(!sources.is_empty(), "sql was not found");
    report(&sources.iter().flat_map(missing_words).collect::<Vec<_>>());
}

/// Whether the words of a statement are there in their order.
fn is_statement(text: &str) -> bool {
    let text = text.to_lowercase();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    STATEMENTS.iter().any(|statement| {
        let mut rest = words.iter();
        statement.iter().all(|wanted| rest.any(|word| word == wanted))
    })
}

fn sql_findings(source: &Source) -> Vec<String> {
    if SQL_ALLOWED.iter().any(|(start, _)| source.path.starts_with(start)) {
        return Vec::new();
    }
    let statements = take_apart(source.without_tests()).strings;
    let path = &source.path;
    statements
        .iter()
        .filter(|(_, text)| is_statement(text))
        .map(|(line, _)| format!("{path}:{line}: SQL in a string; move it to sql/queries"))
        .collect()
}

#[test]
fn sql_lives_in_its_folder() {
    report(
        &["src", "testkit/src"]
            .iter()
            .flat_map(|folder| files(folder, &[".rs"]))
            .flat_map(|source| sql_findings(&source))
            .collect::<Vec<_>>(),
    );
}

/// What the oldest PostgreSQL that is promised does not know; `just matrix` runs the tests on it.
const NOT_IN_POSTGRES_14: &[&str] = &[
    // Ids of transactions have an order there, and no aggregates.
    "max(txid",
    "min(txid",
    "max(next)",
    "min(next)",
    "max(pg_snapshot_",
    "min(pg_snapshot_",
    "max(pg_current_xact_id",
    "merge into",
    "any_value(",
];

fn too_new(source: &Source) -> Vec<String> {
    let finding = |(index, line): (usize, &str)| {
        let line = line.split("--").next().unwrap_or_default().to_lowercase();
        let word = NOT_IN_POSTGRES_14.iter().find(|word| line.contains(**word))?;
        Some(format!("{}:{}: PostgreSQL 14 does not know {word}", source.path, index + 1))
    };
    source.text.lines().enumerate().filter_map(finding).collect()
}

#[test]
fn sql_is_known_to_the_oldest_server() {
    report(&files("sql", &[".sql"]).iter().flat_map(too_new).collect::<Vec<_>>());
    let sql = "select max(txid), max(seq) -- max(next)\nfrom t\n";
    let source = Source { path: "sql/a.sql".to_owned(), text: sql.to_owned() };
    assert_eq!(too_new(&source), ["sql/a.sql:1: PostgreSQL 14 does not know max(txid"]);
}

/// Comments go to the server, too, and there is no "\u{2026}" in most encodings that a database can have.
fn not_ascii(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
    lines.map(|(index, _)| format!("{}:{}: is not ASCII", source.path, index + 1)).collect()
}

#[test]
fn sql_can_be_sent_in_any_encoding() {
    report(&files("sql", &[".sql"]).iter().flat_map(not_ascii).collect::<Vec<_>>());
    let source = Source { path: "sql/a.sql".to_owned(), text: "-- one\n-- \u{2026}\n".to_owned() };
    assert_eq!(not_ascii(&source), ["sql/a.sql:2: is not ASCII"]);
}

fn word_findings(source: &Source) -> Vec<String> {
    let path = &source.path;
    let line_findings = |(index, line): (usize, &str)| {
        let found = WORDS.iter().find(|word| line.contains(**word))?;
        Some(format!("{path}:{}: {found}; do it now, or leave the words out", index + 1))
    };
    source.text.lines().enumerate().filter_map(line_findings).collect()
}

#[test]
fn nothing_is_left_for_later() {
    report(&files("", WRITTEN).iter().flat_map(word_findings).collect::<Vec<_>>());
}

#[test]
fn broken_rules_are_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let code = "fn a() {}\n".repeat(LISTING_LINES_MAX + 1);
    assert!(head_finding(&source("src/a.rs", &code)).is_some());
    assert!(head_finding(&source("src/a.rs", &format!("//! Does much.\n\n{code}"))).is_some());
    assert!(head_finding(&source("src/a.rs", &format!("//! Promises: it.\n{code}"))).is_none());
    let told = "//! Reads a page of rows, and hands each on before the next one is asked for.\n";
    assert!(head_finding(&source("src/a.rs", &format!("{told}{code}"))).is_none());
    assert!(
        head_finding(&source("src/a.rs", &format!("//! Promises: it. {FORMULA}\n{code}")))
            .is_some()
    );
    assert!(head_finding(&source("src/a_tests.rs", &code)).is_none());
    assert!(head_finding(&source("src/a.rs", "//! Modules.\n\npub mod b;\n")).is_none());
    assert_eq!(
        missing_words(&source("sql/queries/a.sql", "-- Purpose: x\n-- Locks: y\nz")).len(),
        2
    );
    assert_eq!(missing_words(&source("sql/roles.sql", "select 1; -- Purpose: no\n")).len(), 1);
    for text in ["select 1\n  from a", "INSERT INTO a", "update a set b = 1", "delete from a"] {
        let quoted = format!("const A: &str = r#\"{text}\"#;");
        assert_eq!(sql_findings(&source("src/a.rs", &quoted)).len(), 1, "{text}");
        assert_eq!(sql_findings(&source("src/a.rs", &format!("// {text}"))).len(), 0, "{text}");
    }
    for text in ["from here you can select", "the set of updates", "insertinto"] {
        assert!(!is_statement(text), "{text}");
    }
    for word in WORDS {
        assert_eq!(word_findings(&source("README.md", &format!("a\nb {word} c"))).len(), 1);
    }
}
