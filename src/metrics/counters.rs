//! What operators see of a running relay.
//!
//! Promises: reading it costs the relay nothing; what is counted for each event, batch or page is counted without a
//! lock. Must not: steer anything, or read a clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::beats::{Beats, Pulse};
use crate::metrics::health::{Health, LockInTheWay, LogRefusal, SessionState, ShardReading};
use crate::metrics::histogram::Histogram;
use crate::metrics::overlong::OverlongTransaction;
use crate::metrics::progress::{ProgressStep, ShardProgress};
use crate::metrics::recent::{CountedSoFar, ExactBacklog, Recent};
use crate::metrics::seen::{InstanceInfo, SeenBacklog, SeenTier};

/// The figures of one shard.
#[derive(Debug, Default)]
pub struct ShardGauge {
    /// Events acknowledged by Kafka since the process began; delivering exactly once, those that are committed.
    pub published: AtomicU64,
    /// Events parked since the process began; one that is parked again counts again.
    pub parked: AtomicU64,
    /// Aggregates that wait behind a parked event.
    pub held_aggregates: AtomicU64,
    /// Bytes between claim and acknowledgement.
    pub in_flight_bytes: AtomicU64,
    /// Events between claim and the last acknowledgement of their page.
    pub in_flight_events: AtomicU64,
    /// Batches for which Kafka has to answer.
    pub unanswered: AtomicU64,
    /// Whether what was answered may still be Kafka's trouble.
    pub in_suspense: AtomicBool,
    /// Whether anything is in flight, or to be claimed, or to be begun with.
    pub has_work: AtomicBool,
    /// Batches that Kafka has acknowledged.
    pub acknowledged: AtomicU64,
    /// How often it got further than it had ever been.
    pub advanced: AtomicU64,
    progress: Mutex<ShardProgress>,
    /// How often it had to begin anew.
    pub begun_anew: AtomicU64,
    /// How far it is, on a scale of its own.
    pub position: AtomicI64,
    /// How much of that scale lies before it.
    pub remaining: AtomicU64,
    /// The last transaction, where it took longer than it may.
    overlong: Mutex<Option<OverlongTransaction>>,
    /// What all shards count together.
    pub instance: Arc<Figures>,
}

/// The figures that a publisher fills, and its thread's signs of life.
#[derive(Clone, Debug)]
pub struct PublisherGauge {
    /// Names the publisher's threads.
    pub name: String,
    /// Of its shard.
    pub shard: Arc<ShardGauge>,
    /// Of the thread that publishes.
    pub pulse: Arc<Pulse>,
}

impl PublisherGauge {
    /// Of a publisher of this name, whose thread is expected to beat from here on.
    pub fn new(name: &str, shard: Arc<ShardGauge>) -> Self {
        let pulse = Arc::new(shard.instance.threads.expect(format!("publish-{name}")));
        Self { name: name.to_owned(), shard, pulse }
    }
}

/// What the shards of an instance count together.
#[derive(Debug, Default)]
pub struct Figures {
    /// From the time in the row to Kafka's acknowledgement.
    pub event_age: Histogram,
    /// From a batch's sending to its last acknowledgement.
    pub publish: Histogram,
    /// From the claim of a page to its first rows.
    pub claim: Histogram,
    /// One look at the database.
    pub tick: Histogram,
    /// One save of cursors.
    pub cursor_save: Histogram,
    /// What librdkafka told, by its code.
    pub kafka_errors: Tally,
    /// Producers that gave way to another, by why.
    pub producers_replaced: Tally,
    /// The end of a transaction, where events are delivered exactly once.
    pub transaction_end: Histogram,
    /// Transactions that did not end for sure, by why.
    pub transactions_dropped: Tally,
    /// Events that were in flight when something failed, by what.
    pub maybe_repeated: Tally,
    /// Attempts of retention, by what was in the way.
    pub retention_blocked: Tally,
    /// By how much the database's clock is ahead of ours, in microseconds.
    pub database_ahead_micros: AtomicI64,
    /// For how long the oldest transaction is known to be open, in milliseconds.
    pub open_transaction_millis: AtomicU64,
    /// Generations of the ring that hold rows; below zero while that is not known.
    pub generations_filled: AtomicI64,
    /// Threads that publish and poll.
    pub threads: Arc<Beats>,
    /// Tasks that ask PostgreSQL.
    pub tasks: Arc<Beats>,
    /// What Kafka's trouble was, the last time that there was one.
    trouble: Mutex<Option<NotedTrouble>>,
}

