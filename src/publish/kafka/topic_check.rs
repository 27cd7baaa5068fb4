//! Which topics are there, asked without making any.
//!
//! Promises: asks for the list of all topics: a broker that creates what it is asked about creates
//! nothing. Must not: publish, or change a broker's settings.
//! Fails: when no broker answers; a topic that cannot be used is an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::KafkaError;

use crate::error::{Error, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::topic_list::Listing;
use crate::publish::kafka::{ask, errors};

/// One request for the settings of a broker, or of some topics.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(5);
/// So many topics are asked for by one request.
const TOGETHER: usize = 200;
/// What the names of Kafka's own topics begin with.
const OWN_OF_KAFKA: &str = "__";
const CREATION_SETTING: &str = "auto.create.topics.enable";

/// How a topic that is there is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLayout {
    /// How many partitions it has.
    pub partitions: NonZeroU32,
    /// How many copies each of them has; the fewest.
    pub copies: usize,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldSetting {
    /// Its value; none for a secret.
    pub value: Option<String>,
    /// Whether the topic itself was given it, and not the broker.
    pub is_own: bool,
}

/// The settings of a topic by name, as a broker tells them.
pub type ToldSettings = BTreeMap<String, ToldSetting>;

/// What Kafka says of the topics that were asked for.
#[derive(Debug, Default)]
pub struct ExistingTopics {
    /// Those that can be published to now.
    pub ready: BTreeMap<String, TopicLayout>,
    /// Why others, which are there, cannot.
    pub unusable: Vec<Error>,
    /// Those that the brokers do not list for this user.
    pub missing: BTreeSet<String>,
    /// How many brokers there are.
    pub brokers: usize,
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

/// The names of all topics, but for Kafka's own. Blocks, for as long as that at most.
///
/// # Errors
/// As [`look`].
pub fn listed(config: &ProducerConfig, patience: Duration) -> Result<Vec<String>> {
    let metadata = ask::fetch_all(config, patience)?;
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    Ok(names.filter(|name| !name.starts_with(OWN_OF_KAFKA)).collect())
}

/// Looks for these topics. Blocks, for as long as that at most.
///
/// # Errors
/// When no broker answers in time, or librdkafka refuses its configuration.
pub fn look(
    config: &ProducerConfig,
    wanted: &BTreeSet<String>,
    patience: Duration,
) -> Result<ExistingTopics> {
    let metadata = ask::fetch_all(config, patience)?;
    let listing = Listing::of(&metadata);
    let broker = metadata.brokers().first().map(|broker| broker.id());
    let brokers = metadata.brokers().len();
    let mut existing = ExistingTopics { brokers, broker, ..ExistingTopics::default() };
    for topic in wanted {
        let listed = metadata.topics().iter().map(|topic| topic.name());
        match listing.get(topic) {
            Some(Ok((partitions, copies))) => {
                existing.ready.insert(topic.clone(), TopicLayout { partitions, copies });
            }
            Some(Err(error)) => existing.unusable.push(error),
            None => match errors::colliding(topic, listed) {
                Some(other) => existing.unusable.push(errors::collision(topic, other)),
                None => {
                    existing.missing.insert(topic.clone());
                }
            },
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

/// The settings of these topics, which are there; of one that the broker keeps to itself there are none.
///
/// # Errors
/// When no broker answers in time.
pub async fn settings<'a>(
    config: &ProducerConfig,
    topics: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, ToldSettings>> {
    let admin = config.admin()?;
    let options = AdminOptions::new().request_timeout(Some(SETTINGS_TIMEOUT));
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let mut found = BTreeMap::new();
    for some in topics.chunks(TOGETHER) {
        let answers = admin.describe_configs(some, &options).await;
        for answer in answers.map_err(|cause| errors::unavailable(&cause, None))? {
            let Ok(answer) = answer else { continue };
            let OwnedResourceSpecifier::Topic(topic) = answer.specifier else { continue };
            let told = answer.entries.into_iter().map(|entry| {
                let is_own = entry.source == ConfigSource::DynamicTopic;
                (entry.name, ToldSetting { value: entry.value, is_own })
            });
            found.insert(topic, told.collect());
        }
    }
    Ok(found)
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
