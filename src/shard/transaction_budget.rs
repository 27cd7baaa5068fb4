//! How much a transaction of Kafka's may have in flight, where events are delivered exactly once.
//!
//! Promises: what follows a transaction that was given up, as its time was over, has at most half as much in flight, and
//! at most what was taken before in a fraction of that time; it never comes to less than one event. It grows by a small
//! step with each transaction that had all of it in flight and ended in good time. Must not: read a clock, or send.
//!
//! Why: a coordinator ends what is open for too long. All of it is sent again then, so where Kafka takes less than that
//! within the time, as by a quota, nothing would ever be published.
//!
//! ```text
//!                ended within a quarter of the time, and all was in flight: a step more
//!   bytes ──────┼─ ended, but took more than half of it: half as much
//!                └─ given up when the time was over: half as much, or what was taken in a quarter of the time
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use crate::metrics::overlong::OverlongTransaction;

/// A transaction is to end within such a part of its time: cursors and the end itself come behind, and what is taken may
/// become less.
const GOOD_PART: u32 = 4;
/// One that takes more than such a part is halfway to being given up.
const SLOW_PART: u32 = 2;
/// A step is such a part of the most, and no more than a quarter of what there is.
const STEPS: usize = 64;
/// At once it is cut down to no less than such a part: what was taken may have been little for a moment.
const CUT_MAX: usize = 16;

/// How much one shard's transactions may have in flight.
#[derive(Debug)]
pub struct TransactionBudget {
    most: usize,
    timeout: Duration,
    bytes: usize,
}

/// What became of a transaction that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// What was sent in it.
    pub sent: usize,
    /// What of that Kafka had taken.
    pub taken: usize,
    /// How long it was open.
    pub after: Duration,
}

impl TransactionBudget {
    /// With the most from the start, where the coordinator ends a transaction after so long.
    pub fn new(most: usize, timeout: Duration) -> Self {
        assert!(most > 0 && !timeout.is_zero(), "nothing lets nothing through");
        Self { most, timeout, bytes: most }
    }

    /// So much may be in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is not the most: Kafka was slow.
    pub fn is_reduced(&self) -> bool {
        self.bytes < self.most
    }

    /// A transaction has ended; it took so long, and had so much in flight at most.
    pub fn note_ended(&mut self, took: Duration, peak: usize) {
        if took > self.timeout / SLOW_PART {
            self.bytes = (self.bytes / 2).max(1);
        } else if took <= self.timeout / GOOD_PART && peak >= self.bytes {
            let step = (self.most / STEPS).min(self.bytes / 4).max(1);
            self.bytes = (self.bytes + step).min(self.most);
        }
    }

    /// The producer of an open transaction has failed. What was learnt if its time was over, or nearly so; else there
    /// was another cause, which says nothing.
    pub fn note_given_up(&mut self, given_up: GivenUp) -> Option<OverlongTransaction> {
        let GivenUp { sent, taken, after } = given_up;
        if after <= self.timeout / SLOW_PART {
            return None;
        }
        let in_time = self.timeout.as_secs_f64() / f64::from(GOOD_PART) / after.as_secs_f64();
        // Where nothing was taken, Kafka may have been away.
        let known = if taken > 0 { (taken as f64 * in_time) as usize } else { usize::MAX };
        let (least, half) = (self.bytes / CUT_MAX, self.bytes / 2);
        self.bytes = known.clamp(least, half).max(1);
        (sent > 0).then(|| OverlongTransaction {
            bytes: sent as u64,
            seconds: self.timeout.as_secs().max(1),
        })
    }
}

/// The budget of one shard, for whoever is that shard next.
#[derive(Clone, Debug)]
pub struct SharedBudget(Arc<Mutex<TransactionBudget>>);

impl SharedBudget {
    /// A budget that nobody has yet.
    pub fn new(budget: TransactionBudget) -> Self {
        Self(Arc::new(Mutex::new(budget)))
    }

