//! Which topics have refused a batch, so that their records are sent apart for a while.
//!
//! Promises: a topic is suspected for half a minute after its last refusal, for longer when it refuses
//! again soon after; one that was given up is so until it takes something, and is left alone for many times as long as
//! its last try took; an event for whose sake its topic was blamed is known again; bounded. Must not: send, or read a
//! clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::event::EventId;
use crate::publish::Haste;

/// So long after its last refusal a topic is suspected at first.
const CALM_MIN: Duration = Duration::from_secs(30);
/// The longest; after so long without a refusal all is as it was at first.
const CALM_MAX: Duration = Duration::from_secs(600);
/// So long one is suspected that takes nothing for an unknown reason: a few standstills.
const DOUBT: Duration = Duration::from_secs(180);
/// More topics are not suspected at once.
const TOPICS_MAX: usize = 1_024;
/// So many records in a row are refused alone, and none goes through: it is not the records.
const ALONE_MAX: u32 = 100;
/// The same where nobody says so, and each try takes a while.
const CUT_MAX: u32 = 3;
/// A topic that was given up is left alone for so many times as long as its last try took.
const REST_FACTOR: u32 = 30;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_secs(300);
/// So many events are known again for whose sake a topic was blamed: the latest.
const BLAMED_MAX: usize = 16;

#[derive(Debug)]
struct Suspicion {
    until: Instant,
    calm: Duration,
    /// Records that were refused alone since one went through.
    alone: u32,
    blamed: VecDeque<Blamed>,
    state: State,
}

/// What is known of one that is suspected, since it took something last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A batch of it was refused.
    Refused,
    /// A batch of it had no answer for very long.
    Overdue,
    /// It takes nothing, as it seems, but Kafka may be away.
    Doubted { since: Instant },
    /// It takes nothing.
    GivenUp {
        /// Until when it is left alone.
        rests_until: Instant,
        /// Whether connections end instead of an answer.
        is_cut: bool,
    },
}

/// An event with which nothing went through to its topic.
#[derive(Debug)]
struct Blamed {
    event: EventId,
    /// Whether one of the topic's went through since.
    has_witness: bool,
}

/// The topics that are suspected.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    topics: HashMap<String, Suspicion>,
}

impl Suspicions {
    /// A record for this topic was refused.
    pub(super) fn suspect(&mut self, topic: &str, now: Instant) {
        if let Some(known) = self.topics.get_mut(topic) {
            if now >= known.until + CALM_MAX {
                known.calm = CALM_MIN;
            } else if now >= known.until {
                known.calm = (known.calm * 2).min(CALM_MAX);
            }
            known.until = known.until.max(now + known.calm);
            return;
        }
        if self.topics.len() >= TOPICS_MAX {
            self.forget_one();
        }
        let suspicion = Suspicion {
            until: now + CALM_MIN,
            calm: CALM_MIN,
            alone: 0,
            blamed: VecDeque::new(),
            state: State::Refused,
        };
        self.topics.insert(topic.to_owned(), suspicion);
    }

    /// A batch for this topic was given up, as it had no answer for very long.
    pub(super) fn overdue(&mut self, topic: &str, now: Instant) {
        self.suspect(topic, now);
        if let Some(known) = self.topics.get_mut(topic)
            && known.state == State::Refused
        {
            known.state = State::Overdue;
        }
    }

    /// Nothing goes through to this topic, and its last try took so long.
    pub(super) fn give_up(&mut self, topic: &str, took: Duration, is_cut: bool, now: Instant) {
        self.suspect(topic, now);
        let Some(known) = self.topics.get_mut(topic) else { return };
        let rests_until = now + (took * REST_FACTOR).min(REST_MAX);
        known.state = match known.state {
            State::GivenUp { rests_until: before, is_cut: was_cut } => {
                State::GivenUp { rests_until: before.max(rests_until), is_cut: is_cut || was_cut }
            }
            State::Refused | State::Overdue | State::Doubted { .. } => {
                State::GivenUp { rests_until, is_cut }
            }
        };
    }

    /// Something was taken elsewhere at this moment: those that were in doubt by then take nothing.
    pub(super) fn decide_doubts(&mut self, taken: Instant) {
        for known in self.topics.values_mut() {
            if let State::Doubted { since } = known.state
                && taken > since
            {
                known.state = State::GivenUp { rests_until: taken, is_cut: false };
            }
        }
    }

