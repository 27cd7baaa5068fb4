//! How the publishers of a session are started.
//!
//! Promises: all that one producer has learnt holds for the next; all stop sending when the lease ends.
//! Must not: know which events they are to send. Fails: when a producer cannot be made.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::KafkaConfig;
use crate::error::Result;
use crate::metrics::counters::{Monitor, PublisherGauge};
use crate::publish::Publisher;
use crate::publish::kafka::config::{ArrivalPattern, ProducerConfig, lingering};
use crate::publish::kafka::learned_limits::Lessons;
use crate::publish::kafka::producer::{KafkaProducer, Warnings};
use crate::publish::send_deadline::Permit;
use crate::record::encode::Encoder;
use crate::relay::instance::Instance;
use crate::shard::{BATCHES_MAX, OutgoingRow};

/// Everything that a publisher needs to be started.
pub(super) struct Publishers {
    config: KafkaConfig,
    producer: ProducerConfig,
    permit: Arc<Permit>,
    pub(super) warnings: Arc<Warnings>,
    lessons: Arc<Lessons>,
    monitor: Arc<Monitor>,
}

impl Publishers {
    pub(super) fn new(
        instance: &Instance,
        producer: &ProducerConfig,
        arrival: ArrivalPattern,
        permit: &Arc<Permit>,
    ) -> Self {
        Self {
            config: instance.config.kafka.clone(),
            producer: lingering(producer, arrival),
            permit: Arc::clone(permit),
            warnings: Arc::clone(&instance.warnings),
            lessons: Arc::clone(&instance.lessons),
            monitor: Arc::clone(&instance.monitor),
        }
    }

    /// Starts a publisher with a producer of its own.
    ///
    /// # Errors
    /// As [`Publisher::start`].
    pub(super) fn start(&self, shard: usize, wake: &Arc<Notify>) -> Result<Publisher<OutgoingRow>> {
        let name = shard.to_string();
        let gauge = PublisherGauge::new(&name, self.monitor.shard(shard));
        let encoder =
            Encoder::new(self.config.topic.clone()).with_headers(self.config.added_headers);
        let on_poison = self.config.on_poison.clone();
        let make = |reports| {
            let config = self.lessons.apply(&self.producer);
            let timestamp = self.config.record_timestamp;
            let (warnings, lessons) = (Arc::clone(&self.warnings), Arc::clone(&self.lessons));
            KafkaProducer::new(&name, &config, timestamp, reports, warnings, lessons)
        };
        let (permit, wake) = (Arc::clone(&self.permit), Arc::clone(wake));
        Publisher::start(gauge, BATCHES_MAX, encoder, on_poison, permit, wake, make)
    }
}
