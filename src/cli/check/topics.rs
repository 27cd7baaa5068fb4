//! What the topics that are there promise: partitions, copies, sizes.
//!
//! Promises: one request for all settings; a setting that a broker keeps to itself is told as that, and taken for
//! nothing. Must not: publish, or change a topic.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::check::findings::Findings;
use crate::config::Config;
use crate::config::units::show_bytes;
use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::topic_check;
use crate::publish::kafka::topic_check::{ExistingTopics, ToldSettings, TopicLayout};

const COPIES_NEEDED: &str = "min.insync.replicas";
const UNCLEAN: &str = "unclean.leader.election.enable";
const LIMIT: &str = "max.message.bytes";
/// So many topics are named.
const NAMED_MAX: usize = 20;
/// librdkafka's own limit, where the operator has set one.
const OWN_LIMIT: &str = "message.max.bytes";

/// Looks at all topics that can be published to.
pub(super) async fn look(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
    existing: &ExistingTopics,
) -> Result<()> {
    if existing.ready.is_empty() {
        return Ok(());
    }
    look_at_partitions(findings, config, &existing.ready);
    let settings = topic_check::settings(producer, existing.ready.keys()).await?;
    access(findings, existing, &settings);
    let told: Vec<ToldTopic<'_>> = existing
        .ready
        .iter()
        .filter_map(|(name, layout)| ToldTopic::of(name, *layout, settings.get(name)?))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    copies(findings, &told, existing.brokers);
    sizes(findings, config, &told);
    Ok(())
}

/// What is told of a topic.
#[derive(Clone, Copy, Debug)]
struct ToldTopic<'a> {
    name: &'a str,
    copies: usize,
    copies_needed: usize,
    is_unclean: bool,
    limit_bytes: u64,
}

impl<'a> ToldTopic<'a> {
    fn of(name: &'a str, layout: TopicLayout, settings: &ToldSettings) -> Option<Self> {
        let value = |setting: &str| settings.get(setting)?.value.as_deref();
        Some(Self {
            name,
            copies: layout.copies,
            copies_needed: value(COPIES_NEEDED)?.parse().ok()?,
            is_unclean: value(UNCLEAN) == Some("true"),
            limit_bytes: value(LIMIT)?.parse().ok()?,
        })
    }
}

/// Whether each topic has as many as the file says.
fn look_at_partitions(
    findings: &mut Findings,
    config: &Config,
    topics: &BTreeMap<String, TopicLayout>,
) {
    let mut is_well = true;
    for (topic, TopicLayout { partitions, .. }) in topics {
        let wanted = config.kafka.topic_rules.shape(topic).partitions;
        if let Some(wanted) = wanted.filter(|wanted| wanted != partitions) {
            let found =
                format!("{topic} has {partitions} partitions, and the settings say {wanted}");
            findings.warned(
                "partitions",
                found,
                "see `postrider topics`, which raises them only by --move-keys",
            );
            is_well = false;
        }
    }
    if is_well {
        findings.passed("partitions", partitions(topics));
    }
}

fn partitions(topics: &BTreeMap<String, TopicLayout>) -> String {
    let counts = || topics.values().map(|layout| layout.partitions);
    match (counts().min(), counts().max()) {
        (Some(fewest), Some(most)) if fewest != most => {
            format!("{fewest} to {most} in each topic; a change would move keys to others")
        }
        (fewest, _) => {
            let count = fewest.map_or(0, std::num::NonZeroU32::get);
            format!("{count} in each topic; a change would move keys to others")
        }
    }
}

/// What this user may see of the topics.
fn access(
    findings: &mut Findings,
    existing: &ExistingTopics,
    settings: &BTreeMap<String, ToldSettings>,
) {
    let tells =
        |topic: &&String| settings.get(*topic).is_some_and(|settings| settings.contains_key(LIMIT));
    let silent: BTreeSet<String> =
        existing.ready.keys().filter(|topic| !tells(topic)).cloned().collect();
    if silent.is_empty() {
        return findings.passed("acl", "the topics and their settings may be described");
    }
    findings.warned(
        "acl",
        format!(
            "{} does not tell how much it takes: the broker refuses what is too large",
            named(&silent)
        ),
        "grant DescribeConfigs on the topics, so that batches fit at once",
    );
}

