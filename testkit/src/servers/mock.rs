//! A broker inside this process, for machines without Java: librdkafka's mock cluster.
//!
//! Promises: producers and consumers can use it; it says why it stands in for Kafka. Must not: be
//! used for published figures: it keeps 5 MB per partition and knows no admin requests.
//! Fails: when librdkafka cannot make it.

use crate::servers::error::EmbeddedError;
use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use std::thread::JoinHandle;

/// How to start a mock cluster.
#[derive(Clone, Debug)]
pub struct MockOptions {
    /// Topics to make at once. Others are made when they are first asked for, by librdkafka's rule
    /// with four partitions.
    pub topics: Vec<String>,
    /// Partitions of those topics.
    pub partitions: u16,
    /// Why it stands in for Kafka: the missing part, for people to read.
    pub reason: String,
}

impl Default for MockOptions {
    fn default() -> Self {
        Self { topics: Vec::new(), partitions: 8, reason: "asked for".to_owned() }
    }
}

/// What the cluster's thread can do; it ends when the sender is dropped.
struct CreateTopic {
    name: String,
    partitions: u16,
    answer: Sender<Result<(), KafkaError>>,
}

/// A mock cluster of one broker; dropped, it is gone.
#[derive(Debug)]
pub struct MockKafka {
    brokers: String,
    reason: String,
    // The cluster may not move between threads: one thread owns it and takes orders.
    orders: Option<Sender<CreateTopic>>,
    thread: Option<JoinHandle<()>>,
}

impl MockKafka {
    /// Starts the cluster and makes the topics.
    ///
    /// # Errors
    /// `Client` when librdkafka refuses.
    pub fn start(options: MockOptions, progress: &dyn Fn(&str)) -> Result<Self, EmbeddedError> {
        let (tell, told) = bounded(1);
        let (orders, inbox) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("mock-kafka".to_owned())
            .spawn(move || run(&tell, &inbox))
            .map_err(|source| EmbeddedError::System {
                action: "start a thread".to_owned(),
                source,
            })?;
        let brokers = told.recv().expect("the cluster's thread answers before it waits")?;
        let mock =
            Self { brokers, reason: options.reason, orders: Some(orders), thread: Some(thread) };
        for topic in &options.topics {
            mock.create_topic(topic, options.partitions)?;
        }
        progress(&format!("mock broker ready on {}: {}", mock.brokers, mock.reason));
        Ok(mock)
    }

    /// The bootstrap servers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Why it stands in for Kafka.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Makes a topic; the admin client cannot, for the mock knows no such request.
    ///
    /// # Errors
    /// `Client` when librdkafka refuses, for instance because the topic exists.
    pub fn create_topic(&self, name: &str, partitions: u16) -> Result<(), EmbeddedError> {
        let (answer, answered) = bounded(1);
        let order = CreateTopic { name: name.to_owned(), partitions, answer };
        let orders = self.orders.as_ref().expect("orders are taken until the drop");
        orders.send(order).expect("the cluster's thread lives until the drop");
        Ok(answered.recv().expect("the cluster's thread answers every order")?)
    }
}

impl Drop for MockKafka {
    fn drop(&mut self) {
        drop(self.orders.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the mock broker's thread panicked");
        }
    }
}

fn run(tell: &Sender<Result<String, KafkaError>>, inbox: &Receiver<CreateTopic>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => return answer(tell, Err(error)),
    };
    answer(tell, Ok(cluster.bootstrap_servers()));
    for order in inbox {
        let made = cluster.create_topic(&order.name, i32::from(order.partitions), 1);
        answer(&order.answer, made);
    }
}

fn answer<T>(to: &Sender<T>, value: T) {
    to.send(value).expect("the one who asked waits for the answer");
}
