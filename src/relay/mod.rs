//! The relay: one instance's sessions, shards and their supervision.
//!
//! Promises: whatever fails, work goes on from the saved cursors; a stop lets what is in flight land
//! and saves the cursors. Must not: know what an event says.
//! Fails: at the start with any error; later only with errors whose disposition is to stop.
//!
//! ```text
//!  run ─► session ─► plan ─┬─► poll session ─┬─► ticker ─────────────────────────┐
//!          ▲               │                 ├─► assigner: lease, which buckets ─┼─► shards (each started again
//!          │               │                 ├─► saver, every --save-interval    │   by itself after trouble
//!          │               │                 └─► retention, the mode's watch     │   with Kafka)
//!          │               └─► log session: the same, with one reader in place of the shards
//!          └── a pause after trouble with PostgreSQL, a new session, cursors read again
//! ```
//!
//! # Who owns what, and when
//!
//! Any number of instances run side by side, and none is the leader. What may be done by one of them alone is owned,
//! and the owner is written down in the database, where all can see it. There are three such things.
//!
//! **A bucket** is the unit of order: its events are claimed and sent by one shard of one instance. Who owns it, and
//! under which *epoch*, stands in its row of `postrider.cursor`. To take it adds one to the epoch, and is done only
//! under the epoch under which it was seen to be free: of two takers, one gets it. A cursor is saved only under the
//! epoch of its owner, so a former owner that has overlooked its end moves nothing any more.
//!
//! **A lease** keeps all buckets of an instance at once. The instance renews it and stops by its own clock, well before
//! others may take what it owned ([`crate::control::lease`] has the moments). There is no handshake: nobody asks the
//! dead.
//!
//! **The lock of the log's reader** belongs to one session with PostgreSQL, where events are read from the log. It
//! decides who may begin, make a slot, or close a gap. It does not decide who may save: that takes all buckets, as
//! anywhere else. So a reader that is frozen and comes back has lost, whether it knows or not.
//!
//! ```text
//!  a bucket, polled:
//!
//!   instance A  ══ owns under epoch 7 ══╗ gives up: claims no more, lets pages land, saves, releases
//!   database    ─ A,7 ──────────────────╨── nobody,7 ──╥── B,8 ──────────────────────────────►
//!   instance B       planned to have it                 ╚══ takes under 7, reads the cursor, goes on
//!
//!   If A dies instead, its lease runs out at "nobody"; B begins at the saved cursor, and what was in flight comes
//!   twice, in order.
//!
//!  the log:
//!
//!   instance A  ══ lock, all buckets, slot ══╳ its session ends, or is ended when it is silent
//!   instance B  ── tries the lock ───────────╚═ lock ═► looks at the slot ─┬─ a gap: polls until cursors cover it
//!                                                                          └─ none: takes all buckets, and streams
//! ```
//!
//! A bucket passes from hand to hand inside an instance in the same way: a shard has it in hand until its last page
//! has landed, and the assigner releases, or hands to another shard, only what no shard has in hand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;
use tokio::task::JoinSet;

use crate::config::{Config, OnMissingTopic};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::metrics::health::{LockInTheWay, SessionEnd, SessionState};
use crate::publish::kafka::ask;
use crate::publish::kafka::config;
use crate::publish::kafka::config::ProducerConfig;
use crate::relay::instance::Instance;
use crate::relay::second_look::{SecondLook, SecondVerdict};
use crate::relay::stages::{Progress, SessionStage};
use crate::relay::tasks::TROUBLE;

mod adopted_tables;
mod agreement;
mod assigner;
mod copy_preparation;
mod exactly;
mod held;
mod instance;
mod lock_watch;
mod log_saver;
mod log_session;
mod log_task;
mod mode_watch;
mod paused;
mod plan;
mod poll_session;
mod publishers;
mod replay_sender;
mod replay_turns;
mod replays;
mod second_look;
mod session;
mod shard_supervisor;
mod slot_monitor;
mod slot_recovery;
mod stages;
mod stand_by;
mod stream_proof;
mod stuck;
mod table_forms;
mod tasks;
mod tier_watch;
mod watch;

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
    let (stop_sender, stop) = channel::channel(false);
    let instance = Instance::new(config, Arc::clone(&monitor), stop);
    // It ends with us, and not with the work: what hangs is to be seen.
    let mut watching = JoinSet::new();
    watching.spawn(watch::watch(Arc::clone(&monitor), Arc::clone(&instance.lease_end)));
    let database = instance.config.database.clone();
    watching.spawn(lock_watch::watch(database.clone(), Arc::clone(&monitor)));
    watching.spawn(tier_watch::watch(database, instance.name.clone(), Arc::clone(&monitor)));
    let mut work = pin!(instance.run());
    tokio::select! {
        ended = &mut work => return ended,
        () = shutdown => {}
    }
    tracing::info!("stopping: no more is claimed, what is in flight lands first");
    monitor.set_stopping();
    stop_sender.send_replace(true);
    let timeout = instance.config.shutdown_timeout;
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::ShutdownTimeout,
            format!("what was in flight was not acknowledged within {timeout:?}"),
        )
        .with_remedy("nothing is lost: unacknowledged events are sent again by the next start"))
    })
}

