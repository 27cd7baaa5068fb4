//! What brokers need for transactions that nobody can tear, as far as they tell.
//!
//! Promises: one id is taken and nothing begun under it; no record is sent, no topic made. Must not: judge.
//! Fails: when no broker answers, or none lets us take the id.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer;

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::transactional_id::{take_id, transactional};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// In which the coordinators keep what they know.
const STATE_TOPIC: &str = "__transaction_state";
/// Brokers of 3.6 and later have it.
const VERIFICATION: &str = "transaction.partition.verification.enable";
const POLICY: &str = "cleanup.policy";
const LIMIT: &str = "max.message.bytes";

/// What the brokers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionNeeds {
    /// How many brokers there are.
    pub brokers: usize,
    /// How many of them have what the coordinators know; none where it is not told.
    pub state_copies: Option<usize>,
    /// Whether a broker looks if a record belongs to an open transaction; none where it does not tell.
    pub verifies: Option<bool>,
    /// The partitions of the topic of cursors; none where it is not there.
    pub cursor_partitions: Option<usize>,
    /// How it is cleaned; none where that is not told.
    pub cursor_policy: Option<String>,
    /// How large a batch it takes; none where that is not told.
    pub cursor_bytes: Option<usize>,
}

/// Takes an id, and asks what the brokers have.
///
/// # Errors
/// When no broker answers, or none lets us take the id.
pub fn ask(
    config: &ProducerConfig,
    id: &str,
    timeout: Duration,
    cursors: &str,
) -> Result<TransactionNeeds> {
    let producer = transactional(config, id, timeout).asker()?;
    take_id(&*producer, id)?;
    let metadata = producer.client().fetch_metadata(None, ANSWER_TIMEOUT);
    let metadata = metadata.map_err(|cause| unavailable(&cause, None))?;
    let mut needs = TransactionNeeds {
        brokers: metadata.brokers().len(),
        state_copies: copies(&metadata, STATE_TOPIC),
        cursor_partitions: partitions(&metadata, cursors),
        ..TransactionNeeds::default()
    };
    let broker = metadata.brokers().first().map(|broker| broker.id());
    let topic = needs.cursor_partitions.map(|_| ResourceSpecifier::Topic(cursors));
    let wanted: Vec<ResourceSpecifier<'_>> =
        broker.map(ResourceSpecifier::Broker).into_iter().chain(topic).collect();
    for (name, value) in settings(config, &wanted)? {
        match name.as_str() {
            VERIFICATION => needs.verifies = Some(value == "true"),
            POLICY => needs.cursor_policy = Some(value),
            LIMIT => needs.cursor_bytes = value.parse().ok(),
            _ => {}
        }
    }
    Ok(needs)
}

fn partitions(metadata: &Metadata, name: &str) -> Option<usize> {
    let found = metadata.topics().iter().find(|topic| topic.name() == name)?;
    Some(found.partitions().len()).filter(|count| *count > 0)
}

fn copies(metadata: &Metadata, name: &str) -> Option<usize> {
    let found = metadata.topics().iter().find(|topic| topic.name() == name)?;
    found.partitions().iter().map(|partition| partition.replicas().len()).min()
}

/// What is told of these settings; nothing of what somebody keeps to himself.
fn settings(
    config: &ProducerConfig,
    wanted: &[ResourceSpecifier<'_>],
) -> Result<Vec<(String, String)>> {
    let admin = config.admin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("the runtime cannot start: {cause}"))
    })?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    let told = runtime.block_on(admin.describe_configs(wanted, &options));
    let told = told.map_err(|cause| unavailable(&cause, None))?;
    let entries = told.into_iter().flatten().flat_map(|resource| {
        // A broker has a policy of its own, which is not the topic's.
        let is_topic =
            matches!(resource.specifier, rdkafka::admin::OwnedResourceSpecifier::Topic(_));
        resource
            .entries
            .into_iter()
            .filter(move |entry| is_topic == [POLICY, LIMIT].contains(&entry.name.as_str()))
    });
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}
