//! Notices a batch that waits for very long while the shard goes on.
//!
//! Promises: a batch that is the oldest in flight for half a minute is noticed, then each half minute again.
//! Must not: read a clock, or decide what follows. Fails: never.
//!
//! Why: as long as others are acknowledged no producer stands still, but no cursor moves past the oldest
//! batch: a crash would repeat all that was sent since, and nothing is cleaned up.

use std::time::{Duration, Instant};

use crate::order::ledger::BatchNumber;

/// Longer than a change of leaders takes with a broker's default `broker.session.timeout.ms` of 9 s, and than
/// a standstill.
const PATIENCE: Duration = Duration::from_secs(30);

/// Since when one batch has been the oldest in flight.
#[derive(Debug, Default)]
pub(super) struct Laggard {
    oldest: Option<(BatchNumber, Instant)>,
}

impl Laggard {
    /// Looks at the oldest batch in flight: whether it is time to ask for it.
    pub(super) fn is_too_slow(&mut self, oldest: Option<BatchNumber>, now: Instant) -> bool {
        let Some(number) = oldest else {
            self.oldest = None;
            return false;
        };
        match &mut self.oldest {
            Some((known, since)) if *known == number => {
                let is_too_slow = now.saturating_duration_since(*since) >= PATIENCE;
                if is_too_slow {
                    *since = now;
                }
                is_too_slow
            }
            _ => {
                self.oldest = Some((number, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_batch_is_asked_for_each_half_minute() {
        let (mut laggard, start) = (Laggard::default(), Instant::now());
        let mut look = |number: Option<u64>, second: u64| {
            laggard.is_too_slow(number.map(BatchNumber), start + Duration::from_secs(second))
        };
        assert!(!look(Some(1), 0));
        assert!(!look(Some(1), 29));
        assert!(look(Some(1), 30));
        assert!(!look(Some(1), 31));
        assert!(look(Some(1), 60));
        assert!(!look(Some(2), 70), "another is the oldest now");
        assert!(!look(Some(2), 99));
        assert!(!look(None, 100));
        assert!(!look(Some(2), 101), "it counts anew");
    }
}
