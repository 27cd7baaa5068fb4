//! temp
use crate::capture::ticker::Cadence;
use crate::migrate::OutboxName;
use crate::postgres::DatabaseConfig;
use std::num::NonZeroU16;
use std::time::Duration;
#[derive(Clone, Debug)]
pub struct Config {
    pub database: DatabaseConfig,
    pub outbox: OutboxName,
    pub shards: Option<NonZeroU16>,
    pub cadence: Cadence,
    pub page_rows: u32,
    pub max_in_flight_bytes: usize,
    pub save_interval: Duration,
    pub shutdown_timeout: Duration,
    pub kafka: KafkaConfig,
}
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    pub brokers: String,
    pub topic: crate::route::TopicTemplate,
    pub record_timestamp: crate::publish::kafka::RecordTimestamp,
    pub created_at_header: crate::encode::CreatedAtHeader,
    pub properties: Vec<(String, String)>,
}
