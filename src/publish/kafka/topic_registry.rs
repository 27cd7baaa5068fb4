//! What a producer knows of its topics: the one place that says whether, where and how a record can go.
//!
//! Promises: a record that its topic does not take, and one for a topic that cannot be used, is refused before it
//! is sent; a second batch goes to a partition only when the first was acknowledged; what goes to a topic in
//! doubt goes apart. Must not: send a record, or decide what a refusal means for a cursor.
//! Fails: when the producer is no longer usable: it has failed, or its batches or records have another size than
//! its topics take. What was learnt stays in [`LearnedLimits`](super::learned_limits::LearnedLimits).
//!
//! A topic's trouble is one that a broker tells of: it is not there, has no leader, has too few copies,
//! may not be written to. Without a broker's answer it is Kafka that is away; then everything waits and
//! nothing is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::producer::{BaseProducer, Producer};

use crate::error::{Error, ErrorKind, Result};
use crate::order::holds::{Reason, Refusal};
use crate::publish::kafka::callbacks::Context;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::{BATCH_BYTES, MESSAGE_BYTES_MAX};
use crate::publish::kafka::errors::{replaced, too_few_copies};
use crate::publish::kafka::sizes::LARGEST_MESSAGE_BYTES;
use crate::publish::kafka::topic_cache::{Before, KnownTopic, TopicCache};
use crate::publish::kafka::topic_config::Limits;
use crate::publish::kafka::topic_creation::TopicCreator;
use crate::publish::kafka::topic_doubts::{TopicCopies, TopicDoubts};
use crate::publish::kafka::topic_meetings::Meetings;
use crate::publish::kafka::topic_survey::{FoundTopic, Refreshed, SharedLimits, TopicLook};
use crate::publish::kafka::topic_watcher::{TopicWatcher, Tray};
use crate::record::encode::{Record, size_bytes};
use crate::record::topic;

/// Waiting for acknowledgements goes in steps: a poll of the client takes all the time it is given.
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// Before an event is called too large, the topic's limit is asked for again if it is older than this.
const LIMIT_AGE: Duration = Duration::from_secs(1);
/// So many topics in trouble are told apart in the log; what is said of more is counted.
const TOPICS_SAID: usize = 8;

/// How a record can go to its topic.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Behind all that was sent, to this partition.
    Partition(i32),
    /// Apart from all others, to this partition.
    Apart(i32),
    /// Not at all.
    Refused(Refusal),
}

/// What becomes of events whose topic cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeldEvents {
    /// They are parked, and sent when the topic can be used; the rest goes on.
    #[default]
    Parked,
    /// They are of this replay, which waits: nothing of it is parked.
    Waiting {
        /// Its number.
        replay: i64,
    },
}

/// Whether a topic takes a record of this size.
enum Size {
    Fits,
    TooLarge(Refusal),
    /// Nobody told; the broker decides.
    Unknown,
}

/// The topics of one producer.
pub(super) struct TopicRegistry {
    name: String,
    pub(super) producer: Arc<BaseProducer<Context>>,
    pub(super) config: ProducerConfig,
    /// What can be used, and what was written there.
    pub(super) cache: TopicCache,
    /// Topics that cannot be used, each with the reason. The watcher looks at them.
    pub(super) held: HashMap<String, String>,
    /// What becomes of what goes to these.
    held_events: HeldEvents,
    /// Topics of which nobody knows whether they take anything.
    pub(super) doubts: TopicDoubts,
    pub(super) limits: SharedLimits,
    pub(super) meetings: Meetings,
    /// Makes topics that are missing, where that is wanted.
    pub(super) creator: Option<Arc<TopicCreator>>,
    watcher: Option<TopicWatcher>,
    /// What the watcher has found out about topics in use.
    pub(super) refreshed: Arc<Tray<Refreshed>>,
    /// Bytes of a batch, and of a record, as this producer was made.
    batch_bytes: usize,
    message_bytes: usize,
    /// The time at the start of the batch at hand; nothing here needs it more exactly.
    pub(super) now: Instant,
}

