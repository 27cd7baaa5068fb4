//! Which topics have refused a batch, so that their records are sent apart for a while.
//!
//! Promises: a topic is suspected for half a minute after its last refusal, for longer when it refuses
//! again soon after; an event for whose sake its topic was blamed is known again; bounded. Must not: send, or read a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::event::EventId;

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
/// So many events are known again for whose sake a topic was blamed: the latest.
const BLAMED_MAX: usize = 16;

#[derive(Debug)]
struct Suspicion {
    until: Instant,
    calm: Duration,
    /// Records that were refused alone since one went through.
    alone: u32,
    blamed: VecDeque<Blamed>,
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
        let suspicion =
            Suspicion { until: now + CALM_MIN, calm: CALM_MIN, alone: 0, blamed: VecDeque::new() };
        self.topics.insert(topic.to_owned(), suspicion);
    }

    /// The same of one that may be to blame for a standstill, as may others that will stand still next.
    pub(super) fn doubt(&mut self, topic: &str, now: Instant) {
        self.suspect(topic, now);
        if let Some(known) = self.topics.get_mut(topic) {
            known.until = known.until.max(now + DOUBT);
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
        }
    }

    /// A record went through.
    pub(super) fn went_through(&mut self, topic: &str) {
        if let Some(known) = self.topics.get_mut(topic) {
            known.alone = 0;
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
    pub(super) fn refused_alone(&mut self, topic: &str, now: Instant) -> bool {
        self.suspect(topic, now);
        let Some(known) = self.topics.get_mut(topic) else { return false };
        known.alone += 1;
        if known.alone < ALONE_MAX {
            return false;
        }
        known.alone = 0;
        true
    }

    /// Those that are suspected now.
    pub(super) fn names(&self, now: Instant) -> Vec<String> {
        let suspected = self.topics.iter().filter(|(_, known)| now < known.until);
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
        let mut refused = |count| (0..count).any(|_| suspicions.refused_alone("t", now));
        assert!(!refused(ALONE_MAX - 1));
        assert!(refused(1));
        assert!(!refused(ALONE_MAX - 1));
        suspicions.went_through("t");
        assert!(!(0..ALONE_MAX - 1).any(|_| suspicions.refused_alone("t", now)));
    }
}
