//! What retention says in the log, each cause now and then.
//!
//! Promises: a cause is named with what helps, and not again and again. Must not: know a session, or decide what
//! becomes of a partition.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::control::retention::outcome::AttemptOutcome;
use crate::control::unread::BucketPartition;
use crate::error::Error;
use crate::schema;

/// A partition that could not be emptied for so many generations is worth a warning.
pub(super) const OVERDUE_GENERATIONS: u32 = 2;
/// A cause is said again after this.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// When each cause was last said.
#[derive(Debug, Default)]
pub(super) struct RetentionWarnings {
    trouble: Option<Instant>,
    missing_right: Option<Instant>,
    ahead: Option<Instant>,
    /// By what is in the way.
    overdue: HashMap<AttemptOutcome, Option<Instant>>,
}

impl RetentionWarnings {
    pub(super) fn trouble(&mut self, error: &Error) {
        if is_due(&mut self.trouble) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                "the clean-up has failed; relaying goes on, and it is tried again"
            );
        }
    }

    /// Said once: it stays so until somebody grants the right.
    pub(super) fn missing_right(&mut self, leaf: &BucketPartition) {
        if self.missing_right.is_none() {
            self.missing_right = Some(Instant::now());
            tracing::warn!(
                leaf = leaf.name,
                remedy = format!(
                    "grant truncate on the outbox's leaves, and select on {}, to the role: run sql/roles.sql again",
                    schema::chosen().of("replay_bucket")
                ),
                "the role may not truncate, or not see what is replayed: published rows stay; relaying goes on"
            );
        }
    }

    pub(super) fn ahead(&mut self, leaf: &BucketPartition) {
        if is_due(&mut self.ahead) {
            tracing::warn!(
                leaf = leaf.name,
                remedy = "leave created_at to its default, or write it with its time zone",
                "rows bear a created_at that lies ahead of the clock: their generation counts instead"
            );
        }
    }

    pub(super) fn overdue(
        &mut self,
        leaf: &BucketPartition,
        outcome: AttemptOutcome,
        since: Duration,
    ) {
        if is_due(self.overdue.entry(outcome).or_default()) {
            let (cause, remedy) = outcome.explanation();
            tracing::warn!(
                leaf = leaf.name,
                seconds = since.as_secs(),
                cause,
                remedy,
                "a past generation could not be truncated for more than {OVERDUE_GENERATIONS} generations"
            );
        }
    }
}

/// Whether a cause may be said now; then it counts as said.
fn is_due(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|at| at.elapsed() > WARNING_INTERVAL);
    if due {
        *said = Some(Instant::now());
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_rare() {
        let mut said = None;
        assert!(is_due(&mut said));
        assert!(!is_due(&mut said));
    }
}
