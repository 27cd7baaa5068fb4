//! A consumer whose every effect happens once, though records may come twice.
//!
//! The relay repeats records after a crash; so does Kafka, when a consumer dies between its work and its offsets. Both
//! are harmless if the question "was this here before?" is asked and answered in the transaction of the effect:
//!
//! ```text
//!  poll ► begin ► which are new? ► effects of the new ones, own events into the own outbox ► commit ► offsets
//! ```
//!
//! Killed before the commit, nothing has happened and all is read again. Killed behind it, all is read again and
//! found in the inbox. There is no third case.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use postrider::inbox::{Admission, Inbox, InboxRecord};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_postgres::Transaction;

use crate::arguments::Service;
use crate::database;
use crate::events::Event;

/// Records of one transaction: many, as a commit costs more than an effect.
const POLL_RECORDS: usize = 200;
/// How long an empty topic is left alone.
const IDLE: Duration = Duration::from_millis(10);
/// How long PostgreSQL or Kafka are left alone when they failed.
const PAUSE: Duration = Duration::from_millis(300);
/// What each record costs a consumer that is told to be slow.
const SLOWNESS: Duration = Duration::from_millis(40);

/// What a service does because of an event.
pub(crate) trait Effect {
    /// Does it, in a transaction that others end. All that it does must be in there.
    async fn apply(&self, transaction: &Transaction<'_>, event: &Event<'_>) -> Result<()>;
}

/// Where a consumer reads, and under which name it remembers.
#[derive(Debug)]
pub(crate) struct Consumer<'a> {
    pub(crate) name: &'static str,
    pub(crate) topics: &'a [&'a str],
    pub(crate) service: &'a Service,
}

impl Consumer<'_> {
    /// Consumes until the process ends. Whatever fails, the way on is the same: throw both connections away and begin
    /// again behind the last committed offsets. The inbox makes that right, so no error needs a way of its own.
    pub(crate) async fn run(&self, effect: &impl Effect) {
        loop {
            if let Err(error) = self.session(effect).await {
                eprintln!("{}: begins again: {error:#}", self.name);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn session(&self, effect: &impl Effect) -> Result<()> {
        let mut client = database::connect(&self.service.database_url).await?;
        let inbox = Inbox::open(&client, self.name).await?;
        let count = client.prepare(include_str!("sql/inbox_count.sql")).await?;
        let kafka = self.subscribe()?;
        loop {
            let records = poll(&kafka)?;
            if records.is_empty() {
                tokio::time::sleep(IDLE).await;
                continue;
            }
            self.dawdle(records.len()).await;
            let transaction = client.transaction().await?;
            let known: Vec<_> = records.iter().map(known).collect::<Result<_>>()?;
            let admissions = inbox.admit(&transaction, &known).await?;
            let mut new = 0_i64;
            for (record, admission) in records.iter().zip(admissions) {
                if admission == Admission::New {
                    effect.apply(&transaction, &Event::of(record)?).await?;
                    new += 1;
                }
            }
            let repeats = i64::try_from(records.len())? - new;
            transaction.execute(&count, &[&self.name, &new, &repeats]).await?;
            transaction.commit().await?;
            commit_offsets(&kafka, &records)?;
        }
    }

    fn subscribe(&self) -> Result<BaseConsumer> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.service.brokers)
            .set("group.id", self.name)
            // The one member of its group comes back under its name: nobody waits until the killed one is missed.
            .set("group.instance.id", self.name)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("reconnect.backoff.max.ms", "1000")
            .create()?;
        consumer.subscribe(self.topics)?;
        Ok(consumer)
    }

    /// A slow consumer is nobody's trouble but its own: records wait in Kafka.
    async fn dawdle(&self, records: usize) {
        let is_slow = self.service.slow_file.as_ref().is_some_and(|file: &PathBuf| file.exists());
        if is_slow {
            tokio::time::sleep(SLOWNESS * u32::try_from(records).expect("a poll is short")).await;
        }
    }
}

/// What is there, up to one transaction's worth, without waiting.
fn poll(kafka: &BaseConsumer) -> Result<Vec<OwnedMessage>> {
    let begin = Instant::now();
    let mut records = Vec::new();
    while records.len() < POLL_RECORDS && begin.elapsed() < IDLE {
        match kafka.poll(Duration::ZERO) {
            None => break,
            Some(Ok(record)) => records.push(record.detach()),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            // librdkafka goes on by itself when the broker is back.
            Some(Err(error)) => eprintln!("Kafka: {error}"),
        }
    }
    Ok(records)
}

/// What the inbox has to know of a record: key, and the headers that the relay adds (`--add-headers seq`).
fn known(record: &OwnedMessage) -> Result<InboxRecord<'_>> {
    let headers = record.headers().context("a record without headers")?;
    let headers = headers.iter().map(|header| (header.key, header.value));
    Ok(InboxRecord::of(record.topic(), record.key(), headers)?)
}

/// Says how far it got. Nobody waits for the answer: lost, it costs a few repeats.
fn commit_offsets(kafka: &BaseConsumer, records: &[OwnedMessage]) -> Result<()> {
    let mut next = TopicPartitionList::new();
    for record in records {
        let (topic, partition) = (record.topic(), record.partition());
        let place = match next.find_partition(topic, partition) {
            Some(_) => {
                next.set_partition_offset(topic, partition, Offset::Offset(record.offset() + 1))
            }
            None => {
                next.add_partition_offset(topic, partition, Offset::Offset(record.offset() + 1))
            }
        };
        place.context("an offset that is none")?;
    }
    if let Err(cause) = kafka.commit(&next, CommitMode::Async) {
        eprintln!("offsets are not committed: {cause}");
    }
    Ok(())
}
