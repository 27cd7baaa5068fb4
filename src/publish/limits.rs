//! How large a record a topic takes, and how many copies must have it, asked of the broker.
//!
//! Promises: an answer is the topic's own setting; where the broker does not tell, nothing waits for it
//! again for a minute. Must not: guess. Fails: never; not to know is an answer.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::runtime::{Builder, Runtime};

const LIMIT_SETTING: &str = "max.message.bytes";
const COPIES_SETTING: &str = "min.insync.replicas";
/// One request for a topic's settings.
const TIMEOUT: Duration = Duration::from_secs(2);
/// So many topics are asked for by one request.
const TOGETHER: usize = 200;
/// After a broker did not answer it is left alone for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// What a broker tells of a topic; none of what it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The largest record that it takes.
    pub(super) limit_bytes: Option<usize>,
    /// So many copies must have a record before it is acknowledged.
    pub(super) copies_needed: Option<usize>,
}

/// Asks for limits; made when the first topic is met.
pub(super) struct Limits {
    config: ClientConfig,
    asking: Option<Asking>,
    silent_until: Option<Instant>,
}

struct Asking {
    admin: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl Limits {
    /// Asks with the producer's own connection settings.
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self { config: config.clone(), asking: None, silent_until: None }
    }

    /// The topic's settings, as far as the broker tells. Blocks for a round trip.
    pub(super) fn ask(&mut self, topic: &str, now: Instant) -> Told {
        if self.silent_until.is_some_and(|until| now < until) {
            return Told::default();
        }
        match self.try_to_ask(topic) {
            Ok(told) => told,
            Err(cause) => {
                tracing::debug!(topic, cause, "the broker does not tell how much a topic takes");
                self.silent_until = Some(now + SILENCE);
                // Its client may have lost the brokers for good, see `standstill`.
                self.asking = None;
                Told::default()
            }
        }
    }

    /// The same of many, by few requests. One that is missing was not told.
    pub(super) fn ask_many(&mut self, topics: &[&str], now: Instant) -> HashMap<String, Told> {
        if topics.is_empty() || self.silent_until.is_some_and(|until| now < until) {
            return HashMap::new();
        }
        match self.try_to_ask_many(topics) {
            Ok(told) => told,
            Err(cause) => {
                tracing::debug!(cause, "the broker does not tell how much topics take");
                self.silent_until = Some(now + SILENCE);
                self.asking = None;
                HashMap::new()
            }
        }
    }

    fn try_to_ask_many(&mut self, topics: &[&str]) -> Result<HashMap<String, Told>, String> {
        let asking = match &self.asking {
            Some(asking) => asking,
            None => self.asking.insert(Asking::start(&self.config)?),
        };
        let mut told = HashMap::new();
        for some in topics.chunks(TOGETHER) {
            let answer = asking.runtime.block_on(describe_many(&asking.admin, some));
            told.extend(answer.map_err(|cause| cause.to_string())?);
        }
        Ok(told)
    }

    fn try_to_ask(&mut self, topic: &str) -> Result<Told, String> {
        let asking = match &self.asking {
            Some(asking) => asking,
            None => self.asking.insert(Asking::start(&self.config)?),
        };
        let answer = asking.runtime.block_on(describe(&asking.admin, topic));
        answer.map_err(|cause| cause.to_string())
    }
}

impl Asking {
    fn start(config: &ClientConfig) -> Result<Self, String> {
        let runtime = Builder::new_current_thread().build().map_err(|cause| cause.to_string())?;
        let admin = config.create().map_err(|cause: KafkaError| cause.to_string())?;
        Ok(Self { admin, runtime })
    }
}

async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
) -> Result<Told, KafkaError> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let answers = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await?;
    let Some(answer) = answers.into_iter().next() else { return Ok(Told::default()) };
    Ok(told(&answer.map_err(KafkaError::AdminOp)?))
}

fn told(settings: &ConfigResource) -> Told {
    let number = |name: &str| settings.get(name)?.value.as_deref()?.parse().ok();
    Told { limit_bytes: number(LIMIT_SETTING), copies_needed: number(COPIES_SETTING) }
}

/// Of one that the broker does not let us ask for nothing is told.
async fn describe_many(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&str],
) -> Result<Vec<(String, Told)>, KafkaError> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let asked: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = admin.describe_configs(&asked, &options).await?;
    let named = |settings: ConfigResource| match &settings.specifier {
        OwnedResourceSpecifier::Topic(topic) => Some((topic.clone(), told(&settings))),
        OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
    };
    Ok(answers.into_iter().filter_map(|answer| answer.ok().and_then(named)).collect())
}
