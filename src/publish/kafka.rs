//! The Kafka producer: the only place, with its neighbours in this folder, that sees librdkafka.
//!
//! Promises: records of one partition are appended in the order in which they were produced, without
//! a gap: idempotent, gapless, without expiry, the first batch of a partition acknowledged before
//! the second is sent. Must not: decide what a failure means for a cursor.
//! Fails: any refused or uncertain record makes the producer useless; it is dropped, what it still
//! holds is purged, and the shard goes back to its saved cursor.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaRespErr;

use super::topics::{Before, Topics};
use super::{InFlightBatch, Produce, Reports};
use crate::encode::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::repeats::Repeats;
use crate::route;

/// The poll thread looks this often whether it should end. Each time it is busy for the last millisecond
/// of the timeout: librdkafka counts in whole ones, and the client polls on until the time is over.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one wait for room in librdkafka's queue lasts.
const SPACE_TIMEOUT: Duration = Duration::from_millis(50);
/// One request for metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// Waiting for acknowledgements goes in steps: a poll of the client takes all the time it is given.
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// A broker that creates topics needs a moment until each partition has a leader.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at a topic that is not ready.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// How often a warning is repeated while its cause goes on.
pub const WARNING_PAUSE: Duration = Duration::from_secs(30);

/// Which troubles with the brokers were said in the log; a producer's successor takes it over.
pub type Warnings = Repeats<Instant, Duration>;

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

/// Callbacks of one producer, called on the thread that polls it.
struct Context {
    reports: Reports,
    /// What librdkafka said last.
    trouble: Mutex<Option<String>>,
    warnings: Arc<Warnings>,
    waiting_for_space: AtomicBool,
    space: Sender<()>,
}

impl Context {
    fn last_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Causes are told apart by librdkafka's code: its words differ from one attempt to the next.
    fn note_trouble(&self, error: &KafkaError, reason: &str) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        let cause = format!("librdkafka: {:?}", error.rdkafka_error_code());
        if let Some(unsaid) = self.warnings.note(&cause, Instant::now()) {
            tracing::warn!(reason, unsaid, "trouble with Kafka; librdkafka retries");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.reports.failed(Error::new(
                ErrorKind::DeliveryUncertain,
                format!("the producer failed: {reason}"),
            ));
        } else {
            self.note_trouble(&error, reason);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<InFlightBatch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<InFlightBatch>) {
        match result {
            Ok(_) => self.reports.acknowledged(&batch),
            Err((cause, message)) => self.reports.failed(refused(cause, message.topic())),
        }
        if self.waiting_for_space.load(Ordering::Relaxed) && self.space.try_send(()).is_err() {
            tracing::trace!("the wake-up is there already");
        }
    }
}

/// An idempotent, gapless producer with its poll thread.
pub struct KafkaProducer {
    producer: Arc<BaseProducer<Context>>,
    topics: Topics,
    record_timestamp: RecordTimestamp,
    space: Receiver<()>,
    /// The time at the start of the batch at hand; nothing here needs it more exactly.
    now: Instant,
    ended: Arc<AtomicBool>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaProducer")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// Builds the producer and starts its poll thread. Connections are made in the background.
    /// `warnings` outlives the producer, so that a replaced one does not say everything anew.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or a thread cannot be started.
    pub fn new(
        name: &str,
        config: &ClientConfig,
        record_timestamp: RecordTimestamp,
        reports: Reports,
        warnings: Arc<Warnings>,
    ) -> Result<Self> {
        let (space_sender, space) = crossbeam_channel::bounded(1);
        let context = Context {
            reports,
            trouble: Mutex::default(),
            warnings,
            waiting_for_space: AtomicBool::new(false),
            space: space_sender,
        };
        let producer: Arc<BaseProducer<Context>> =
            Arc::new(config.create_with_context(context).map_err(invalid)?);
        let ended = Arc::new(AtomicBool::new(false));
        spawn_poll_thread(name, Arc::clone(&producer), Arc::clone(&ended))?;
        Ok(Self {
            producer,
            topics: Topics::new(),
            record_timestamp,
            space,
            now: Instant::now(),
            ended,
        })
    }

