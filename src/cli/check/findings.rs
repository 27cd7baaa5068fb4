//! What a check found: a ticked list for people, or JSON.
//!
//! Promises: keeps the order; the exit code is that of the first failure. Must not: look at anything.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::legible;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckOutcome {
    Passed,
    Warned,
    Failed,
}

impl CheckOutcome {
    /// The sign in the list, and its colour on a terminal.
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Passed => ("\u{2714}", "\u{1b}[32m"),
            Self::Warned => ("\u{26a0}", "\u{1b}[33m"),
            Self::Failed => ("\u{2718}", "\u{1b}[31m"),
        }
    }
}

/// What becomes of a check that has found warnings, and no trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnWarnings {
    /// It has passed.
    Allow,
    /// It has failed.
    Deny,
}

/// Longer than anything of ours.
const DETAIL_CHARACTERS: usize = 4_000;
const PLAIN: &str = "\u{1b}[0m";

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    outcome: CheckOutcome,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    checks: Vec<Finding>,
    #[serde(skip)]
    first_failure: Option<ErrorKind>,
}

impl Findings {
    pub(super) fn passed(&mut self, name: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        self.checks.push(Finding { name, outcome: CheckOutcome::Passed, detail, remedy: None });
    }

    pub(super) fn warned(&mut self, name: &'static str, detail: impl Into<String>, remedy: &str) {
        let (detail, remedy) = (detail.into(), Some(remedy.to_owned()));
        self.checks.push(Finding { name, outcome: CheckOutcome::Warned, detail, remedy });
    }

    pub(super) fn failed(&mut self, name: &'static str, error: &Error) {
        self.first_failure.get_or_insert(error.kind());
        self.checks.push(Finding {
            name,
            outcome: CheckOutcome::Failed,
            detail: error.message().to_owned(),
            remedy: error.remedy().map(str::to_owned),
        });
    }

    /// Whether anything has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.first_failure.is_some()
    }

    /// That of the first failure; without one, what warnings are worth.
    pub(super) fn exit_code(&self, warnings: OnWarnings) -> ExitCode {
        match (self.first_failure, warnings) {
            (Some(kind), _) => ExitCode::from(kind.exit_code()),
            (None, OnWarnings::Deny) if self.count(CheckOutcome::Warned) > 0 => ExitCode::FAILURE,
            (None, OnWarnings::Allow | OnWarnings::Deny) => ExitCode::SUCCESS,
        }
    }

    fn count(&self, outcome: CheckOutcome) -> usize {
        self.checks.iter().filter(|found| found.outcome == outcome).count()
    }

    /// One line per finding, the remedy below it, and the sum.
    pub(super) fn list(&self, colour: bool) -> String {
        let mut text = String::new();
        for finding in &self.checks {
            let (sign, code) = finding.outcome.sign();
            let (begin, end) = if colour { (code, PLAIN) } else { ("", "") };
            let detail = legible::shown(&finding.detail, DETAIL_CHARACTERS);
            writeln!(text, "{begin}{sign}{end} {:<13} {detail}", finding.name)
                .expect("text takes text");
            if let Some(remedy) = &finding.remedy {
                let remedy = legible::shown(remedy, DETAIL_CHARACTERS);
                writeln!(text, "{:16}fix: {remedy}", "").expect("text takes text");
            }
        }
        text.push_str(&self.sum());
        text
    }

    fn sum(&self) -> String {
        match (self.count(CheckOutcome::Failed), self.count(CheckOutcome::Warned)) {
            (0, 0) => "no problems\n".to_owned(),
            (failed, warned) => {
                format!("{}, {}\n", number(failed, "problem"), number(warned, "warning"))
            }
        }
    }
}

fn number(count: usize, word: &str) -> String {
    match count {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ticks_and_sums() {
        let mut findings = Findings::default();
        findings.passed("config", "defaults");
        assert_eq!(findings.list(false), "\u{2714} config        defaults\nno problems\n");
        assert_eq!(findings.exit_code(OnWarnings::Deny), ExitCode::SUCCESS);
        findings.warned("durability", "fsync is off", "set fsync = on");
        assert_eq!(findings.exit_code(OnWarnings::Allow), ExitCode::SUCCESS);
        assert_eq!(findings.exit_code(OnWarnings::Deny), ExitCode::from(1));
        let error = Error::new(ErrorKind::Schema, "no table").with_remedy("run migrate up");
        findings.failed("tables", &error);
        findings.failed("kafka", &Error::new(ErrorKind::KafkaUnavailable, "nobody there"));
        let list = findings.list(false);
        assert!(list.contains("\u{2718} tables        no table\n"), "{list}");
        assert!(list.contains("                fix: run migrate up\n"), "{list}");
        assert!(list.ends_with("2 problems, 1 warning\n"), "{list}");
        assert_eq!(
            findings.exit_code(OnWarnings::Deny),
            ExitCode::from(6),
            "that of the first failure"
        );
        assert!(findings.list(true).contains("\u{1b}[31m\u{2718}\u{1b}[0m tables"));
    }
}
