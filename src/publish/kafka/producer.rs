//! The Kafka producer: the only place, with its neighbours in this folder, that sees librdkafka.
//!
//! Promises: records of one partition are appended in the order in which they were produced, without
//! a gap: idempotent, gapless, without expiry, the first batch of a partition acknowledged before
//! the second is sent. What can be known before sending is known before sending: a record that its
//! topic does not take, and a topic that cannot be used, are refused, and the producer goes on: see
//! `topic_registry.rs`.
//! Must not: decide what a failure means for a cursor.
//! Fails: any record that was sent and then refused, or is uncertain, makes the producer useless; it
//! is dropped, what it still holds is purged, and the shard goes back to its saved cursor. What was
//! learnt stays in [`LearnedLimits`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use hashbrown::HashSet;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::IntoOpaque;

use crate::error::Result;
use crate::event::{Bucket, Event, EventId};
use crate::order::holds::{AggregateKey, Refusal};
use crate::publish::kafka::apart::Apart;
use crate::publish::kafka::callbacks::Context;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::BATCH_BYTES;
use crate::publish::kafka::culprits::Culprits;
use crate::publish::kafka::errors::refused;
use crate::publish::kafka::in_flight::OnWay;
use crate::publish::kafka::learned_limits::LearnedLimits;
use crate::publish::kafka::poll_thread;
use crate::publish::kafka::quota;
use crate::publish::kafka::quota::Throttle;
pub use crate::publish::kafka::topic_registry::HeldEvents;
use crate::publish::kafka::topic_registry::{Prepared, TopicRegistry, number};
use crate::publish::kafka::transaction::ProducerTransactions;
use crate::publish::kafka::transactional_id::TRANSACTIONAL_ID;
pub use crate::publish::warnings::{WARNING_PAUSE, Warnings};
use crate::publish::{Answer, Ground, InFlightBatch, Offer, Produce, Reports};
use crate::record::encode::Record;

/// How long one wait for room in librdkafka's queue lasts.
const SPACE_TIMEOUT: Duration = Duration::from_millis(50);

/// Where the record's timestamp comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordTimestamp {
    /// The time of sending. Brokers refuse times ahead of their clock, and retention would delete
    /// a late backlog that carries old times.
    #[default]
    Send,
    /// The row's `created_at`.
    Created,
}

/// An idempotent, gapless producer with its poll thread.
pub struct KafkaProducer {
    pub(super) producer: Arc<BaseProducer<Context>>,
    /// What is known of topics: whether and how a record can go there.
    pub(super) topics: TopicRegistry,
    /// Sends what goes to topics in doubt.
    pub(super) apart: Apart,
    pub(super) transactions: Option<ProducerTransactions>,
    /// The events of which it is known that brokers refuse them.
    culprits: Culprits,
    record_timestamp: RecordTimestamp,
    space: Receiver<()>,
    ended: Arc<AtomicBool>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaProducer")
            .field("topics", &self.topics.cache)
            .finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// Builds the producer and starts its poll thread. Connections are made in the background.
    /// `warnings` and `learned_limits` outlive the producer, so that one that takes its place neither says
    /// everything again nor meets the same refusals again; see [`LearnedLimits::apply`].
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or a thread cannot be started.
    pub fn new(
        name: &str,
        config: &ProducerConfig,
        record_timestamp: RecordTimestamp,
        reports: Reports,
        warnings: Arc<Warnings>,
        learned_limits: Arc<LearnedLimits>,
    ) -> Result<Self> {
        let (space_sender, space) = crossbeam_channel::bounded(1);
        let ended = Arc::new(AtomicBool::new(false));
        let context = Context {
            reports,
            trouble: Mutex::default(),
            failure: Mutex::default(),
            has_failed_again: AtomicBool::new(false),
            warnings,
            learned_limits,
            has_heard: AtomicBool::new(false),
            met: Mutex::default(),
            waiting_for_space: AtomicBool::new(false),
            space: space_sender,
            batch_bytes: number(config, BATCH_BYTES),
            on_way: OnWay::default(),
            throttle: Throttle::default(),
            login: config.login(),
            is_transactional: config.get(TRANSACTIONAL_ID).is_some(),
            is_fenced: AtomicBool::new(false),
            has_learnt_of_fence: AtomicBool::new(false),
            transaction_expires: Mutex::default(),
            is_misled: AtomicBool::new(false),
            ended: Arc::clone(&ended),
        };
        let producer = quota::with_statistics(config).producer(context)?;
        poll_thread::start(name, Arc::clone(&producer), config, Arc::clone(&ended))?;
        Ok(Self {
            topics: TopicRegistry::new(name, Arc::clone(&producer), config),
            producer,
            apart: Apart::new(config),
            transactions: None,
            culprits: Culprits::default(),
            record_timestamp,
            space,
            ended,
        })
    }

    /// The same for events that are not parked where their topic cannot be used.
    #[must_use]
    pub fn with_held_events(mut self, held_events: HeldEvents) -> Self {
        self.topics.set_held_events(held_events);
        self
    }

    pub(super) fn context(&self) -> &Context {
        self.producer.context()
    }

