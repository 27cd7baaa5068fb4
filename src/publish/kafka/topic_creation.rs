//! Makes topics, and changes them, as the rules say.
//!
//! Promises: a topic that is there is left as it is, unless a change is asked for by its name; asked whether one is
//! missing, the brokers make none. Must not: decide how a topic is made.
//! Fails: for what the brokers refuse, with cause and remedy; without an answer nothing is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, ErrorKind};
use crate::publish::kafka::clients::{AsideContext, ProducerConfig};
use crate::publish::kafka::errors;
use crate::record::topic_rules::{TopicRules, TopicShape};

/// One request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the brokers may take until a topic is there.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);
/// What the brokers are told where they decide.
const AS_THE_BROKERS_DO: i32 = -1;

/// Whether a change is made, or only looked at whether it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// It is made.
    Off,
    /// Nothing is changed.
    On,
}

/// What became of a topic that was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was there.
    Found,
    /// It is there since a moment ago; its leaders may not be.
    Made,
}

/// Why a topic may not be there.
#[derive(Debug)]
pub(super) enum Absence {
    /// The brokers make none.
    Refused(Error),
    /// They did not answer.
    Unanswered(KafkaError),
}

/// Makes missing topics for a producer and its watcher.
pub(super) struct TopicCreator {
    config: ProducerConfig,
    rules: Arc<TopicRules>,
    /// Made when the first topic is missing.
    asking: Mutex<Option<CreationClient>>,
}

/// A client, and what its answers are waited for with.
struct CreationClient {
    admin: Arc<AdminClient<AsideContext>>,
    runtime: Runtime,
}

impl TopicCreator {
    /// None where topics are not to be made.
    pub(super) fn of(config: &ProducerConfig) -> Option<Arc<Self>> {
        let rules = Arc::clone(config.topic_rules()?);
        Some(Arc::new(Self { config: config.clone(), rules, asking: Mutex::new(None) }))
    }

    /// Looks for a topic in the list of all, and makes it if it is not there.
    pub(super) fn ensure<C: ClientContext>(
        &self,
        client: &Client<C>,
        topic: &str,
    ) -> Result<Presence, Absence> {
        let listed = client.fetch_metadata(None, TIMEOUT).map_err(Absence::Unanswered)?;
        if is_listed(&listed, topic) {
            return Ok(Presence::Found);
        }
        if let Some(other) = colliding(&listed, topic) {
            return Err(Absence::Refused(other));
        }
        self.make(&[topic]).remove(topic).unwrap_or(Err(no_answer())).map(|()| Presence::Made)
    }

    /// Makes these, which are not there. What became of each.
    pub(super) fn make(&self, topics: &[&str]) -> BTreeMap<String, Result<(), Absence>> {
        let all = |absence: &dyn Fn() -> Absence| {
            topics.iter().map(|topic| ((*topic).to_owned(), Err(absence()))).collect()
        };
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let started = match asking.take().map_or_else(|| CreationClient::start(&self.config), Ok) {
            Ok(started) => started,
            Err(error) => {
                let (kind, cause) = (error.kind(), error.message().to_owned());
                return all(&|| Absence::Refused(Error::new(kind, cause.clone())));
            }
        };
        let made =
            started.runtime.block_on(create(&started.admin, &self.rules, topics, Rehearsal::Off));
        match made {
            Ok(made) => {
                *asking = Some(started);
                self.told(made)
            }
            // The client may have lost the brokers for good: the next one is new.
            Err(cause) => all(&|| Absence::Unanswered(cause.clone())),
        }
    }

    fn told(&self, made: CreateAnswers) -> BTreeMap<String, Result<(), Absence>> {
        let said = made.into_iter().map(|(topic, answer)| {
            let outcome = match answer {
                Ok(()) => {
                    let TopicShape { partitions, copies, .. } = self.rules.shape(&topic);
                    tracing::info!(topic, partitions, copies, "the topic was missing, and is made");
                    Ok(())
                }
                Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(()),
                Err(code) if is_passing(code) => {
                    Err(Absence::Unanswered(KafkaError::AdminOp(code)))
                }
                Err(code) => {
                    Err(Absence::Refused(refused(&topic, &self.rules.shape(&topic), code)))
                }
            };
            (topic, outcome)
        });
        said.collect()
    }
}

