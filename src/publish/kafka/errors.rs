//! What an answer or an error of Kafka means, in words.
//!
//! Promises: one line of cause, one line of what to do; a topic's trouble is told apart from a broker's.
//! Must not: decide what follows.

use std::num::NonZeroU32;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::{RDKafkaConfRes, RDKafkaRespErr};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::verdict::{CodeVerdict, words};

/// The number of partitions of a topic that can be written to.
pub(super) fn ready_partitions(topic: &str, metadata: &Metadata) -> Result<NonZeroU32> {
    partitions_of(topic, metadata.topics().iter().find(|found| found.name() == topic))
}

/// The same of what was found of it, if it was.
pub(super) fn partitions_of(topic: &str, found: Option<&MetadataTopic>) -> Result<NonZeroU32> {
    let leaders =
        |found: &MetadataTopic| found.partitions().iter().all(|partition| partition.leader() >= 0);
    let count = found.map_or(0, |found| found.partitions().len());
    let error = found.and_then(|found| found.error());
    match (found, error, u32::try_from(count).ok().and_then(NonZeroU32::new)) {
        (Some(found), None, Some(count)) if leaders(found) => Ok(count),
        (Some(_), None, Some(_)) | (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE), _) => {
            Err(Error::new(
                ErrorKind::TopicUnavailable,
                format!("topic {topic} has a partition without a leader"),
            )
            .with_remedy("look at the brokers; postrider goes on when there is a leader"))
        }
        (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED), _) => Err(Error::new(
            ErrorKind::TopicUnavailable,
            format!("Kafka does not let this user write to topic {topic}"),
        )
        // Where topics are made, brokers say the same of one that is missing, and that this user may not make.
        .with_remedy(format!(
            "grant Write and Describe on topic {topic}, or make it if it is not there"
        ))),
        _ => Err(Error::new(
            ErrorKind::TopicUnavailable,
            format!("topic {topic} does not exist, and the broker did not create it"),
        )
        .with_remedy(format!(
            "create it (kafka-topics.sh --create --topic {topic}), or set auto.create.topics.enable=true on the broker"
        ))),
    }
}

/// A topic that is missing, and cannot be made beside another.
pub(super) fn collision(topic: &str, other: &str) -> Error {
    Error::new(
        ErrorKind::TopicUnavailable,
        format!("topic {topic} does not exist, and Kafka makes none of that name beside {other}: . and _ count as the same"),
    )
    .with_remedy(format!(
        "publish to {other}, or to a name that differs by more than . and _ (--topic, or the aggregatetype)"
    ))
}

/// The first of these topics beside which Kafka makes none of this name, and does not have it.
///
/// Source: Apache Kafka, `org.apache.kafka.common.internals.Topic`, `hasCollision`.
pub(super) fn colliding<'a>(
    topic: &str,
    mut listed: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    if !topic.contains(['.', '_']) || listed.clone().any(|other| other == topic) {
        return None;
    }
    let folded = topic.replace('.', "_");
    listed.find(|other| other.len() == topic.len() && other.replace('.', "_") == folded)
}

/// How many copies a topic's partitions have; the fewest of them.
pub(super) fn copies(topic: &str, metadata: &Metadata) -> usize {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    found.map_or(0, copies_of)
}

/// The same of what was found of it.
pub(super) fn copies_of(found: &MetadataTopic) -> usize {
    let partitions = found.partitions().iter();
    partitions.map(|partition| partition.replicas().len()).min().unwrap_or_default()
}

/// The brokers refuse records for as long as that is so, each of them with an error that is worth a retry.
pub(super) fn too_few_copies(topic: &str, copies: usize, needed: usize) -> Error {
    let counted = if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") };
    Error::new(
        ErrorKind::TopicUnavailable,
        format!(
            "topic {topic} has {counted}, and min.insync.replicas={needed}: the brokers refuse what goes there"
        ),
    )
    .with_remedy(format!("give topic {topic} more copies, or lower its min.insync.replicas"))
}

/// What librdkafka said of its connections.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) code: Option<RDKafkaErrorCode>,
    pub(super) reason: String,
}

/// librdkafka has one code for every connection that ends, and says in words alone that it ended where a broker
/// expects TLS or SASL.
const WANTS_ANOTHER_PROTOCOL: &str = "security.protocol";

/// What opens the way that is shut for this reason; none when there is no way at all.
fn key_to(trouble: &Trouble) -> Option<&'static str> {
    match trouble.code {
        Some(RDKafkaErrorCode::Authentication) => Some(
            "check sasl.mechanisms, sasl.username and sasl.password, or what --kafka-token-command writes",
        ),
        Some(RDKafkaErrorCode::SSL) => Some(
            "check security.protocol, and ssl.ca.location: a file with the authority that signed the \
             broker's certificate, which must name the host in --brokers",
        ),
        _ if trouble.reason.contains(WANTS_ANOTHER_PROTOCOL) => Some(
            "check security.protocol (set by -X name=value): PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        ),
        _ => None,
    }
}

pub(super) fn unavailable(cause: &KafkaError, trouble: Option<Trouble>) -> Error {
    if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = cause {
        return invalid(cause.clone());
    }
    if let Some((trouble, remedy)) =
        trouble.as_ref().and_then(|known| Some((known, key_to(known)?)))
    {
        let cause = format!("Kafka refused the connection: {}", trouble.reason);
        return Error::new(ErrorKind::KafkaRefused, cause).with_remedy(remedy);
    }
    let reason = trouble.map_or_else(|| cause.to_string(), |trouble| trouble.reason);
    if lacks_a_leader(cause) {
        return Error::new(
            ErrorKind::KafkaUnavailable,
            format!("the brokers answer, but a partition has no leader yet: {cause}"),
        )
        .with_remedy(
            "wait: postrider goes on when there is a leader; if it lasts, look at the brokers",
        );
    }
    Error::new(ErrorKind::KafkaUnavailable, format!("no Kafka broker can be reached: {reason}"))
        .with_remedy(
            "check --brokers, that the brokers run and advertise addresses reachable from here, and that \
             security.protocol is theirs",
        )
}

