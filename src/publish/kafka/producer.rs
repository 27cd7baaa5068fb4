//! The Kafka producer: the only place, with its neighbours in this folder, that sees librdkafka.
//!
//! Promises: records of one partition are appended in the order in which they were produced, without
//! a gap: idempotent, gapless, without expiry, the first batch of a partition acknowledged before
//! the second is sent. What can be known before sending is known before sending: a record that its
//! topic does not take, and a topic that cannot be used, are refused, and the producer goes on.
//! Must not: decide what a failure means for a cursor.
//! Fails: any record that was sent and then refused, or is uncertain, makes the producer useless; it
//! is dropped, what it still holds is purged, and the shard goes back to its saved cursor. What was
//! learnt stays in [`Lessons`].
//!
//! A topic's trouble is one that a broker tells of: it is not there, has no leader, has too few copies,
//! may not be written to. Without a broker's answer it is Kafka that is away; then everything waits and
//! nothing is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use hashbrown::{HashMap, HashSet};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::IntoOpaque;

use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;
use crate::order::holds::{Reason, Refusal};
use crate::publish::kafka::callbacks::Context;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::{BATCH_BYTES, MESSAGE_BYTES_MAX};
use crate::publish::kafka::doubt::Doubt;
use crate::publish::kafka::errors::{refused, replaced};
use crate::publish::kafka::in_flight::OnWay;
use crate::publish::kafka::learned_limits::Lessons;
use crate::publish::kafka::meeting::Meetings;
use crate::publish::kafka::poll_thread;
use crate::publish::kafka::quota;
use crate::publish::kafka::quota::Throttle;
use crate::publish::kafka::sizes::LARGEST_MESSAGE_BYTES;
use crate::publish::kafka::topic_cache::{Before, Known, Topics};
use crate::publish::kafka::topic_config::Limits;
use crate::publish::kafka::topic_survey::{Found, Refreshed, SharedLimits, TopicLook};
use crate::publish::kafka::topic_watcher::{Scout, Tray};
pub use crate::publish::warnings::{WARNING_PAUSE, Warnings};
use crate::publish::{Answer, Ground, InFlightBatch, Offer, Produce, Reports};
use crate::record::encode::Record;
use crate::record::encode::size_bytes;
use crate::record::topic;

/// How long one wait for room in librdkafka's queue lasts.
const SPACE_TIMEOUT: Duration = Duration::from_millis(50);
/// Waiting for acknowledgements goes in steps: a poll of the client takes all the time it is given.
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// Before an event is called too large, the topic's limit is asked for again if it is older than this.
const LIMIT_AGE: Duration = Duration::from_secs(1);
/// So many topics in trouble are told apart in the log; what is said of more is counted.
const TOPICS_SAID: usize = 8;

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

/// Whether a topic takes a record of this size.
enum Size {
    Fits,
    TooLarge(Refusal),
    /// Nobody told; the broker decides.
    Unknown,
}

