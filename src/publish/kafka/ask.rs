//! What is asked of the brokers without publishing.
//!
//! Promises: nothing is sent. Must not: make a topic, but for one that is asked for by its name.
//! Fails: when no broker answers in time.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer;

use crate::error::Result;
use crate::metrics::counters::PublisherGauge;
use crate::publish::Reports;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::learned_limits::LearnedLimits;
use crate::publish::kafka::producer::{KafkaProducer, RecordTimestamp, WARNING_PAUSE, Warnings};
use crate::publish::kafka::topic_meetings::LEADER_DEADLINE;

/// Whether a broker answers; used once at the start.
///
/// # Errors
/// When no broker answers in time, or the topic (where one is named) is not there.
pub fn check(config: &ProducerConfig, topic: Option<&str>) -> Result<()> {
    match topic {
        Some(topic) => asking(config)?.topics.look_up(topic, LEADER_DEADLINE, || true).map(|_| ()),
        None => fetch_all(config, LEADER_DEADLINE).map(|_| ()),
    }
}

/// What the brokers say of all topics. Asked for a topic by its name, they might create it.
pub(super) fn fetch_all(config: &ProducerConfig, patience: Duration) -> Result<Metadata> {
    let producer = asking(config)?;
    let answer = producer.producer.client().fetch_metadata(None, patience.min(LEADER_DEADLINE));
    answer.map_err(|cause| unavailable(&cause, producer.context().last_trouble()))
}

/// A producer that is only there to ask.
fn asking(config: &ProducerConfig) -> Result<KafkaProducer> {
    let (sender, _reports) = crossbeam_channel::bounded(1);
    let gauge = PublisherGauge::new("check", Arc::default());
    let (reports, warnings) =
        (Reports::new(sender, Arc::default(), gauge), Arc::new(Warnings::new(WARNING_PAUSE)));
    let learned_limits = Arc::new(LearnedLimits::new(&[]));
    KafkaProducer::new("check", config, RecordTimestamp::Send, reports, warnings, learned_limits)
}
