//! Whether what was set aside waits for a sign that it is a topic's trouble, and not Kafka's.
//!
//! Promises: as long as nothing was taken from anybody since the last topic came to be in doubt, nothing that was
//! set aside is parked; what goes elsewhere is sent on meanwhile, and may be the sign. Where there is no room
//! to go on, what the brokers say of themselves is the sign. Must not: read a clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Since when it waits.
#[derive(Debug, Default)]
pub(super) struct Suspense(Mutex<Option<Doubted>>);

/// A topic takes nothing, and nobody knows why.
#[derive(Clone, Copy, Debug)]
struct Doubted {
    since: Instant,
    /// No broker is away that the topics in doubt need.
    is_whole: bool,
    /// Nobody can go on for want of room.
    is_pressed: bool,
}

impl Suspense {
    /// One more topic takes nothing; whether all brokers are there that it needs.
    pub(super) fn begin(&self, now: Instant, is_whole: bool) {
        let mut doubted = self.doubted();
        let is_whole = is_whole && doubted.is_none_or(|before| before.is_whole);
        *doubted = Some(Doubted { since: now, is_whole, is_pressed: false });
    }

    /// Since when, if it is so.
    pub(super) fn since(&self) -> Option<Instant> {
        self.doubted().map(|doubted| doubted.since)
    }

    /// Nobody can go on as long as it is so.
    pub(super) fn press(&self) {
        if let Some(doubted) = &mut *self.doubted() {
            doubted.is_pressed = true;
        }
    }

    /// A record was taken at this moment; whether that is the sign.
    pub(super) fn is_ended_by(&self, taken: Instant) -> bool {
        self.doubted().take_if(|doubted| taken > doubted.since).is_some()
    }

    /// Nothing was taken, and nothing else is waited for; whether there is no other sign to be had.
    pub(super) fn is_ended_by_silence(&self) -> bool {
        self.doubted().take_if(|doubted| doubted.is_whole && doubted.is_pressed).is_some()
    }

    fn doubted(&self) -> MutexGuard<'_, Option<Doubted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_taken_later_is_a_sign() {
        let (suspense, now) = (Suspense::default(), Instant::now());
        assert_eq!(suspense.since(), None);
        assert!(!suspense.is_ended_by(now));
        suspense.begin(now, true);
        let later = now + Duration::from_secs(1);
        suspense.begin(later, true);
        assert!(!suspense.is_ended_by(later), "that was before the second topic");
        assert_eq!(suspense.since(), Some(later));
        assert!(suspense.is_ended_by(later + Duration::from_secs(1)));
        assert_eq!(suspense.since(), None);
    }

    #[test]
    fn without_room_the_brokers_own_word_counts_if_none_is_away() {
        let (suspense, now) = (Suspense::default(), Instant::now());
        suspense.press();
        suspense.begin(now, true);
        assert!(!suspense.is_ended_by_silence(), "there is room to look further");
        suspense.press();
        assert!(suspense.is_ended_by_silence());
        suspense.begin(now, false);
        suspense.begin(now, true);
        suspense.press();
        assert!(!suspense.is_ended_by_silence(), "a broker is away that the first one needs");
        assert_eq!(suspense.since(), Some(now));
    }
}