/// The same for a producer that has begun: a connection that ends soon is told in the words of one that is refused, as
/// where a broker dies, and librdkafka logs in anew by itself. It is an outage, whose words say what opens the way.
pub(super) fn as_outage(error: Error) -> Error {
    match error.kind() {
        ErrorKind::KafkaRefused => error.with_kind(ErrorKind::KafkaUnavailable),
        _ => error,
    }
}

/// Whether a broker has said so, as it does of a topic that was just made, and while its leaders move.
fn lacks_a_leader(cause: &KafkaError) -> bool {
    matches!(
        cause.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Names the property and says why, but never its value: that may be a secret.
pub(super) fn invalid(cause: KafkaError) -> Error {
    let reason = match cause {
        KafkaError::ClientConfig(result, why, name, value) => {
            format!("{name}: {}", without_value(result, &why, &value))
        }
        // Of the one property that librdkafka quotes when it makes a client.
        KafkaError::ClientCreation(why) => {
            why.split(" beginning at").next().unwrap_or_default().to_owned()
        }
        other => other.to_string(),
    };
    Error::new(ErrorKind::Config, format!("librdkafka refuses its configuration: {reason}"))
        .with_remedy("check the properties given by -X, POSTRIDER_X_… or [librdkafka]")
}

/// librdkafka quotes a value, or an item of it, when it refuses it.
fn without_value(result: RDKafkaConfRes, why: &str, value: &str) -> String {
    let is_between = |character: char| !character.is_ascii_alphanumeric();
    let words = |text| str::split(text, is_between).filter(|word| !word.is_empty());
    let quotes = words(value).any(|word| words(why).any(|other| other == word));
    match result {
        RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "there is no such property".to_owned(),
        _ if quotes => "its value is none that it takes".to_owned(),
        _ => why.trim_end().to_owned(),
    }
}

/// A record that was not appended, or of which nobody knows.
pub(super) fn refused(cause: &KafkaError, topic: &str) -> Error {
    match CodeVerdict::of(cause.rdkafka_error_code()) {
        CodeVerdict::Size => replaced(format!("topic {topic} refused a batch as too large")),
        CodeVerdict::Topic => refused_topic(topic, &words(cause)),
        CodeVerdict::Away
        | CodeVerdict::Cut
        | CodeVerdict::TooFew
        | CodeVerdict::BrokenOff
        | CodeVerdict::Unclear
        | CodeVerdict::Record
        | CodeVerdict::Beside => Error::new(
            ErrorKind::DeliveryUncertain,
            format!("a record for topic {topic} was not acknowledged: {}", words(cause)),
        ),
    }
}

/// A topic to which records are refused, whatever is in them.
pub(super) fn refused_topic(topic: &str, words: &str) -> Error {
    Error::new(ErrorKind::TopicUnavailable, format!("topic {topic} was refused: {words}"))
        .with_remedy("check that the topic exists and that this user may write to it")
}

/// The producer has to give way to one that is made with what was learnt.
pub(super) fn replaced(cause: String) -> Error {
    Error::new(ErrorKind::DeliveryUncertain, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_a_leader_is_no_broker_that_is_away() {
        for (code, words) in [
            (RDKafkaErrorCode::NotLeaderForPartition, "the brokers answer"),
            (RDKafkaErrorCode::LeaderNotAvailable, "the brokers answer"),
            (RDKafkaErrorCode::BrokerTransportFailure, "no Kafka broker can be reached"),
        ] {
            let error = unavailable(&KafkaError::MetadataFetch(code), None);
            assert!(error.message().starts_with(words), "{error}");
            assert_eq!(error.kind(), ErrorKind::KafkaUnavailable, "it is tried again");
        }
    }

    /// The words are librdkafka's, of a broker that was killed a moment after it had answered.
    #[test]
    fn a_broker_that_dies_refuses_nobody_for_good() {
        let reason = "b:1/1: Disconnected: verify that security.protocol is correctly configured, broker might \
                      require SASL authentication (after 12ms in state UP)";
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        let trouble = || Some(Trouble { code: Some(code), reason: reason.to_owned() });
        let told = unavailable(&KafkaError::MetadataFetch(code), trouble());
        assert_eq!(told.kind(), ErrorKind::KafkaRefused, "whoever begins is to see it");
        let outage = as_outage(unavailable(&KafkaError::MetadataFetch(code), trouble()));
        assert_eq!(outage.kind(), ErrorKind::KafkaUnavailable);
        assert_eq!((outage.message(), outage.remedy()), (told.message(), told.remedy()));
        let other = as_outage(replaced("a record was refused".to_owned()));
        assert_eq!(other.kind(), ErrorKind::DeliveryUncertain);
    }

    #[test]
    fn names_collide_that_differ_by_dots_alone() {
        let listed = ["a.b", "order_item", "x-y"];
        let find = |topic| colliding(topic, listed.iter().copied());
        assert_eq!(find("order.item"), Some("order_item"));
        assert_eq!(find("a_b"), Some("a.b"));
        for topic in ["a.b", "a.c", "x_y", "order_items", "x-y"] {
            assert_eq!(find(topic), None, "{topic}");
        }
    }
}
