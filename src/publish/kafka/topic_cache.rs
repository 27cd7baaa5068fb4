//! What a topic takes, and which of its partitions a new producer has already written to.
//!
//! Promises: a second batch goes to a partition only when the first was acknowledged.
//! Must not: send. Fails: never; it only remembers.
//!
//! Why: a broker that knows nothing of a producer accepts any first sequence number. If the first
//! batch is refused with a retriable error and the second is appended, the first can never be
//! written (KAFKA-15591). The same holds when the broker has forgotten an idle producer.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// An idle producer counts as forgotten after this; the broker's `producer.id.expiration.ms` is a day.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// How often a topic in use is looked at again; the old answer holds meanwhile.
const REFRESH_AFTER: Duration = Duration::from_secs(60);

/// An answer that is older than this holds no more: the topic lay idle, or there was no answer for long.
const STALE_AFTER: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priming {
    /// Nothing was sent yet.
    Untouched,
    /// The first record is on its way.
    First,
    /// The first record was acknowledged; last written about this time.
    Primed(Instant),
}

/// What the producer must do before it sends a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Send it.
    Nothing,
    /// Wait until everything in flight is acknowledged, call [`TopicCache::settle`], ask again.
    Settle,
}

/// What the brokers say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownTopic {
    pub(super) partitions: NonZeroU32,
    /// The largest record that it takes.
    pub(super) limit_bytes: usize,
}

#[derive(Debug)]
struct CachedTopic {
    known: KnownTopic,
    looked_up: Instant,
    /// Whether a record went there since it was looked at.
    is_used: bool,
    /// Whether somebody is looking at it.
    is_looked_at: bool,
    priming: Vec<Priming>,
}

/// The topics of one producer.
#[derive(Debug)]
pub(super) struct TopicCache {
    known: HashMap<String, CachedTopic>,
    /// Partitions whose first record is on its way.
    first: usize,
}

