//! How large batches and records may be, by what brokers told and refused.
//!
//! Promises: one refused batch teaches once; what was guessed is forgotten again, what was told holds until
//! something else is told; a limit that nobody told is no limit. Must not: ask, or read a clock.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// More than this librdkafka does not take.
pub(super) const LARGEST_MESSAGE_BYTES: usize = 1_000_000_000;
/// Batches are not made smaller than this; a single event may still be larger.
const SMALLEST_BATCH_BYTES: usize = 1_024;
/// Batches that were halved are doubled after so long; a size that was refused is tried again.
const HEALS_AFTER: Duration = Duration::from_secs(600);
/// More sizes than these are not kept.
const TOPICS_MAX: usize = 4_096;

/// What is known of sizes.
#[derive(Debug)]
pub(super) struct Sizes {
    /// As configured.
    batch_bytes: usize,
    message_bytes: usize,
    /// The operator's own limit for any record.
    own_limit_bytes: Option<usize>,
    /// Limits of topics that are smaller than a batch.
    told: HashMap<String, usize>,
    /// Sizes that topics have refused whose limit the broker does not tell.
    refused: HashMap<String, (usize, Instant)>,
    /// A batch was refused that was made with twice as much, at that time.
    halved: Option<(usize, Instant)>,
}

impl Sizes {
    pub(super) fn new(
        batch_bytes: usize,
        message_bytes: usize,
        own_limit_bytes: Option<usize>,
    ) -> Self {
        let batch_bytes = batch_bytes.min(own_limit_bytes.unwrap_or(usize::MAX));
        let (told, refused) = (HashMap::new(), HashMap::new());
        Self { batch_bytes, message_bytes, own_limit_bytes, told, refused, halved: None }
    }

    /// Bytes of a batch, for a producer that is made now.
    pub(super) fn batch_bytes(&self, now: Instant) -> usize {
        let topics = self.told.values().copied().map(below).min().unwrap_or(usize::MAX);
        let guessed = self.halved.map_or(usize::MAX, |(bytes, at)| healed(bytes, at, now));
        topics.min(guessed).min(self.batch_bytes)
    }

    /// Bytes of a record, for a producer that is made now.
    pub(super) fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// The largest record for a topic, given what the broker tells of it; none where nobody knows.
    pub(super) fn limit_bytes(
        &self,
        topic: &str,
        told: Option<usize>,
        now: Instant,
    ) -> Option<usize> {
        let untold = || {
            let (bytes, at) = self.refused.get(topic)?;
            is_fresh(*at, now).then(|| bytes.saturating_sub(1))
        };
        match (told.or_else(untold), self.own_limit_bytes) {
            (Some(limit), Some(own)) => Some(limit.min(own)),
            (limit, own) => limit.or(own),
        }
    }

    /// A topic says that it takes no more than this: batches must stay below.
    pub(super) fn fit_batches(&mut self, topic: &str, limit_bytes: usize) {
        if below(limit_bytes) >= self.batch_bytes {
            self.told.remove(topic);
        } else if self.told.len() < TOPICS_MAX || self.told.contains_key(topic) {
            self.told.insert(topic.to_owned(), limit_bytes);
        }
    }

    /// A topic takes records as large as this.
    pub(super) fn admit_messages(&mut self, limit_bytes: usize) {
        self.message_bytes = self.message_bytes.max(limit_bytes.min(LARGEST_MESSAGE_BYTES));
    }

    /// A batch was too large that a producer made with this size. Others of the same producer, and of
    /// those that were made with it, say nothing new.
    pub(super) fn refused_batch(&mut self, made_with: usize, now: Instant) {
        if self.batch_bytes(now) >= made_with {
            self.halved = Some(((made_with / 2).max(SMALLEST_BATCH_BYTES), now));
        }
    }

