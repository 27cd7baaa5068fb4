//! Control tables lie in whatever schema a process was told: no text goes to the server with the usual name in it.
//!
//! Promises: each file of `sql/` that names the schema, or what is made of its name, is included as a `Sql`, which
//! renders it; no literal of the code names a control table, but where that is said here. Must not: know what a text
//! means. Fails: with file, line and remedy.

use postrider::postgres::render;
use postrider::schema::Schema;

use crate::report;
use crate::sources::{Source, files, take_apart};

/// Folders and files that have a schema of their own, or render what they include themselves.
const OTHERS: [&str; 4] =
    ["src/demo/", "src/inbox/", "src/control/migrate/inbox.rs", "src/control/migrate/registry.rs"];

/// Literals that look like a control table's name: the usual prefixes of messages, headers of records, and words that are
/// rendered where they are used.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("src/capture/log/message.rs", "postrider.outbox"),
    ("src/record/encode.rs", "postrider.replay"),
    ("src/record/encode.rs", "postrider.topic"),
    ("src/record/encode.rs", "postrider.seq"),
    ("src/order/refusal.rs", "postrider.parked"),
    ("src/capture/tier_look.rs", "postrider.parked"),
    ("src/postgres/config.rs", "postrider.direct"),
    ("src/control/parked/escape.rs", "postrider.escaped"),
];

/// What stands behind `postrider.` and is no table: endings of files, a page of the manual, and names of headers.
const OTHER_WORDS: [&str; 9] =
    ["toml", "sql", "schema", "fish", "1", "reason", "detail", "aggregatetype", "created_at"];

fn other_schema() -> Schema {
    "Other-1".parse().expect("it is a name")
}

fn without_comments(sql: &str) -> String {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Each file of `sql/` that comes out otherwise for another schema.
fn named(sql: &[Source]) -> Vec<&str> {
    let is_named = |file: &&Source| {
        let text = without_comments(&file.text);
        !file.path.starts_with("sql/inbox/") && render(&text, &other_schema()) != text
    };
    sql.iter().filter(is_named).map(|file| file.path.as_str()).collect()
}

fn unrendered(source: &Source, named: &[&str]) -> Vec<String> {
    if OTHERS.iter().any(|other| source.path.starts_with(other)) || source.is_test_module() {
        return Vec::new();
    }
    let text = source.without_tests();
    let mut findings = Vec::new();
    for (start, _) in text.match_indices("include_str!(") {
        let path = text[start..].split('"').nth(1).unwrap_or_default();
        let Some(file) = path.find("sql/").map(|from| &path[from..]) else { continue };
        let is_rendered = text[..start].trim_end().ends_with("Sql::of(");
        if named.contains(&file) && !is_rendered {
            let line = text[..start].matches('\n').count() + 1;
            findings.push(format!(
                "{}:{line}: {file} names the control schema; make it `static X: Sql = Sql::of(include_str!(…))` and send \
                 `X.text()`",
                source.path
            ));
        }
    }
    findings
}

fn named_in_literals(source: &Source) -> Vec<String> {
    if OTHERS.iter().any(|other| source.path.starts_with(other)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, text) in take_apart(source.without_tests()).strings {
        for (start, _) in text.match_indices("postrider.") {
            let word = &text[start + "postrider.".len()..];
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let word = &word[..end.unwrap_or(word.len())];
            let name = format!("postrider.{word}");
            let is_known = OTHER_NAMES
                .iter()
                .any(|(path, known)| source.path.starts_with(path) && *known == name);
            if !word.is_empty() && !is_known && !OTHER_WORDS.contains(&word) {
                findings.push(format!(
                    "{}:{line}: {name} is in another schema where one was told; take schema::chosen().of(\"{word}\")",
                    source.path
                ));
            }
        }
    }
    findings
}

#[test]
fn what_names_the_control_schema_is_rendered() {
    let sql = files("sql", &[".sql"]);
    let named = named(&sql);
    assert!(named.len() > 100, "{} files name the schema", named.len());
    let sources = files("src", &[".rs"]);
    report(&sources.iter().flat_map(|source| unrendered(source, &named)).collect::<Vec<_>>());
}

#[test]
fn no_literal_names_a_control_table() {
    let sources = files("src", &[".rs"]);
    report(&sources.iter().flat_map(named_in_literals).collect::<Vec<_>>());
}

#[test]
fn a_text_that_is_not_rendered_is_found() {
    let source = |text: &str| Source { path: "src/control/x.rs".to_owned(), text: text.to_owned() };
    let named = ["sql/queries/tick.sql"];
    for (text, count) in [
        ("const T: &str = include_str!(\"../../sql/queries/tick.sql\");", 1),
        ("static T: Sql = Sql::of(include_str!(\"../../sql/queries/tick.sql\"));", 0),
        ("static T: Sql =\n    Sql::of(\n    include_str!(\"../../sql/queries/tick.sql\"));", 0),
        ("const T: &str = include_str!(\"../../sql/queries/backend.sql\");", 0),
    ] {
        assert_eq!(unrendered(&source(text), &named).len(), count, "{text}");
    }
    for (text, count) in [
        ("const T: &str = \"from postrider.cursor\";", 1),
        ("fn f() { schema::chosen().of(\"cursor\") } // postrider.cursor", 0),
        ("const T: &str = \"postrider.toml\";", 0),
    ] {
        assert_eq!(named_in_literals(&source(text)).len(), count, "{text}");
    }
}
