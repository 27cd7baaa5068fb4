//! The rules of the house that no compiler checks: layers, sizes, heads, words, links.
//!
//! Promises: each rule is data at the top of its file; a broken rule names file, line and remedy.
//! Must not: need a service or a build. Fails: with all that is wrong at once, not with the first.

mod circles;
mod deployed;
mod figures;
mod layers;
mod links;
mod named_tests;
mod names;
mod owners;
mod runbook;
mod schemas;
mod sources;
mod supply;
mod tidy;

/// Ends a test with all findings, one per line.
#[track_caller]
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}
