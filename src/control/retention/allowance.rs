//! How far the partitions were looked through, and how much more may be.
//!
//! Promises: looks take one hundredth of the time at most, but for what they have saved up. Must not: look.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::control::unread::PartitionState;

/// One in so many parts of the time.
const SHARE: u32 = 100;
/// For how long looks may save up.
const SAVED_MAX: Duration = Duration::from_secs(1);

/// What was looked through, and how much more may be.
#[derive(Debug)]
pub(super) struct Sweep {
    /// How many rows had been written into each partition when it was looked through, by its number.
    pub(super) seen: HashMap<u32, i64>,
    /// Where the look at a partition goes on, and what had been written when it began.
    pub(super) places: HashMap<u32, (i64, i64)>,
    pub(super) allowed: Duration,
    at: Instant,
}

impl Default for Sweep {
    fn default() -> Self {
        let (seen, places) = (HashMap::new(), HashMap::new());
        // A backlog is drained first: nothing is saved up at the start.
        Self { seen, places, allowed: Duration::ZERO, at: Instant::now() }
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
        self.allowed = (self.allowed + since / SHARE).min(SAVED_MAX);
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
}
