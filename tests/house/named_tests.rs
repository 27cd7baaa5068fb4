//! Tests that a page names are there.
//!
//! Promises: what `docs/what-others-lost.md` names as the proof of a row is a test of `tests/system`, by its full name, and
//! each row names one. Fails: with the line and the name.

use crate::report;
use crate::sources::{Source, files};

const PAGE: &str = "docs/what-others-lost.md";
const TESTS: &str = "tests/system/";

/// The full names of the tests of a file: its path as modules, then the function below the attribute.
fn tests(source: &Source) -> Vec<String> {
    let path = source.path.trim_start_matches(TESTS).trim_end_matches(".rs");
    let module = path.trim_end_matches("/mod").replace('/', "::");
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.text.lines().map(str::trim) {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name = rest.split('(').next().unwrap_or_default();
            names.push(format!("{module}::{name}"));
            is_test = false;
        }
    }
    names
}

/// The names in the last cell of each row that reports something, with its line.
fn named(page: &str) -> Vec<(usize, Vec<&str>)> {
    let is_report =
        |(_, line): &(usize, &str)| line.starts_with("| ") && line.contains("](https://");
    page.lines()
        .enumerate()
        .filter(is_report)
        .map(|(index, line)| {
            let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            (index + 1, cell.split('`').skip(1).step_by(2).collect())
        })
        .collect()
}

fn findings(page: &str, known: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for (line, names) in named(page) {
        if names.is_empty() {
            findings.push(format!("{PAGE}:{line}: names no test"));
        }
        let missing = names.into_iter().filter(|name| !known.iter().any(|test| test == name));
        findings.extend(missing.map(|name| format!("{PAGE}:{line}: there is no test {name}")));
    }
    findings
}

#[test]
fn each_named_test_exists() {
    let pages = files("docs", &["what-others-lost.md"]);
    let page = pages.iter().find(|page| page.path == PAGE).expect("it is there");
    let known: Vec<String> = files("tests/system", &[".rs"]).iter().flat_map(tests).collect();
    assert!(named(&page.text).len() >= 10 && known.len() > 300, "page and tests were found");
    report(&findings(&page.text, &known));
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let source = Source {
        path: "tests/system/faults/disk.rs".to_owned(),
        text: "#[tokio::test(flavor = \"multi_thread\")]\nasync fn full() {}\nfn helper() {}\n"
            .to_owned(),
    };
    let known = tests(&source);
    assert_eq!(known, ["faults::disk::full"]);
    let row = |tests: &str| format!("| what ([x](https://x.example)) | here | {tests} |\n");
    assert!(findings(&row("`faults::disk::full`"), &known).is_empty());
    assert_eq!(findings(&row("`faults::disk::helper`"), &known).len(), 1);
    assert_eq!(findings(&row("none"), &known).len(), 1);
}
