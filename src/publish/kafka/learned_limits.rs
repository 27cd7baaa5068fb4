//! What producers have learnt about the brokers, kept for those that replace them.
//!
//! Promises: a producer that is made after a refusal does not meet the same refusal again: its batches
//! fit the smallest limit that is known, the largest event that a topic takes fits into it, a topic that
//! was refused is left alone for a while, and one that refused a batch gets its records apart. Whatever was
//! only guessed is forgotten again. Must not: ask a broker.
//!
//! All shards of a process share one: what one has met is the others' trouble, too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::backoff::Backoff;
use crate::event::EventId;
use crate::order::holds::{AggregateKey, Refusal};
use crate::publish::Haste;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::{BATCH_BYTES, MESSAGE_BYTES_MAX};
use crate::publish::kafka::culprits::Culprits;
use crate::publish::kafka::sizes::Sizes;
use crate::publish::kafka::stall::Patience;
use crate::publish::kafka::suspicion::Suspicions;

/// The longest pause before a topic is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pauses before a topic that cannot be used is tried again.
pub(super) const UNUSABLE: Backoff = Backoff::new(Duration::from_secs(1), PAUSE_MAX);

/// For so long after a standstill a topic is trusted only when it took something.
const CAREFUL: Duration = Duration::from_secs(180);

/// What is known.
#[derive(Debug)]
pub struct LearnedLimits {
    /// Whether any topic may be suspected: all that a batch costs as long as none is.
    suspects: AtomicBool,
    /// Whether Kafka has taken any record since it was looked when.
    has_taken: AtomicBool,
    /// Whether any event is known that brokers refuse.
    has_culprits: AtomicBool,
    learnt: Mutex<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    sizes: Sizes,
    suspicions: Suspicions,
    culprits: Culprits,
    refused_topics: HashMap<String, RefusedTopic>,
    patience: Patience,
    /// When Kafka took a record last, as far as it was looked.
    last_taken: Option<Instant>,
    /// When a producer failed last for the sake of a record.
    last_failed: Option<Instant>,
    /// To which topic the last record went that was answered by the end of its producer's transaction, and when.
    last_fenced: Option<(String, Instant)>,
    /// When a producer stood still last.
    last_stood_still: Option<Instant>,
}

/// A topic to which a record was refused.
#[derive(Clone, Debug)]
struct RefusedTopic {
    detail: String,
    backoff: Backoff,
    until: Instant,
}

impl LearnedLimits {
    /// Nothing is learnt yet; `properties` are the operator's own.
    pub fn new(properties: &[(String, String)]) -> Self {
        let own = |wanted: &str| {
            let given = properties.iter().rev().find(|(name, _)| name == wanted);
            given.and_then(|(_, value)| value.trim().parse().ok())
        };
        let own_limit_bytes = own(MESSAGE_BYTES_MAX.0);
        let batch_bytes = own(BATCH_BYTES.0).unwrap_or(BATCH_BYTES.1);
        let message_bytes = own_limit_bytes.unwrap_or(MESSAGE_BYTES_MAX.1);
        Self {
            suspects: AtomicBool::new(false),
            has_taken: AtomicBool::new(false),
            has_culprits: AtomicBool::new(false),
            learnt: Mutex::new(Learnt {
                sizes: Sizes::new(batch_bytes, message_bytes, own_limit_bytes),
                suspicions: Suspicions::default(),
                culprits: Culprits::default(),
                refused_topics: HashMap::new(),
                patience: Patience::default(),
                last_taken: None,
                last_failed: None,
                last_fenced: None,
                last_stood_still: None,
            }),
        }
    }

    /// The configuration of a producer that is made now.
    #[must_use]
    pub fn apply(&self, config: &ProducerConfig) -> ProducerConfig {
        let (mut config, learnt) = (config.clone(), self.learnt());
        config.set(BATCH_BYTES.0, learnt.sizes.batch_bytes(Instant::now()).to_string());
        config.set(MESSAGE_BYTES_MAX.0, learnt.sizes.message_bytes().to_string());
        config
    }

    /// Kafka has taken a record.
    pub(super) fn note_taken(&self) {
        // Between two looks nobody writes what all read.
        if !self.has_taken.load(Ordering::Relaxed) {
            self.has_taken.store(true, Ordering::Relaxed);
        }
    }

    /// Looks whether Kafka has taken a record since the last look; when it was so last.
    pub(super) fn last_taken(&self, now: Instant) -> Option<Instant> {
        if !self.has_taken.swap(false, Ordering::Relaxed) {
            return self.learnt().last_taken;
        }
        self.learnt().last_taken = Some(now);
        Some(now)
    }

    /// A producer fails for the sake of a record; whether another one did so within so long.
    pub(super) fn failed(&self, now: Instant, within: Duration) -> bool {
        let before = self.learnt().last_failed.replace(now);
        before.is_some_and(|before| now.saturating_duration_since(before) < within)
    }