/// Trouble with Kafka.
#[derive(Debug)]
struct NotedTrouble {
    words: String,
    /// How many looks there were since.
    looks: u32,
}

/// So many looks after trouble was noted, what is acknowledged is no more what was on its way then. librdkafka tells of it
/// again half a minute later.
const TROUBLE_LOOKS: u32 = 4;

impl ShardGauge {
    /// A batch was acknowledged, or a page is done.
    pub fn get_on(&self, step: impl FnOnce(&mut ShardProgress) -> ProgressStep) {
        if step(&mut lock(&self.progress)) == ProgressStep::Further {
            self.advanced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A batch is on its way to Kafka.
    pub fn note_sent(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Each record of one was acknowledged, or handed back.
    pub fn note_answered(&self) {
        let fewer = |batches: u64| batches.checked_sub(1);
        let _none = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// What is seen of it now.
    pub fn reading(&self) -> ShardReading {
        ShardReading {
            has_work: self.has_work.load(Ordering::Relaxed),
            in_flight_bytes: self.in_flight_bytes.load(Ordering::Relaxed),
            is_answered: self.unanswered.load(Ordering::Relaxed) == 0
                && !self.in_suspense.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            advanced: self.advanced.load(Ordering::Relaxed),
            begun_anew: self.begun_anew.load(Ordering::Relaxed),
            position: self.position.load(Ordering::Relaxed),
            remaining: self.remaining.load(Ordering::Relaxed),
            overlong: *lock(&self.overlong),
        }
    }

    /// A transaction took longer than it may; or, with none, one has ended in time.
    pub fn note_overlong(&self, overlong: Option<OverlongTransaction>) {
        *lock(&self.overlong) = overlong;
    }

    /// The shard begins anew, or its session has ended, and its publishers with it: what was in flight may come again.
    pub fn begin_anew(&self, why: &str) {
        let events = self.in_flight_events.swap(0, Ordering::Relaxed);
        self.in_flight_bytes.store(0, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        self.in_suspense.store(false, Ordering::Relaxed);
        lock(&self.progress).begin();
        if events > 0 {
            self.instance.maybe_repeated.add(why, events);
        }
    }
}

impl Figures {
    /// There is trouble with Kafka.
    pub fn note_trouble(&self, words: &str) {
        *lock(&self.trouble) = Some(NotedTrouble { words: words.to_owned(), looks: 0 });
    }

    /// What Kafka's trouble was, unless something was acknowledged since.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref().map(|trouble| trouble.words.clone())
    }

    /// Somebody looks, twice a second, whether anything was acknowledged since: then the trouble is over, unless it is of
    /// this moment, and what came was on its way before.
    pub fn look_at_trouble(&self, is_acknowledging: bool) {
        let mut trouble = lock(&self.trouble);
        if let Some(noted) = trouble.as_mut() {
            noted.looks += 1;
            if is_acknowledging && noted.looks > TROUBLE_LOOKS {
                *trouble = None;
            }
        }
    }
}

/// Counts by a label.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    /// So many more of this label. Seldom: it takes a lock.
    pub fn add(&self, label: &str, count: u64) {
        let mut counts = lock(&self.0);
        match counts.get_mut(label) {
            Some(known) => *known += count,
            None => {
                counts.insert(label.to_owned(), count);
            }
        }
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }
}

/// What the server says of the replication slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFigures {
    /// What is kept of the log for it.
    pub retained_bytes: u64,
    /// What may be written until it is lost; none where there is no limit.
    pub safe_bytes: Option<u64>,
    /// Since when it was not confirmed further, although the log went on.
    pub age_seconds: u64,
    /// What a promotion would find; none where no standby could be promoted.
    pub promotion: Option<PromotionReadiness>,
}

/// Whether a standby could be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionReadiness {
    /// It has the slot, and all that was published.
    Ready,
    /// It would lack one of the two, or keeps the server from sending.
    NotReady,
}

/// What an instance has of the tier's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketCounts {
    /// Owned by this instance.
    pub owned: u64,
    /// Owned by nobody, or by one that is dead.
    pub free: u64,
}

