//! A pause that doubles: the same answer to trouble everywhere, each with bounds of its own.
//!
//! Promises: the first pause is the shortest, each further one is twice as long, up to the longest. Must not: wait,
//! or read a clock. Fails: never; pauses that could only grow to less than they begin with are a mistake of ours.

// The length of a time is not a time: `core` has no clock.
use core::time::Duration;

/// The pause before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    pause: Duration,
}

impl Backoff {
    /// Begins with the shortest pause.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        assert!(!shortest.is_zero(), "nothing doubled stays nothing");
        assert!(shortest.as_nanos() <= longest.as_nanos(), "a pause grows, or stays as it is");
        Self { shortest, longest, pause: shortest }
    }

    /// How long to pause now.
    pub const fn pause(self) -> Duration {
        self.pause
    }

    /// It was in vain: the same, with twice the pause.
    #[must_use]
    pub fn doubled(self) -> Self {
        Self { pause: self.pause.saturating_mul(2).min(self.longest), ..self }
    }

    /// How long to pause now; the next pause is twice as long.
    pub fn take(&mut self) -> Duration {
        let pause = self.pause;
        *self = self.doubled();
        pause
    }

    /// It was useful: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.pause = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        let pauses: Vec<u64> = (0..6).map(|_| backoff.take().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        backoff.reset();
        assert_eq!(backoff.pause(), seconds(1));
        assert_eq!(backoff.doubled().pause(), seconds(2));
        assert_eq!(backoff.pause(), seconds(1), "a look takes nothing");
    }

    #[test]
    fn bounds_that_meet_or_are_huge_hold() {
        assert_eq!(Backoff::new(seconds(3), seconds(3)).doubled().pause(), seconds(3));
        let mut endless = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!((endless.take(), endless.pause()), (Duration::MAX, Duration::MAX));
    }

    #[test]
    #[should_panic(expected = "a pause grows")]
    fn bounds_in_the_wrong_order_are_a_mistake() {
        let _ = Backoff::new(seconds(2), seconds(1));
    }
}
