//! Whose turn it is, of the replays that are to be sent.
//!
//! Promises: no replay is held up by another one, as long as there are no more than [`TURNS_MAX`] of them; of more, those
//! that have waited longest come next, so that none waits for ever behind others that make no headway.
//! Must not: read a clock, or know how a replay is sent.

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::capture::replay::TURNS_MAX;

/// How often it is looked whether something can be done for a replay.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After trouble.
pub(super) const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// There may be more to do at once.
    Over,
    /// Nothing can be done now.
    Waits,
    /// A topic takes nothing, or something else is in the way.
    Held,
}

impl TurnEnd {
    fn rest(self) -> Duration {
        match self {
            Self::Over => Duration::ZERO,
            Self::Waits => LOOK_INTERVAL,
            Self::Held => TROUBLE_PAUSE,
        }
    }
}

/// The replays that have a turn, and those that rest behind one.
#[derive(Debug, Default)]
pub(super) struct ReplayTurns {
    running: HashSet<i64>,
    /// When each may have its next turn.
    rested: HashMap<i64, Instant>,
}

impl ReplayTurns {
    /// Which of the open ones begin a turn now, by their numbers.
    pub(super) fn begin(&mut self, open: &[i64], now: Instant) -> Vec<i64> {
        self.rested.retain(|replay, _| open.contains(replay));
        let may = |replay: &i64| {
            !self.running.contains(replay) && self.rested.get(replay).is_none_or(|at| *at <= now)
        };
        let mut next: Vec<i64> = open.iter().copied().filter(may).collect();
        // Who had none yet comes first, and then who has rested longest.
        next.sort_unstable_by_key(|replay| (self.rested.get(replay).copied(), *replay));
        next.truncate(TURNS_MAX - self.running.len());
        self.running.extend(&next);
        assert!(self.running.len() <= TURNS_MAX, "there was room");
        next
    }

    /// A turn has ended.
    pub(super) fn ended(&mut self, replay: i64, end: TurnEnd, now: Instant) {
        let had_a_turn = self.running.remove(&replay);
        assert!(had_a_turn, "replay {replay} ends a turn that it did not have");
        self.rested.insert(replay, now + end.rest());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_held_up_holds_up_no_other() {
        let (mut turns, now) = (ReplayTurns::default(), Instant::now());
        assert_eq!(turns.begin(&[1, 2], now), [1, 2]);
        turns.ended(2, TurnEnd::Over, now);
        assert_eq!(turns.begin(&[1, 2, 3], now), [3, 2], "the first one still tries");
        turns.ended(1, TurnEnd::Held, now);
        assert!(turns.begin(&[1, 2, 3], now).is_empty());
        assert_eq!(turns.begin(&[1, 2, 3], now + TROUBLE_PAUSE), [1]);
    }

    #[test]
    fn of_too_many_each_has_its_turn() {
        let open: Vec<i64> = (1..=6).collect();
        let (mut turns, mut now) = (ReplayTurns::default(), Instant::now());
        let mut had: HashMap<i64, usize> = HashMap::new();
        for _ in 0..30 {
            let begun = turns.begin(&open, now);
            assert!(!begun.is_empty() && begun.len() <= TURNS_MAX, "{begun:?}");
            now += TROUBLE_PAUSE;
            for replay in begun {
                *had.entry(replay).or_default() += 1;
                let end = if replay < 5 { TurnEnd::Held } else { TurnEnd::Over };
                turns.ended(replay, end, now);
            }
        }
        assert!(open.iter().all(|replay| had[replay] > 10), "{had:?}");
    }

    #[test]
    fn of_one_that_has_ended_nothing_is_kept() {
        let (mut turns, now) = (ReplayTurns::default(), Instant::now());
        turns.begin(&[1], now);
        turns.ended(1, TurnEnd::Waits, now);
        assert!(turns.begin(&[], now).is_empty());
        assert!(turns.rested.is_empty());
    }
}
