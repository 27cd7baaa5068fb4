//! The topic: made, measured by its watermarks, and read to its end.
//!
//! Promises: reads every record between two offsets once, in partition order. Must not: commit
//! offsets or join a group. Fails: when the brokers cannot be reached or refuse.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::measure::clock::Stamp;

/// How long a broker may take to answer one question.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// How long one wait for a record lasts.
const READ_LIMIT: Duration = Duration::from_millis(200);

/// Where the events come out.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    /// Kafka bootstrap servers.
    pub(crate) brokers: String,
    /// The topic that the relay publishes to.
    pub(crate) topic: String,
    /// Partitions of the topic, when it has to be created.
    pub(crate) partitions: i32,
}

/// One topic of a cluster.
#[derive(Debug)]
pub(crate) struct Topic {
    brokers: String,
    name: String,
    partitions: i32,
    probe: ProbeConsumer,
}

/// A consumer that only asks for metadata and watermarks.
struct ProbeConsumer(BaseConsumer);

impl std::fmt::Debug for ProbeConsumer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ProbeConsumer")
    }
}

impl Topic {
    /// Opens the topic and makes it, with records stamped by the broker, when it does not exist.
    ///
    /// # Errors
    /// When no broker answers, or the topic cannot be made.
    pub(crate) async fn open(sink: &EventSink) -> Result<Self> {
        let (brokers, name, partitions) = (&sink.brokers, &sink.topic, sink.partitions);
        let mut topic = Self::look(brokers, name)?;
        if topic.partitions == 0 {
            create(brokers, name, partitions).await?;
            topic.partitions = topic.wait_for_partitions(partitions)?;
        }
        Ok(topic)
    }

    /// Opens a topic that exists.
    ///
    /// # Errors
    /// When no broker answers, or there is no such topic.
    pub(crate) fn open_existing(brokers: &str, name: &str) -> Result<Self> {
        let topic = Self::look(brokers, name)?;
        if topic.partitions == 0 {
            bail!("there is no topic {name} at {brokers}");
        }
        Ok(topic)
    }

    fn look(brokers: &str, name: &str) -> Result<Self> {
        let probe = client(brokers)
            .create::<BaseConsumer>()
            .with_context(|| format!("no Kafka client for {brokers}"))?;
        let mut topic = Self {
            brokers: brokers.to_owned(),
            name: name.to_owned(),
            partitions: 0,
            probe: ProbeConsumer(probe),
        };
        topic.partitions = topic.partition_count()?;
        Ok(topic)
    }

    fn wait_for_partitions(&self, wanted: i32) -> Result<i32> {
        let deadline = Instant::now() + REQUEST_LIMIT;
        loop {
            let found = self.partition_count()?;
            if found >= wanted {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("the new topic {} has {found} of {wanted} partitions", self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many partitions there are; 0 when the topic does not exist.
    fn partition_count(&self) -> Result<i32> {
        let metadata =
            self.probe.0.fetch_metadata(Some(&self.name), REQUEST_LIMIT).with_context(|| {
                format!("no broker at {} answers; start Kafka or correct --brokers", self.brokers)
            })?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.name);
        let ready = |topic: &rdkafka::metadata::MetadataTopic| {
            topic.partitions().iter().filter(|partition| partition.leader() >= 0).count()
        };
        Ok(topic.map_or(0, ready) as i32)
    }

    /// The partitions that the topic has.
    pub(crate) fn partitions(&self) -> i32 {
        self.partitions
    }

    /// The offset after the last record, for each partition.
    ///
    /// # Errors
    /// When a broker does not answer.
    pub(crate) fn ends(&self) -> Result<Vec<i64>> {
        (0..self.partitions).map(|partition| self.end(partition)).collect()
    }

    fn end(&self, partition: i32) -> Result<i64> {
        let deadline = Instant::now() + REQUEST_LIMIT;
        loop {
            match self.probe.0.fetch_watermarks(&self.name, partition, REQUEST_LIMIT) {
                Ok((_, end)) => return Ok(end),
                Err(cause) if leader_moves(&cause) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(cause) => {
                    let context = format!("the end of {} cannot be read", self.name);
                    return Err(cause).context(context);
                }
            }
        }
    }

    /// A reader that starts at these offsets, one per partition.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub(crate) fn reader(&self, from: &[i64]) -> Result<PartitionReader> {
        let consumer: BaseConsumer = client(&self.brokers)
            .set("group.id", "postrider-load")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .create()
            .context("no Kafka consumer")?;
        let mut assignment = TopicPartitionList::new();
        for (partition, &offset) in from.iter().enumerate() {
            assignment
                .add_partition_offset(&self.name, partition as i32, Offset::Offset(offset))
                .context("an offset is out of range")?;
        }
        consumer.assign(&assignment).context("the topic cannot be assigned")?;
        Ok(PartitionReader { consumer, positions: from.to_vec() })
    }

    /// The stamps of the first record after `from` and of the last record, over all partitions.
    ///
    /// # Errors
    /// When records cannot be read.
    pub(crate) fn first_and_last_stamp(&self, from: &[i64]) -> Result<Option<(Stamp, Stamp)>> {
        let ends = self.ends()?;
        let firsts = self.stamps_at(from, &ends)?;
        let last_offsets: Vec<i64> =
            ends.iter().zip(from).map(|(&end, &from)| from.max(end - 1)).collect();
        let lasts = self.stamps_at(&last_offsets, &ends)?;
        let first = firsts.into_iter().min_by_key(|stamp| stamp.unix_ms);
        Ok(first.zip(lasts.into_iter().max_by_key(|stamp| stamp.unix_ms)))
    }

    fn stamps_at(&self, offsets: &[i64], ends: &[i64]) -> Result<Vec<Stamp>> {
        let mut stamps = Vec::new();
        for (partition, (&offset, &end)) in offsets.iter().zip(ends).enumerate() {
            if offset < end {
                stamps.extend(self.stamp_at(partition as i32, offset)?);
            }
        }
        Ok(stamps)
    }

    fn stamp_at(&self, partition: i32, offset: i64) -> Result<Option<Stamp>> {
        let reader = self.reader(&[])?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.name, partition, Offset::Offset(offset))
            .context("an offset is out of range")?;
        reader.consumer.assign(&assignment).context("the topic cannot be assigned")?;
        let mut stamp = None;
        let deadline = Instant::now() + REQUEST_LIMIT;
        while Instant::now() < deadline {
            match reader.next(Duration::from_millis(100))? {
                Next::Record(message) => {
                    stamp = Stamp::of(&message);
                    break;
                }
                Next::PartitionEnd(_) => break,
                Next::Nothing => {}
            }
        }
        Ok(stamp)
    }
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "postrider-load");
    config
}

