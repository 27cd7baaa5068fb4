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

/// How often a topic's number of partitions is looked at again.
const REFRESH_AFTER: Duration = Duration::from_secs(60);

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
    /// Wait until everything in flight is acknowledged, call [`Topics::settle`], ask again.
    Settle,
}

/// What the brokers say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) partitions: NonZeroU32,
    /// The largest record that it takes.
    pub(super) limit_bytes: usize,
}

#[derive(Debug)]
struct Topic {
    known: Known,
    looked_up: Instant,
    priming: Vec<Priming>,
}

/// The topics of one producer.
#[derive(Debug)]
pub(super) struct Topics {
    known: HashMap<String, Topic>,
    /// Partitions whose first record is on its way.
    first: usize,
}

impl Topics {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), first: 0 }
    }

    /// What is known of a topic, if it is fresh enough.
    pub(super) fn get(&self, topic: &str, now: Instant) -> Option<Known> {
        self.get_within(topic, REFRESH_AFTER, now)
    }

    /// What is known of a topic, if it is younger than `age`.
    pub(super) fn get_within(&self, topic: &str, age: Duration, now: Instant) -> Option<Known> {
        let topic = self.known.get(topic)?;
        (now.duration_since(topic.looked_up) < age).then_some(topic.known)
    }

    /// The number of partitions that was known last, however old.
    pub(super) fn last_known(&self, topic: &str) -> Option<NonZeroU32> {
        self.known.get(topic).map(|topic| topic.known.partitions)
    }

    /// Takes note of what the brokers say of a topic.
    pub(super) fn learn(&mut self, name: &str, known: Known, now: Instant) {
        let count = known.partitions.get() as usize;
        match self.known.get_mut(name) {
            Some(topic) => {
                topic.known = known;
                topic.looked_up = now;
                topic.priming.resize(count, Priming::Untouched);
            }
            None => {
                let priming = vec![Priming::Untouched; count];
                self.known.insert(name.to_owned(), Topic { known, looked_up: now, priming });
            }
        }
    }

    /// What to do before a record goes to this partition; afterwards it counts as sent.
    pub(super) fn before(&mut self, topic: &str, partition: i32, now: Instant) -> Before {
        let topic = self.known.get_mut(topic).expect("the partition was computed from this topic");
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

    fn known(partitions: u32) -> Known {
        Known { partitions: NonZeroU32::new(partitions).unwrap(), limit_bytes: 9 }
    }

    fn topics(now: Instant) -> Topics {
        let mut topics = Topics::new();
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
        topics.settle(now);
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
        assert_eq!(topics.get("t", now + REFRESH_AFTER), None);
        assert_eq!(topics.last_known("t"), NonZeroU32::new(2));
        topics.learn("t", known(3), now);
        assert_eq!(topics.before("t", 2, now), Before::Nothing, "a new partition is untouched");
    }
}
