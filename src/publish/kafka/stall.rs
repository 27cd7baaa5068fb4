//! Notices a producer that hears nothing while the brokers answer others, and a batch that waits while others do not.
//!
//! Promises: patience grows each time it was in vain, so that a broker that is only slow is not asked for
//! everything again and again. A batch that waits for half a minute is noticed, then each half minute again, until it
//! is given up because others are acknowledged. Must not: ask anybody, or read a clock.
//!
//! Why a batch: as long as others are acknowledged no producer stands still, but no cursor moves past the oldest
//! batch: a crash would repeat all that was sent since, and nothing is cleaned up.
//!
//! Why: librdkafka keeps the brokers that the last metadata named. Named none, as happens for a moment
//! when all of them are fenced, it has nobody left to ask, and waits for ever (seen with 2.12.1). A
//! partition whose leader was missing may be forgotten, too (confluentinc/librdkafka#5430).

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// How long nothing may be heard at first: longer than a change of leaders takes with a broker's default
/// `broker.session.timeout.ms` of 9 s.
pub(super) const PATIENCE_MIN: Duration = Duration::from_secs(10);
/// How patience grows.
const PATIENCE: Backoff = Backoff::new(PATIENCE_MIN, Duration::from_secs(320));
/// After so long without a standstill, patience is what it was at first.
const CALM: Duration = Duration::from_secs(600);
/// A client whose brokers answer it gets so many times the patience.
pub(super) const CONNECTED_FACTOR: u32 = 3;
/// Whoever waits for so long is asked for, whatever became of others: longer than a change of leaders takes, and than
/// a standstill.
const LATE: Duration = Duration::from_secs(30);

/// What the silence of one producer calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing: something was heard, nothing is waited for, or it is not long.
    Short,
    /// To look whether its client has lost the brokers.
    Long,
    /// To look whether the brokers are there at all.
    TooLong,
}

/// Since when one producer has heard nothing.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    quiet: Option<Quiet>,
}

#[derive(Debug)]
struct Quiet {
    since: Instant,
    patience: Duration,
    next_look: Instant,
}

impl Standstill {
    /// Looks at one producer: whether records wait for an acknowledgement, whether one came since the
    /// last look, and how patient to be if this is where the silence begins.
    pub(super) fn look(
        &mut self,
        waits: bool,
        has_heard: bool,
        patience: Duration,
        now: Instant,
    ) -> Silence {
        if has_heard || !waits {
            self.quiet = None;
            return Silence::Short;
        }
        let quiet = self.quiet.get_or_insert_with(|| Quiet {
            since: now,
            patience,
            next_look: now + patience,
        });
        if now < quiet.next_look {
            return Silence::Short;
        }
        quiet.next_look = now + PATIENCE_MIN;
        if now.duration_since(quiet.since) < quiet.patience * CONNECTED_FACTOR {
            Silence::Long
        } else {
            Silence::TooLong
        }
    }
}

/// How late the oldest batch of one producer is, and what that calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchLateness {
    /// Nothing: it is not late, or it was asked for a moment ago.
    InTime,
    /// To look whether what it waits for has a leader.
    Late,
    /// The same, and to give it up if it has: others are acknowledged meanwhile.
    TooLate,
}

/// When the oldest batch of one producer was looked at, if it is late.
#[derive(Debug, Default)]
pub(super) struct Laggard {
    next_look: Option<Instant>,
}

impl Laggard {
    /// Looks at the oldest batch: since when it waits, whether others were acknowledged of late, and how patient
    /// to be.
    pub(super) fn look(
        &mut self,
        waits_since: Option<Instant>,
        others_go_on: bool,
        patience: Duration,
        now: Instant,
    ) -> BatchLateness {
        let waited = waits_since.map(|since| now.saturating_duration_since(since));
        let Some(waited) = waited.filter(|waited| *waited >= LATE) else {
            self.next_look = None;
            return BatchLateness::InTime;
        };
        if others_go_on && waited >= patience * CONNECTED_FACTOR {
            return BatchLateness::TooLate;
        }
        if self.next_look.is_some_and(|next| now < next) {
            return BatchLateness::InTime;
        }
        self.next_look = Some(now + LATE);
        BatchLateness::Late
    }
}

