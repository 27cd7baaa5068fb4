//! The consumer: reads the topics from their beginning, on a thread of its own.
//!
//! Promises: every record of every partition is handed to the check in the partition's order; after
//! [`Consumer::finish`] nothing is left unread. Must not: judge a record.
//! Fails: when a topic cannot be read, or the rest does not come in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::demo::check::{Check, SeenRecord, ShownRecord};
use crate::demo::servers::PARTITIONS;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;
use crate::record::encode::{ID_HEADER, TYPE_HEADER};

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Nobody looks at more of a value than this.
const SHOWN_VALUE_CHARS: usize = 200;

/// A running consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    last_round: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Consumer {
    /// Starts to read; the topics exist.
    pub(super) fn start(
        brokers: &str,
        topics: &'static [&'static str],
        check: Arc<Check>,
    ) -> Result<Self> {
        let client = client(brokers, topics).map_err(|cause| unreadable(&cause))?;
        let last_round = Arc::new(AtomicBool::new(false));
        let reader =
            DemoReader { client, brokers: brokers.to_owned(), topics, check, next: HashMap::new() };
        let told = Arc::clone(&last_round);
        let thread = std::thread::Builder::new()
            .name("demo-consumer".to_owned())
            .spawn(move || reader.run(&told))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("cannot start a thread: {cause}"))
            })?;
        Ok(Self { last_round, thread })
    }

    /// Whether it has ended, which it does by itself only when it failed.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Reads what the topics hold now, then ends.
    pub(super) async fn finish(self) -> Result<()> {
        self.last_round.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        let panicked = |_| Error::new(ErrorKind::Internal, "the demo's consumer panicked");
        joined
            .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?
            .map_err(panicked)?
    }
}

struct DemoReader {
    client: BaseConsumer,
    brokers: String,
    topics: &'static [&'static str],
    check: Arc<Check>,
    /// By topic and partition: the offset that comes next.
    next: HashMap<(String, i32), i64>,
}

impl DemoReader {
    fn run(mut self, last_round: &AtomicBool) -> Result<()> {
        while !last_round.load(Ordering::Acquire) {
            self.read()?;
        }
        self.read_to_the_end().map_err(|cause| unreadable(&cause))?
    }

    fn read(&mut self) -> Result<()> {
        match self.client.poll(POLL) {
            None => Ok(()),
            Some(Ok(message)) => {
                self.check.record_seen(seen(&message));
                let place = (message.topic().to_owned(), message.partition());
                self.next.insert(place, message.offset() + 1);
                Ok(())
            }
            Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => Ok(()),
            Some(Err(cause)) => Err(unreadable(&cause)),
        }
    }

    /// `Err` when the ends cannot be asked for, `Ok(Err)` when they are not reached.
    fn read_to_the_end(&mut self) -> std::result::Result<Result<()>, KafkaError> {
        let begin = Instant::now();
        let mut ends = Vec::new();
        // A client of its own: on the reader's connection each question would wait behind a fetch.
        let asker: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        for (topic, partition) in places(self.topics) {
            let (_, end) = asker.fetch_watermarks(topic, partition, ANSWER_DEADLINE)?;
            ends.push(((topic.to_owned(), partition), end));
        }
        loop {
            ends.retain(|(place, end)| self.next.get(place).copied().unwrap_or(0) < *end);
            if ends.is_empty() {
                return Ok(Ok(()));
            }
            if begin.elapsed() > ANSWER_DEADLINE {
                return Ok(Err(Error::new(
                    ErrorKind::KafkaUnavailable,
                    format!("the rest of {} partitions was not read in time", ends.len()),
                )));
            }
            if let Err(error) = self.read() {
                return Ok(Err(error));
            }
        }
    }
}

fn client(brokers: &str, topics: &[&str]) -> std::result::Result<BaseConsumer, KafkaError> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "postrider-demo-consumer")
        // librdkafka assigns nothing to a consumer without a group, although no group is used.
        .set("group.id", "postrider-demo")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true")
        // The mock answers a fetch only after this time; Kafka as soon as there is something.
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places(topics) {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    client.assign(&list)?;
    Ok(client)
}

fn places<'a>(topics: &'a [&'a str]) -> impl Iterator<Item = (&'a str, i32)> {
    let partitions = 0..i32::from(PARTITIONS);
    topics.iter().flat_map(move |topic| partitions.clone().map(move |number| (*topic, number)))
}

/// What the client gets over by itself; a broker that stays away shows as a backlog.
fn is_passing(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
    )
}

fn seen(message: &BorrowedMessage<'_>) -> SeenRecord {
    let seen_at = Instant::now();
    let header = |name: &str| {
        let found = message.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    // The nil id is nobody's: such a record counts as invented.
    let id =
        header(ID_HEADER).and_then(|text| uuid::Uuid::parse_str(text).ok()).unwrap_or_default();
    let text = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    };
    SeenRecord {
        id: EventId(id.into_bytes()),
        partition: message.partition(),
        seen_at,
        shown: ShownRecord {
            topic: message.topic().to_owned(),
            key: text(message.key()),
            kind: header(TYPE_HEADER).unwrap_or_default().to_owned(),
            value: text(message.payload()).chars().take(SHOWN_VALUE_CHARS).collect(),
        },
    }
}

fn unreadable(cause: &KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, format!("the demo's consumer cannot read: {cause}"))
}
