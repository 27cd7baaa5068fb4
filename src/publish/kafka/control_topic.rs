//! The topic of cursors: one partition per bucket, written inside the transactions that publish.
//!
//! Promises: what is read was committed, and nothing that was committed before the reading began is missed; an id that
//! is fenced has nothing open any more. Must not: know what a cursor says, or write one. Fails: when no broker answers
//! in time; with [`ErrorKind::TopicUnavailable`] where the topic is missing or not as it has to be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::BaseProducer;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::publish::kafka::clients::{AsideContext, ProducerConfig};
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::transactional_id::{take_id, transactional};

/// One answer of a broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// All of a reading.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_STEP: Duration = Duration::from_millis(50);
/// The last records of a partition are read first; twice as many each time that none of them was committed.
const FIRST_STEP: i64 = 16;
const COPIES: i32 = 3;
/// Of whoever only ends what another has open.
const FENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do where a cursor in Kafka cannot be gone by.
pub const KEEP_SAVED: &str = "find out who deleted or changed the topic, and remove what there is of it: it is made \
     again; `postrider migrate reanchor --cursor-from postgres` goes on from PostgreSQL's cursors, and repeats what was \
     published since they were saved";

/// How all is called that an outbox has in Kafka for its transactions.
pub fn prefix(system_identifier: i64, database: u32) -> String {
    format!("postrider-{}-{database}", system_identifier.cast_unsigned())
}

/// The name of an outbox's topic of cursors.
pub fn name(prefix: &str) -> String {
    format!("{prefix}-cursors")
}

/// The topic of cursors.
#[derive(Clone, Debug)]
pub struct ControlTopic {
    config: ProducerConfig,
    name: String,
    buckets: u16,
}

/// A client that only asks.
type Asker = Arc<BaseProducer<AsideContext>>;

/// The topic of cursors, for whoever looks at it again and again.
#[derive(Clone)]
pub struct WatchedTopic {
    topic: ControlTopic,
    asker: Asker,
}

impl std::fmt::Debug for WatchedTopic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.topic.fmt(formatter)
    }
}

impl WatchedTopic {
    /// Whether it is there, with a partition for each bucket.
    ///
    /// # Errors
    /// [`ErrorKind::KafkaRefused`] where it has another number of partitions; when no broker answers in time.
    pub fn is_there(&self) -> Result<bool> {
        match self.topic.partitions(&self.asker)? {
            0 => Ok(false),
            partitions => self.topic.check(partitions).map(|()| true),
        }
    }
}

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
struct Extent {
    low: i64,
    /// The last stable offset.
    end: i64,
    start: i64,
}

impl ControlTopic {
    /// The topic of an outbox with so many buckets.
    pub fn new(config: &ProducerConfig, name: &str, buckets: u16) -> Self {
        Self { config: config.clone(), name: name.to_owned(), buckets }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it, if it is not there; whether it was.
    ///
    /// # Errors
    /// When the brokers do not make it, or it has another number of partitions.
    pub fn ensure(&self) -> Result<bool> {
        let asker = self.config.asker()?;
        let found = self.partitions(&asker)?;
        if found > 0 {
            return self.check(found).map(|()| true);
        }
        self.make()?;
        let begin = Instant::now();
        while begin.elapsed() < ANSWER_TIMEOUT {
            if self.partitions(&asker)? == usize::from(self.buckets) {
                return Ok(false);
            }
            std::thread::sleep(POLL_STEP);
        }
        self.check(self.partitions(&asker)?).map(|()| false)
    }

    fn check(&self, partitions: usize) -> Result<()> {
        if partitions == usize::from(self.buckets) {
            return Ok(());
        }
        let (name, buckets) = (&self.name, self.buckets);
        Err(Error::new(
            ErrorKind::KafkaRefused,
            format!("topic {name} has {partitions} partitions, and there are {buckets} buckets"),
        )
        .with_remedy(KEEP_SAVED))
    }

    /// The same, by a client that stays.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn watched(&self) -> Result<WatchedTopic> {
        Ok(WatchedTopic { topic: self.clone(), asker: self.config.asker()? })
    }

    /// The error for one that was there, and is gone.
    pub fn gone(&self) -> Error {
        let cause = format!("topic {} is gone, and the cursors with it", self.name);
        Error::new(ErrorKind::KafkaRefused, cause).with_remedy(KEEP_SAVED)
    }

