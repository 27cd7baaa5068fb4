//! The Kafka side of `check`: a broker answers, and the topics of waiting events are there.
//!
//! Promises: one request, however many topics there are; no topic is made by it. Must not: publish.
//! Fails: when a thread breaks down; what Kafka refuses is a finding.

use std::collections::BTreeSet;

use crate::cli::backlog::{EventKind, WaitingKinds};
use crate::cli::check::findings::Findings;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};
use crate::publish::OnPoison;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::topic_check;
use crate::publish::kafka::topic_check::{ExistingTopics, MissingTopics};
use crate::record::topic::TopicTemplate;

/// So many missing topics are named.
const NAMED_MAX: usize = 20;

/// Looks at all that `run` needs of Kafka. What waits is `None` when it could not be read.
///
/// # Errors
/// When the looking itself breaks down.
pub(super) async fn look(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    waiting: Option<WaitingKinds>,
) -> Result<()> {
    let is_known = waiting.is_some() || config.kafka.topic.is_fixed();
    let waiting = waiting.unwrap_or_default();
    let (mut topics, unnamed) = topics(&config.kafka.topic, &waiting.kinds);
    if let OnPoison::DeadLetter(topic) = &config.kafka.on_poison {
        topics.insert(topic.clone());
    }
    let existing = match ask(producer.clone(), topics.clone()).await? {
        Ok(existing) => existing,
        Err(error) => {
            findings.failed("kafka", &error);
            return Ok(());
        }
    };
    findings.passed("kafka", format!("{} answers", config.kafka.brokers));
    for error in &unnamed {
        findings.failed("topics", error);
    }
    if !topics.is_empty() {
        judge(findings, producer, &existing).await;
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
fn topics(
    template: &TopicTemplate,
    waiting: &BTreeSet<EventKind>,
) -> (BTreeSet<String>, Vec<Error>) {
    if template.is_fixed() {
        return (BTreeSet::from([template.to_string()]), Vec::new());
    }
    let mut topics = BTreeSet::new();
    let mut unnamed = Vec::new();
    for kind in waiting {
        match render(template, kind) {
            Ok(topic) => {
                topics.insert(topic);
            }
            Err(error) => unnamed.push(error),
        }
    }
    (topics, unnamed)
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

async fn judge(findings: &mut Findings, producer: &ProducerConfig, existing: &ExistingTopics) {
    let ExistingTopics { ready, unusable, missing, .. } = existing;
    if !ready.is_empty() {
        let all = ready.len() + unusable.len() + missing.len();
        let there = ready.len();
        findings.passed("topics", format!("{there} of {all} that events wait for are there"));
    }
    for error in unusable {
        findings.failed("topics", error);
    }
    // One is enough to know; each costs a request.
    let asked: BTreeSet<String> = ready.iter().take(NAMED_MAX).cloned().collect();
    if let Some(topic) = topic_check::keeps_its_limit(producer, &asked).await {
        findings.warned(
            "topics",
            format!(
                "{topic} does not tell how much it takes: the broker refuses what is too large"
            ),
            "grant DescribeConfigs on the topics, so that batches fit at once",
        );
    }
    if missing.is_empty() {
        return;
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

/// The names, or the first of many.
fn named(topics: &BTreeSet<String>) -> String {
    let first: Vec<&str> = topics.iter().take(NAMED_MAX).map(String::as_str).collect();
    let names = first.join(", ");
    match topics.len() - first.len() {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// Asks librdkafka, which blocks. The outer error is a breakdown, the inner one an answer.
async fn ask(producer: ProducerConfig, topics: BTreeSet<String>) -> Result<Result<ExistingTopics>> {
    tokio::task::spawn_blocking(move || topic_check::look(&producer, &topics))
        .await
        .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_topics_the_first_are_named() {
        let topics = |count: usize| (0..count).map(|n| format!("t{n:02}")).collect();
        assert_eq!(named(&topics(2)), "t00, t01");
        assert!(named(&topics(NAMED_MAX)).ends_with("t18, t19"));
        assert!(named(&topics(NAMED_MAX + 3)).ends_with("t18, t19 and 3 more"));
    }
}