/// Whether what a broker acknowledges outlives that broker.
fn copies(findings: &mut Findings, topics: &[ToldTopic<'_>], brokers: usize) {
    let mut is_well = true;
    for topic in topics {
        let ToldTopic { name, copies, copies_needed, .. } = *topic;
        let (found, remedy) = match (copies, copies_needed) {
            (copies, needed) if copies < needed => {
                let cause = format!(
                    "{name} has {copies} copies, and {COPIES_NEEDED} is {needed}: it takes nothing"
                );
                let error = Error::new(ErrorKind::TopicUnavailable, cause).with_remedy(format!(
                    "give it more copies (kafka-reassign-partitions.sh), or lower {COPIES_NEEDED}"
                ));
                findings.failed("replication", &error);
                is_well = false;
                continue;
            }
            (1, _) if brokers > 1 => (
                format!("{name} has one copy: with its broker all that was acknowledged is lost"),
                "give it three copies, and set min.insync.replicas=2",
            ),
            (2.., 1) => (
                format!(
                    "{name} acknowledges with one copy in step: what only that one has is lost with its broker"
                ),
                "set min.insync.replicas=2 on the topic, with three copies",
            ),
            (copies @ 2.., needed) if copies == needed => (
                format!(
                    "{name} needs all of its {copies} copies: one broker that is away stops it"
                ),
                "give it one copy more than min.insync.replicas",
            ),
            _ => (String::new(), ""),
        };
        if !found.is_empty() {
            findings.warned("replication", found, remedy);
            is_well = false;
        }
        if topic.is_unclean {
            let found = format!(
                "{name} lets a copy lead that was not in step: what was acknowledged may be lost"
            );
            findings.warned(
                "replication",
                found,
                "set unclean.leader.election.enable=false on the topic",
            );
            is_well = false;
        }
    }
    if is_well {
        let fewest = topics.iter().map(|topic| topic.copies).min().unwrap_or_default();
        let of_one = if brokers == 1 { ", of the one broker that there is" } else { "" };
        findings.passed("replication", format!("at least {fewest} of each partition{of_one}"));
    }
}

/// Whether an event meets the same limit everywhere.
fn sizes(findings: &mut Findings, config: &Config, topics: &[ToldTopic<'_>]) {
    let property = config.kafka.properties.iter().rev().find(|(name, _)| name == OWN_LIMIT);
    let own: Option<u64> = property.and_then(|(_, value)| value.trim().parse().ok());
    let largest = topics.iter().max_by_key(|topic| topic.limit_bytes).expect("there is one");
    let takes = show_bytes(largest.limit_bytes);
    if let Some(own) = own.filter(|own| *own < largest.limit_bytes) {
        let found = format!(
            "{} takes {takes}, and the property {OWN_LIMIT} lets {} through: what is larger is parked",
            largest.name,
            show_bytes(own)
        );
        findings.warned(
            "message-size",
            found,
            "leave message.max.bytes out: each topic's own limit holds then",
        );
    } else if largest.limit_bytes > config.max_event_bytes {
        let found = format!(
            "{} takes {takes}, but events above --max-event-bytes ({}) are parked unread",
            largest.name,
            show_bytes(config.max_event_bytes)
        );
        findings.warned(
            "message-size",
            found,
            "raise --max-event-bytes to as much, if events are so large",
        );
    } else {
        let least = topics.iter().map(|topic| topic.limit_bytes).min().unwrap_or_default();
        findings.passed("message-size", format!("each topic takes at least {}", show_bytes(least)));
    }
}

/// The names, or the first of many.
pub(super) fn named(topics: &BTreeSet<String>) -> String {
    let first: Vec<&str> = topics.iter().take(NAMED_MAX).map(String::as_str).collect();
    let names = first.join(", ");
    match topics.len() - first.len() {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(copies: usize, copies_needed: usize) -> ToldTopic<'static> {
        ToldTopic { name: "t", copies, copies_needed, is_unclean: false, limit_bytes: 1_048_588 }
    }

    fn said(topic: ToldTopic<'_>, brokers: usize) -> String {
        let mut findings = Findings::default();
        copies(&mut findings, &[topic], brokers);
        findings.list(false)
    }

    #[test]
    fn copies_are_judged_by_what_is_lost_with_a_broker() {
        for (copies, needed, brokers, words) in [
            (3, 2, 3, "\u{2714} replication   at least 3"),
            (1, 1, 1, "of the one broker"),
            (1, 1, 3, "has one copy"),
            (1, 2, 3, "\u{2718} replication   t has 1 copies"),
            (2, 3, 3, "takes nothing"),
            (3, 1, 3, "with one copy in step"),
            (3, 3, 3, "needs all of its 3 copies"),
        ] {
            let said = said(topic(copies, needed), brokers);
            assert!(said.contains(words), "{copies} {needed} {brokers}: {said}");
        }
        let unclean = ToldTopic { is_unclean: true, ..topic(3, 2) };
        assert!(said(unclean, 3).contains("not in step"));
    }

    #[test]
    fn partitions_are_told_as_a_range() {
        let layout = |count| TopicLayout {
            partitions: std::num::NonZeroU32::new(count).expect("some"),
            copies: 1,
        };
        let of = |counts: &[u32]| {
            let topics = counts.iter().enumerate().map(|(n, c)| (n.to_string(), layout(*c)));
            partitions(&topics.collect())
        };
        assert!(of(&[3, 12, 6]).starts_with("3 to 12 in each"));
        assert!(of(&[4, 4]).starts_with("4 in each"));
    }

    #[test]
    fn of_many_topics_the_first_are_named() {
        let topics = |count: usize| (0..count).map(|n| format!("t{n:02}")).collect();
        assert_eq!(named(&topics(2)), "t00, t01");
        assert!(named(&topics(NAMED_MAX)).ends_with("t18, t19"));
        assert!(named(&topics(NAMED_MAX + 3)).ends_with("t18, t19 and 3 more"));
    }
}