    /// How many partitions it has; none where it is missing.
    fn partitions(&self, asker: &Asker) -> Result<usize> {
        // Asked for all of them: for one that is missing the brokers might make it, with their own settings.
        let metadata = rdkafka::producer::Producer::client(&**asker)
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.name);
        Ok(found.map_or(0, |topic| topic.partitions().len()))
    }

    fn make(&self) -> Result<()> {
        let admin = self.config.admin()?;
        let brokers = admin
            .inner()
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?
            .brokers()
            .len();
        let copies = i32::try_from(brokers).unwrap_or(COPIES).clamp(1, COPIES);
        let in_sync = if copies == COPIES { "2" } else { "1" };
        let topic = NewTopic::new(&self.name, self.buckets.into(), TopicReplication::Fixed(copies))
            .set("cleanup.policy", "compact")
            .set("min.insync.replicas", in_sync)
            .set("unclean.leader.election.enable", "false");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("the runtime cannot start: {cause}"))
        })?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT));
        let made = runtime.block_on(admin.create_topics([&topic], &options));
        match made.map_err(|cause| unavailable(&cause, None))?.pop() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(Error::new(
                ErrorKind::TopicUnavailable,
                format!("topic {} cannot be made: {code}", self.name),
            )
            .with_remedy(format!("grant Create and Write on topic {}", self.name))),
        }
    }

    /// Ends what these ids have open; whoever has one of them commits nothing more with it.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn fence(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            let producer = transactional(&self.config, id, FENCE_TIMEOUT).asker()?;
            take_id(&*producer, id)?;
        }
        Ok(())
    }

    /// The last committed record of each of these buckets, if it has one.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn read(&self, buckets: &[Bucket]) -> Result<HashMap<Bucket, Vec<u8>>> {
        let consumer = self.config.consumer(&[
            ("group.id", "postrider-cursors"),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", "20"),
        ])?;
        let deadline = Instant::now() + READ_TIMEOUT;
        match self.partitions(&self.config.asker()?)? {
            // Nothing is there to be read. What that means is not known here.
            0 => return Ok(HashMap::new()),
            partitions => self.check(partitions)?,
        }
        let mut wanted: HashMap<Bucket, Extent> = HashMap::new();
        for bucket in buckets {
            let (low, end) = consumer
                .fetch_watermarks(&self.name, bucket.0.into(), ANSWER_TIMEOUT)
                .map_err(|cause| unavailable(&cause, None))?;
            if end > low {
                wanted.insert(*bucket, Extent { low, end, start: (end - FIRST_STEP).max(low) });
            }
        }
        let mut found = HashMap::new();
        while !wanted.is_empty() {
            self.read_ends(&consumer, &wanted, &mut found, deadline)?;
            wanted.retain(|bucket, extent| {
                let goes_on = !found.contains_key(bucket) && extent.start > extent.low;
                let read = extent.end - extent.start;
                extent.start = (extent.end - 2 * read).max(extent.low);
                goes_on
            });
        }
        Ok(found)
    }

    /// Reads each of the partitions from its start to its end.
    fn read_ends(
        &self,
        consumer: &Arc<BaseConsumer<AsideContext>>,
        wanted: &HashMap<Bucket, Extent>,
        found: &mut HashMap<Bucket, Vec<u8>>,
        deadline: Instant,
    ) -> Result<()> {
        let mut places = TopicPartitionList::new();
        for (bucket, extent) in wanted {
            places
                .add_partition_offset(&self.name, bucket.0.into(), Offset::Offset(extent.start))
                .map_err(|cause| unavailable(&cause, None))?;
        }
        consumer.assign(&places).map_err(|cause| unavailable(&cause, None))?;
        let mut open = wanted.len();
        while open > 0 {
            match consumer.poll(POLL_STEP) {
                Some(Ok(message)) => {
                    if let (Ok(bucket), Some(value)) =
                        (u16::try_from(message.partition()), message.payload())
                    {
                        found.insert(Bucket(bucket), value.to_vec());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(cause)) => tracing::debug!(%cause, "the cursors cannot be read yet"),
                None => {}
            }
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::KafkaUnavailable,
                    format!("topic {} cannot be read in time", self.name),
                )
                .with_remedy("check that the leaders of its partitions answer"));
            }
        }
        Ok(())
    }
}