/// A number that the configuration has.
fn number(config: &ProducerConfig, (name, default): (&str, usize)) -> usize {
    config.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

/// An idempotent, gapless producer with its poll thread.
pub struct KafkaProducer {
    name: String,
    pub(super) producer: Arc<BaseProducer<Context>>,
    pub(super) doubt: Doubt,
    pub(super) topics: Topics,
    pub(super) limits: SharedLimits,
    /// Bytes of a batch, and of a record, as this producer was made.
    batch_bytes: usize,
    message_bytes: usize,
    /// Topics that cannot be used, each with the reason. The scout looks at them.
    pub(super) held: HashMap<String, String>,
    scout: Option<Scout>,
    /// What the scout has found out about topics in use.
    pub(super) refreshed: Arc<Tray<Refreshed>>,
    pub(super) meetings: Meetings,
    record_timestamp: RecordTimestamp,
    space: Receiver<()>,
    pub(super) config: ProducerConfig,
    /// The time at the start of the batch at hand; nothing here needs it more exactly.
    pub(super) now: Instant,
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
    /// `warnings` and `lessons` outlive the producer, so that one that takes its place neither says
    /// everything anew nor meets the same refusals again; see [`Lessons::apply`].
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or a thread cannot be started.
    pub fn new(
        name: &str,
        config: &ProducerConfig,
        record_timestamp: RecordTimestamp,
        reports: Reports,
        warnings: Arc<Warnings>,
        lessons: Arc<Lessons>,
    ) -> Result<Self> {
        let (space_sender, space) = crossbeam_channel::bounded(1);
        let ended = Arc::new(AtomicBool::new(false));
        let context = Context {
            reports,
            trouble: Mutex::default(),
            failure: Mutex::default(),
            has_failed_again: AtomicBool::new(false),
            warnings,
            lessons,
            has_heard: AtomicBool::new(false),
            met: Mutex::default(),
            waiting_for_space: AtomicBool::new(false),
            space: space_sender,
            batch_bytes: number(config, BATCH_BYTES),
            on_way: OnWay::default(),
            throttle: Throttle::default(),
            login: config.login(),
            ended: Arc::clone(&ended),
        };
        let producer = quota::with_statistics(config).producer(context)?;
        poll_thread::start(name, Arc::clone(&producer), config, Arc::clone(&ended))?;
        Ok(Self {
            name: name.to_owned(),
            producer,
            doubt: Doubt::new(config),
            topics: Topics::new(),
            limits: SharedLimits::new(Limits::new(config)),
            batch_bytes: number(config, BATCH_BYTES),
            message_bytes: number(config, MESSAGE_BYTES_MAX),
            held: HashMap::new(),
            scout: None,
            refreshed: Tray::new(),
            meetings: Meetings::new(Instant::now()),
            record_timestamp,
            space,
            config: config.clone(),
            now: Instant::now(),
            ended,
        })
    }

    pub(super) fn context(&self) -> &Context {
        self.producer.context()
    }

    /// What is known of a topic, asked of the broker when it is not known or old; none for a topic
    /// that cannot be used.
    fn known(&mut self, topic: &str) -> Result<Option<Known>> {
        if !self.held.is_empty() && self.held.contains_key(topic) {
            return Ok(None);
        }
        if let Some(known) = self.topics.get(topic, self.now) {
            return Ok(Some(known));
        }
        match self.meet_in_turn(topic) {
            Ok(known) => Ok(Some(known)),
            Err(cause) if cause.kind() == ErrorKind::TopicUnavailable => {
                self.hold_topic(topic, &cause)?;
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }

    /// Takes note of what the brokers say of a topic.
    pub(super) fn learn(&mut self, topic: &str, found: Found) -> Result<Known> {
        let Found { partitions, copies, told } = found;
        let before = self.topics.last_known(topic);
        self.doubt.note_copies(topic, copies, told.copies_needed);
        if let Some(before) = before.filter(|before| *before != partitions) {
            // Keys move to other partitions: what is in flight must land before what follows.
            self.settle()?;
            tracing::warn!(
                topic, %before, now = %partitions,
                "the topic's number of partitions changed; keys move, order across the change is lost"
            );
        }
        let limit_bytes = self.limit_bytes(topic, told.limit_bytes);
        self.fit_batches(topic, told.limit_bytes)?;
        let known = Known { partitions, limit_bytes };
        self.now = Instant::now();
        self.topics.learn(topic, known, self.now);
        self.context().note_met(topic);
        Ok(known)
    }

    /// What nobody tells is as much as there can be: then the broker decides.
    fn limit_bytes(&self, topic: &str, told: Option<usize>) -> usize {
        let lessons = &self.context().lessons;
        let known = lessons.with_sizes(|sizes| sizes.limit_bytes(topic, told, Instant::now()));
        known.unwrap_or(LARGEST_MESSAGE_BYTES)
    }

    /// A batch that is larger than its topic takes would be refused with all that is in it.
    fn fit_batches(&self, topic: &str, told: Option<usize>) -> Result<()> {
        let Some(limit_bytes) = told else { return Ok(()) };
        let (old, lessons) = (self.batch_bytes, &self.context().lessons);
        let new = lessons.with_sizes(|sizes| {
            sizes.fit_batches(topic, limit_bytes);
            sizes.batch_bytes(Instant::now())
        });
        if limit_bytes >= old || new >= old {
            return Ok(());
        }
        Err(replaced(format!(
            "topic {topic} takes {limit_bytes} bytes at most: batches shrink from {old} to {new} bytes"
        )))
    }

    /// Refuses what goes to this topic until the scout finds that it can be used.
    pub(super) fn hold_topic(&mut self, topic: &str, cause: &Error) -> Result<()> {
        let trouble = if self.held.len() < TOPICS_SAID {
            cause.message()
        } else {
            "many topics cannot be used"
        };
        if let Some(unsaid) = self.context().warnings.note(trouble, Instant::now()) {
            tracing::warn!(
                topic,
                cause = cause.message(),
                remedy = cause.remedy(),
                unsaid,
                "what goes to this topic is parked, and sent when the topic can be used; the rest goes on"
            );
        }
        self.watch_topic(topic, cause.message())
    }

    pub(super) fn watch_topic(&mut self, topic: &str, detail: &str) -> Result<()> {
        if self.held.contains_key(topic) {
            return Ok(());
        }
        self.scout()?.watch(vec![topic.to_owned()])?;
        self.held.insert(topic.to_owned(), detail.to_owned());
        Ok(())
    }

    pub(super) fn scout(&mut self) -> Result<&Scout> {
        if self.scout.is_none() {
            let look = TopicLook {
                producer: Arc::clone(&self.producer),
                limits: self.limits.clone(),
                refreshed: Arc::clone(&self.refreshed),
            };
            self.scout = Some(Scout::start(&self.name, look)?);
        }
        Ok(self.scout.as_ref().expect("it was started"))
    }

    /// Why a record for a held topic is not sent.
    pub(super) fn refuse_topic(&self, topic: &str) -> Refusal {
        let detail = self.held.get(topic).cloned().unwrap_or_default();
        Refusal { reason: Reason::TopicUnavailable, detail, topic: Some(topic.to_owned()) }
    }

    /// Decides about a record that may be too large.
    fn judge_size(&mut self, record: &Record<'_>) -> Result<Size> {
        let topic = record.topic;
        let known = match self.topics.get_within(topic, LIMIT_AGE, Instant::now()) {
            Some(known) => known,
            None => self.meet(topic)?,
        };
        let limit = known.limit_bytes;
        if !record.fits(limit) {
            let size = size_bytes(record);
            let detail = format!("it takes {size} bytes, and topic {topic} takes {limit} at most");
            let topic = Some(topic.to_owned());
            return Ok(Size::TooLarge(Refusal { reason: Reason::TooLarge, detail, topic }));
        }
        if record.fits(self.message_bytes) {
            return Ok(Size::Fits);
        }
        if limit == LARGEST_MESSAGE_BYTES {
            return Ok(Size::Unknown);
        }
        self.context().lessons.with_sizes(|sizes| sizes.admit_messages(limit));
        Err(replaced(format!(
            "topic {topic} takes up to {limit} bytes: so does the producer from now on"
        )))
    }

    /// Waits until everything in flight is acknowledged.
    pub(super) fn settle(&mut self) -> Result<()> {
        while self.producer.flush(SETTLE_STEP).is_err() {
            self.context().check_alive()?;
        }
        self.context().check_alive()?;
        self.now = Instant::now();
        self.topics.settle(self.now);
        Ok(())
    }

    /// Waits until librdkafka's queue may have room again.
    fn wait_for_space(&self) -> Result<()> {
        self.context().waiting_for_space.store(true, Ordering::Relaxed);
        // The timeout covers a wake-up that came just before the flag was set.
        let woken = self.space.recv_timeout(SPACE_TIMEOUT);
        self.context().waiting_for_space.store(false, Ordering::Relaxed);
        tracing::trace!(woken = woken.is_ok(), "librdkafka's queue was full");
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
        self.now = Instant::now();
        let suspects = self.context().lessons.suspects(self.now);
        self.doubt.follow(suspects);
        // Nobody has to wait for that later, when something is in flight that is never answered.
        if self.topics.awaits_first()
            && self.producer.in_flight_count() == 0
            && !self.context().reports.has_failed()
        {
            self.topics.settle(self.now);
        }
    }

    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<Offer> {
        if self.record_timestamp == RecordTimestamp::Created
            && let Err(cause) = record.created_at_millis()
        {
            return Ok(Offer::Refused(cause.into()));
        }
        let Some(mut known) = self.known(record.topic)? else {
            return Ok(Offer::Refused(self.refuse_topic(record.topic)));
        };
        let mut is_doubtful = self.doubt.suspects(record.topic);
        if !record.fits(known.limit_bytes.min(self.message_bytes)) {
            match self.judge_size(record)? {
                Size::Fits => {}
                Size::TooLarge(refusal) => return Ok(Offer::Refused(refusal)),
                Size::Unknown => is_doubtful = true,
            }
            // The topic may have been made anew, with fewer partitions.
            known = self.topics.get_within(record.topic, LIMIT_AGE, self.now).unwrap_or(known);
        }
        let partition = topic::partition(record.key.as_bytes(), known.partitions);
        if is_doubtful {
            self.gather(record, partition)?;
            return Ok(Offer::Gathered);
        }
        while self.topics.before(record.topic, partition, self.now) == Before::Settle {
            self.settle()?;
        }
        self.context().on_way.note(batch, self.now);
        self.send(record, partition, batch)?;
        Ok(Offer::Taken)
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
        let topics: Vec<String> =
            topics.into_iter().filter(|topic| !self.held.contains_key(topic)).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let detail = || "parked events wait for this topic".to_owned();
        self.held.extend(topics.iter().map(|topic| (topic.clone(), detail())));
        self.scout()?.watch(topics)
    }

    fn wants_topics(&mut self) -> Result<bool> {
        self.follow_scout()?;
        Ok(self.meetings.are_likely(self.now))
    }

    fn meet_topics(&mut self, topics: HashSet<String>) -> Result<()> {
        self.meet_many(topics)
    }

    fn resume_topics(&mut self, topics: &[String]) {
        for topic in topics {
            self.held.remove(topic);
        }
    }
}

impl Drop for KafkaProducer {
    /// Purges what was not acknowledged: its fate is decided by the saved cursor. The poll thread is
    /// not waited for; it ends within a second or two, and with it the client.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