    /// A record that travelled alone was too large for its topic.
    pub(super) fn refused_record(&mut self, topic: &str, record_bytes: usize, now: Instant) {
        if self.refused.len() >= TOPICS_MAX {
            self.refused.retain(|_, (_, at)| is_fresh(*at, now));
        }
        if self.refused.len() >= TOPICS_MAX {
            return;
        }
        let known = self.refused.entry_ref(topic).or_insert((record_bytes, now));
        let smallest =
            if is_fresh(known.1, now) { known.0.min(record_bytes) } else { record_bytes };
        *known = (smallest, now);
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < HEALS_AFTER
}

/// A batch of this size fits, with what surrounds it.
fn below(limit_bytes: usize) -> usize {
    (limit_bytes - limit_bytes / 8).max(SMALLEST_BATCH_BYTES)
}

fn healed(bytes: usize, at: Instant, now: Instant) -> usize {
    let times = now.saturating_duration_since(at).as_secs() / HEALS_AFTER.as_secs();
    bytes.saturating_mul(2_usize.saturating_pow(u32::try_from(times).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 900_000;

    fn sizes() -> Sizes {
        Sizes::new(BATCH, 1_048_588, None)
    }

    #[test]
    fn one_refused_batch_teaches_once_and_is_forgotten() {
        let (mut sizes, now) = (sizes(), Instant::now());
        for _ in 0..600 {
            sizes.refused_batch(BATCH, now);
        }
        assert_eq!(sizes.batch_bytes(now), BATCH / 2);
        sizes.refused_batch(BATCH / 2, now);
        assert_eq!(sizes.batch_bytes(now), BATCH / 4);
        sizes.refused_batch(BATCH, now);
        assert_eq!(sizes.batch_bytes(now), BATCH / 4, "an old producer says nothing new");
        assert_eq!(sizes.batch_bytes(now + HEALS_AFTER), BATCH / 2);
        assert_eq!(sizes.batch_bytes(now + 2 * HEALS_AFTER), BATCH);
        assert_eq!(sizes.limit_bytes("t", None, now), None, "no record was refused alone");
    }

    #[test]
    fn a_limit_that_nobody_tells_is_none_until_a_record_is_refused_alone() {
        let (mut sizes, now) = (sizes(), Instant::now());
        assert_eq!(sizes.limit_bytes("t", None, now), None);
        sizes.refused_record("t", 40_000, now);
        sizes.refused_record("t", 50_000, now);
        assert_eq!(sizes.limit_bytes("t", None, now), Some(39_999));
        assert_eq!(sizes.batch_bytes(now), BATCH, "smaller ones are no less fast for it");
        assert_eq!(sizes.limit_bytes("u", None, now), None);
        assert_eq!(sizes.limit_bytes("t", Some(50_000), now), Some(50_000), "the broker knows");
        assert_eq!(sizes.limit_bytes("t", None, now + HEALS_AFTER), None);
    }

    #[test]
    fn batches_fit_the_smallest_topic_for_as_long_as_it_is_small() {
        let (mut sizes, now) = (sizes(), Instant::now());
        sizes.fit_batches("wide", 2_000_000);
        assert_eq!(sizes.batch_bytes(now), BATCH);
        sizes.fit_batches("narrow", 16_000);
        assert_eq!(sizes.batch_bytes(now), 14_000);
        sizes.fit_batches("narrow", 2_000_000);
        assert_eq!(sizes.batch_bytes(now), BATCH);
    }

    #[test]
    fn the_operators_own_limit_counts() {
        let (sizes, now) = (Sizes::new(BATCH, 5_000, Some(5_000)), Instant::now());
        assert_eq!(sizes.batch_bytes(now), 5_000);
        assert_eq!(sizes.limit_bytes("t", Some(9_000), now), Some(5_000));
        assert_eq!(sizes.limit_bytes("t", Some(900), now), Some(900));
        assert_eq!(sizes.limit_bytes("t", None, now), Some(5_000));
    }
}
