//! How large a record a topic takes, and how many copies must have it, asked of the broker.
//!
//! Promises: an answer is the topic's own setting; where the broker does not tell, nothing waits for it
//! again for a minute. Must not: guess. Fails: never; not to know is an answer.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::runtime::{Builder, Runtime};

const LIMIT_SETTING: &str = "max.message.bytes";
const COPIES_SETTING: &str = "min.insync.replicas";
/// One request for a topic's settings.
const TIMEOUT: Duration = Duration::from_secs(2);
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
    let settings = answer.map_err(KafkaError::AdminOp)?;
    let number = |name: &str| settings.get(name)?.value.as_deref()?.parse().ok();
    Ok(Told { limit_bytes: number(LIMIT_SETTING), copies_needed: number(COPIES_SETTING) })
}
