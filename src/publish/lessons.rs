//! What producers have learnt about the brokers, kept for those that replace them.
//!
//! Promises: a producer that is made after a refusal does not meet the same refusal again: its batches
//! fit the smallest limit that is known, the largest event that a topic takes fits into it, and a topic
//! that was refused is left alone for a while. Must not: ask a broker. Fails: never.
//!
//! All shards of a process share one: what one has met is the others' trouble, too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::config::ClientConfig;

use super::settings::{BATCH_BYTES, MESSAGE_BYTES_MAX};
use super::standstill::Patience;

/// What a broker takes that was told nothing else: `message.max.bytes`.
///
/// Source: Apache Kafka, "Broker Configs".
pub(super) const DEFAULT_LIMIT_BYTES: usize = 1_048_588;

/// Batches are not made smaller than this; a single event may still be larger.
const SMALLEST_BATCH_BYTES: usize = 1_024;

/// More than this librdkafka does not take.
const LARGEST_MESSAGE_BYTES: usize = 1_000_000_000;

/// The first pause before a topic is tried again; each further one is twice as long.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is known.
#[derive(Debug)]
pub struct Lessons {
    /// The operator's own limit for any record.
    own_limit_bytes: Option<usize>,
    learnt: Mutex<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    batch_bytes: usize,
    message_bytes: usize,
    /// Sizes that topics have refused whose limit the broker does not tell.
    refused_bytes: HashMap<String, usize>,
    refused_topics: HashMap<String, Refused>,
    patience: Patience,
}

/// A topic to which a record was refused.
#[derive(Clone, Debug)]
struct Refused {
    detail: String,
    pause: Duration,
    until: Instant,
}

impl Lessons {
    /// Nothing is learnt yet; `properties` are the operator's own.
    pub fn new(properties: &[(String, String)]) -> Self {
        let own = |wanted: &str| {
            let given = properties.iter().rev().find(|(name, _)| name == wanted);
            given.and_then(|(_, value)| value.trim().parse().ok())
        };
        let own_limit_bytes = own(MESSAGE_BYTES_MAX.0);
        Self {
            own_limit_bytes,
            learnt: Mutex::new(Learnt {
                batch_bytes: own(BATCH_BYTES.0)
                    .unwrap_or(BATCH_BYTES.1)
                    .min(own_limit_bytes.unwrap_or(usize::MAX)),
                message_bytes: own_limit_bytes.unwrap_or(MESSAGE_BYTES_MAX.1),
                refused_bytes: HashMap::new(),
                refused_topics: HashMap::new(),
                patience: Patience::default(),
            }),
        }
    }

    /// The configuration of a producer that is made now.
    #[must_use]
    pub fn apply(&self, config: &ClientConfig) -> ClientConfig {
        let (mut config, learnt) = (config.clone(), self.learnt());
        config.set(BATCH_BYTES.0, learnt.batch_bytes.to_string());
        config.set(MESSAGE_BYTES_MAX.0, learnt.message_bytes.to_string());
        config
    }

    /// Bytes of a batch, for a producer that is made now.
    pub(super) fn batch_bytes(&self) -> usize {
        self.learnt().batch_bytes
    }

    /// The largest record for a topic, given what the broker tells of it.
    pub(super) fn limit_bytes(&self, topic: &str, told: Option<usize>) -> usize {
        let untold = || {
            let refused = self.learnt().refused_bytes.get(topic).copied();
            refused.map_or(DEFAULT_LIMIT_BYTES, |bytes| bytes - 1)
        };
        let limit = told.unwrap_or_else(untold);
        self.own_limit_bytes.map_or(limit, |own| own.min(limit))
    }

    /// A topic takes no more than this: batches must stay below.
    pub(super) fn shrink_batches(&self, limit_bytes: usize) {
        let mut learnt = self.learnt();
        let below = (limit_bytes - limit_bytes / 8).max(SMALLEST_BATCH_BYTES);
        learnt.batch_bytes = learnt.batch_bytes.min(below);
    }

    /// A topic takes records as large as this.
    pub(super) fn admit_messages(&self, limit_bytes: usize) {
        let mut learnt = self.learnt();
        learnt.message_bytes = learnt.message_bytes.max(limit_bytes.min(LARGEST_MESSAGE_BYTES));
    }

