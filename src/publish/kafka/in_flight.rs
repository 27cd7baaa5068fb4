//! Which batches of one producer are on their way, and for how long.
//!
//! Promises: knows the oldest that is not done, and which were given up; costs a comparison per record, and a lock per batch.
//! Must not: read a clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::publish::InFlightBatch;

/// Batches, the oldest in front.
#[derive(Debug)]
pub(super) struct OnWay {
    /// The number of the last one that was noted.
    last: AtomicU64,
    batches: Mutex<VecDeque<(Arc<InFlightBatch>, Instant)>>,
    /// Those below this number were given up.
    given_up_below: AtomicU64,
}

impl Default for OnWay {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(u64::MAX),
            batches: Mutex::default(),
            given_up_below: AtomicU64::new(0),
        }
    }
}

impl OnWay {
    /// A record of this batch is sent. Only one thread sends.
    pub(super) fn note(&self, batch: &Arc<InFlightBatch>, now: Instant) {
        if self.last.load(Ordering::Relaxed) == batch.number().0 {
            return;
        }
        self.last.store(batch.number().0, Ordering::Relaxed);
        let mut batches = lock(&self.batches);
        forget_done(&mut batches);
        batches.push_back((Arc::clone(batch), now));
    }

    /// Since when the oldest is on its way.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        let mut batches = lock(&self.batches);
        forget_done(&mut batches);
        batches.front().map(|(_, since)| *since)
    }

    /// Gives up the oldest, and all others that were on their way by then: one of these may be why nothing
    /// is heard of it.
    pub(super) fn give_up(&self, since: Instant) {
        let mut batches = lock(&self.batches);
        forget_done(&mut batches);
        let stuck = batches.iter().take_while(|(_, sent)| *sent <= since);
        let last = stuck.last().or_else(|| batches.front());
        if let Some((batch, _)) = last {
            self.given_up_below.store(batch.number().0 + 1, Ordering::Relaxed);
        }
    }

    /// Whether it was given up.
    pub(super) fn is_given_up(&self, batch: &InFlightBatch) -> bool {
        batch.number().0 < self.given_up_below.load(Ordering::Relaxed)
    }
}

fn forget_done(batches: &mut VecDeque<(Arc<InFlightBatch>, Instant)>) {
    while batches.front().is_some_and(|(batch, _)| batch.is_done()) {
        batches.pop_front();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::order::ledger::BatchNumber;

    #[test]
    fn the_oldest_that_is_not_done_counts() {
        let batch = |number, waiting| {
            Arc::new(InFlightBatch::new(BatchNumber(number), waiting, Instant::now()))
        };
        let (on_way, now) = (OnWay::default(), Instant::now());
        let (first, second) = (batch(1, 1), batch(2, 2));
        on_way.note(&first, now);
        on_way.note(&first, now + Duration::from_secs(1));
        on_way.note(&second, now + Duration::from_secs(2));
        assert_eq!(on_way.oldest_since(), Some(now));
        first.acknowledge();
        assert_eq!(on_way.oldest_since(), Some(now + Duration::from_secs(2)));
        assert!(!on_way.is_given_up(&second));
        let third = batch(3, 1);
        on_way.note(&third, now + Duration::from_secs(3));
        on_way.give_up(now);
        assert!(on_way.is_given_up(&second) && !on_way.is_given_up(&third), "the oldest at least");
        on_way.give_up(now + Duration::from_secs(3));
        assert!(on_way.is_given_up(&third));
        third.acknowledge();
        second.acknowledge();
        second.acknowledge();
        assert_eq!(on_way.oldest_since(), None);
    }
}
