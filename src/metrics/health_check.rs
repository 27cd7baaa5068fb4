//! One judgement of how a relay is, as probes answer it.
//!
//! Promises: is written as Kubernetes writes its own. Must not: judge.

use std::fmt;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is judged.
    pub name: String,
    /// Whether it is well.
    pub outcome: HealthOutcome,
    /// What there is to say.
    pub words: String,
    /// Since when it is not well; none where it is, or that is not known.
    pub since_millis: Option<u64>,
    /// What people can do about it, where more is known than what always helps.
    pub remedy: Option<String>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthOutcome {
    /// It is well.
    Well,
    /// It is not.
    Ill,
}

impl HealthCheck {
    pub(super) fn well(name: &str, words: impl Into<String>) -> Self {
        let (name, outcome) = (name.to_owned(), HealthOutcome::Well);
        Self { name, outcome, words: words.into(), since_millis: None, remedy: None }
    }

    pub(super) fn ill(name: &str, words: impl Into<String>) -> Self {
        let (name, outcome) = (name.to_owned(), HealthOutcome::Ill);
        Self { name, outcome, words: words.into(), since_millis: None, remedy: None }
    }

    pub(super) fn since(self, millis: u64) -> Self {
        Self { since_millis: Some(millis), ..self }
    }

    pub(super) fn with_remedy(self, remedy: Option<String>) -> Self {
        Self { remedy, ..self }
    }

    /// Whether it is well.
    pub fn is_well(&self) -> bool {
        self.outcome == HealthOutcome::Well
    }
}

impl fmt::Display for HealthCheck {
    /// As Kubernetes writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_well() { '+' } else { '-' };
        write!(formatter, "[{sign}]{} {}", self.name, self.words)
    }
}
