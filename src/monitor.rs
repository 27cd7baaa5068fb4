//! What operators see of a running relay.
//!
//! Promises: reading it costs the relay nothing. Must not: steer anything. Fails: never.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// The figures of all shards.
#[derive(Debug, Default)]
pub struct Monitor {
    shards: Mutex<Vec<Arc<ShardGauge>>>,
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