    /// Waits until librdkafka's queue may have room again.
    fn wait_for_space(&self) -> Result<()> {
        self.context().waiting_for_space.store(true, Ordering::Relaxed);
        // The timeout covers a wake-up that came just before the flag was set.
        let woken = self.space.recv_timeout(SPACE_TIMEOUT);
        self.context().waiting_for_space.store(false, Ordering::Relaxed);
        tracing::trace!(woken = woken.is_ok(), "librdkafka's queue was full");
        self.context().beat();
        self.context().check_alive()
    }

    /// A record of librdkafka's.
    pub(super) fn fill<'a, O: IntoOpaque>(
        &self,
        base: BaseRecord<'a, str, [u8], O>,
        record: &Record<'a>,
        partition: i32,
    ) -> BaseRecord<'a, str, [u8], O> {
        let mut headers = OwnedHeaders::new_with_capacity(record.header_count());
        for (key, value) in record.headers() {
            headers = headers.insert(Header { key, value });
        }
        let mut base = base.partition(partition).key(record.key).headers(headers);
        if self.record_timestamp == RecordTimestamp::Created
            && let Ok(Some(millis)) = record.created_at_millis()
        {
            base = base.timestamp(millis);
        }
        if let Some(value) = record.value {
            base = base.payload(value);
        }
        base
    }

    fn send(&self, record: &Record<'_>, partition: i32, batch: &Arc<InFlightBatch>) -> Result<()> {
        let base = BaseRecord::with_opaque_to(record.topic, Arc::clone(batch));
        let mut base = self.fill(base, record, partition);
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                Err((cause, refused_record)) => {
                    if cause.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(refused(&cause, record.topic));
                    }
                    base = refused_record;
                    self.wait_for_space()?;
                }
            }
        }
    }
}

impl Produce for KafkaProducer {
    fn begin_batch(&mut self) {
        if self.topics.begin_batch() {
            self.apart.rest();
        }
        if self.transactions.is_some() {
            self.culprits = self.context().learned_limits.culprits(self.topics.now);
        }
    }

    fn known_refusal(&self, event: EventId) -> Option<Refusal> {
        if self.culprits.is_empty() {
            return None;
        }
        self.culprits.refusal(event).cloned()
    }

    fn note_culprit(&mut self, event: &Event<'_>, refusal: &Refusal) {
        // Elsewhere nothing begins anew for it.
        if self.transactions.is_some() {
            let (learned_limits, now) = (&self.context().learned_limits, Instant::now());
            learned_limits.note_culprit(event.id, AggregateKey::of(event), refusal, now);
            // As long as one is found out after the other, what begins anew is not to meet all at once.
            learned_limits.renew(self.topics.doubts.suspects(), now);
        }
    }

    fn forget_culprits(&mut self, aggregates: &[AggregateKey]) {
        self.context().learned_limits.forget_culprits(aggregates);
    }

    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<Offer> {
        if self.record_timestamp == RecordTimestamp::Created
            && let Err(cause) = record.created_at_millis()
        {
            return Ok(Offer::Refused(cause.into()));
        }
        match self.topics.prepare(record)? {
            Prepared::Refused(refusal) => Ok(Offer::Refused(refusal)),
            Prepared::Apart(partition) => {
                self.gather(record, partition)?;
                Ok(Offer::Gathered)
            }
            Prepared::Partition(partition) => {
                self.begin_transaction()?;
                self.context().on_way.note(batch, self.topics.now);
                self.send(record, partition, batch)?;
                Ok(Offer::Taken)
            }
        }
    }

    fn end(&mut self, cursors: &[(Bucket, String)]) -> Result<()> {
        self.end_transaction(cursors)
    }

    fn confirm(&mut self, batch: &Arc<InFlightBatch>) -> Result<Vec<Answer>> {
        self.send_apart(batch)
    }

    fn give_up(&mut self, refusal: Refusal, ground: Ground) -> Result<Refusal> {
        self.note_refused(refusal, ground)
    }

    fn blame_topic(&mut self, refusal: Refusal, event: EventId) -> Result<Refusal> {
        self.blame(refusal, event)
    }

    fn doubt_topic(&mut self, refusal: Refusal) -> Result<Refusal> {
        self.suspend(refusal)
    }

    fn trust_topics(&mut self) {
        self.trust_suspects();
    }

    fn watch_topics(&mut self, topics: Vec<String>) -> Result<()> {
        self.topics.watch(topics)
    }

    fn wants_topics(&mut self) -> Result<bool> {
        self.topics.wants_more()
    }

    fn meet_topics(&mut self, topics: HashSet<String>) -> Result<()> {
        self.topics.meet_many(topics)
    }

    fn resume_topics(&mut self, topics: &[String]) {
        self.topics.resume(topics);
    }
}

impl Drop for KafkaProducer {
    /// Purges what was not acknowledged: its fate is decided by the saved cursor. The poll thread is
    /// not waited for; it ends within a second or two, and with it the client.
    fn drop(&mut self) {
        self.abandon_transaction();
        self.ended.store(true, Ordering::Release);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
