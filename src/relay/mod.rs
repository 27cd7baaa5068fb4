//! The relay: one instance's sessions, shards and their supervision.
//!
//! Promises: whatever fails, work goes on from the saved cursors; a stop lets what is in flight land
//! and saves the cursors. Must not: know what an event says.
//! Fails: at the start with any error; later only with errors whose disposition is to stop.
//!
//! ```text
//!  run ─► session ─┬─► ticker ──────────────────────┐
//!          ▲       ├─► steward: lease, which buckets ├─► shards (each started again by itself after
//!          │       ├─► saver, every --save-interval  │   trouble with Kafka)
//!          │       └─► retention
//!          └── a pause after trouble with PostgreSQL, a new session, cursors read again
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::publish::kafka::ask;
use crate::publish::kafka::config;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::learned_limits::Lessons;
use crate::publish::kafka::producer::{WARNING_PAUSE, Warnings};
use crate::relay::slot_recovery::HeldSession;
use crate::relay::stuck::Stuck;

mod adopted_tables;
mod assigner;
mod log_session;
pub(crate) mod mode_watch;
mod poll_session;
mod shard_supervisor;
mod slot_monitor;
mod slot_recovery;
mod stand_by;
mod stuck;

/// The pauses after trouble, of a session as of a shard.
const TROUBLE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Relays until `shutdown` is ready, then lets what is in flight land.
///
/// # Errors
/// Any error at the start; afterwards those that no retry can mend, and
/// [`ErrorKind::ShutdownTimeout`].
pub async fn run(
    config: Config,
    monitor: Arc<Monitor>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop_sender, stop) = watch::channel(false);
    let warnings = Arc::new(Warnings::new(WARNING_PAUSE));
    let lessons = Arc::new(Lessons::new(&config.kafka.properties));
    let relay = Relay {
        config,
        name: instance_name(),
        monitor,
        warnings,
        lessons,
        stop,
        held: HeldSession::default(),
        stuck: Mutex::default(),
    };
    let mut work = pin!(relay.run());
    tokio::select! {
        ended = &mut work => return ended,
        () = shutdown => {}
    }
    tracing::info!("stopping: no more is claimed, what is in flight lands first");
    stop_sender.send_replace(true);
    let timeout = relay.config.shutdown_timeout;
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::ShutdownTimeout,
            format!("what was in flight was not acknowledged within {timeout:?}"),
        )
        .with_remedy("nothing is lost: unacknowledged events are sent again by the next start"))
    })
}

struct Relay {
    config: Config,
    /// Names this instance in the tier, for the life of the process.
    name: String,
    monitor: Arc<Monitor>,
    warnings: Arc<Warnings>,
    lessons: Arc<Lessons>,
    stop: watch::Receiver<bool>,
    held: HeldSession,
    /// Where streams of the log have ended.
    stuck: Mutex<Stuck>,
}

impl Relay {
    async fn run(&self) -> Result<()> {
        let producer_config = self.producer_config()?;
        self.check_kafka(&producer_config).await?;
        let mut backoff = TROUBLE;
        let mut started = false;
        while !*self.stop.borrow() {
            let mut session_started = false;
            let ended = self.session(&producer_config, started, &mut session_started).await;
            self.monitor.set_working(false);
            self.monitor.set_slot(None);
            if session_started {
                started = true;
                backoff.reset();
            }
            match ended {
                // Told to stop, or the way of reading was changed.
                Ok(()) => {}
                Err(error) if !started || is_final(&error) => return Err(error),
                Err(error) => self.pause(&error, backoff.take()).await,
            }
        }
        Ok(())
    }

    fn producer_config(&self) -> Result<ProducerConfig> {
        let kafka = &self.config.kafka;
        config::producer_config(&kafka.brokers, &kafka.properties, kafka.token_command.as_ref())
    }

    /// A broker must answer at the start; a topic that is the same for all events must be there.
    async fn check_kafka(&self, config: &ProducerConfig) -> Result<()> {
        let (config, topic) = (
            config.clone(),
            self.config.kafka.topic.is_fixed().then(|| self.config.kafka.topic.to_string()),
        );
        tokio::task::spawn_blocking(move || ask::check(&config, topic.as_deref()))
            .await
            .map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?
    }

    async fn pause(&self, error: &Error, pause: Duration) {
        if let Some(unsaid) = self.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                pause_ms = pause.as_millis() as u64,
                unsaid,
                "the session ended; going back to the saved cursors after a pause"
            );
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Whether the process ends for it.
fn is_final(error: &Error) -> bool {
    match error.kind().disposition() {
        Disposition::Retry | Disposition::StepDown => false,
        Disposition::Park | Disposition::Stop => true,
    }
}

/// Names this instance among all others: host, process, and a part that no later process shares.
fn instance_name() -> String {
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|_| "localhost".to_owned());
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}:{}:{}", host.trim(), std::process::id(), &random[..6])
}
