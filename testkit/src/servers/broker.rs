//! Kafka, or the mock where a part of Kafka is missing.
//!
//! Promises: the mock only when a part is not installed or cannot be fetched; a Kafka that is there
//! and fails is an error. Must not: hide which one it is. Fails: as Kafka does.

use crate::servers::error::EmbeddedError;
use crate::servers::kafka::{Kafka, KafkaOptions};
use crate::servers::mock::{MockKafka, MockOptions};

/// A broker for the demo.
#[derive(Debug)]
pub enum Broker {
    /// The real one.
    Kafka(Box<Kafka>),
    /// The stand-in; [`MockKafka::reason`] names the missing part.
    Mock(MockKafka),
}

impl Broker {
    /// Starts Kafka, or the mock with these topics when a part of Kafka is missing.
    ///
    /// # Errors
    /// When Kafka's parts are there and it does not start, or the mock does not.
    pub fn start(
        options: KafkaOptions,
        topics: &[&str],
        progress: &dyn Fn(&str),
    ) -> Result<Self, EmbeddedError> {
        let partitions = u16::try_from(options.partitions).unwrap_or(u16::MAX);
        match Kafka::start(options, progress) {
            Ok(kafka) => Ok(Self::Kafka(Box::new(kafka))),
            Err(missing) if missing.is_missing_part() => {
                let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
                let options = MockOptions { topics, partitions, reason: missing.to_string() };
                MockKafka::start(options, progress).map(Self::Mock)
            }
            Err(error) => Err(error),
        }
    }

    /// The bootstrap servers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        match self {
            Self::Kafka(kafka) => kafka.brokers(),
            Self::Mock(mock) => mock.brokers(),
        }
    }
}
