//! The producer that the peers of this tool use, with the settings of a relay that loses nothing.
//!
//! Promises: idempotent, `acks=all`, Java's partitioner; a record that fails is not overlooked. Must
//! not: reorder. Fails: when a record cannot be queued or delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

/// How long everything that is queued may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// How long to wait for room in the queue before asking again.
const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// How often to look whether everything is delivered. The client's own flush looks every 100 ms,
/// which would cap a poller at ten batches per second.
const FLUSH_PAUSE: Duration = Duration::from_micros(200);

/// Counts deliveries, and remembers that one failed.
#[derive(Clone, Default)]
struct DeliveryCounts {
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl ClientContext for DeliveryCounts {}

impl ProducerContext for DeliveryCounts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_ok() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// One event, as it becomes a record.
pub(crate) struct PeerEvent<'a> {
    /// The key.
    pub(crate) aggregate_id: &'a str,
    /// The header `id`.
    pub(crate) id: &'a str,
    /// The header `type`.
    pub(crate) event_type: &'a str,
    /// The value.
    pub(crate) payload: &'a [u8],
}

/// Sends events to one topic.
pub(crate) struct Sender {
    producer: ThreadedProducer<DeliveryCounts>,
    watch: DeliveryCounts,
    topic: String,
    sent: u64,
}

impl Sender {
    /// A sender whose batches wait `linger_ms` for more records.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub(crate) fn new(brokers: &str, topic: &str, linger_ms: u32) -> Result<Self> {
        let watch = DeliveryCounts::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger_ms.to_string())
            .set("batch.size", "131072")
            .create_with_context(watch.clone())
            .context("no Kafka producer")?;
        Ok(Self { producer, watch, topic: topic.to_owned(), sent: 0 })
    }

    /// Queues one event; waits while the queue is full.
    ///
    /// # Errors
    /// When the record is refused, or an earlier one was not delivered.
    pub(crate) fn send(&mut self, event: &PeerEvent<'_>) -> Result<()> {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: "id", value: Some(event.id) })
            .insert(Header { key: "type", value: Some(event.event_type) });
        let mut record = BaseRecord::to(&self.topic)
            .key(event.aggregate_id)
            .payload(event.payload)
            .headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    return self.check();
                }
                Err((error, back)) if is_full(&error) => {
                    self.check()?;
                    record = back;
                    std::thread::sleep(QUEUE_PAUSE);
                }
                Err((error, _)) => return Err(error).context("a record was refused"),
            }
        }
    }

    /// Waits until everything is delivered.
    ///
    /// # Errors
    /// When something is not.
    pub(crate) fn flush(&self) -> Result<()> {
        let deadline = Instant::now() + FLUSH_LIMIT;
        while self.watch.delivered.load(Ordering::Relaxed) < self.sent {
            self.check()?;
            if Instant::now() > deadline {
                bail!("records were not delivered in {FLUSH_LIMIT:?}");
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.watch.failed.load(Ordering::Relaxed) {
            bail!("a record was not delivered");
        }
        Ok(())
    }
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}
