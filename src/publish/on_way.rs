//! Which batches of one producer are on their way, and for how long.
//!
//! Promises: knows the oldest that is not done; costs a comparison per record, and a lock per batch.
//! Must not: read a clock. Fails: never.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::InFlightBatch;

/// Batches, the oldest in front.
#[derive(Debug)]
pub(super) struct OnWay {
    /// The number of the last one that was noted.
    last: AtomicU64,
    batches: Mutex<VecDeque<(Arc<InFlightBatch>, Instant)>>,
    /// The one that was given up.
    given_up: Mutex<Option<Arc<InFlightBatch>>>,
}

impl Default for OnWay {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(u64::MAX),
            batches: Mutex::default(),
            given_up: Mutex::default(),
        }
    }
}

impl OnWay {
    /// A record of this batch is sent. Only one thread sends.
    pub(super) fn note(&self, batch: &Arc<InFlightBatch>, now: Instant) {
        if self.last.load(Ordering::Relaxed) == batch.number.0 {
            return;
        }
        self.last.store(batch.number.0, Ordering::Relaxed);
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

    /// Its records are purged from now on: whatever comes of them is no news.
    pub(super) fn give_up_oldest(&self) {
        let mut batches = lock(&self.batches);
        forget_done(&mut batches);
        let oldest = batches.front().map(|(batch, _)| Arc::clone(batch));
        *lock(&self.given_up) = oldest;
    }

    /// Whether it is the one that was given up.
    pub(super) fn is_given_up(&self, batch: &Arc<InFlightBatch>) -> bool {
        lock(&self.given_up).as_ref().is_some_and(|given_up| Arc::ptr_eq(given_up, batch))
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
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;
    use crate::ledger::BatchNumber;

    #[test]
    fn the_oldest_that_is_not_done_counts() {
        let batch = |number, waiting| {
            let (number, waiting) = (BatchNumber(number), AtomicU32::new(waiting));
            Arc::new(InFlightBatch { number, waiting })
        };
        let (on_way, now) = (OnWay::default(), Instant::now());
        let (first, second) = (batch(1, 1), batch(2, 2));
        on_way.note(&first, now);
        on_way.note(&first, now + Duration::from_secs(1));
        on_way.note(&second, now + Duration::from_secs(2));
        assert_eq!(on_way.oldest_since(), Some(now));
        first.acknowledge();
        assert_eq!(on_way.oldest_since(), Some(now + Duration::from_secs(2)));
        on_way.give_up_oldest();
        assert!(on_way.is_given_up(&second) && !on_way.is_given_up(&first));
        second.acknowledge();
        second.acknowledge();
        assert_eq!(on_way.oldest_since(), None);
    }
}