    /// Whether a topic that was given up is to be left alone now.
    pub(super) fn rests(&self, topic: &str, now: Instant) -> bool {
        let state = self.topics.get(topic).map(|known| known.state);
        matches!(state, Some(State::GivenUp { rests_until, .. }) if now < rests_until)
    }

    /// How soon this topic is to be given up.
    pub(super) fn haste(&self, topic: &str) -> Haste {
        match self.topics.get(topic).map(|known| known.state) {
            Some(State::GivenUp { .. }) => Haste::Again,
            Some(State::Overdue | State::Doubted { .. }) => Haste::Overdue,
            Some(State::Refused) | None => Haste::Calm,
        }
    }

    /// Whether it was given up as connections end instead of an answer.
    pub(super) fn is_cut(&self, topic: &str) -> bool {
        let state = self.topics.get(topic).map(|known| known.state);
        matches!(state, Some(State::GivenUp { is_cut: true, .. }))
    }

    /// The same of one that may be to blame for a standstill, as may others that will stand still next.
    pub(super) fn doubt(&mut self, topic: &str, now: Instant) {
        self.suspect(topic, now);
        if let Some(known) = self.topics.get_mut(topic) {
            known.until = known.until.max(now + DOUBT);
            if !matches!(known.state, State::GivenUp { .. }) {
                known.state = State::Doubted { since: now };
            }
        }
    }