impl CreationClient {
    fn start(config: &ProducerConfig) -> Result<Self, Error> {
        let failed = |cause: std::io::Error| Error::new(ErrorKind::Internal, cause.to_string());
        let runtime = Builder::new_current_thread().enable_time().build().map_err(failed)?;
        Ok(Self { admin: config.admin()?, runtime })
    }
}

/// Whether the list of all topics has this one.
pub(super) fn is_listed(listed: &Metadata, topic: &str) -> bool {
    listed.topics().iter().any(|found| found.name() == topic)
}

fn colliding(listed: &Metadata, topic: &str) -> Option<Error> {
    let names = listed.topics().iter().map(|topic| topic.name());
    errors::colliding(topic, names).map(|other| errors::collision(topic, other))
}

fn no_answer() -> Absence {
    Absence::Unanswered(KafkaError::AdminOp(RDKafkaErrorCode::RequestTimedOut))
}

/// The brokers may answer otherwise in a moment.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::NotController
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::ThrottlingQuotaExceeded
    )
}

type CreateAnswers = Vec<(String, Result<(), RDKafkaErrorCode>)>;

/// Makes topics by the rules; what the brokers say of each.
async fn create(
    admin: &AdminClient<AsideContext>,
    rules: &TopicRules,
    topics: &[&str],
    rehearsal: Rehearsal,
) -> Result<CreateAnswers, KafkaError> {
    let shapes: Vec<(&str, TopicShape)> =
        topics.iter().map(|topic| (*topic, rules.shape(topic))).collect();
    let wanted: Vec<NewTopic<'_>> =
        shapes.iter().map(|(topic, shape)| wanted(topic, shape)).collect();
    let options = options().validate_only(rehearsal == Rehearsal::On);
    let answers = admin.create_topics(&wanted, &options).await?;
    Ok(answers.into_iter().map(of_each).collect())
}

fn of_each(
    answer: Result<String, (String, RDKafkaErrorCode)>,
) -> (String, Result<(), RDKafkaErrorCode>) {
    match answer {
        Ok(topic) => (topic, Ok(())),
        Err((topic, code)) => (topic, Err(code)),
    }
}

fn wanted<'a>(topic: &'a str, shape: &'a TopicShape) -> NewTopic<'a> {
    let number = |count: Option<u32>| {
        count.map_or(Some(AS_THE_BROKERS_DO), |count| i32::try_from(count).ok())
    };
    let partitions = number(shape.partitions.map(u32::from)).unwrap_or(i32::MAX);
    let copies = shape.copies.map_or(AS_THE_BROKERS_DO, |copies| i32::from(u16::from(copies)));
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(copies));
    shape.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(OPERATION_TIMEOUT))
}

/// Why the brokers make no such topic.
fn refused(topic: &str, shape: &TopicShape, code: RDKafkaErrorCode) -> Error {
    let remedy = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            format!("grant Create on topic {topic}, or let somebody make it who may")
        }
        RDKafkaErrorCode::InvalidReplicationFactor => format!(
            "set replication-factor to no more than there are brokers ([topics.…], --topic-replication-factor); it is {}",
            shape.copies.map_or_else(|| "the brokers' own".to_owned(), |copies| copies.to_string())
        ),
        RDKafkaErrorCode::InvalidPartitions => {
            "set partitions to a number that the brokers take ([topics.…], --topic-partitions)"
                .to_owned()
        }
        RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::InvalidRequest => {
            let names: Vec<&str> = shape.settings.keys().map(String::as_str).collect();
            format!("correct config of its [topics.…]: {}", names.join(", "))
        }
        _ => format!(
            "make it by hand (kafka-topics.sh --create --topic {topic}); see the brokers' log"
        ),
    };
    let cause = format!("topic {topic} does not exist, and cannot be made: {code}");
    Error::new(ErrorKind::TopicUnavailable, cause).with_remedy(remedy)
}

