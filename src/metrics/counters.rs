//! What operators see of a running relay.
//!
//! Promises: reading it costs the relay nothing. Must not: steer anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The figures of one shard.
#[derive(Debug, Default)]
pub struct ShardGauge {
    /// Events acknowledged by Kafka since the process began.
    pub published: AtomicU64,
    /// Events parked since the process began; one that is parked again counts again.
    pub parked: AtomicU64,
    /// Aggregates that wait behind a parked event.
    pub held_aggregates: AtomicU64,
    /// Bytes between claim and acknowledgement.
    pub in_flight_bytes: AtomicU64,
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
}

/// The figures of an instance.
#[derive(Debug, Default)]
pub struct Monitor {
    shards: Mutex<Vec<Arc<ShardGauge>>>,
    is_working: AtomicBool,
    slot: Mutex<Option<SlotFigures>>,
}

impl Monitor {
    /// The gauge of a shard; the same one whenever the shard is started again.
    pub fn shard(&self, index: usize) -> Arc<ShardGauge> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        while shards.len() <= index {
            shards.push(Arc::default());
        }
        Arc::clone(&shards[index])
    }

    /// The gauges of all shards.
    pub fn shards(&self) -> Vec<Arc<ShardGauge>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a session works, or stands by for one that reads the log.
    pub fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Relaxed)
    }

    /// A session has begun its work, or has ended.
    pub fn set_working(&self, is_working: bool) {
        self.is_working.store(is_working, Ordering::Relaxed);
    }

    /// What is known of the slot; none in an instance that does not read it.
    pub fn slot(&self) -> Option<SlotFigures> {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen of the slot.
    pub fn set_slot(&self, slot: Option<SlotFigures>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = slot;
    }

    /// Events acknowledged by Kafka, per shard.
    pub fn published_by_shard(&self) -> Vec<u64> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.iter().map(|gauge| gauge.published.load(Ordering::Relaxed)).collect()
    }

    /// Events acknowledged by Kafka.
    pub fn published(&self) -> u64 {
        self.published_by_shard().iter().sum()
    }

    /// Bytes between claim and acknowledgement.
    pub fn in_flight_bytes(&self) -> u64 {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.iter().map(|gauge| gauge.in_flight_bytes.load(Ordering::Relaxed)).sum()
    }
}
