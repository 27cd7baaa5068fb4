//! Reads topics as a whole, for the audit and the page: every record, repeats included, in the order of each partition.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hashbrown::HashMap;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::events::{ORDER_TOPIC, PAYMENT_TOPIC, STOCK_TOPIC};

/// Of each topic.
pub(crate) const PARTITIONS: i32 = 4;
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const READ_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A record.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) key: String,
    /// The headers `id` and `type`; empty where there are none.
    pub(crate) id: String,
    pub(crate) kind: String,
}

/// Makes the topics.
pub(crate) async fn create(brokers: &str, topics: &[&str]) -> Result<()> {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)))
        .collect();
    for made in client.create_topics(&wanted, &AdminOptions::new()).await? {
        made.map_err(|(topic, code)| anyhow::anyhow!("cannot make the topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Reads on from where it stopped.
pub(crate) struct Reader {
    client: BaseConsumer,
    topics: Vec<String>,
    /// By topic and partition: the offset that comes next.
    next: HashMap<(String, i32), i64>,
}

impl Reader {
    /// From the beginning.
    pub(crate) fn new(brokers: &str, topics: &[&str]) -> Result<Self> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "order-service-audit")
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "1000")
            .create()?;
        let mut places = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..PARTITIONS {
                places.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        client.assign(&places)?;
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Ok(Self { client, topics, next: HashMap::new() })
    }

    /// All that the topics hold now and that was not read before. What was read before an error is among what was seen:
    /// it is not read again.
    pub(crate) fn read_to_end(&mut self, seen: &mut Vec<Seen>) -> Result<()> {
        let mut ends = self.ends()?;
        let begin = Instant::now();
        loop {
            ends.retain(|(place, end)| self.next.get(place).copied().unwrap_or(0) < *end);
            if ends.is_empty() {
                return Ok(());
            }
            ensure!(begin.elapsed() < READ_DEADLINE, "{} partitions are not read", ends.len());
            // An error passes, or the deadline comes.
            if let Some(Ok(record)) = self.client.poll(POLL) {
                let place = (record.topic().to_owned(), record.partition());
                self.next.insert(place, record.offset() + 1);
                seen.push(of(&record));
            }
        }
    }

    /// Takes all as read.
    pub(crate) fn look_for_ends(&mut self) -> Result<()> {
        self.next = self.ends()?.into_iter().collect();
        Ok(())
    }

    /// Where each partition ends.
    fn ends(&self) -> Result<Vec<((String, i32), i64)>> {
        let mut ends = Vec::new();
        for topic in &self.topics {
            for partition in 0..PARTITIONS {
                let (_, end) = self.client.fetch_watermarks(topic, partition, ANSWER_DEADLINE)?;
                ends.push(((topic.clone(), partition), end));
            }
        }
        Ok(ends)
    }
}

/// All that topics hold.
pub(crate) fn read_all(brokers: &str, topics: &[&str]) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    Reader::new(brokers, topics)?.read_to_end(&mut seen)?;
    Ok(seen)
}

/// Asks how far consumer groups have got, without being a member of one.
pub(crate) struct Groups(Vec<(&'static str, Vec<&'static str>, BaseConsumer)>);

impl Groups {
    /// Of all services.
    pub(crate) fn new(brokers: &str) -> Result<Self> {
        let mut groups = Vec::new();
        for (group, topics) in [
            ("orders", vec![STOCK_TOPIC, PAYMENT_TOPIC]),
            ("stock", vec![ORDER_TOPIC]),
            ("payments", vec![ORDER_TOPIC]),
            (crate::read_model::NAME, vec![ORDER_TOPIC]),
        ] {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .create()?;
            groups.push((group, topics, client));
        }
        Ok(Self(groups))
    }

    /// How many records each group has not dealt with, of those that the reader knows of.
    pub(crate) fn lags(&self, reader: &Reader) -> Result<Vec<(&'static str, i64)>> {
        self.0.iter().map(|(name, _, _)| Ok((*name, self.lag(name, reader)?))).collect()
    }

    /// The same for one group.
    pub(crate) fn lag(&self, group: &str, reader: &Reader) -> Result<i64> {
        let known = self.0.iter().find(|(name, _, _)| *name == group);
        let (_, topics, client) = known.with_context(|| format!("no group {group}"))?;
        let mut places = TopicPartitionList::new();
        for topic in topics {
            places.add_partition_range(topic, 0, PARTITIONS - 1);
        }
        let committed = client.committed_offsets(places, ANSWER_DEADLINE)?;
        let mut lag = 0;
        for place in committed.elements() {
            let end = reader.next.get(&(place.topic().to_owned(), place.partition()));
            let done = place.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(0);
            lag += (end.copied().unwrap_or(0) - done).max(0);
        }
        Ok(lag)
    }
}

fn of(record: &BorrowedMessage<'_>) -> Seen {
    let header = |name: &str| {
        let value = record.headers()?.iter().find(|header| header.key == name)?.value?;
        str::from_utf8(value).ok().map(str::to_owned)
    };
    Seen {
        topic: record.topic().to_owned(),
        key: record.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
        id: header("id").unwrap_or_default(),
        kind: header("type").unwrap_or_default(),
    }
}

/// Blocking work on Kafka, away from the threads that serve others.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work panicked")?
}