/// The figures of an instance.
#[derive(Debug, Default)]
pub struct Monitor {
    shards: Mutex<Vec<Arc<ShardGauge>>>,
    figures: Arc<Figures>,
    session: Mutex<SessionState>,
    slot: Mutex<Option<SlotFigures>>,
    buckets: Mutex<Option<BucketCounts>>,
    seen: Mutex<Option<SeenBacklog>>,
    tier: Mutex<Option<Arc<SeenTier>>>,
    /// What each shard works on.
    dealt: Mutex<Vec<Vec<u16>>>,
    recent: Mutex<Recent>,
    instance: Mutex<InstanceInfo>,
    health: Mutex<Health>,
    lock: Mutex<Option<LockInTheWay>>,
    /// What waits where the log is to be read, as far as that does not heal by itself.
    log_refusal: Mutex<Option<LogRefusal>>,
    /// Sessions that have ended, by why.
    pub sessions_ended: Tally,
    /// Attempts to begin one that came to nothing, by why.
    pub sessions_unopened: Tally,
    /// Buckets that were taken, by from whom.
    pub buckets_taken: Tally,
    /// Leases that ran out before they were renewed, or buckets that another one took.
    pub leases_lost: AtomicU64,
    /// Free buckets that this instance asked for at the last look and did not get.
    pub buckets_untaken: AtomicU64,
    /// What may be in flight.
    pub in_flight_limit_bytes: AtomicU64,
    is_stopping: AtomicBool,
}

impl Monitor {
    /// The gauge of a shard; the same one whenever the shard is started again.
    pub fn shard(&self, index: usize) -> Arc<ShardGauge> {
        let mut shards = lock(&self.shards);
        while shards.len() <= index {
            let instance = Arc::clone(&self.figures);
            shards.push(Arc::new(ShardGauge { instance, ..ShardGauge::default() }));
        }
        Arc::clone(&shards[index])
    }

    /// The gauges of all shards.
    pub fn shards(&self) -> Vec<Arc<ShardGauge>> {
        lock(&self.shards).clone()
    }

    /// What all shards count together.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Whether a session works, or stands by for one that reads the log.
    pub fn is_working(&self) -> bool {
        lock(&self.session).is_working()
    }

    /// What the session is at.
    pub fn session(&self) -> SessionState {
        lock(&self.session).clone()
    }

    /// A session has begun its work, or has ended. What it knew ends with it.
    pub fn set_session(&self, session: SessionState) {
        let is_over = !session.is_working();
        *lock(&self.session) = session;
        if is_over {
            *lock(&self.slot) = None;
            *lock(&self.buckets) = None;
            *lock(&self.seen) = None;
            lock(&self.dealt).clear();
            lock(&self.recent).look_at_backlog(None);
        }
    }

    /// Whether the process is to stop.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The process is to stop.
    pub fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// What is known of the slot; none in an instance that does not read it.
    pub fn slot(&self) -> Option<SlotFigures> {
        *lock(&self.slot)
    }

    /// What was seen of the slot.
    pub fn set_slot(&self, slot: Option<SlotFigures>) {
        *lock(&self.slot) = slot;
    }

    /// Whose the buckets are; none between two sessions.
    pub fn buckets(&self) -> Option<BucketCounts> {
        *lock(&self.buckets)
    }

    /// What was seen of the tier.
    pub fn set_buckets(&self, buckets: BucketCounts) {
        *lock(&self.buckets) = Some(buckets);
    }

    /// What waits in the database, as it was seen last.
    pub fn seen(&self) -> Option<SeenBacklog> {
        lock(&self.seen).clone()
    }

