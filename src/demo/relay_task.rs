//! The relay, run in this process as `postrider run` would run it.
//!
//! Promises: the settings of `postrider run`, on the demo's servers; a stop is graceful.
//! Must not: have a path of its own into the relay. Fails: as the relay does.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use crate::capture::table::ticker::Cadence;
use crate::config::admin_hosts::AdminHosts;
use crate::config::records::RecordKind;
use crate::config::{
    AdminListen, Config, DEFAULT_EVENT_BYTES_MAX, DEFAULT_LEASE_SECONDS, KafkaConfig,
    OnMissingTopic,
};
use crate::control::cursors::OnPromotion;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::outbox::OutboxName;
use crate::postgres::DatabaseConfig;
use crate::publish::OnPoison;
use crate::publish::kafka::passwords::LoginFiles;
use crate::publish::kafka::producer::RecordTimestamp;
use crate::record::encode::AddedHeaders;
use crate::record::topic::DEFAULT_TOPIC_TEMPLATE;
use crate::record::topic_rules::TopicRules;

/// A running relay.
#[derive(Debug)]
pub(super) struct RelayTask {
    monitor: Arc<Monitor>,
    shutdown: oneshot::Sender<()>,
    /// None when it has ended by itself.
    task: Option<JoinHandle<Result<()>>>,
}

impl RelayTask {
    /// Starts it.
    pub(super) fn start(url: &str, brokers: &str, shards: Option<NonZeroU16>) -> Result<Self> {
        let config = config(url, brokers, shards)?;
        let monitor = Arc::new(Monitor::default());
        let (shutdown, told) = oneshot::channel::<()>();
        let told = async move {
            // The word to stop is that the sender is dropped.
            drop(told.await);
        };
        let task = tokio::spawn(crate::relay::run(config, Arc::clone(&monitor), told));
        Ok(Self { monitor, shutdown, task: Some(task) })
    }

    /// Its figures, also after it has stopped.
    pub(super) fn monitor(&self) -> Arc<Monitor> {
        Arc::clone(&self.monitor)
    }

    /// Waits for an end that nobody asked for.
    pub(super) async fn failure(&mut self) -> Error {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        let unasked = || Error::new(ErrorKind::Internal, "the relay ended before it was told to");
        outcome(ended).err().unwrap_or_else(unasked)
    }

    /// Lets what is in flight land, then ends. One that has failed has said so already.
    pub(super) async fn stop(self) -> Result<()> {
        drop(self.shutdown);
        match self.task {
            Some(task) => outcome(task.await),
            None => Ok(()),
        }
    }
}

fn outcome(ended: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    ended.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?
}

fn config(url: &str, brokers: &str, shards: Option<NonZeroU16>) -> Result<Config> {
    let invalid = |cause: String| Error::new(ErrorKind::Internal, cause);
    Ok(Config {
        database: DatabaseConfig::parse(url)?,
        on_promotion: OnPromotion::Refuse,
        outbox: OutboxName::default(),
        capture: None,
        delivery: None,
        shards,
        lease_seconds: DEFAULT_LEASE_SECONDS,
        cadence: Cadence { min: Duration::from_millis(5), max: Duration::from_millis(50) },
        page_rows: 5_000,
        max_in_flight_bytes: 32 << 20,
        max_event_bytes: DEFAULT_EVENT_BYTES_MAX,
        save_interval: Duration::from_millis(100),
        replay_window: None,
        admin_listen: AdminListen::Off,
        admin_hosts: AdminHosts::default(),
        admin_token: None,
        shutdown_timeout: Duration::from_secs(10),
        kafka: KafkaConfig {
            brokers: brokers.to_owned(),
            topic: DEFAULT_TOPIC_TEMPLATE.parse().map_err(|cause| invalid(format!("{cause}")))?,
            record_timestamp: RecordTimestamp::default(),
            added_headers: AddedHeaders::default(),
            on_poison: OnPoison::Park,
            record_kind: RecordKind::Plain,
            topic_rules: TopicRules::default(),
            on_missing_topic: OnMissingTopic::Leave,
            token_command: None,
            properties: Vec::new(),
            login_files: LoginFiles::default(),
        },
    })
}
