//! What an audit found, and its words.
//!
//! Promises: whatever is wrong is named and counted; repeats are counted apart, for at-least-once allows them.
//! Must not: find anything itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was found. All but `committed`, `delivered`, `repeats` and `foreign` must be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Events whose transaction was committed.
    pub committed: u64,
    /// Of these, events that arrived, each counted once.
    pub delivered: u64,
    /// Of these, events that did not arrive.
    pub missing: u64,
    /// Events that arrived though their transaction was rolled back.
    pub rolled_back: u64,
    /// Events that nobody wrote, or that carry another aggregate's key.
    pub invented: u64,
    /// Events that arrived first after a later event of their aggregate.
    pub out_of_order: u64,
    /// Events whose key or payload is not what was written.
    pub altered: u64,
    /// Events that are in another partition than their aggregate's earlier ones.
    pub misplaced: u64,
    /// Records whose event had arrived before.
    pub repeats: u64,
    /// Records that are not of this audit.
    pub foreign: u64,
    /// False when more was overtaken at once than is kept: the counts are then lower bounds.
    pub exact: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            committed: 0,
            delivered: 0,
            missing: 0,
            rolled_back: 0,
            invented: 0,
            out_of_order: 0,
            altered: 0,
            misplaced: 0,
            repeats: 0,
            foreign: 0,
            exact: true,
        }
    }
}

/// One kind of fault, with how often it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCount {
    /// How often.
    pub count: u64,
    /// What it is called.
    pub word: &'static str,
    /// What that means, where the word does not say it.
    pub meaning: Option<&'static str>,
}

impl Verdict {
    /// Whether the promises were kept: everything there, in order, nothing else; repeats may be.
    pub fn holds(&self) -> bool {
        self.missing + self.faults() == 0 && self.delivered == self.committed && self.exact
    }

    /// Whether, also, nothing came twice.
    pub fn holds_without_repeats(&self) -> bool {
        self.holds() && self.repeats == 0
    }

    /// How much is wrong whatever may still come.
    pub fn faults(&self) -> u64 {
        self.lasting_faults().iter().map(|fault| fault.count).sum()
    }

    /// What is missing, as far as it can be told now.
    pub fn missing_fault(&self) -> FaultCount {
        let meaning = Some("committed, not delivered");
        FaultCount { count: self.missing, word: "missing", meaning }
    }

    /// What is wrong whatever may still come, in the order in which it is said.
    pub fn lasting_faults(&self) -> [FaultCount; 5] {
        let fault = |count, word, meaning| FaultCount { count, word, meaning };
        [
            fault(self.rolled_back, "rolled back but published", None),
            fault(self.invented, "invented", Some("nobody wrote them")),
            fault(self.out_of_order, "out of order", None),
            fault(self.altered, "altered", None),
            fault(self.misplaced, "misplaced", Some("in another partition than their aggregate")),
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} delivered, ", self.delivered, self.committed)?;
        for FaultCount { count, word, .. } in
            [self.missing_fault()].iter().chain(&self.lasting_faults())
        {
            write!(formatter, "{count} {word}, ")?;
        }
        write!(formatter, "{} repeats", self.repeats)?;
        if !self.exact {
            formatter.write_str(" (too many gaps at once: counts are lower bounds)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_one_and_repeats_are_none() {
        let clean =
            Verdict { committed: 4, delivered: 4, repeats: 9, foreign: 3, ..Verdict::default() };
        assert!(clean.holds() && !clean.holds_without_repeats());
        let broken = [
            Verdict { missing: 1, ..clean },
            Verdict { rolled_back: 1, ..clean },
            Verdict { invented: 1, ..clean },
            Verdict { out_of_order: 1, ..clean },
            Verdict { altered: 1, ..clean },
            Verdict { misplaced: 1, ..clean },
            Verdict { delivered: 3, ..clean },
            Verdict { exact: false, ..clean },
        ];
        assert!(broken.iter().all(|verdict| !verdict.holds()), "{broken:?}");
    }

    #[test]
    fn a_verdict_says_all_that_it_has() {
        let verdict = Verdict {
            committed: 8,
            delivered: 7,
            missing: 1,
            rolled_back: 2,
            invented: 3,
            out_of_order: 4,
            altered: 5,
            misplaced: 6,
            repeats: 7,
            foreign: 8,
            exact: false,
        };
        let words = "7 of 8 delivered, 1 missing, 2 rolled back but published, 3 invented, \
                     4 out of order, 5 altered, 6 misplaced, 7 repeats \
                     (too many gaps at once: counts are lower bounds)";
        assert_eq!(verdict.to_string(), words);
    }
}