    /// A producer's transaction is over, as was answered to a record for this topic; whether the last one that ended so,
    /// within so long, did for the same topic.
    pub(super) fn fenced(&self, topic: &str, now: Instant, within: Duration) -> bool {
        let before = self.learnt().last_fenced.replace((topic.to_owned(), now));
        before.is_some_and(|(same, before)| {
            same == topic && now.saturating_duration_since(before) < within
        })
    }

    /// What is known of sizes.
    pub(super) fn with_sizes<T>(&self, ask: impl FnOnce(&mut Sizes) -> T) -> T {
        ask(&mut self.learnt().sizes)
    }

    /// A batch for this topic was refused: what goes there is sent apart for a while.
    pub(super) fn suspect(&self, topic: &str, now: Instant) {
        let mut learnt = self.learnt();
        learnt.suspicions.suspect(topic, now);
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// A batch for this topic was given up, as it had no answer for very long.
    pub(super) fn overdue(&self, topic: &str, now: Instant) {
        let mut learnt = self.learnt();
        learnt.suspicions.overdue(topic, now);
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// Nothing goes through to this topic, and its last try took so long: it is tried apart, and seldom, until it
    /// takes something.
    pub(super) fn give_up(&self, topic: &str, took: Duration, is_cut: bool, now: Instant) {
        let mut learnt = self.learnt();
        learnt.suspicions.give_up(topic, took, is_cut, now);
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// Something was taken elsewhere: those that were in doubt by then take nothing.
    pub(super) fn decide_doubts(&self, taken: Instant) {
        self.learnt().suspicions.decide_doubts(taken);
    }

    /// Whether a topic that was given up is to be left alone now.
    pub(super) fn rests(&self, topic: &str, now: Instant) -> bool {
        self.learnt().suspicions.rests(topic, now)
    }

    /// How soon this topic is to be given up.
    pub(super) fn haste(&self, topic: &str) -> Haste {
        self.learnt().suspicions.haste(topic)
    }

    /// Whether it was given up as connections end instead of an answer.
    pub(super) fn is_cut(&self, topic: &str) -> bool {
        self.learnt().suspicions.is_cut(topic)
    }

    /// Whether a producer stood still not long ago: any topic may be why.
    pub(super) fn is_careful(&self, now: Instant) -> bool {
        let last = self.learnt().last_stood_still;
        last.is_some_and(|last| now.saturating_duration_since(last) < CAREFUL)
    }

    /// Nothing goes through to this topic, and nobody knows why: what goes there is sent apart until others who
    /// take nothing have been found out, too.
    pub(super) fn doubt(&self, topic: &str, now: Instant) {
        let mut learnt = self.learnt();
        // If anything stood still, this may be why.
        learnt.patience = Patience::default();
        learnt.suspicions.doubt(topic, now);
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// These are suspected for as long as if they had been refused now.
    pub(super) fn renew<'a>(&self, topics: impl Iterator<Item = &'a String>, now: Instant) {
        self.learnt().suspicions.renew(topics, now);
        self.suspects.store(true, Ordering::Relaxed);
    }

    /// What goes to this topic is sent as usual.
    pub(super) fn trust(&self, topic: &str, now: Instant) {
        self.learnt().suspicions.trust(topic, now);
    }

    /// A record that was sent apart went through.
    pub(super) fn went_through(&self, topic: &str) {
        self.learnt().suspicions.went_through(topic);
    }

    /// A record was refused alone; whether it is not the records any more, but the topic.
    pub(super) fn refused_alone(&self, topic: &str, is_cut: bool, now: Instant) -> bool {
        let mut learnt = self.learnt();
        self.suspects.store(true, Ordering::Relaxed);
        // If anything stood still, this is why.
        learnt.patience = Patience::default();
        learnt.suspicions.refused_alone(topic, is_cut, now)
    }

    /// Nothing went through to a topic when this event was tried; whether that was so before, and others
    /// went through in between.
    pub(super) fn is_blamed_again(&self, topic: &str, event: EventId, now: Instant) -> bool {
        let mut learnt = self.learnt();
        self.suspects.store(true, Ordering::Relaxed);
        learnt.suspicions.is_blamed_again(topic, event, now)
    }

    /// The topics whose records are sent apart.
    pub(super) fn suspects(&self, now: Instant) -> Vec<String> {
        if !self.suspects.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let learnt = self.learnt();
        let names = learnt.suspicions.names(now);
        // Under the lock: nobody suspects anything meanwhile that this would hide.
        self.suspects.store(!names.is_empty(), Ordering::Relaxed);
        names
    }

    /// A record for this topic was refused, whatever its size.
    pub(super) fn refused_topic(&self, topic: &str, detail: &str, now: Instant) {
        let mut learnt = self.learnt();
        // If anything stood still, this is why.
        learnt.patience = Patience::default();
        let before = learnt.refused_topics.get(topic);
        let backoff = match before {
            Some(before) if now < before.until => return,
            Some(before) if now < before.until + 2 * PAUSE_MAX => before.backoff.doubled(),
            Some(_) | None => UNUSABLE,
        };
        let refused =
            RefusedTopic { detail: detail.to_owned(), backoff, until: now + backoff.pause() };
        learnt.refused_topics.insert(topic.to_owned(), refused);
    }

    /// Why a topic is to be left alone at this moment, if it is.
    pub(super) fn is_refused(&self, topic: &str, now: Instant) -> Option<String> {
        let learnt = self.learnt();
        let refused = learnt.refused_topics.get(topic)?;
        (now < refused.until).then(|| refused.detail.clone())
    }

    /// This event was refused for its own sake.
    pub(super) fn note_culprit(
        &self,
        event: EventId,
        aggregate: AggregateKey,
        refusal: &Refusal,
        now: Instant,
    ) {
        let mut learnt = self.learnt();
        learnt.culprits.note(event, aggregate, refusal.clone(), now);
        self.has_culprits.store(true, Ordering::Relaxed);
    }

    /// The events that are known to be refused, at this moment.
    pub(super) fn culprits(&self, now: Instant) -> Culprits {
        if !self.has_culprits.load(Ordering::Relaxed) {
            return Culprits::default();
        }
        let mut learnt = self.learnt();
        learnt.culprits.age(now);
        self.has_culprits.store(!learnt.culprits.is_empty(), Ordering::Relaxed);
        learnt.culprits.clone()
    }

    /// What is known of these aggregates' events counts no more.
    pub(super) fn forget_culprits(&self, aggregates: &[AggregateKey]) {
        self.learnt().culprits.forget(aggregates);
    }

    /// How long a producer may hear nothing before it is looked into.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.learnt().patience.at(now)
    }

    /// A producer stood still and is replaced.
    pub(super) fn stood_still(&self, now: Instant) {
        let mut learnt = self.learnt();
        learnt.patience.stood_still(now);
        learnt.last_stood_still = Some(now);
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;

    use super::*;

    fn properties(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_new_producer_is_made_with_what_was_learnt() {
        let learned_limits = LearnedLimits::new(&properties(&[("batch.size", "800000")]));
        learned_limits.with_sizes(|sizes| sizes.fit_batches("t", 16_000));
        learned_limits.with_sizes(|sizes| sizes.admit_messages(5_000_000));
        let config = learned_limits.apply(&ClientConfig::new().into());
        assert_eq!(config.get("batch.size"), Some("14000"));
        assert_eq!(config.get("message.max.bytes"), Some("5000000"));
    }

    #[test]
    fn failures_that_are_close_to_each_other_belong_together() {
        let (learned_limits, now) = (LearnedLimits::new(&[]), Instant::now());
        let again = Duration::from_secs(10);
        assert!(!learned_limits.failed(now, again));
        assert!(learned_limits.failed(now + again / 2, again));
        assert!(!learned_limits.failed(now + 2 * again, again));
        assert!(learned_limits.failed(now + 4 * again, 3 * again), "it took longer to begin anew");
    }

    #[test]
    fn transactions_that_end_for_one_topic_soon_after_each_other_belong_together() {
        let (learned_limits, now) = (LearnedLimits::new(&[]), Instant::now());
        let within = Duration::from_secs(40);
        let fenced = |topic, seconds| {
            learned_limits.fenced(topic, now + Duration::from_secs(seconds), within)
        };
        assert!(!fenced("t", 0) && fenced("t", 39), "it may be what goes there");
        assert!(!fenced("u", 40) && !fenced("t", 41), "another one's turn came in between");
        assert!(!fenced("t", 81), "that was long ago");
    }

    #[test]
    fn nobody_asks_for_suspects_while_there_are_none() {
        let (learned_limits, now) = (LearnedLimits::new(&[]), Instant::now());
        assert!(learned_limits.suspects(now).is_empty());
        learned_limits.suspect("t", now);
        assert_eq!(learned_limits.suspects(now), ["t"]);
        learned_limits.trust("t", now);
        assert!(learned_limits.suspects(now).is_empty());
        assert!(!learned_limits.suspects.load(Ordering::Relaxed));
        learned_limits.suspect("t", now);
        assert_eq!(learned_limits.suspects(now), ["t"]);
    }

    #[test]
    fn after_a_standstill_any_topic_may_be_why_for_a_while() {
        let (learned_limits, now) = (LearnedLimits::new(&[]), Instant::now());
        assert!(!learned_limits.is_careful(now));
        learned_limits.stood_still(now);
        assert!(learned_limits.is_careful(now) && !learned_limits.is_careful(now + CAREFUL));
    }

    #[test]
    fn a_refused_topic_is_left_alone_for_longer_each_time() {
        let (learned_limits, mut now) = (LearnedLimits::new(&[]), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            learned_limits.refused_topic("t", "denied", now);
            assert_eq!(learned_limits.is_refused("t", now).as_deref(), Some("denied"));
            let begin = now;
            while learned_limits.is_refused("t", now).is_some() {
                now += Duration::from_secs(1);
            }
            pauses.push((now - begin).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += 3 * PAUSE_MAX;
        learned_limits.refused_topic("t", "denied", now);
        assert!(
            learned_limits.is_refused("t", now + UNUSABLE.pause()).is_none(),
            "that was long ago"
        );
    }
}
