//! Reads topics from end to end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postrider::event::EventId;
use postrider_testkit::audit::Auditor;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::Patience;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Before a topic that cannot be read is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// The names of all topics; asking for them makes none.
pub(crate) fn list_topics(brokers: &str) -> Vec<String> {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", brokers).create().expect("the configuration is good");
    let metadata =
        consumer.fetch_metadata(None, Duration::from_secs(20)).expect("the broker answers");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// How many brokers have a copy of each partition of a topic; the least of them.
pub(crate) fn copies(brokers: &str, topic: &str) -> usize {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", brokers).create().expect("the configuration is good");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("a broker answers");
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| partition.replicas().len()).min().expect("it has partitions")
}

/// Who leads each partition of a topic, by the broker's number; -1 is nobody.
pub(crate) fn leaders(brokers: &str, topic: &str) -> Vec<i32> {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", brokers).create().expect("the configuration is good");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("a broker answers");
    metadata.topics()[0].partitions().iter().map(|partition| partition.leader()).collect()
}

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp_millis: Option<i64>,
}

impl Consumed {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Self {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_millis: message.timestamp().to_millis(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        found.1.as_deref()
    }

    pub(crate) fn id(&self) -> EventId {
        let text = std::str::from_utf8(self.header("id").expect("it has an id")).expect("as text");
        EventId(uuid::Uuid::parse_str(text).expect("a uuid").into_bytes())
    }

    pub(crate) fn key_text(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().expect("it has a key")).expect("as text")
    }
}

/// A test that waits for records reads its topic so often: each time from the beginning, by a consumer of its own, which
/// takes more of the cores than what it waits for.
const READ_INTERVAL: Duration = Duration::from_millis(200);

/// Waits until the topic was not read for a moment.
fn spare(brokers: &str, topic: &str) {
    static READ: Mutex<BTreeMap<(String, String), Instant>> = Mutex::new(BTreeMap::new());
    let now = Instant::now();
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let next = read.get(&(brokers.to_owned(), topic.to_owned())).map(|last| *last + READ_INTERVAL);
    let at = next.map_or(now, |next| next.max(now));
    read.insert((brokers.to_owned(), topic.to_owned()), at);
    drop(read);
    std::thread::sleep(at - now);
}

/// Everything that the topic holds now; each partition in its order.
pub(crate) fn read_topic(brokers: &str, topic: &str) -> Vec<Consumed> {
    spare(brokers, topic);
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        // A consumer that looked while all brokers were fenced knows none any more and hears nothing;
        // the next one begins again. tests/system/faults/README.md tells of it.
        match read_once(brokers, topic) {
            Ok(records) => return records,
            Err(cause) => assert!(Instant::now() < deadline, "{topic} cannot be read: {cause}"),
        }
        std::thread::sleep(PAUSE);
    }
}

fn read_once(brokers: &str, topic: &str) -> Result<Vec<Consumed>, String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "system-test")
        .set("enable.auto.commit", "false")
        // Not every offset is a record: the ends of transactions have some, too.
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer can be made");
    let (mut open, assignment) = extent(&consumer, topic).map_err(|error| error.to_string())?;
    consumer.assign(&assignment).expect("the partitions are there");
    let mut records = Vec::new();
    let mut heard = Instant::now();
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(Consumed::from(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error.to_string()),
            None if heard.elapsed() > TIMEOUT => {
                return Err(format!("{open} partitions have not come to their ends"));
            }
            None => continue,
        }
        heard = Instant::now();
    }
    Ok(records)
}

/// How many partitions of the topic hold anything, and where each of these begins; none, if there is no such topic.
fn extent(consumer: &BaseConsumer, topic: &str) -> KafkaResult<(usize, TopicPartitionList)> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let found = &metadata.topics()[0];
    if let Some(error) = found.error().map(RDKafkaErrorCode::from)
        && error != RDKafkaErrorCode::UnknownTopicOrPartition
    {
        return Err(KafkaError::MetadataFetch(error));
    }
    let mut wanted = 0;
    let mut assignment = TopicPartitionList::new();
    for partition in found.partitions() {
        let id = partition.id();
        let (low, high) = consumer.fetch_watermarks(topic, id, TIMEOUT)?;
        if high > low {
            wanted += 1;
            assignment.add_partition_offset(topic, id, Offset::Beginning)?;
        }
    }
    Ok((wanted, assignment))
}

