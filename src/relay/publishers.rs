//! How the publishers of a session are started.
//!
//! Promises: all that one producer has learnt holds for the next; all stop sending when the lease ends.
//! Must not: know which events they are to send. Fails: when a producer cannot be made.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::KafkaConfig;
use crate::error::Result;
use crate::event::LendEvent;
use crate::metrics::counters::{Monitor, PublisherGauge};
use crate::outbox::PayloadType;
use crate::publish::kafka::config::{ArrivalPattern, ProducerConfig, lingering};
use crate::publish::kafka::learned_limits::LearnedLimits;
use crate::publish::kafka::producer::{HeldEvents, KafkaProducer, Warnings};
use crate::publish::kafka::transaction::TransactionTerms;
use crate::publish::kafka::transactional_id::transactional;
use crate::publish::send_deadline::SendDeadline;
use crate::publish::{OnPoison, Publisher};
use crate::record::encode::Encoder;
use crate::record::topic::TopicTemplate;
use crate::relay::instance::Instance;
use crate::shard::{BATCHES_MAX, OutgoingRow};

/// Everything that a publisher needs to be started.
#[derive(Clone)]
pub(super) struct Publishers {
    config: KafkaConfig,
    payload: PayloadType,
    producer: ProducerConfig,
    send_deadline: Arc<SendDeadline>,
    pub(super) warnings: Arc<Warnings>,
    learned_limits: Arc<LearnedLimits>,
    monitor: Arc<Monitor>,
}

impl Publishers {
    pub(super) fn new(
        instance: &Instance,
        payload: PayloadType,
        producer: &ProducerConfig,
        arrivals: ArrivalPattern,
        send_deadline: &Arc<SendDeadline>,
    ) -> Self {
        Self {
            config: instance.config.kafka.clone(),
            payload,
            producer: lingering(producer, arrivals),
            send_deadline: Arc::clone(send_deadline),
            warnings: Arc::clone(&instance.warnings),
            learned_limits: Arc::clone(&instance.learned_limits),
            monitor: Arc::clone(&instance.monitor),
        }
    }

    /// Starts a publisher with a producer of its own.
    ///
    /// # Errors
    /// As [`Publisher::start`].
    pub(super) fn start(
        &self,
        shard: usize,
        wake: &Arc<Notify>,
        terms: Option<&TransactionTerms>,
    ) -> Result<Publisher<OutgoingRow>> {
        let name = shard.to_string();
        let gauge = PublisherGauge::new(&name, self.monitor.shard(shard));
        let encoder = self.config.encoder(self.payload);
        let unsent = (self.config.on_poison.clone(), HeldEvents::Parked);
        self.begin((gauge, encoder), unsent, Arc::clone(wake), terms)
    }

    /// Starts a publisher for a replay, which marks its records, to these topics or to those as ever. Its figures are
    /// its own: events are not published by it.
    ///
    /// # Errors
    /// As [`Publisher::start`].
    pub(super) fn start_replay<R: LendEvent>(
        &self,
        replay: i64,
        to_topic: Option<TopicTemplate>,
    ) -> Result<Publisher<R>> {
        let gauge = PublisherGauge::new(&format!("replay-{replay}"), Arc::default());
        let topic = to_topic.unwrap_or_else(|| self.config.topic.clone());
        let encoder = self.config.encoder(self.payload).with_topic(topic).with_replay(replay);
        let unsent = (OnPoison::Park, HeldEvents::Waiting { replay });
        self.begin((gauge, encoder), unsent, Arc::default(), None)
    }

    fn begin<R: LendEvent>(
        &self,
        (gauge, encoder): (PublisherGauge, Encoder),
        (on_poison, held_events): (OnPoison, HeldEvents),
        wake: Arc<Notify>,
        terms: Option<&TransactionTerms>,
    ) -> Result<Publisher<R>> {
        let name = gauge.name.clone();
        let make = |reports| {
            let mut config = self.learned_limits.apply(&self.producer);
            if let Some(terms) = terms {
                config = transactional(&config, &terms.id, terms.timeout);
            }
            let timestamp = self.config.record_timestamp;
            let (warnings, learned_limits) =
                (Arc::clone(&self.warnings), Arc::clone(&self.learned_limits));
            let producer =
                KafkaProducer::new(&name, &config, timestamp, reports, warnings, learned_limits)?
                    .with_held_events(held_events);
            match terms {
                Some(terms) => producer.with_transactions(terms),
                None => Ok(producer),
            }
        };
        let send_deadline = Arc::clone(&self.send_deadline);
        Publisher::start(gauge, BATCHES_MAX, encoder, on_poison, send_deadline, wake, make)
    }
}
