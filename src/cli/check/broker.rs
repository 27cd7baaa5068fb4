//! The Kafka side of `check`: a broker answers, and the topics of events that wait or are parked are there.
//!
//! Promises: a few requests, however many topics there are; no topic is made by them. Must not: publish.
//! Fails: when a thread breaks down; what Kafka refuses is a finding.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cli::backlog::{EventKind, WaitingKinds};
use crate::cli::check::findings::Findings;
use crate::cli::check::topics;
use crate::cli::check::topics::named;
use crate::config::{Config, OnMissingTopic};
use crate::error::{Error, ErrorKind, Result};
use crate::publish::OnPoison;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::topic_check;
use crate::publish::kafka::topic_check::{ExistingTopics, MissingTopics};
use crate::publish::kafka::topic_creation::{Rehearsal, create_topics};
use crate::record::topic::TopicTemplate;

/// How the relay logs in, and who the broker proves to be.
const LOGIN: &str = "kafka-auth";

/// Looks at all that `run` needs of Kafka. What waits is `None` when it could not be read.
///
/// # Errors
/// When the looking itself breaks down.
pub(super) async fn look(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    waiting: Option<WaitingKinds>,
    patience: Duration,
) -> Result<()> {
    let is_known = waiting.is_some() || config.kafka.topic.is_fixed();
    let waiting = waiting.unwrap_or_default();
    let (mut wanted, unnamed) = names(&config.kafka.topic, &waiting.kinds);
    wanted.extend(waiting.parked_topics);
    if let OnPoison::DeadLetter(topic) = &config.kafka.on_poison {
        wanted.insert(topic.clone());
    }
    let existing = match ask(producer.clone(), wanted.clone(), patience).await? {
        Ok(existing) => existing,
        Err(error) if error.kind() == ErrorKind::KafkaRefused => {
            findings.failed(LOGIN, &error);
            return Ok(());
        }
        Err(error) => {
            findings.failed("kafka", &error);
            return Ok(());
        }
    };
    findings.passed("kafka", format!("{} answers", config.kafka.brokers));
    findings.passed(LOGIN, config.kafka.login_words());
    for error in &unnamed {
        findings.failed("topics", error);
    }
    if !wanted.is_empty() {
        judge(findings, config, producer, &existing).await;
        if let Err(error) = topics::look(findings, config, producer, &existing).await {
            findings.failed("kafka", &error);
        }
    } else if is_known && waiting.kinds.is_empty() {
        let found = match waiting.may_be_more {
            false => "no event waits, so none was looked for",
            true => "none was looked for: which events wait cannot be seen, or not all of them",
        };
        findings.passed("topics", found);
    }
    Ok(())
}

/// The topics of the waiting events, and why some have none; a fixed topic even when none waits.
fn names(
    template: &TopicTemplate,
    waiting: &BTreeSet<EventKind>,
) -> (BTreeSet<String>, Vec<Error>) {
    if template.is_fixed() {
        return (BTreeSet::from([template.to_string()]), Vec::new());
    }
    let mut topics = BTreeSet::new();
    let mut unnamed = Vec::new();
    for kind in waiting {
        match kind.topic(template) {
            Ok(topic) => {
                topics.insert(topic);
            }
            Err(error) => unnamed.push(error),
        }
    }
    (topics, unnamed)
}

async fn judge(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    existing: &ExistingTopics,
) {
    let ExistingTopics { ready, unusable, missing, .. } = existing;
    if !ready.is_empty() {
        let all = ready.len() + unusable.len() + missing.len();
        let there = ready.len();
        findings.passed("topics", format!("{there} of {all} that events wait for are there"));
    }
    for error in unusable {
        findings.failed("topics", error);
    }
    if missing.is_empty() {
        return;
    }
    if config.kafka.on_missing_topic == OnMissingTopic::Make {
        return rehearse(findings, config, producer, missing).await;
    }
    let names = named(missing);
    let refused = |cause: String| {
        Error::new(ErrorKind::TopicUnavailable, cause).with_remedy(
            "create them (kafka-topics.sh --create), or grant Describe if they are there",
        )
    };
    match existing.missing_topics(producer).await {
        MissingTopics::Created => findings.warned(
            "topics",
            format!("not there yet: {names}; the broker creates topics by itself"),
            "create them first if their number of partitions matters",
        ),
        MissingTopics::Refused => {
            findings.failed("topics", &refused(format!("not there: {names}")));
        }
        MissingTopics::Unknown => findings.failed(
            "topics",
            &refused(format!(
                "not there: {names}; the broker does not say whether it creates topics by itself"
            )),
        ),
    }
}

/// Whether the topics could be made that `run` would make.
async fn rehearse(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    missing: &BTreeSet<String>,
) {
    let names: Vec<&str> = missing.iter().map(String::as_str).collect();
    let rehearsed = create_topics(producer, &config.kafka.topic_rules, &names, Rehearsal::On).await;
    let rehearsed = match rehearsed {
        Ok(rehearsed) => rehearsed,
        Err(error) => return findings.failed("kafka", &error),
    };
    let mut could_be_made = BTreeSet::new();
    for (topic, outcome) in rehearsed {
        match outcome {
            Ok(()) => {
                could_be_made.insert(topic);
            }
            Err(error) => findings.failed("acl", &error),
        }
    }
    if !could_be_made.is_empty() {
        let names = named(&could_be_made);
        findings.passed("topics", format!("not there yet: {names}; run makes them"));
    }
}

/// Asks librdkafka, which blocks. The outer error is a breakdown, the inner one an answer.
async fn ask(
    producer: ProducerConfig,
    topics: BTreeSet<String>,
    patience: Duration,
) -> Result<Result<ExistingTopics>> {
    tokio::task::spawn_blocking(move || topic_check::look(&producer, &topics, patience))
        .await
        .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))
}
