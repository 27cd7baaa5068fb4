//! What exactly-once delivery needs of Kafka, where events are delivered so, or are to be.
//!
//! Promises: nothing is asked for where events are delivered at least once. Must not: begin a transaction, or make a
//! topic. Fails: as PostgreSQL and Kafka are asked; what they say is a finding.

use std::time::Duration;

use crate::capture::mode::{DeliveryMode, read_state};
use crate::cli::check::findings::Findings;
use crate::config::Config;
use crate::config::settings::Delivery;
use crate::control::cursors::History;
use crate::control::{delivery, migrate};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connect;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::control_topic::{self, cursor_bytes, too_small};
use crate::publish::kafka::transaction_check::{TransactionNeeds, ask};
use crate::publish::kafka::transactional_id::transaction_timeout;

const NAME: &str = "transactions";
/// So many copies outlast a broker that dies while another one is away.
const COPIES: usize = 3;

/// Looks at what transactions need.
pub(super) async fn look(findings: &mut Findings, config: &Config, producer: &ProducerConfig) {
    if let Err(error) = try_to_look(findings, config, producer).await {
        findings.failed(NAME, &error);
    }
}

async fn try_to_look(
    findings: &mut Findings,
    config: &Config,
    producer: &ProducerConfig,
) -> Result<()> {
    let connection = connect(&config.database, "check").await?;
    let outbox = migrate::load(connection.client(), &config.outbox).await?;
    let state = read_state(&connection).await?;
    let now = state.delivery;
    if let Some(asked) = config.delivery.filter(|asked| asked.name() != now.name()) {
        let (asked, now) = (asked.name(), now.name());
        let cause = format!("--delivery {asked} does not fit: the database says {now}");
        let remedy = format!("run `postrider delivery switch {asked}`, or leave --delivery out");
        findings.failed("delivery", &Error::new(ErrorKind::Config, cause).with_remedy(remedy));
    }
    let was_committed = match now {
        DeliveryMode::AtLeastOnce { .. } if config.delivery != Some(Delivery::ExactlyOnce) => {
            return Ok(());
        }
        DeliveryMode::AtLeastOnce { .. } => false,
        DeliveryMode::ExactlyOnce { .. } => delivery::look(&connection).await?.followed > 0,
    };
    let system = History::read(&connection).await?.system_identifier;
    let prefix = control_topic::prefix(system, state.database);
    let (id, cursors) = (format!("{prefix}-check"), control_topic::name(&prefix));
    let timeout = transaction_timeout(Duration::from_secs(config.lease_seconds.into()));
    let (producer, topic) = (producer.clone(), cursors.clone());
    let asked = tokio::task::spawn_blocking(move || ask(&producer, &id, timeout, &topic)).await;
    let needs = asked.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))??;
    judge(findings, &needs, (&cursors, outbox.buckets), was_committed);
    Ok(())
}

fn judge(
    findings: &mut Findings,
    needs: &TransactionNeeds,
    (cursors, buckets): (&str, u16),
    was_committed: bool,
) {
    findings.passed(
        NAME,
        format!("the brokers let us take a transactional id; cursors go to {cursors}"),
    );
    let topic_fails = |cause: String| {
        Error::new(ErrorKind::KafkaRefused, cause)
            .with_remedy("find out who deleted or changed it, and see docs/exactly-once.md")
    };
    match needs.cursor_partitions {
        None if was_committed => {
            findings.failed(NAME, &topic_fails(format!("topic {cursors} is gone")))
        }
        Some(count) if count != usize::from(buckets) => {
            let cause =
                format!("topic {cursors} has {count} partitions, and there are {buckets} buckets");
            findings.failed(NAME, &topic_fails(cause));
        }
        None | Some(_) => {}
    }
    if let Some(limit) = needs.cursor_bytes.filter(|limit| *limit < cursor_bytes()) {
        findings.failed(NAME, &too_small(cursors, limit));
    }
    if let Some(policy) = &needs.cursor_policy
        && policy != "compact"
    {
        let found = format!(
            "topic {cursors} has the cleanup.policy {policy}: cursors would be deleted by age"
        );
        findings.warned(NAME, found, "set its cleanup.policy to compact");
    }
    if needs.state_copies.is_some_and(|copies| copies < COPIES && needs.brokers >= COPIES) {
        let found = "what the coordinators of transactions know has fewer than three copies";
        findings.warned(
            NAME,
            found,
            "give topic __transaction_state three copies, and min.insync.replicas 2",
        );
    }
    if needs.verifies == Some(false) {
        let found = "the brokers do not look whether a record belongs to an open transaction";
        findings.warned(NAME, found, "set transaction.partition.verification.enable to true");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(needs: &TransactionNeeds, was_committed: bool) -> String {
        let mut findings = Findings::default();
        judge(&mut findings, needs, ("cursors", 16), was_committed);
        findings.list(false)
    }

    #[test]
    fn it_is_told_what_transactions_lack() {
        let whole = TransactionNeeds {
            brokers: 3,
            state_copies: Some(3),
            verifies: Some(true),
            cursor_partitions: Some(16),
            cursor_policy: Some("compact".to_owned()),
            cursor_bytes: Some(1_048_588),
        };
        let is_well = |told: &str| !told.contains('\u{26a0}') && !told.contains('\u{2718}');
        assert!(is_well(&told(&whole, true)), "{}", told(&whole, true));
        let alone = TransactionNeeds { brokers: 1, state_copies: Some(1), ..whole.clone() };
        assert!(is_well(&told(&alone, true)), "one broker has no other");
        let none =
            TransactionNeeds { cursor_partitions: None, cursor_policy: None, ..whole.clone() };
        assert!(is_well(&told(&none, false)), "it is made at the first use");
        for (needs, words) in [
            (none, "topic cursors is gone"),
            (TransactionNeeds { cursor_partitions: Some(8), ..whole.clone() }, "has 8 partitions"),
            (
                TransactionNeeds { cursor_policy: Some("delete".into()), ..whole.clone() },
                "policy delete",
            ),
            (TransactionNeeds { cursor_bytes: Some(200), ..whole.clone() }, "takes 200 bytes"),
            (TransactionNeeds { state_copies: Some(1), ..whole.clone() }, "fewer than three"),
            (TransactionNeeds { verifies: Some(false), ..whole }, "do not look"),
        ] {
            let told = told(&needs, true);
            assert!(told.contains(words) && !is_well(&told), "{words}: {told}");
        }
    }
}