/// What became of each topic that was to be made or changed.
pub type Changes = BTreeMap<String, Result<(), Error>>;

/// Makes these topics, or looks whether they could be made.
///
/// # Errors
/// When no broker answers in time.
pub async fn create_topics(
    config: &ProducerConfig,
    rules: &TopicRules,
    topics: &[&str],
    rehearsal: Rehearsal,
) -> Result<Changes, Error> {
    if topics.is_empty() {
        return Ok(Changes::new());
    }
    let answers = create(&*config.admin()?, rules, topics, rehearsal).await.map_err(unanswered)?;
    let told = answers.into_iter().map(|(topic, answer)| {
        let shape = rules.shape(&topic);
        let outcome = answer.map_err(|code| refused(&topic, &shape, code));
        (topic, outcome)
    });
    Ok(told.collect())
}

/// Gives a topic more partitions. Keys move.
///
/// # Errors
/// When no broker answers in time, or the brokers refuse.
pub async fn raise_partitions(
    config: &ProducerConfig,
    topic: &str,
    count: u32,
) -> Result<(), Error> {
    let more = NewPartitions::new(topic, count as usize);
    let answers =
        config.admin()?.create_partitions([&more], &options()).await.map_err(unanswered)?;
    answers.into_iter().try_for_each(|answer| of_each(answer).1).map_err(|code| {
        let cause = format!("topic {topic} got no more partitions: {code}");
        Error::new(ErrorKind::TopicUnavailable, cause)
            .with_remedy(format!("grant Alter on topic {topic}, or see the brokers' log"))
    })
}

/// Sets what a topic itself is given. What is not named comes from the brokers again.
///
/// # Errors
/// When no broker answers in time, or the brokers refuse.
pub async fn set(
    config: &ProducerConfig,
    topic: &str,
    settings: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let new = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let answers = config.admin()?.alter_configs([&new], &options()).await.map_err(unanswered)?;
    for answer in answers {
        if let Err((_, code)) = answer {
            let names: Vec<&str> = settings.keys().map(String::as_str).collect();
            let cause = format!("topic {topic} was not changed: {code}");
            return Err(Error::new(ErrorKind::TopicUnavailable, cause).with_remedy(format!(
                "correct config of its [topics.…] ({}), or grant AlterConfigs on it",
                names.join(", ")
            )));
        }
    }
    Ok(())
}

fn unanswered(cause: KafkaError) -> Error {
    errors::unavailable(&cause, None)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use super::*;

    #[test]
    fn what_is_open_is_left_to_the_brokers() {
        let open = TopicShape::default();
        let new = wanted("t", &open);
        assert_eq!(new.num_partitions, AS_THE_BROKERS_DO);
        assert!(matches!(new.replication, TopicReplication::Fixed(AS_THE_BROKERS_DO)));
        let shape = TopicShape {
            partitions: NonZeroU32::new(6),
            copies: NonZeroU16::new(3),
            settings: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        };
        let new = wanted("t", &shape);
        assert_eq!((new.num_partitions, &new.config[..]), (6, &[("a", "b")][..]));
        assert!(matches!(new.replication, TopicReplication::Fixed(3)));
    }

    #[test]
    fn each_refusal_names_what_helps() {
        let shape = TopicShape {
            copies: NonZeroU16::new(3),
            settings: BTreeMap::from([("retention.mss".to_owned(), "1".to_owned())]),
            ..TopicShape::default()
        };
        for (code, words) in [
            (RDKafkaErrorCode::InvalidReplicationFactor, "it is 3"),
            (RDKafkaErrorCode::TopicAuthorizationFailed, "grant Create on topic t"),
            (RDKafkaErrorCode::InvalidConfig, "retention.mss"),
            (RDKafkaErrorCode::PolicyViolation, "by hand"),
        ] {
            let error = refused("t", &shape, code);
            let remedy = error.remedy().unwrap_or_default();
            assert!(remedy.contains(words), "{remedy}");
            assert_eq!(error.kind(), ErrorKind::TopicUnavailable);
            assert!(!is_passing(code));
        }
        assert!(is_passing(RDKafkaErrorCode::NotController));
    }
}