    /// Nothing could be found out of these for a while, as another one took all the time.
    pub(super) fn renew<'a>(&mut self, topics: impl Iterator<Item = &'a String>, now: Instant) {
        for topic in topics {
            if let Some(known) = self.topics.get_mut(topic) {
                known.until = known.until.max(now + known.calm);
            }
        }
    }

    /// The one that would be trusted first.
    fn forget_one(&mut self) {
        let first = self.topics.iter().min_by_key(|(_, known)| known.until);
        if let Some(name) = first.map(|(name, _)| name.clone()) {
            self.topics.remove(&name);
        }
    }

    /// Nothing can be found out now: the topic is as good as any.
    pub(super) fn trust(&mut self, topic: &str, now: Instant) {
        if let Some(known) = self.topics.get_mut(topic) {
            known.until = known.until.min(now);
            known.state = State::Refused;
        }
    }

    /// A record went through.
    pub(super) fn went_through(&mut self, topic: &str) {
        if let Some(known) = self.topics.get_mut(topic) {
            known.alone = 0;
            known.state = State::Refused;
            known.blamed.iter_mut().for_each(|blamed| blamed.has_witness = true);
        }
    }

    /// Nothing went through to the topic when this event was tried; whether the same event was there before
    /// when nothing did, and others went through in between.
    pub(super) fn is_blamed_again(&mut self, topic: &str, event: EventId, now: Instant) -> bool {
        self.suspect(topic, now);
        let Some(known) = self.topics.get_mut(topic) else { return false };
        if let Some(blamed) = known.blamed.iter().find(|blamed| blamed.event == event) {
            return blamed.has_witness;
        }
        if known.blamed.len() >= BLAMED_MAX {
            known.blamed.pop_front();
        }
        known.blamed.push_back(Blamed { event, has_witness: false });
        false
    }

    /// A record was refused alone; whether so many were in a row that it must be the topic's fault.
    pub(super) fn refused_alone(&mut self, topic: &str, is_cut: bool, now: Instant) -> bool {
        self.suspect(topic, now);
        let Some(known) = self.topics.get_mut(topic) else { return false };
        known.alone += 1;
        if known.alone < if is_cut { CUT_MAX } else { ALONE_MAX } {
            return false;
        }
        known.alone = 0;
        true
    }

    /// Those that are suspected now.
    pub(super) fn names(&self, now: Instant) -> Vec<String> {
        let suspected = self
            .topics
            .iter()
            .filter(|(_, known)| now < known.until || matches!(known.state, State::GivenUp { .. }));
        suspected.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_ends_and_lasts_longer_when_it_was_right() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        suspicions.suspect("t", now);
        assert_eq!(suspicions.names(now), ["t"]);
        assert!(suspicions.names(now + CALM_MIN).is_empty());
        let again = now + CALM_MIN;
        suspicions.suspect("t", again);
        suspicions.suspect("t", again);
        assert_eq!(suspicions.names(again + CALM_MIN), ["t"], "twice as long now");
        assert!(suspicions.names(again + 2 * CALM_MIN).is_empty());
        let later = again + 2 * CALM_MIN + CALM_MAX;
        suspicions.suspect("t", later);
        assert!(suspicions.names(later + CALM_MIN).is_empty(), "that was long ago");
    }

    #[test]
    fn one_in_doubt_is_suspected_while_others_stand_still() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        suspicions.doubt("t", now);
        assert_eq!(suspicions.names(now + CALM_MIN), ["t"]);
        suspicions.suspect("t", now);
        assert_eq!(suspicions.names(now + CALM_MIN), ["t"], "no sooner than it was");
        assert!(suspicions.names(now + DOUBT).is_empty());
        suspicions.renew(["t".to_owned(), "u".to_owned()].iter(), now + DOUBT);
        assert_eq!(suspicions.names(now + DOUBT), ["t"]);
    }

    #[test]
    fn an_event_that_is_there_whenever_nothing_goes_through_is_the_culprit() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        let mut is_again = |number: u8, goes_through: bool| {
            let is_again = suspicions.is_blamed_again("t", EventId([number; 16]), now);
            if goes_through {
                suspicions.went_through("t");
            }
            is_again
        };
        assert!(!is_again(1, false));
        assert!(!is_again(1, true), "nothing went through in between");
        assert!(!is_again(2, false), "another event");
        assert!(is_again(1, false));
        for number in 3..20 {
            assert!(!is_again(number, true));
        }
        assert!(!is_again(1, false), "that was long ago");
    }

    #[test]
    fn one_that_was_given_up_is_tried_apart_and_seldom_until_it_takes_something() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        assert_eq!(suspicions.haste("t"), Haste::Calm);
        suspicions.overdue("t", now);
        assert_eq!(suspicions.haste("t"), Haste::Overdue);
        suspicions.give_up("t", Duration::ZERO, false, now);
        assert_eq!(suspicions.haste("t"), Haste::Again);
        assert!(!suspicions.rests("t", now), "what came first was not a try of it alone");
        suspicions.give_up("t", Duration::from_secs(2), false, now);
        suspicions.overdue("t", now);
        let rest = Duration::from_secs(60);
        assert!(suspicions.rests("t", now + rest - CALM_MIN / 1_000));
        assert!(!suspicions.rests("t", now + rest) && !suspicions.rests("u", now));
        suspicions.give_up("t", CALM_MAX, false, now);
        assert!(!suspicions.rests("t", now + REST_MAX), "it may be well again by then");
        assert_eq!(suspicions.names(now + 3 * CALM_MAX), ["t"], "however long that is ago");
        suspicions.went_through("t");
        assert!(!suspicions.rests("t", now) && suspicions.names(now + CALM_MAX).is_empty());
        assert_eq!(suspicions.haste("t"), Haste::Calm);
    }

    #[test]
    fn one_in_doubt_is_given_up_when_another_takes_something_later() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        suspicions.doubt("t", now);
        suspicions.decide_doubts(now);
        assert_eq!(suspicions.haste("t"), Haste::Overdue, "that may have been before");
        suspicions.decide_doubts(now + CALM_MIN);
        assert_eq!(suspicions.haste("t"), Haste::Again);
        suspicions.trust("t", now);
        assert!(suspicions.names(now).is_empty() && suspicions.haste("t") == Haste::Calm);
    }

    #[test]
    fn a_few_whose_connections_end_and_no_other_are_the_topics_trouble() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        let found = [(); 3].map(|()| suspicions.refused_alone("t", true, now));
        assert_eq!(found, [false, false, true]);
        suspicions.give_up("t", Duration::ZERO, true, now);
        suspicions.give_up("t", Duration::ZERO, false, now);
        assert!(suspicions.is_cut("t") && !suspicions.is_cut("u"));
    }

    #[test]
    fn they_are_bounded() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        for number in 0..2 * TOPICS_MAX {
            suspicions.suspect(&number.to_string(), now);
        }
        assert_eq!(suspicions.names(now).len(), TOPICS_MAX);
    }

    #[test]
    fn a_topic_that_takes_nothing_is_the_trouble_itself() {
        let (mut suspicions, now) = (Suspicions::default(), Instant::now());
        let mut refused = |count| (0..count).any(|_| suspicions.refused_alone("t", false, now));
        assert!(!refused(ALONE_MAX - 1));
        assert!(refused(1));
        assert!(!refused(ALONE_MAX - 1));
        suspicions.went_through("t");
        assert!(!(0..ALONE_MAX - 1).any(|_| suspicions.refused_alone("t", false, now)));
    }
}