    fn context(&self) -> &Context {
        self.producer.context()
    }

    /// The number of partitions of a topic, asked of the broker when it is not known or old.
    fn partitions(&mut self, topic: &str) -> Result<NonZeroU32> {
        if let Some(partitions) = self.topics.partitions(topic, self.now) {
            return Ok(partitions);
        }
        let known = self.topics.last_known(topic);
        let partitions = self.look_up(topic)?;
        if let Some(before) = known.filter(|before| *before != partitions) {
            // Keys move to other partitions: what is in flight must land before what follows.
            self.settle()?;
            tracing::warn!(
                topic, %before, now = %partitions,
                "the topic's number of partitions changed; keys move, order across the change is lost"
            );
        }
        self.now = Instant::now();
        self.topics.learn(topic, partitions, self.now);
        Ok(partitions)
    }

    /// Asks until every partition has a leader.
    fn look_up(&self, topic: &str) -> Result<NonZeroU32> {
        let deadline = Instant::now() + LEADER_DEADLINE;
        loop {
            let answer = self.producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT);
            let problem = match answer {
                Ok(metadata) => match ready_partitions(topic, &metadata) {
                    Ok(partitions) => return Ok(partitions),
                    Err(problem) => problem,
                },
                Err(cause) => unavailable(&cause, self.context().last_trouble()),
            };
            if Instant::now() >= deadline || self.context().reports.has_failed() {
                return Err(problem);
            }
            std::thread::park_timeout(LEADER_PAUSE);
        }
    }

    /// Waits until everything in flight is acknowledged.
    fn settle(&mut self) -> Result<()> {
        while self.producer.flush(SETTLE_STEP).is_err() {
            self.check_alive()?;
        }
        self.check_alive()?;
        self.now = Instant::now();
        self.topics.settle(self.now);
        Ok(())
    }

    fn check_alive(&self) -> Result<()> {
        if self.context().reports.has_failed() {
            return Err(Error::new(ErrorKind::DeliveryUncertain, "the producer has failed"));
        }
        Ok(())
    }

    /// Waits until librdkafka's queue may have room again.
    fn wait_for_space(&self) -> Result<()> {
        self.context().waiting_for_space.store(true, Ordering::Relaxed);
        // The timeout covers a wake-up that came just before the flag was set.
        let woken = self.space.recv_timeout(SPACE_TIMEOUT);
        self.context().waiting_for_space.store(false, Ordering::Relaxed);
        tracing::trace!(woken = woken.is_ok(), "librdkafka's queue was full");
        self.check_alive()
    }

    fn send(&self, record: &Record<'_>, partition: i32, batch: &Arc<InFlightBatch>) -> Result<()> {
        let mut headers = OwnedHeaders::new_with_capacity(record.header_count());
        for (key, value) in record.headers() {
            headers = headers.insert(Header { key, value });
        }
        let mut base = BaseRecord::with_opaque_to(record.topic, Arc::clone(batch))
            .partition(partition)
            .key(record.key)
            .headers(headers);
        if let RecordTimestamp::Created = self.record_timestamp {
            base = base.timestamp(record.created_at_micros / 1_000);
        }
        if let Some(value) = record.value {
            base = base.payload(value);
        }
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
        self.now = Instant::now();
    }

    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<()> {
        let partitions = self.partitions(record.topic)?;
        let partition = route::partition(record.key.as_bytes(), partitions);
        while self.topics.before(record.topic, partition, self.now) == Before::Settle {
            self.settle()?;
        }
        self.send(record, partition, batch)
    }
}

impl Drop for KafkaProducer {
    /// Purges what was not acknowledged: its fate is decided by the saved cursor. The poll thread is
    /// not waited for; it ends within [`POLL_TIMEOUT`], and with it the client.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

fn spawn_poll_thread(
    name: &str,
    producer: Arc<BaseProducer<Context>>,
    ended: Arc<AtomicBool>,
) -> Result<()> {
    std::thread::Builder::new()
        .name(format!("poll-{name}"))
        .spawn(move || {
            while !ended.load(Ordering::Acquire) {
                producer.poll(POLL_TIMEOUT);
            }
        })
        .map(|_| ())
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("no thread to poll: {cause}")))
}

