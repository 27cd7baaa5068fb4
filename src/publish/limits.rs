//! How large a record a topic takes, and how many copies must have it, asked of the broker.
//!
//! Promises: an answer is the topic's own setting, the last that was told; where the broker does not tell,
//! nothing waits for it again for a minute: for a topic that it keeps to itself, or for any when it says
//! nothing at all. Must not: guess. Fails: never; not to know is an answer.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::runtime::{Builder, Runtime};

use super::kafka::Warnings;

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

/// Topics of which more is kept than that they are silent are forgotten from here on.
const TOPICS_MAX: usize = 16_384;

/// Asks for limits; made when the first topic is met.
pub(super) struct Limits {
    config: ClientConfig,
    asking: Option<Asking>,
    /// No broker answers until then.
    silent_until: Option<Instant>,
    topics: HashMap<String, Topic>,
}

/// What is kept of a topic.
#[derive(Debug, Default)]
struct Topic {
    told: Told,
    silent_until: Option<Instant>,
}

struct Asking {
    admin: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

/// Why a broker did not tell.
pub(super) enum Untold {
    /// It keeps this topic's settings to itself.
    Topic(String),
    /// Nobody answered.
    All(String),
}

impl Limits {
    /// Asks with the producer's own connection settings.
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self { config: config.clone(), asking: None, silent_until: None, topics: HashMap::new() }
    }

    /// The topic's settings, as far as the broker tells or has told. Blocks for a round trip.
    pub(super) fn ask(&mut self, topic: &str, now: Instant, warnings: &Warnings) -> Told {
        let is_silent = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let known = self.topics.get(topic);
        if is_silent(self.silent_until) || known.is_some_and(|known| is_silent(known.silent_until))
        {
            return known.map(|known| known.told).unwrap_or_default();
        }
        let answer = self.try_to_ask(topic);
        if self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(topic) {
            self.topics.clear();
        }
        let known = self.topics.entry_ref(topic).or_default();
        match answer {
            Ok(told) => *known = Topic { told, silent_until: None },
            Err(Untold::Topic(cause)) => {
                known.silent_until = Some(now + SILENCE);
                say(topic, &cause, warnings, now);
            }
            Err(Untold::All(cause)) => {
                self.silent_until = Some(now + SILENCE);
                // Its client may have lost the brokers for good, see `standstill`.
                self.asking = None;
                say(topic, &cause, warnings, now);
            }
        }
        known.told
    }

    fn try_to_ask(&mut self, topic: &str) -> Result<Told, Untold> {
        let asking = match &self.asking {
            Some(asking) => asking,
            None => self.asking.insert(Asking::start(&self.config).map_err(Untold::All)?),
        };
        asking.runtime.block_on(describe(&asking.admin, topic))
    }
}

/// Limits that cannot be asked for cost a refusal each time one is met; said now and then.
fn say(topic: &str, cause: &str, warnings: &Warnings, now: Instant) {
    if let Some(unsaid) = warnings.note("limits that brokers do not tell", now) {
        tracing::warn!(
            topic,
            cause,
            unsaid,
            remedy = "let this user describe the configuration of topics (DescribeConfigs)",
            "the broker does not tell how much a topic takes: what was told last holds, and the broker \
             decides about larger events"
        );
    }
}

impl Asking {
    fn start(config: &ClientConfig) -> Result<Self, String> {
        let runtime = Builder::new_current_thread().build().map_err(|cause| cause.to_string())?;
        let admin = config.create().map_err(|cause: KafkaError| cause.to_string())?;
        Ok(Self { admin, runtime })
    }
}

/// Asks for the settings of one topic.
pub(super) async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
) -> Result<Told, Untold> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let answers = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let answers = answers.map_err(|cause| Untold::All(cause.to_string()))?;
    let Some(answer) = answers.into_iter().next() else { return Ok(Told::default()) };
    let settings = answer.map_err(|cause| Untold::Topic(cause.to_string()))?;
    let number = |name: &str| settings.get(name)?.value.as_deref()?.parse().ok();
    // Every topic has a limit. Whoever may not ask gets an answer without settings, and without an error.
    let Some(limit_bytes) = number(LIMIT_SETTING) else {
        return Err(Untold::Topic(format!(
            "{LIMIT_SETTING} is not among the settings that it tells"
        )));
    };
    Ok(Told { limit_bytes: Some(limit_bytes), copies_needed: number(COPIES_SETTING) })
}