    /// A batch with this record was too large for its topic. A record above the size of batches travels
    /// alone, so it was the record; otherwise it may have been its company.
    pub(super) fn refused_size(&self, topic: &str, record_bytes: usize) {
        let mut learnt = self.learnt();
        if record_bytes > learnt.batch_bytes || learnt.batch_bytes == SMALLEST_BATCH_BYTES {
            let known = learnt.refused_bytes.entry_ref(topic).or_insert(record_bytes);
            *known = record_bytes.min(*known);
        } else {
            learnt.batch_bytes = (learnt.batch_bytes / 2).max(SMALLEST_BATCH_BYTES);
        }
    }

    /// A record for this topic was refused, whatever its size.
    pub(super) fn refused_topic(&self, topic: &str, detail: &str, now: Instant) {
        let mut learnt = self.learnt();
        let before = learnt.refused_topics.get(topic);
        let pause = match before {
            Some(before) if now < before.until => return,
            Some(before) if now < before.until + 2 * PAUSE_MAX => (before.pause * 2).min(PAUSE_MAX),
            Some(_) | None => PAUSE_MIN,
        };
        let refused = Refused { detail: detail.to_owned(), pause, until: now + pause };
        learnt.refused_topics.insert(topic.to_owned(), refused);
    }

    /// Why a topic is to be left alone at this moment, if it is.
    pub(super) fn is_refused(&self, topic: &str, now: Instant) -> Option<String> {
        let learnt = self.learnt();
        let refused = learnt.refused_topics.get(topic)?;
        (now < refused.until).then(|| refused.detail.clone())
    }

    /// How long a producer may hear nothing before it is looked into.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.learnt().patience.at(now)
    }

    /// A producer stood still and is replaced.
    pub(super) fn stood_still(&self, now: Instant) {
        self.learnt().patience.stood_still(now);
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn batches_shrink_and_records_are_admitted() {
        let lessons = Lessons::new(&[]);
        lessons.shrink_batches(2_000_000);
        assert_eq!(lessons.batch_bytes(), BATCH_BYTES.1, "they fit already");
        lessons.shrink_batches(16_000);
        lessons.admit_messages(5_000_000);
        let config = lessons.apply(&ClientConfig::new());
        assert_eq!(config.get("batch.size"), Some("14000"));
        assert_eq!(config.get("message.max.bytes"), Some("5000000"));
    }

    #[test]
    fn the_operators_own_limit_counts() {
        let lessons = Lessons::new(&properties(&[("message.max.bytes", "5000")]));
        assert_eq!(lessons.limit_bytes("t", Some(9_000)), 5_000);
        assert_eq!(lessons.limit_bytes("t", Some(900)), 900);
        assert_eq!(lessons.limit_bytes("t", None), 5_000);
        assert_eq!(Lessons::new(&[]).limit_bytes("t", None), DEFAULT_LIMIT_BYTES);
    }

    #[test]
    fn a_limit_that_nobody_tells_is_found() {
        let lessons = Lessons::new(&[]);
        let sizes = [300, 40_000];
        for _ in 0..20 {
            let limit = lessons.limit_bytes("t", None);
            let refused = sizes.iter().find(|size| **size <= limit && **size > 30_000);
            match refused {
                Some(size) => lessons.refused_size("t", *size),
                None => break,
            }
        }
        assert_eq!(lessons.limit_bytes("t", None), 39_999);
        assert_eq!(lessons.limit_bytes("t", Some(50_000)), 50_000, "the broker knows better");
    }

    #[test]
    fn a_refused_topic_is_left_alone_for_longer_each_time() {
        let (lessons, mut now) = (Lessons::new(&[]), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            lessons.refused_topic("t", "denied", now);
            assert_eq!(lessons.is_refused("t", now).as_deref(), Some("denied"));
            let begin = now;
            while lessons.is_refused("t", now).is_some() {
                now += Duration::from_secs(1);
            }
            pauses.push((now - begin).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += 3 * PAUSE_MAX;
        lessons.refused_topic("t", "denied", now);
        assert!(lessons.is_refused("t", now + PAUSE_MIN).is_none(), "that was long ago");
    }
}