/// A number that the configuration has.
pub(super) fn number(config: &ProducerConfig, (name, default): (&str, usize)) -> usize {
    config.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

impl TopicRegistry {
    /// Of a producer that was made with `config`. Nothing is known yet.
    pub(super) fn new(
        name: &str,
        producer: Arc<BaseProducer<Context>>,
        config: &ProducerConfig,
    ) -> Self {
        let now = Instant::now();
        let is_careful = producer.context().learned_limits.is_careful(now);
        Self {
            name: name.to_owned(),
            producer,
            config: config.clone(),
            cache: TopicCache::new(),
            held: HashMap::new(),
            held_events: HeldEvents::default(),
            doubts: if is_careful { TopicDoubts::of_all() } else { TopicDoubts::default() },
            limits: SharedLimits::new(Limits::new(config)),
            meetings: Meetings::new(now),
            creator: TopicCreator::of(config),
            watcher: None,
            refreshed: Tray::new(),
            batch_bytes: number(config, BATCH_BYTES),
            message_bytes: number(config, MESSAGE_BYTES_MAX),
            now,
        }
    }

    /// The same for events that are not parked.
    pub(super) fn set_held_events(&mut self, held_events: HeldEvents) {
        self.held_events = held_events;
    }

    pub(super) fn context(&self) -> &Context {
        self.producer.context()
    }

    /// A batch begins; whether the last topic that was suspected is so no more.
    pub(super) fn begin_batch(&mut self) -> bool {
        self.now = Instant::now();
        let suspects = self.context().learned_limits.suspects(self.now);
        let is_cleared = self.doubts.follow(suspects);
        // Nobody has to wait for that later, when something is in flight that is never answered.
        if self.cache.awaits_first()
            && self.producer.in_flight_count() == 0
            && !self.context().reports.has_failed()
        {
            self.cache.settle(self.now);
        }
        is_cleared
    }

    /// How this record can go. One that goes to a partition counts as sent from here on.
    pub(super) fn prepare(&mut self, record: &Record<'_>) -> Result<Prepared> {
        let Some(mut known) = self.known(record.topic)? else {
            return Ok(Prepared::Refused(self.refusal(record.topic)));
        };
        let mut is_doubtful = self.doubts.has(record.topic);
        if !record.fits(known.limit_bytes.min(self.message_bytes)) {
            match self.judge_size(record)? {
                Size::Fits => {}
                Size::TooLarge(refusal) => return Ok(Prepared::Refused(refusal)),
                Size::Unknown => is_doubtful = true,
            }
            // The topic may have been made again, with fewer partitions.
            known = self.cache.get_within(record.topic, LIMIT_AGE, self.now).unwrap_or(known);
        }
        let partition = topic::partition(record.key.as_bytes(), known.partitions);
        if is_doubtful {
            return Ok(Prepared::Apart(partition));
        }
        while self.cache.before(record.topic, partition, self.now) == Before::Settle {
            self.settle()?;
        }
        Ok(Prepared::Partition(partition))
    }

    /// What is known of a topic, asked of the broker when it is not known or old; none for a topic
    /// that cannot be used.
    fn known(&mut self, topic: &str) -> Result<Option<KnownTopic>> {
        if !self.held.is_empty() && self.held.contains_key(topic) {
            return Ok(None);
        }
        if let Some(known) = self.cache.get(topic, self.now) {
            return Ok(Some(known));
        }
        match self.meet_in_turn(topic) {
            Ok(known) => Ok(Some(known)),
            Err(cause) if cause.kind() == ErrorKind::TopicUnavailable => {
                self.hold(topic, &cause)?;
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }

    /// Takes note of what the brokers say of a topic.
    pub(super) fn learn(&mut self, topic: &str, found: FoundTopic) -> Result<KnownTopic> {
        let FoundTopic { partitions, copies, told } = found;
        let before = self.cache.last_known(topic);
        self.doubts.note_copies(topic, copies, told.copies_needed);
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
        let known = KnownTopic { partitions, limit_bytes };
        self.now = Instant::now();
        self.cache.learn(topic, known, self.now);
        self.context().note_met(topic);
        Ok(known)
    }

    /// What nobody tells is as much as there can be: then the broker decides.
    fn limit_bytes(&self, topic: &str, told: Option<usize>) -> usize {
        let learned_limits = &self.context().learned_limits;
        let known =
            learned_limits.with_sizes(|sizes| sizes.limit_bytes(topic, told, Instant::now()));
        known.unwrap_or(LARGEST_MESSAGE_BYTES)
    }

    /// A batch that is larger than its topic takes would be refused with all that is in it.
    fn fit_batches(&self, topic: &str, told: Option<usize>) -> Result<()> {
        let Some(limit_bytes) = told else { return Ok(()) };
        let (old, learned_limits) = (self.batch_bytes, &self.context().learned_limits);
        let new = learned_limits.with_sizes(|sizes| {
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

    /// Decides about a record that may be too large.
    fn judge_size(&mut self, record: &Record<'_>) -> Result<Size> {
        let topic = record.topic;
        let known = match self.cache.get_within(topic, LIMIT_AGE, Instant::now()) {
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
        self.context().learned_limits.with_sizes(|sizes| sizes.admit_messages(limit));
        Err(replaced(format!(
            "topic {topic} takes up to {limit} bytes: so does the producer from now on"
        )))
    }

    /// Waits until everything in flight is acknowledged.
    pub(super) fn settle(&mut self) -> Result<()> {
        while self.producer.flush(SETTLE_STEP).is_err() {
            self.context().beat();
            self.context().check_alive()?;
        }
        self.context().check_alive()?;
        self.now = Instant::now();
        self.cache.settle(self.now);
        Ok(())
    }

    /// Refuses what goes to this topic until the watcher finds that it can be used, and says so.
    pub(super) fn hold(&mut self, topic: &str, cause: &Error) -> Result<()> {
        let trouble = if self.held.len() < TOPICS_SAID {
            cause.message()
        } else {
            "many topics cannot be used"
        };
        if let Some(unsaid) = self.context().warnings.note(trouble, Instant::now()) {
            self.tell_what_is_held(topic, cause, unsaid);
        }
        self.hold_silently(topic, cause.message())
    }

    fn tell_what_is_held(&self, topic: &str, cause: &Error, unsaid: u64) {
        let (cause, remedy) = (cause.message(), cause.remedy());
        match self.held_events {
            HeldEvents::Parked => tracing::warn!(
                topic,
                cause,
                remedy,
                unsaid,
                "what goes to this topic is parked, and sent when the topic can be used; the rest goes on"
            ),
            HeldEvents::Waiting { replay } => tracing::warn!(
                replay,
                topic,
                cause,
                remedy,
                unsaid,
                "a replay waits until its topic can be used; what is published goes on, and nothing is parked"
            ),
        }
    }

    /// The same, where somebody else tells.
    pub(super) fn hold_silently(&mut self, topic: &str, detail: &str) -> Result<()> {
        if self.held.contains_key(topic) {
            return Ok(());
        }
        self.watcher()?.watch(vec![topic.to_owned()])?;
        self.held.insert(topic.to_owned(), detail.to_owned());
        Ok(())
    }

    /// Holds a topic to which records are refused, whatever is in them.
    pub(super) fn hold_refused(&mut self, topic: &str, error: &Error) -> Result<()> {
        self.doubts.forget_denials(topic);
        let (learned_limits, now) = (Arc::clone(&self.context().learned_limits), Instant::now());
        learned_limits.refused_topic(topic, error.message(), now);
        // When it is tried again, a refusal is not to end the producer.
        learned_limits.suspect(topic, now);
        learned_limits.renew(self.doubts.suspects(), now);
        self.hold(topic, error)
    }

    /// Holds a topic that has too few copies for the brokers, as they said of a record.
    pub(super) fn hold_lacking(&mut self, topic: &str) -> Result<()> {
        let Some(TopicCopies { there, needed }) = self.doubts.lacks(topic) else { return Ok(()) };
        let error = too_few_copies(topic, there, needed);
        self.context().learned_limits.refused_topic(topic, error.message(), Instant::now());
        self.hold(topic, &error)
    }

    /// Refuses what goes to these, for which parked events wait, until they can be used.
    pub(super) fn watch(&mut self, topics: Vec<String>) -> Result<()> {
        let topics: Vec<String> =
            topics.into_iter().filter(|topic| !self.held.contains_key(topic)).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let detail = || "parked events wait for this topic".to_owned();
        self.held.extend(topics.iter().map(|topic| (topic.clone(), detail())));
        self.watcher()?.watch(topics)
    }

    /// These are tried again.
    pub(super) fn resume(&mut self, topics: &[String]) {
        for topic in topics {
            self.held.remove(topic);
        }
    }

    /// Why a record for a held topic is not sent.
    pub(super) fn refusal(&self, topic: &str) -> Refusal {
        let detail = self.held.get(topic).cloned().unwrap_or_default();
        Refusal { reason: Reason::TopicUnavailable, detail, topic: Some(topic.to_owned()) }
    }

    pub(super) fn watcher(&mut self) -> Result<&TopicWatcher> {
        if self.watcher.is_none() {
            let look = TopicLook {
                producer: Arc::clone(&self.producer),
                limits: self.limits.clone(),
                creator: self.creator.clone(),
                refreshed: Arc::clone(&self.refreshed),
            };
            self.watcher = Some(TopicWatcher::start(&self.name, look)?);
        }
        Ok(self.watcher.as_ref().expect("it was started"))
    }
}
