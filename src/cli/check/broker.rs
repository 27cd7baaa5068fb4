//! The Kafka side of `check`: a broker answers, and the topics of waiting events are there.
//!
//! Promises: bounded work, however many topics there are. Must not: publish.
//! Fails: when a thread breaks down; what Kafka refuses is a finding.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::findings::Findings;
use crate::cli::backlog::EventKind;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};
use crate::publish::kafka;
use crate::publish::settings::ProducerConfig;
use crate::route::TopicTemplate;

/// So many topics are looked at; each may take some seconds when it is missing.
const TOPICS_MAX: usize = 32;
/// So many at a time: each has a connection of its own.
const AT_A_TIME: usize = 8;

/// Looks at all that `run` needs of Kafka. What waits is `None` when it could not be read.
///
/// # Errors
/// When the looking itself breaks down.
pub(super) async fn look(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    waiting: Option<BTreeSet<EventKind>>,
) -> Result<()> {
    if let Err(error) = ask(producer.clone(), None).await? {
        findings.failed("kafka", &error);
        return Ok(());
    }
    findings.passed("kafka", format!("{} answers", config.kafka.brokers));
    let is_known = waiting.is_some() || config.kafka.topic.is_fixed();
    let waiting = waiting.unwrap_or_default();
    let topics = topics(findings, &config.kafka.topic, &waiting);
    if !topics.is_empty() {
        return look_at_topics(findings, producer, &topics).await;
    }
    if is_known && waiting.is_empty() {
        findings.passed("topics", "no event waits, so none was looked for");
    }
    Ok(())
}

/// The topics of the waiting events; a fixed topic even when none waits.
fn topics(
    findings: &mut Findings,
    template: &TopicTemplate,
    waiting: &BTreeSet<EventKind>,
) -> BTreeSet<String> {
    if template.is_fixed() {
        return BTreeSet::from([template.to_string()]);
    }
    let mut topics = BTreeSet::new();
    for kind in waiting {
        match render(template, kind) {
            Ok(topic) => {
                topics.insert(topic);
            }
            Err(error) => findings.failed("topics", &error),
        }
    }
    topics
}

fn render(template: &TopicTemplate, kind: &EventKind) -> Result<String> {
    let event = Event {
        seq: 0,
        id: EventId([0; 16]),
        aggregate_type: &kind.aggregate_type,
        aggregate_id: "",
        kind: &kind.kind,
        payload: None,
        headers: None,
        created_at_micros: 0,
    };
    let mut buffer = String::new();
    template.render(&event, &mut buffer).map(str::to_owned).map_err(|cause| {
        Error::new(
            ErrorKind::Unpublishable,
            format!("a waiting event cannot be published: {cause}"),
        )
        .with_remedy("change --topic, or what writes such an aggregatetype or type")
    })
}

async fn look_at_topics(
    findings: &mut Findings,
    producer: &ProducerConfig,
    topics: &BTreeSet<String>,
) -> Result<()> {
    let mut rest = topics.iter().take(TOPICS_MAX);
    let mut asked = JoinSet::new();
    let mut there = 0;
    loop {
        while asked.len() < AT_A_TIME
            && let Some(topic) = rest.next()
        {
            asked.spawn(ask(producer.clone(), Some(topic.clone())));
        }
        let Some(answer) = asked.join_next().await else { break };
        match answer.map_err(broken)?? {
            Ok(()) => there += 1,
            Err(error) => findings.failed("topics", &error),
        }
    }
    if there > 0 {
        findings.passed(
            "topics",
            format!("{there} of {} that events wait for are there", topics.len()),
        );
    }
    if topics.len() > TOPICS_MAX {
        let more = topics.len() - TOPICS_MAX;
        let remedy = "create topics before events need them, or use fewer (--topic)";
        findings.warned("topics", format!("{more} more were not looked at"), remedy);
    }
    Ok(())
}

/// Asks librdkafka, which blocks. The outer error is a breakdown, the inner one an answer.
async fn ask(producer: ProducerConfig, topic: Option<String>) -> Result<Result<()>> {
    tokio::task::spawn_blocking(move || kafka::check(&producer, topic.as_deref()))
        .await
        .map_err(broken)
}

fn broken(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, cause.to_string())
}
