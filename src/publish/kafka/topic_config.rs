//! How large a record a topic takes, and how many copies must have it, asked of the broker.
//!
//! Promises: an answer is the topic's own setting, the last that was told; where the broker does not tell,
//! nothing waits for it again for a minute: for a topic that it keeps to itself, or for any when it says
//! nothing at all. Must not: guess. Fails: never; not to know is an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::error::KafkaError;
use tokio::runtime::{Builder, Runtime};

use crate::publish::kafka::clients::{AsideContext, ProducerConfig};
use crate::publish::kafka::producer::Warnings;

const LIMIT_SETTING: &str = "max.message.bytes";
const COPIES_SETTING: &str = "min.insync.replicas";
const NOT_TOLD: &str = "max.message.bytes is not among the settings that it tells";
/// One request for a topic's settings.
const TIMEOUT: Duration = Duration::from_secs(2);
/// So many topics are asked for by one request.
const TOGETHER: usize = 200;
/// After a broker did not answer it is left alone for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// What a broker tells of a topic; none of what it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicSettings {
    /// The largest record that it takes.
    pub(super) limit_bytes: Option<usize>,
    /// So many copies must have a record before it is acknowledged.
    pub(super) copies_needed: Option<usize>,
}

/// Topics of which more is kept than that they are silent are forgotten from here on.
const TOPICS_MAX: usize = 16_384;

/// Asks for limits; made when the first topic is met.
pub(super) struct Limits {
    config: ProducerConfig,
    asking: Option<Asking>,
    /// No broker answers until then.
    silent_until: Option<Instant>,
    topics: HashMap<String, KeptSettings>,
}

/// What is kept of a topic.
#[derive(Debug, Default)]
struct KeptSettings {
    told: TopicSettings,
    silent_until: Option<Instant>,
}

struct Asking {
    admin: Arc<AdminClient<AsideContext>>,
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
    pub(super) fn new(config: &ProducerConfig) -> Self {
        Self { config: config.clone(), asking: None, silent_until: None, topics: HashMap::new() }
    }

    /// The topic's settings, as far as the broker tells or has told. Blocks for a round trip.
    pub(super) fn ask(&mut self, topic: &str, now: Instant, warnings: &Warnings) -> TopicSettings {
        let is_silent = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let known = self.topics.get(topic);
        if is_silent(self.silent_until) || known.is_some_and(|known| is_silent(known.silent_until))
        {
            return known.map(|known| known.told).unwrap_or_default();
        }
        match self.try_to_ask(topic) {
            Ok(told) => self.keep(topic, KeptSettings { told, silent_until: None }),
            Err(Untold::Topic(cause)) => self.silence(topic, &cause, now, warnings),
            Err(Untold::All(cause)) => self.silence_all(topic, &cause, now, warnings),
        }
        self.last_told(topic)
    }

    /// The same of many, by few requests: what is told of each, or was last.
    pub(super) fn ask_many(
        &mut self,
        topics: &[&str],
        now: Instant,
        warnings: &Warnings,
    ) -> HashMap<String, TopicSettings> {
        let is_silent = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let speaks = |topic: &&str| {
            !self.topics.get(*topic).is_some_and(|known| is_silent(known.silent_until))
        };
        let asked: Vec<&str> = topics.iter().copied().filter(speaks).collect();
        if !asked.is_empty() && !is_silent(self.silent_until) {
            match self.try_to_ask_many(&asked) {
                Ok(told) => {
                    for topic in asked {
                        match told.get(topic) {
                            Some(told) => {
                                self.keep(topic, KeptSettings { told: *told, silent_until: None });
                            }
                            None => self.silence(topic, NOT_TOLD, now, warnings),
                        }
                    }
                }
                Err(cause) => self.silence_all(asked[0], &cause, now, warnings),
            }
        }
        topics.iter().map(|topic| ((*topic).to_owned(), self.last_told(topic))).collect()
    }

    fn last_told(&self, topic: &str) -> TopicSettings {
        self.topics.get(topic).map(|known| known.told).unwrap_or_default()
    }

    fn keep(&mut self, topic: &str, known: KeptSettings) {
        if self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(topic) {
            self.topics.clear();
        }
        *self.topics.entry_ref(topic).or_default() = known;
    }

    /// The broker keeps this topic's settings to itself.
    fn silence(&mut self, topic: &str, cause: &str, now: Instant, warnings: &Warnings) {
        let told = self.last_told(topic);
        self.keep(topic, KeptSettings { told, silent_until: Some(now + SILENCE) });
        say(topic, cause, warnings, now);
    }

    /// Nobody answers.
    fn silence_all(&mut self, topic: &str, cause: &str, now: Instant, warnings: &Warnings) {
        self.silent_until = Some(now + SILENCE);
        // Its client may have lost the brokers for good, see `standstill`.
        self.asking = None;
        say(topic, cause, warnings, now);
    }

    fn try_to_ask_many(
        &mut self,
        topics: &[&str],
    ) -> Result<HashMap<String, TopicSettings>, String> {
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

    fn try_to_ask(&mut self, topic: &str) -> Result<TopicSettings, Untold> {
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
            remedy = remedy(cause),
            "the broker does not tell how much a topic takes: what was told last holds, and the broker \
             decides about larger events"
        );
    }
}

/// Brokers that do not answer say nothing of rights.
fn remedy(cause: &str) -> &'static str {
    if ["TimedOut", "Transport", "timed out"].iter().any(|words| cause.contains(words)) {
        "look at the brokers, which do not answer; they are asked again"
    } else {
        "let this user describe the configuration of topics (DescribeConfigs)"
    }
}

impl Asking {
    fn start(config: &ProducerConfig) -> Result<Self, String> {
        let runtime = Builder::new_current_thread().build().map_err(|cause| cause.to_string())?;
        let admin = config.admin().map_err(|error| error.message().to_owned())?;
        Ok(Self { admin, runtime })
    }
}

/// Asks for the settings of one topic.
pub(super) async fn describe(
    admin: &AdminClient<AsideContext>,
    topic: &str,
) -> Result<TopicSettings, Untold> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let answers = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let answers = answers.map_err(|cause| Untold::All(cause.to_string()))?;
    let Some(answer) = answers.into_iter().next() else { return Ok(TopicSettings::default()) };
    let settings = answer.map_err(|cause| Untold::Topic(cause.to_string()))?;
    told(&settings).ok_or_else(|| Untold::Topic(NOT_TOLD.to_owned()))
}

/// Every topic has a limit. Whoever may not ask gets an answer without settings, and without an error.
fn told(settings: &ConfigResource) -> Option<TopicSettings> {
    let number = |name: &str| settings.get(name)?.value.as_deref()?.parse().ok();
    let limit_bytes = number(LIMIT_SETTING)?;
    Some(TopicSettings { limit_bytes: Some(limit_bytes), copies_needed: number(COPIES_SETTING) })
}

/// Of one that the broker does not let us ask for nothing is told.
async fn describe_many(
    admin: &AdminClient<AsideContext>,
    topics: &[&str],
) -> Result<Vec<(String, TopicSettings)>, KafkaError> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let asked: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = admin.describe_configs(&asked, &options).await?;
    let named = |settings: ConfigResource| match &settings.specifier {
        OwnedResourceSpecifier::Topic(topic) => Some((topic.clone(), told(&settings)?)),
        OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
    };
    Ok(answers.into_iter().filter_map(|answer| answer.ok().and_then(named)).collect())
}