impl TopicCache {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), first: 0 }
    }

    /// What is known of a topic, if it is fresh enough.
    pub(super) fn get(&self, topic: &str, now: Instant) -> Option<KnownTopic> {
        self.get_within(topic, STALE_AFTER, now)
    }

    /// TopicCache in use that are to be looked at again; each is named once until [`TopicCache::learn`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (name, topic) in &mut self.known {
            let is_old = now.duration_since(topic.looked_up) >= REFRESH_AFTER;
            if is_old && topic.is_used && !topic.is_looked_at {
                topic.is_looked_at = true;
                due.push(name.clone());
            }
        }
        due
    }

    /// It cannot be used any more; it is looked up when it is met again.
    pub(super) fn doubt(&mut self, topic: &str, now: Instant) {
        if let Some(topic) = self.known.get_mut(topic) {
            topic.is_looked_at = false;
            topic.looked_up = now.checked_sub(STALE_AFTER).unwrap_or(topic.looked_up);
        }
    }

    /// What is known of a topic, if it is younger than `age`.
    pub(super) fn get_within(
        &self,
        topic: &str,
        age: Duration,
        now: Instant,
    ) -> Option<KnownTopic> {
        let topic = self.known.get(topic)?;
        (now.duration_since(topic.looked_up) < age).then_some(topic.known)
    }

    /// The number of partitions that was known last, however old.
    pub(super) fn last_known(&self, topic: &str) -> Option<NonZeroU32> {
        self.known.get(topic).map(|topic| topic.known.partitions)
    }

    /// Takes note of what the brokers say of a topic.
    pub(super) fn learn(&mut self, name: &str, known: KnownTopic, now: Instant) {
        let count = known.partitions.get() as usize;
        match self.known.get_mut(name) {
            Some(topic) => {
                topic.known = known;
                topic.looked_up = now;
                (topic.is_used, topic.is_looked_at) = (false, false);
                topic.priming.resize(count, Priming::Untouched);
            }
            None => {
                let priming = vec![Priming::Untouched; count];
                let topic = CachedTopic {
                    known,
                    looked_up: now,
                    is_used: false,
                    is_looked_at: false,
                    priming,
                };
                self.known.insert(name.to_owned(), topic);
            }
        }
    }

    /// What to do before a record goes to this partition; afterwards it counts as sent.
    pub(super) fn before(&mut self, topic: &str, partition: i32, now: Instant) -> Before {
        let topic = self.known.get_mut(topic).expect("the partition was computed from this topic");
        topic.is_used = true;
        let index = usize::try_from(partition).expect("a partition is not negative");
        let priming = &mut topic.priming[index];
        match *priming {
            Priming::Primed(last) if now.duration_since(last) < FORGOTTEN_AFTER => {
                *priming = Priming::Primed(now);
                Before::Nothing
            }
            Priming::First => Before::Settle,
            Priming::Untouched | Priming::Primed(_) => {
                *priming = Priming::First;
                self.first += 1;
                Before::Nothing
            }
        }
    }

    /// Whether a partition's first record may be on its way.
    pub(super) fn awaits_first(&self) -> bool {
        self.first > 0
    }

    /// Everything that was in flight is acknowledged.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.first == 0 {
            return;
        }
        for topic in self.known.values_mut() {
            for priming in &mut topic.priming {
                if *priming == Priming::First {
                    *priming = Priming::Primed(now);
                }
            }
        }
        self.first = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(partitions: u32) -> KnownTopic {
        KnownTopic { partitions: NonZeroU32::new(partitions).unwrap(), limit_bytes: 9 }
    }

    fn topics(now: Instant) -> TopicCache {
        let mut topics = TopicCache::new();
        topics.learn("t", known(2), now);
        topics
    }

    #[test]
    fn the_second_record_waits_for_the_first() {
        let now = Instant::now();
        let mut topics = topics(now);
        assert_eq!(topics.before("t", 0, now), Before::Nothing);
        assert_eq!(topics.before("t", 1, now), Before::Nothing, "another partition");
        assert_eq!(topics.before("t", 0, now), Before::Settle);
        assert!(topics.awaits_first());
        topics.settle(now);
        assert!(!topics.awaits_first());
        assert_eq!(topics.before("t", 0, now), Before::Nothing);
        assert_eq!(topics.before("t", 0, now), Before::Nothing);
    }

    #[test]
    fn an_idle_partition_is_primed_again() {
        let now = Instant::now();
        let mut topics = topics(now);
        topics.before("t", 0, now);
        topics.settle(now);
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(topics.before("t", 0, later), Before::Nothing);
        assert_eq!(topics.before("t", 0, later), Before::Settle);
    }

    #[test]
    fn topics_are_looked_at_again() {
        let now = Instant::now();
        let mut topics = topics(now);
        assert_eq!(topics.get("t", now), Some(known(2)));
        assert_eq!(topics.get("t", now + REFRESH_AFTER), Some(known(2)), "nobody waits for a look");
        assert_eq!(topics.get("t", now + STALE_AFTER), None);
        assert_eq!(topics.last_known("t"), NonZeroU32::new(2));
        topics.learn("t", known(3), now);
        assert_eq!(topics.before("t", 2, now), Before::Nothing, "a new partition is untouched");
    }

    #[test]
    fn only_what_is_in_use_is_looked_at_again() {
        let now = Instant::now();
        let mut topics = topics(now);
        topics.learn("idle", known(1), now);
        topics.before("t", 0, now);
        assert!(topics.take_due(now + REFRESH_AFTER / 2).is_empty());
        assert_eq!(topics.take_due(now + REFRESH_AFTER), ["t"]);
        assert!(topics.take_due(now + REFRESH_AFTER).is_empty(), "somebody is at it");
        let later = now + REFRESH_AFTER;
        topics.learn("t", known(2), later);
        assert!(topics.take_due(later + REFRESH_AFTER).is_empty(), "nothing went there since");
        topics.doubt("t", later);
        assert_eq!(topics.get("t", later), None);
    }
}
