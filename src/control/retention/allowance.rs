//! How far the partitions were looked through, and how much more may be.
//!
//! Promises: looks take one hundredth of the time at most, but for what they have saved up. Must not: look.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::control::unread::PartitionState;

/// One in so many parts of the time.
const SHARE: u32 = 100;
/// For how long looks may save up, if the law is read in much less.
const SAVED_MAX: Duration = Duration::from_secs(1);
/// Looks take so many times as long as reading the law by which they judge.
const LOOKS_PER_LAW: u32 = 3;

/// What was looked through, and how much more may be.
#[derive(Debug)]
pub(super) struct Sweep {
    /// How many rows had been written into each partition when it was looked through, by its number.
    pub(super) seen: HashMap<u32, i64>,
    /// Where the look at a partition goes on, and what had been written when it began.
    pub(super) places: HashMap<u32, (i64, i64)>,
    pub(super) allowed: Duration,
    /// How long the law was read last.
    law_took: Duration,
    /// Whether nothing was due at the end of the last pass.
    pub(super) is_complete: bool,
    at: Instant,
}

impl Default for Sweep {
    fn default() -> Self {
        let (seen, places) = (HashMap::new(), HashMap::new());
        // A backlog is drained first: nothing is saved up at the start.
        let (allowed, law_took) = (Duration::ZERO, Duration::ZERO);
        Self { seen, places, allowed, law_took, is_complete: false, at: Instant::now() }
    }
}

impl Sweep {
    /// Whether rows were written into a partition since it was looked through.
    pub(super) fn is_due(&self, oid: u32, state: PartitionState) -> bool {
        state.blocks > 0 && self.seen.get(&oid) != Some(&state.written)
    }

    pub(super) fn gather(&mut self) {
        let since = self.at.elapsed();
        self.at = Instant::now();
        let saved_max = SAVED_MAX.max(self.law_took * (1 + LOOKS_PER_LAW));
        self.allowed = (self.allowed + since / SHARE).min(saved_max);
    }

    /// Whether there is time enough to look at something, once the law is read.
    pub(super) fn can_look(&self) -> bool {
        self.allowed > self.law_took * LOOKS_PER_LAW
    }

    pub(super) fn spend_on_law(&mut self, took: Duration) {
        self.law_took = took;
        self.spend(took);
    }

    pub(super) fn spend(&mut self, took: Duration) {
        self.allowed = self.allowed.saturating_sub(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_take_a_small_share_of_the_time() {
        let mut sweep = Sweep::default();
        assert!(sweep.allowed.is_zero(), "a backlog is drained first");
        sweep.at = Instant::now() - Duration::from_secs(50);
        sweep.spend(Duration::from_secs(9));
        assert!(sweep.allowed.is_zero());
        sweep.gather();
        let allowed = sweep.allowed.as_millis();
        assert!((500..600).contains(&allowed), "{allowed}");
        sweep.at = Instant::now() - Duration::from_secs(5_000);
        sweep.gather();
        assert_eq!(sweep.allowed, SAVED_MAX);
    }

    #[test]
    fn a_long_law_is_read_when_there_is_time_to_look() {
        let mut sweep = Sweep { allowed: Duration::from_millis(1), ..Sweep::default() };
        assert!(sweep.can_look(), "how long it takes is not known");
        sweep.spend_on_law(Duration::from_secs(2));
        let mut passes = 0;
        while !sweep.can_look() {
            sweep.at -= Duration::from_secs(10);
            sweep.gather();
            passes += 1;
        }
        assert!((60..=62).contains(&passes), "6 s of a hundredth: {passes}");
        sweep.spend_on_law(Duration::from_secs(2));
        assert!(sweep.allowed >= Duration::from_secs(4), "{:?}", sweep.allowed);
    }
}
