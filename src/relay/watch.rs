//! Looks twice a second how the relay gets on, and warns when Kafka takes nothing.
//!
//! Promises: whatever hangs is seen, as this waits for nothing but the clock; that nothing is acknowledged is said within
//! ten seconds, again while it lasts, and once when it is over. Must not: do anything about it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::counters::{Monitor, ShardGauge};
use crate::metrics::describe::NO_ANSWER_OF_BROKERS;
use crate::metrics::health::{KAFKA_SILENCE_MILLIS, KafkaSilence, Readings};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is said again.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

/// Until when whatever rests on the lease may go on.
#[derive(Debug, Default)]
pub(super) struct LeaseEnd(Mutex<Option<Instant>>);

impl LeaseEnd {
    /// Moves it; none without a lease.
    pub(super) fn set(&self, end: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// How long it is until then; below zero when it is over.
    fn left_millis(&self, now: Instant) -> Option<i64> {
        let end = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Some(
            millis(end.saturating_duration_since(now)) - millis(now.saturating_duration_since(end)),
        )
    }
}

/// Looks, as long as somebody polls it.
pub(super) async fn watch(monitor: Arc<Monitor>, lease_end: Arc<LeaseEnd>) {
    let began = Instant::now();
    let (mut told, mut acknowledged) = (ToldSilence::default(), 0);
    loop {
        let (now, limit) = (Instant::now(), monitor.instance().lease_seconds);
        let shards = monitor.shards();
        let readings = Readings {
            now_millis: u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX),
            session: monitor.session(),
            is_stopping: monitor.is_stopping(),
            lease_left_millis: lease_end.left_millis(now),
            lease_millis: limit.saturating_mul(1_000),
            buckets_untaken: monitor.buckets_untaken.load(Ordering::Relaxed),
            shards: shards.iter().map(|shard| shard.reading()).collect(),
            threads: monitor.figures().threads.heard(),
            tasks: monitor.figures().tasks.heard(),
            lock: monitor.lock_in_the_way(),
            log_refusal: monitor.log_refusal(),
        };
        monitor.look_at_counts(readings.now_millis);
        let silence = {
            let mut health = monitor.health();
            health.look(readings);
            health.silence()
        };
        let count = |shard: &Arc<ShardGauge>| shard.acknowledged.load(Ordering::Relaxed);
        let counted = shards.iter().map(count).sum();
        let before = std::mem::replace(&mut acknowledged, counted);
        monitor.figures().look_at_trouble(before != counted);
        if let Some(word) = told.next(silence, before < counted, now) {
            word.say(monitor.figures().trouble());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What was said of Kafka's silence.
#[derive(Debug, Default)]
struct ToldSilence {
    at: Option<Instant>,
    longest_millis: u64,
    /// Whether anything was acknowledged since. A session that ends, with all that was in flight, ends no silence.
    is_over: bool,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing is acknowledged.
    Silence(KafkaSilence),
    /// It is over, and lasted so long.
    Over { millis: u64 },
}

impl ToldSilence {
    fn next(
        &mut self,
        silence: Option<KafkaSilence>,
        is_acknowledging: bool,
        now: Instant,
    ) -> Option<Word> {
        self.is_over |= is_acknowledging;
        let silent = silence.filter(|silence| silence.millis >= KAFKA_SILENCE_MILLIS);
        match (silent, self.at) {
            (Some(silence), at) => {
                self.longest_millis = silence.millis;
                let is_due = at.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL);
                is_due.then(|| {
                    (self.at, self.is_over) = (Some(now), false);
                    Word::Silence(silence)
                })
            }
            (None, Some(_)) if self.is_over => {
                self.at = None;
                Some(Word::Over { millis: self.longest_millis })
            }
            (None, _) => None,
        }
    }
}

impl Word {
    fn say(self, trouble: Option<String>) {
        match self {
            Self::Silence(KafkaSilence { millis, in_flight_bytes }) => tracing::warn!(
                seconds = millis / 1_000,
                in_flight_bytes,
                cause = trouble.as_deref().unwrap_or(NO_ANSWER_OF_BROKERS),
                remedy = "check that the brokers run, and that the network lets us through; nothing is lost, and \
                          postrider goes on by itself",
                "Kafka acknowledges nothing of what is in flight"
            ),
            Self::Over { millis } => {
                tracing::info!(seconds = millis / 1_000, "Kafka acknowledges again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_within_ten_seconds_and_its_end_once() {
        let (mut told, start) = (ToldSilence::default(), Instant::now());
        let mut said = Vec::new();
        for half in 0..=140_u64 {
            // Nothing is acknowledged from the tenth second to the sixtieth.
            let millis = (half * 500).saturating_sub(10_000);
            let silence = (half <= 120).then_some(KafkaSilence { millis, in_flight_bytes: 7 });
            let now = start + Duration::from_millis(half * 500);
            // The session ends in the fifty-fifth, and the next one has nothing in flight for a while.
            let silence = silence.filter(|_| !(110..116).contains(&half));
            let is_acknowledging = half > 120;
            said.extend(told.next(silence, is_acknowledging, now).map(|word| (half / 2, word)));
        }
        let silent = |millis| Word::Silence(KafkaSilence { millis, in_flight_bytes: 7 });
        let over = Word::Over { millis: 50_000 };
        assert_eq!(said, [(18, silent(8_000)), (48, silent(38_000)), (60, over)]);
    }

    #[test]
    fn what_is_left_of_a_lease_goes_below_nothing() {
        let (end, now) = (LeaseEnd::default(), Instant::now() + Duration::from_secs(9));
        assert_eq!(end.left_millis(now), None);
        end.set(Some(now + Duration::from_millis(6_100)));
        assert_eq!(end.left_millis(now), Some(6_100));
        end.set(Some(now - Duration::from_millis(900)));
        assert_eq!(end.left_millis(now), Some(-900));
    }
}