/// Where somebody was seen to hold a lock in the way of a session that got no answer, that is the cause.
fn session_end(error: &Error, lock: Option<LockInTheWay>) -> SessionEnd {
    let (cause, remedy) = (error.message(), error.remedy().map(str::to_owned));
    match lock.filter(|_| error.kind() == ErrorKind::Fenced) {
        Some(lock) => SessionEnd {
            cause: format!("{cause}: it waited for {}", lock.words),
            remedy: Some(lock.remedy),
        },
        None => SessionEnd { cause: cause.to_owned(), remedy },
    }
}

impl Instance {
    async fn run(&self) -> Result<()> {
        let producer_config = self.producer_config()?;
        self.check_kafka(&producer_config).await?;
        let mut backoff = TROUBLE;
        let mut progress = Progress::Starting;
        let mut second_look = SecondLook::default();
        while !*self.stop.borrow() {
            let mut stage = SessionStage::Opening;
            let ended = self.session(&producer_config, progress, &mut stage).await;
            self.note_end(ended.as_ref().err(), stage);
            if stage.has_worked() {
                progress = Progress::Working;
                backoff.reset();
            }
            match ended {
                // Told to stop, or the capture mode was changed.
                Ok(()) => {}
                Err(error) if progress == Progress::Starting || is_final(&error) => {
                    match second_look.judge(self, error).await {
                        SecondVerdict::End(error) => return Err(error),
                        SecondVerdict::Anew(error) => {
                            self.pause(&error, stage, backoff.take()).await
                        }
                    }
                }
                Err(error) => self.pause(&error, stage, backoff.take()).await,
            }
        }
        Ok(())
    }

    /// What the session knew and owned ends with it.
    fn note_end(&self, error: Option<&Error>, stage: SessionStage) {
        let end = error.map(|error| session_end(error, self.monitor.lock_in_the_way()));
        self.monitor.set_session(SessionState::Between(end));
        self.monitor.set_log_refusal(None);
        self.lease_end.set(None);
        let why = error.map_or("told-to-end", |error| told_kind(error).name());
        match (error, stage.has_worked()) {
            // It has claimed and sent nothing: nothing is repeated by its end.
            (Some(_), false) => self.monitor.sessions_unopened.add(why, 1),
            (None, _) | (Some(_), true) => self.monitor.sessions_ended.add(why, 1),
        }
        if error.is_some_and(|error| error.kind() == ErrorKind::Fenced) {
            self.monitor.leases_lost.fetch_add(1, Ordering::Relaxed);
        }
        if error.is_some_and(concerns_producer) {
            self.monitor.figures().producers_replaced.add(why, 1);
        }
        self.monitor.buckets_untaken.store(0, Ordering::Relaxed);
        for shard in self.monitor.shards() {
            shard.begin_anew(why);
            shard.has_work.store(false, Ordering::Relaxed);
        }
    }

    fn producer_config(&self) -> Result<ProducerConfig> {
        let kafka = &self.config.kafka;
        let config = config::producer_config(
            &kafka.brokers,
            &kafka.properties,
            kafka.token_command.as_ref(),
            &kafka.login_files,
        )?;
        Ok(match kafka.on_missing_topic {
            OnMissingTopic::Leave => config,
            OnMissingTopic::Make => config.making_topics(kafka.topic_rules.clone()),
        })
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

    async fn pause(&self, error: &Error, stage: SessionStage, pause: Duration) {
        if let Some(unsaid) = self.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                stage = stage.words(),
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

/// By which kind people know it: a refusal that is waited out for a while, as an outage, is a refusal.
fn told_kind(error: &Error) -> ErrorKind {
    let source = std::error::Error::source(error);
    let beneath = source.and_then(|source| source.downcast_ref::<Error>());
    match (error.kind(), beneath.map(Error::kind)) {
        (ErrorKind::PostgresUnavailable, Some(ErrorKind::PostgresRefused)) => {
            ErrorKind::PostgresRefused
        }
        (kind, _) => kind,
    }
}

/// Whether a producer ended with it. Where the log is read, that ends the session.
fn concerns_producer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::KafkaUnavailable | ErrorKind::TopicUnavailable | ErrorKind::DeliveryUncertain
    )
}

/// Whether the process ends for it. A server of PostgreSQL that refuses us is final: it was asked again with the
/// password of the moment until the lease was over, and without a session there is neither lease nor cursor. A Kafka
/// that refuses us is final at the start alone. Later librdkafka logs in by itself, to each broker, with the token of
/// the moment; one of them may refuse while others take records, as where an authority is changed broker by broker.
/// That is an outage: everything waits, the log says what opens the way, and the next token is a new try.
fn is_final(error: &Error) -> bool {
    match error.kind().disposition() {
        Disposition::Retry | Disposition::StepDown => false,
        Disposition::Park | Disposition::Stop => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_a_lock_has_ended_names_the_lock() {
        let lock =
            LockInTheWay { words: "a lock on outbox".to_owned(), remedy: "end it".to_owned() };
        let silent = Error::new(ErrorKind::Fenced, "no answer").with_remedy("look at the load");
        let end = session_end(&silent, Some(lock.clone()));
        assert_eq!(end.cause, "no answer: it waited for a lock on outbox");
        assert_eq!(end.remedy.as_deref(), Some("end it"));
        let end = session_end(&silent, None);
        assert_eq!(
            (end.cause.as_str(), end.remedy.as_deref()),
            ("no answer", Some("look at the load"))
        );
        let cut = Error::new(ErrorKind::PostgresUnavailable, "cut");
        assert_eq!(session_end(&cut, Some(lock)).cause, "cut", "it ended by something else");
    }
}