async fn create(brokers: &str, name: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        client(brokers).create().context("no Kafka admin client")?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime");
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
    let results = admin.create_topics([&topic], &options).await;
    let results = results.with_context(|| format!("the topic {name} cannot be made"))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(KafkaError::AdminOp(code))
                    .with_context(|| format!("the topic {topic} cannot be made"));
            }
        }
    }
    Ok(())
}

/// What a reader found next.
enum Next<'a> {
    /// A record.
    Record(BorrowedMessage<'a>),
    /// The end of this partition, for now.
    PartitionEnd(i32),
    /// Nothing in the given time.
    Nothing,
}

/// Whether it is a matter of moments: a broker that became the leader may not know of it yet.
fn leader_moves(cause: &KafkaError) -> bool {
    matches!(
        cause.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// What one step of reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadStep {
    /// A record.
    Record,
    /// The end of this partition, for now.
    PartitionEnd(i32),
    /// Nothing in the given time.
    Nothing,
}

/// Reads partitions from given offsets.
pub(crate) struct PartitionReader {
    consumer: BaseConsumer,
    positions: Vec<i64>,
}

impl PartitionReader {
    /// What comes next, or nothing when `limit` has passed.
    ///
    /// # Errors
    /// When the client cannot go on.
    fn next(&self, limit: Duration) -> Result<Next<'_>> {
        match self.consumer.poll(limit) {
            None => Ok(Next::Nothing),
            Some(Ok(message)) => Ok(Next::Record(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Next::PartitionEnd(partition)),
            Some(Err(KafkaError::MessageConsumption(code))) if passes(code) => Ok(Next::Nothing),
            Some(Err(error)) => Err(error).context("the topic cannot be read"),
        }
    }

    /// The offset of the next record, for each partition.
    pub(crate) fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// Waits for one sign and gives a record to `take`.
    ///
    /// # Errors
    /// When the client cannot go on.
    pub(crate) fn step(
        &mut self,
        limit: Duration,
        mut take: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<ReadStep> {
        let read = match self.next(limit)? {
            Next::Record(message) => {
                take(&message);
                (message.partition() as usize, message.offset())
            }
            Next::PartitionEnd(partition) => return Ok(ReadStep::PartitionEnd(partition)),
            Next::Nothing => return Ok(ReadStep::Nothing),
        };
        self.positions[read.0] = read.1 + 1;
        Ok(ReadStep::Record)
    }

    /// Reads on until every partition has reached the given end, or has said that it is at its end.
    ///
    /// A reader that has read before may hold an old sign of the end and stop too early; only a new
    /// one is certain to reach `ends`.
    ///
    /// # Errors
    /// When the client cannot go on, or nothing comes for a minute.
    pub(crate) fn read_to(
        &mut self,
        ends: &[i64],
        mut take: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<()> {
        // The last offsets of a partition may be a transaction's markers, which no consumer sees;
        // the sign of the end is then the only one.
        let mut at_end = vec![false; ends.len()];
        let mut last_sign = Instant::now();
        while (0..ends.len()).any(|at| self.positions[at] < ends[at] && !at_end[at]) {
            match self.step(READ_LIMIT, &mut take)? {
                ReadStep::Record => last_sign = Instant::now(),
                ReadStep::PartitionEnd(partition) => at_end[partition as usize] = true,
                ReadStep::Nothing if last_sign.elapsed() > 3 * REQUEST_LIMIT => {
                    bail!("the topic gives nothing and no end for {:?}", 3 * REQUEST_LIMIT)
                }
                ReadStep::Nothing => {}
            }
        }
        Ok(())
    }
}

/// Errors of a connection that librdkafka mends by itself.
fn passes(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
    )
}