    /// What was seen to wait in the database; none while it cannot be seen. What was seen for a session that has
    /// ended meanwhile says nothing.
    pub fn set_seen(&self, seen: Option<SeenBacklog>) {
        let session = lock(&self.session);
        let seen = seen.filter(|_| session.is_working());
        let is_exact =
            |seen: &&SeenBacklog| !seen.is_lower_bound && !seen.oldest_age_seconds.is_empty();
        let exact = seen.as_ref().filter(is_exact).map(|seen| ExactBacklog {
            at_millis: seen.at_millis,
            buckets: seen.oldest_age_seconds.keys().copied().collect(),
            events: seen.backlog_events,
            gone: self.published() + self.parked_so_far(),
        });
        self.recent().look_at_backlog(exact);
        *lock(&self.seen) = seen;
    }

    /// All instances and buckets, as they were seen last; none before the first look.
    pub fn tier(&self) -> Option<Arc<SeenTier>> {
        lock(&self.tier).clone()
    }

    /// What was seen of the tier, which stays until something else is seen.
    pub fn set_tier(&self, tier: SeenTier) {
        *lock(&self.tier) = Some(Arc::new(tier));
    }

    /// What each shard works on.
    pub fn dealt(&self) -> Vec<Vec<u16>> {
        lock(&self.dealt).clone()
    }

    /// The shards were told what to work on.
    pub fn set_dealt(&self, dealt: Vec<Vec<u16>>) {
        *lock(&self.dealt) = dealt;
    }

    /// How fast things went lately.
    pub fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    /// Takes note of what was counted up to now.
    pub fn look_at_counts(&self, now_millis: u64) {
        self.recent().look(now_millis, || CountedSoFar {
            at_millis: now_millis,
            published: self.published_by_shard(),
            event_age: Some(self.figures.event_age.counted()),
            claim: Some(self.figures.claim.counted()),
            publish: Some(self.figures.publish.counted()),
        });
    }

    /// Who this is.
    pub fn instance(&self) -> InstanceInfo {
        lock(&self.instance).clone()
    }

    /// Takes note of who this is.
    pub fn set_instance(&self, change: impl FnOnce(&mut InstanceInfo)) {
        change(&mut lock(&self.instance));
    }

    /// How things are, as they were seen last.
    pub fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// Who keeps a task waiting that asks PostgreSQL, as far as is known.
    pub fn lock_in_the_way(&self) -> Option<LockInTheWay> {
        lock(&self.lock).clone()
    }

    /// Somebody does, or nobody any more.
    pub fn set_lock_in_the_way(&self, holder: Option<LockInTheWay>) {
        *lock(&self.lock) = holder;
    }

    /// What waits where the log is to be read, as far as that does not heal by itself.
    pub fn log_refusal(&self) -> Option<LogRefusal> {
        lock(&self.log_refusal).clone()
    }

    /// It was refused so, or it is not any more.
    pub fn set_log_refusal(&self, refusal: Option<LogRefusal>) {
        *lock(&self.log_refusal) = refusal;
    }

    /// Events acknowledged by Kafka, per shard.
    pub fn published_by_shard(&self) -> Vec<u64> {
        lock(&self.shards).iter().map(|gauge| gauge.published.load(Ordering::Relaxed)).collect()
    }

    /// Events acknowledged by Kafka.
    pub fn published(&self) -> u64 {
        self.published_by_shard().iter().sum()
    }

    /// Events that were parked, each time.
    pub fn parked_so_far(&self) -> u64 {
        lock(&self.shards).iter().map(|gauge| gauge.parked.load(Ordering::Relaxed)).sum()
    }

    /// Bytes between claim and acknowledgement.
    pub fn in_flight_bytes(&self) -> u64 {
        let shards = lock(&self.shards);
        shards.iter().map(|gauge| gauge.in_flight_bytes.load(Ordering::Relaxed)).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_on_its_way_ends_no_trouble() {
        let figures = Figures::default();
        figures.note_trouble("Connection refused");
        for _ in 0..TROUBLE_LOOKS {
            figures.look_at_trouble(true);
        }
        assert_eq!(figures.trouble().as_deref(), Some("Connection refused"));
        for _ in 0..100 {
            figures.look_at_trouble(false);
        }
        assert!(figures.trouble().is_some(), "nothing is acknowledged");
        figures.look_at_trouble(true);
        assert_eq!(figures.trouble(), None, "it is over");
        figures.look_at_trouble(true);
    }
}