/// Whether a broker answers; used once at the start.
///
/// # Errors
/// When no broker answers in time, or the topic (where one is named) is not there.
pub fn check(config: &ClientConfig, topic: Option<&str>) -> Result<()> {
    match topic {
        Some(topic) => asking(config)?.look_up(topic).map(|_| ()),
        None => fetch_all(config).map(|_| ()),
    }
}

/// What the brokers say of all topics. Asked for a topic by its name, they might create it.
pub(super) fn fetch_all(config: &ClientConfig) -> Result<Metadata> {
    let producer = asking(config)?;
    let answer = producer.producer.client().fetch_metadata(None, LEADER_DEADLINE);
    answer.map_err(|cause| unavailable(&cause, producer.context().last_trouble()))
}

/// A producer that is only there to ask.
fn asking(config: &ClientConfig) -> Result<KafkaProducer> {
    let (sender, _reports) = crossbeam_channel::bounded(1);
    let (reports, warnings) = (Reports::new(sender), Arc::new(Warnings::new(WARNING_PAUSE)));
    KafkaProducer::new("check", config, RecordTimestamp::Send, reports, warnings)
}

pub(super) fn ready_partitions(topic: &str, metadata: &Metadata) -> Result<NonZeroU32> {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let leaders =
        |found: &MetadataTopic| found.partitions().iter().all(|partition| partition.leader() >= 0);
    let count = found.map_or(0, |found| found.partitions().len());
    let error = found.and_then(|found| found.error());
    match (found, error, u32::try_from(count).ok().and_then(NonZeroU32::new)) {
        (Some(found), None, Some(count)) if leaders(found) => Ok(count),
        (Some(_), None, Some(_)) | (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE), _) => {
            Err(Error::new(
                ErrorKind::TopicUnavailable,
                format!("topic {topic} has a partition without a leader"),
            )
            .with_remedy("look at the brokers; postrider goes on when there is a leader"))
        }
        (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED), _) => Err(Error::new(
            ErrorKind::TopicUnavailable,
            format!("Kafka does not let this user write to topic {topic}"),
        )
        .with_remedy(format!("grant Write and Describe on topic {topic}"))),
        _ => Err(Error::new(
            ErrorKind::TopicUnavailable,
            format!("topic {topic} does not exist, and the broker did not create it"),
        )
        .with_remedy(format!(
            "create it (kafka-topics.sh --create --topic {topic}), or set auto.create.topics.enable=true on the broker"
        ))),
    }
}

fn unavailable(cause: &KafkaError, trouble: Option<String>) -> Error {
    let reason = trouble.unwrap_or_else(|| cause.to_string());
    let denied = ["uthentication", "SASL", "certificate", "SSL handshake"];
    if denied.iter().any(|word| reason.contains(word)) {
        return Error::new(
            ErrorKind::KafkaRefused,
            format!("Kafka refused the connection: {reason}"),
        )
        .with_remedy("check security.protocol, sasl.* and ssl.* (set by -X name=value)");
    }
    Error::new(ErrorKind::KafkaUnavailable, format!("no Kafka broker can be reached: {reason}"))
        .with_remedy(
            "check --brokers, and that the brokers run and advertise addresses reachable from here",
        )
}

fn invalid(cause: KafkaError) -> Error {
    Error::new(ErrorKind::Config, format!("librdkafka refuses its configuration: {cause}"))
        .with_remedy("check the properties given by -X or [librdkafka]")
}

/// A record that was not appended, or of which nobody knows.
fn refused(cause: &KafkaError, topic: &str) -> Error {
    match cause.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Error::new(
                ErrorKind::Unpublishable,
                format!("an event for topic {topic} is larger than Kafka takes"),
            )
            .with_remedy("raise max.message.bytes of the topic, and message.max.bytes by -X")
        }
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => Error::new(ErrorKind::TopicUnavailable, format!("topic {topic} was refused: {cause}"))
            .with_remedy("check that the topic exists and that this user may write to it"),
        _ => Error::new(
            ErrorKind::DeliveryUncertain,
            format!("a record for topic {topic} was not acknowledged: {cause}"),
        ),
    }
}
