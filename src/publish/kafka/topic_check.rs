//! Which topics are there, asked without making any.
//!
//! Promises: asks for the list of all topics: a broker that creates what it is asked about creates
//! nothing. Must not: publish, or change a broker's settings.
//! Fails: when no broker answers; a topic that cannot be used is an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::error::KafkaError;

use crate::error::{Error, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::{ask, errors, topic_config};

/// One request for a broker's settings.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(5);
const CREATION_SETTING: &str = "auto.create.topics.enable";

/// What Kafka says of the topics that were asked for.
#[derive(Debug, Default)]
pub struct ExistingTopics {
    /// Those that can be published to now.
    pub ready: BTreeSet<String>,
    /// Why others, which are there, cannot.
    pub unusable: Vec<Error>,
    /// Those that the brokers do not list for this user.
    pub missing: BTreeSet<String>,
    /// A broker that can be asked for its settings.
    broker: Option<i32>,
}

/// What the brokers do about a topic that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingTopics {
    /// They create it with the first record.
    Created,
    /// They refuse the record.
    Refused,
    /// They do not let this user know.
    Unknown,
}

/// Looks for these topics. Blocks.
///
/// # Errors
/// When no broker answers in time, or librdkafka refuses its configuration.
pub fn look(config: &ProducerConfig, wanted: &BTreeSet<String>) -> Result<ExistingTopics> {
    let metadata = ask::fetch_all(config)?;
    let listed: BTreeSet<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    let broker = metadata.brokers().first().map(|broker| broker.id());
    let mut existing = ExistingTopics { broker, ..ExistingTopics::default() };
    for topic in wanted {
        if let Some(other) = errors::colliding(topic, listed.iter().copied()) {
            existing.unusable.push(errors::collision(topic, other));
            continue;
        }
        if !listed.contains(topic.as_str()) {
            existing.missing.insert(topic.clone());
            continue;
        }
        match errors::ready_partitions(topic, &metadata) {
            Ok(_) => {
                existing.ready.insert(topic.clone());
            }
            Err(error) => existing.unusable.push(error),
        }
    }
    Ok(existing)
}

impl ExistingTopics {
    /// Asks a broker whether it creates topics by itself.
    pub async fn missing_topics(&self, config: &ProducerConfig) -> MissingTopics {
        let Some(broker) = self.broker else { return MissingTopics::Unknown };
        match creates_topics(config, broker).await {
            Ok(Some(true)) => MissingTopics::Created,
            Ok(Some(false)) => MissingTopics::Refused,
            Ok(None) => MissingTopics::Unknown,
            Err(error) => {
                tracing::debug!(
                    cause = error.message(),
                    broker,
                    "the broker does not tell its settings"
                );
                MissingTopics::Unknown
            }
        }
    }
}

/// The first of these topics of which the broker does not tell this user how much it takes.
pub async fn keeps_its_limit(config: &ProducerConfig, topics: &BTreeSet<String>) -> Option<String> {
    let admin = match config.admin() {
        Ok(admin) => admin,
        Err(error) => {
            tracing::debug!(cause = error.message(), "no client to ask for the settings of topics");
            return None;
        }
    };
    for topic in topics {
        if topic_config::describe(&admin, topic).await.is_err() {
            return Some(topic.clone());
        }
    }
    None
}

async fn creates_topics(config: &ProducerConfig, broker: i32) -> Result<Option<bool>> {
    let admin = config.admin()?;
    let options = AdminOptions::new().request_timeout(Some(SETTINGS_TIMEOUT));
    let asked = [ResourceSpecifier::Broker(broker)];
    let untold = |cause: KafkaError| errors::unavailable(&cause, None);
    let answers = admin.describe_configs(&asked, &options).await.map_err(untold)?;
    let Some(answer) = answers.into_iter().next() else { return Ok(None) };
    let settings = answer.map_err(|code| untold(KafkaError::AdminOp(code)))?;
    let value = settings.get(CREATION_SETTING).and_then(|entry| entry.value.as_deref());
    Ok(value.and_then(|value| value.parse().ok()))
}