/// Commits the begin of a topic's first partition for a group: with the first one Kafka makes the topic in
/// which it keeps them.
pub(crate) fn make_offsets_topic(brokers: &str, topic: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "keeps-its-place")
        .create()
        .expect("a consumer can be made");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(0)).expect("it is a place");
    let deadline = Instant::now() + TIMEOUT;
    while let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
        assert!(Instant::now() < deadline, "no offset can be committed: {error}");
        std::thread::sleep(PAUSE);
    }
}

/// Shows everything that the topic holds to the auditor.
pub(crate) fn audit_topic(auditor: &mut Auditor<EventId>, brokers: &str, topic: &str) {
    for record in read_topic(brokers, topic) {
        auditor.saw(record.id(), record.key_text(), record.partition);
    }
}

/// Makes a topic.
pub(crate) async fn create_topic(brokers: &str, name: &str, partitions: i32) {
    make_topic(brokers, NewTopic::new(name, partitions, TopicReplication::Fixed(1))).await;
}

/// Makes a topic with settings of its own.
pub(crate) async fn create_topic_with(brokers: &str, name: &str, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(name, 2, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    make_topic(brokers, topic).await;
}

/// Makes a topic, unless a request for its metadata has made one of that name first.
pub(crate) async fn create_topic_unless_made(brokers: &str, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let made = admin(brokers).create_topics([&topic], &AdminOptions::new()).await;
    match made.expect("Kafka answers").remove(0) {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
        Err(refused) => panic!("{refused:?}"),
    }
}

async fn make_topic(brokers: &str, topic: NewTopic<'_>) {
    let patience = Patience::until("the topic is made");
    loop {
        let made = admin(brokers).create_topics([&topic], &AdminOptions::new()).await;
        match made.expect("Kafka answers").remove(0) {
            Ok(_) => return,
            // One of that name was deleted a moment ago.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => patience.pause().await,
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

/// Makes many topics of one partition.
pub(crate) async fn create_topics(brokers: &str, names: &[String]) {
    let topic = |name| NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(name)).collect();
    let made = admin(brokers).create_topics(&topics, &AdminOptions::new()).await;
    let made = made.expect("Kafka answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Gives a topic more partitions.
pub(crate) async fn add_partitions(brokers: &str, name: &str, count: usize) {
    let more = NewPartitions::new(name, count);
    let made = admin(brokers)
        .create_partitions([&more], &AdminOptions::new())
        .await
        .expect("Kafka answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Makes a topic again, with so many partitions.
pub(crate) async fn make_anew(brokers: &str, name: &str, partitions: i32, limit: &str) {
    let gone = admin(brokers).delete_topics(&[name], &AdminOptions::new()).await;
    let gone = gone.expect("Kafka answers");
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
    // The name is free a moment later.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = topic.set("max.message.bytes", limit);
        let made = admin(brokers).create_topics([&topic], &AdminOptions::new()).await;
        let made = made.expect("Kafka answers");
        if made.iter().all(Result::is_ok) {
            return;
        }
        assert!(Instant::now() < deadline, "{made:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Changes a topic's settings.
pub(crate) async fn set_topic(brokers: &str, name: &str, settings: &[(&str, &str)]) {
    let topic = AlterConfig::new(ResourceSpecifier::Topic(name));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let set = admin(brokers).alter_configs([&topic], &AdminOptions::new()).await;
    let set = set.expect("Kafka answers");
    assert!(set.iter().all(Result::is_ok), "{set:?}");
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).create().expect("a client can be made")
}