/// How long to wait for a word, learnt from the standstills before.
#[derive(Debug, Default)]
pub(super) struct Patience {
    last: Option<(Instant, Backoff)>,
}

impl Patience {
    /// How long to wait now.
    pub(super) fn at(&self, now: Instant) -> Duration {
        self.grown(now).pause()
    }

    fn grown(&self, now: Instant) -> Backoff {
        match self.last {
            Some((at, grown)) if now.duration_since(at) < CALM => grown,
            Some(_) | None => PATIENCE,
        }
    }

    /// A producer is replaced. Several that stand still together count once.
    pub(super) fn stood_still(&mut self, now: Instant) {
        if self.last.is_some_and(|(at, _)| now.duration_since(at) < PATIENCE_MIN) {
            return;
        }
        self.last = Some((now, self.grown(now).doubled()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_counts_only_while_something_is_waited_for() {
        let (mut standstill, start) = (Standstill::default(), Instant::now());
        let mut look = |waits, has_heard, second: u32| {
            standstill.look(waits, has_heard, 10 * SECOND, start + second * SECOND)
        };
        assert_eq!(look(true, false, 0), Silence::Short);
        assert_eq!(look(true, false, 9), Silence::Short);
        assert_eq!(look(true, false, 10), Silence::Long);
        assert_eq!(look(true, false, 11), Silence::Short, "it was looked at a moment ago");
        assert_eq!(look(true, true, 12), Silence::Short);
        assert_eq!(look(true, false, 13), Silence::Short, "the silence begins here");
        assert_eq!(look(true, false, 23), Silence::Long);
        assert_eq!(look(false, false, 30), Silence::Short);
        assert_eq!(look(true, false, 31), Silence::Short);
        assert_eq!(look(true, false, 61), Silence::TooLong);
    }

    #[test]
    fn the_oldest_batch_is_asked_for_each_half_minute_and_given_up_beside_others() {
        let (mut laggard, start) = (Laggard::default(), Instant::now());
        let mut look = |since: Option<u32>, others_go_on, second: u32| {
            let since = since.map(|second| start + second * SECOND);
            laggard.look(since, others_go_on, 20 * SECOND, start + second * SECOND)
        };
        assert_eq!(look(Some(0), true, 29), BatchLateness::InTime);
        assert_eq!(look(Some(0), true, 30), BatchLateness::Late);
        assert_eq!(look(Some(0), true, 31), BatchLateness::InTime, "it was asked for a moment ago");
        assert_eq!(look(Some(0), false, 60), BatchLateness::Late, "the others wait as well");
        assert_eq!(look(Some(0), true, 61), BatchLateness::TooLate);
        assert_eq!(look(Some(40), true, 69), BatchLateness::InTime, "another is the oldest now");
        assert_eq!(look(Some(40), true, 70), BatchLateness::Late, "it counts anew");
        assert_eq!(look(None, true, 101), BatchLateness::InTime);
    }

    #[test]
    fn patience_grows_once_for_all_and_is_forgotten() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        assert_eq!(patience.at(start), PATIENCE_MIN);
        patience.stood_still(start);
        patience.stood_still(start + SECOND);
        assert_eq!(patience.at(start + SECOND), 2 * PATIENCE_MIN);
        for minute in 1..9 {
            patience.stood_still(start + minute * 60 * SECOND);
        }
        assert_eq!(patience.at(start + 500 * SECOND), 320 * SECOND);
        assert_eq!(patience.at(start + 480 * SECOND + CALM), PATIENCE_MIN);
    }
}