    /// Asks it, or tells it.
    pub fn with<T>(&self, ask: impl FnOnce(&mut TransactionBudget) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an instance has learnt of how much a transaction of each of its shards may have in flight.
#[derive(Debug, Default)]
pub struct TransactionBudgets(Mutex<HashMap<String, SharedBudget>>);

impl TransactionBudgets {
    /// The budget of a shard, which is made where it has none yet.
    pub fn of(&self, shard: &str, make: impl FnOnce() -> TransactionBudget) -> SharedBudget {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry_ref(shard).or_insert_with(|| SharedBudget::new(make())).clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 6 << 20;
    const TIMEOUT: Duration = Duration::from_secs(20);

    fn budget() -> TransactionBudget {
        TransactionBudget::new(MOST, TIMEOUT)
    }

    fn give_up(
        budget: &mut TransactionBudget,
        taken: usize,
        seconds: u64,
    ) -> Option<OverlongTransaction> {
        let (sent, after) = (budget.bytes(), Duration::from_secs(seconds));
        budget.note_given_up(GivenUp { sent, taken, after })
    }

    #[test]
    fn one_that_was_given_up_is_followed_by_what_is_known_to_be_taken() {
        let mut budget = budget();
        let overlong = give_up(&mut budget, 2_000_000, 20);
        assert_eq!(overlong, Some(OverlongTransaction { bytes: MOST as u64, seconds: 20 }));
        assert_eq!(budget.bytes(), 500_000);
        give_up(&mut budget, 500_000, 20);
        assert_eq!(budget.bytes(), 125_000, "the answer to its end was slow");
        give_up(&mut budget, 1_000_000, 20);
        assert_eq!(budget.bytes(), 62_500, "half as much at most");
    }

    #[test]
    fn where_nothing_was_taken_each_is_half_of_the_one_before_and_one_event_at_least() {
        let mut budget = budget();
        give_up(&mut budget, 0, 20);
        assert_eq!(budget.bytes(), MOST / 2);
        give_up(&mut budget, 1, 20);
        assert_eq!(budget.bytes(), MOST / 32, "it may have been little for a moment");
        (0..40).for_each(|_| _ = give_up(&mut budget, 1, 20));
        assert_eq!(budget.bytes(), 1);
    }

    #[test]
    fn what_fails_soon_has_another_cause() {
        let mut budget = budget();
        assert_eq!(give_up(&mut budget, 0, 10), None);
        assert_eq!(budget.bytes(), MOST);
    }

    #[test]
    fn one_that_ends_late_is_followed_by_a_smaller_one_and_only_a_full_one_by_a_larger() {
        let mut budget = budget();
        budget.note_ended(Duration::from_secs(11), MOST);
        assert_eq!(budget.bytes(), MOST / 2);
        budget.note_ended(Duration::from_secs(10), MOST);
        budget.note_ended(Duration::from_secs(5), MOST / 2 - 1);
        assert_eq!(budget.bytes(), MOST / 2, "nobody knows that more would be taken");
        budget.note_ended(Duration::from_secs(5), MOST / 2);
        assert_eq!(budget.bytes(), MOST / 2 + MOST / STEPS);
        (0..STEPS).for_each(|_| budget.note_ended(Duration::from_millis(500), MOST));
        assert_eq!(budget.bytes(), MOST, "and no more");
    }

    /// Whatever a broker takes in a second, from some transaction on all of them end, and in good time.
    #[test]
    fn it_settles_where_transactions_end_and_comes_back() {
        for rate in [70_usize, 1_000, 70_000, 400_000, 10_000_000] {
            let mut budget = budget();
            let mut given_up = Vec::new();
            for round in 0..400 {
                let bytes = budget.bytes();
                let took = Duration::from_secs_f64(0.5 + bytes as f64 / rate as f64);
                if took > TIMEOUT {
                    give_up(&mut budget, rate * 20, 20);
                    given_up.push(round);
                } else {
                    budget.note_ended(took, bytes);
                }
            }
            assert!(
                given_up.len() <= 4 && given_up.last().is_none_or(|at| *at < 4),
                "{given_up:?}"
            );
            let seconds = budget.bytes() as f64 / rate as f64;
            assert!(budget.bytes() == MOST || (2.0..10.0).contains(&seconds), "{rate}: {seconds}");
        }
    }

    proptest! {
        #[test]
        fn it_stays_between_one_byte_and_the_most(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..60, 0_usize..2 * MOST), 0..200),
        ) {
            let mut budget = budget();
            for (is_ended, seconds, bytes) in steps {
                let before = budget.bytes();
                if is_ended {
                    budget.note_ended(Duration::from_secs(seconds), bytes);
                } else {
                    let overlong = give_up(&mut budget, bytes, seconds);
                    prop_assert!(overlong.is_none() || budget.bytes() <= (before / 2).max(1));
                }
                prop_assert!((1..=MOST).contains(&budget.bytes()));
            }
        }
    }
}
