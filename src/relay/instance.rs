//! One instance of the relay: what it keeps from session to session.
//!
//! Promises: its name is no other instance's, and stays for the life of the process. Must not: talk to a server.
//! Fails: with [`ErrorKind::Config`] when more shards are asked for than there are buckets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::capture::adopted::mapping::ValueForm;
use crate::capture::log::misformed::is_unprinted;
use crate::capture::slot::Gap;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::outbox::Outbox;
use crate::postgres::Lsn;
use crate::publish::kafka::learned_limits::LearnedLimits;
use crate::publish::kafka::producer::{WARNING_PAUSE, Warnings};
use crate::relay::held::{HeldLock, HeldSession};
use crate::relay::stuck::Stuck;
use crate::relay::watch::LeaseEnd;
use crate::shard::transaction_budget::TransactionBudgets;

/// What all sessions of a process share.
pub(super) struct Instance {
    pub(super) config: Config,
    /// Names this instance in the tier.
    pub(super) name: String,
    pub(super) monitor: Arc<Monitor>,
    /// Until when what rests on the lease may go on.
    pub(super) lease_end: Arc<LeaseEnd>,
    pub(super) warnings: Arc<Warnings>,
    pub(super) learned_limits: Arc<LearnedLimits>,
    /// How much transactions of Kafka's may have in flight.
    pub(super) budgets: Arc<TransactionBudgets>,
    /// Becomes true when the process is to stop.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) held: HeldSession,
    /// The lock of the log's reader, where the session before has kept it for the next.
    pub(super) held_lock: HeldLock,
    /// Whether this process has had a session with the outbox.
    pub(super) has_worked: AtomicBool,
    /// Whether a stream has lacked rows that only the table has, or has ended as if it had.
    pub(super) lacks_rows: AtomicBool,
    /// Where streams of the log have ended.
    stuck: Mutex<Stuck>,
    /// Whether a stream has brought values that only the server can print.
    is_unprinted: AtomicBool,
}

impl Instance {
    pub(super) fn new(config: Config, monitor: Arc<Monitor>, stop: watch::Receiver<bool>) -> Self {
        let learned_limits = Arc::new(LearnedLimits::new(&config.kafka.properties));
        let name = instance_name();
        introduce(&monitor, &name, &config);
        Self {
            config,
            name,
            monitor,
            lease_end: Arc::default(),
            warnings: Arc::new(Warnings::new(WARNING_PAUSE)),
            learned_limits,
            budgets: Arc::default(),
            stop,
            held: HeldSession::default(),
            held_lock: HeldLock::default(),
            has_worked: AtomicBool::new(false),
            lacks_rows: AtomicBool::new(false),
            stuck: Mutex::default(),
            is_unprinted: AtomicBool::new(false),
        }
    }

    /// Takes note of how a stream ended that had begun at this place.
    pub(super) fn note_end_of_stream(&self, begins: Option<Lsn>, error: &Error) {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).note(begins, error);
        self.is_unprinted.fetch_or(is_unprinted(error), Ordering::Relaxed);
    }

    /// The form in which a stream has to bring values, as far as those before have shown. What types columns had for a
    /// moment stands in no catalog.
    pub(super) fn values(&self) -> ValueForm {
        match self.is_unprinted.load(Ordering::Relaxed) {
            true => ValueForm::Text,
            false => ValueForm::Binary,
        }
    }

    /// Why a stream that begins there would end there; none where it would not.
    pub(super) fn stuck_at(&self, place: Option<Lsn>) -> Option<Gap> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).at(place)
    }

    /// As asked for, or one: it keeps up with a stream, and more of them only wake more threads.
    pub(super) fn publisher_count(&self, outbox: &Outbox) -> Result<usize> {
        if self.config.shards.is_some() { self.shard_count(outbox) } else { Ok(1) }
    }

    /// As asked for, or one per core and at most one per bucket.
    pub(super) fn shard_count(&self, outbox: &Outbox) -> Result<usize> {
        let buckets = usize::from(outbox.buckets);
        let Some(asked) = self.config.shards.map(|shards| usize::from(shards.get())) else {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            return Ok(cores.min(buckets));
        };
        if asked <= buckets {
            return Ok(asked);
        }
        Err(Error::new(
            ErrorKind::Config,
            format!("{asked} shards cannot share the {buckets} buckets of this outbox"),
        )
        .with_remedy(format!("set --shards to {buckets} at most, or leave it out")))
    }
}

/// Tells operators what is known before the first session.
fn introduce(monitor: &Monitor, name: &str, config: &Config) {
    let limit = u64::try_from(config.max_in_flight_bytes).unwrap_or(u64::MAX);
    monitor.in_flight_limit_bytes.store(limit, Ordering::Relaxed);
    monitor.figures().generations_filled.store(-1, Ordering::Relaxed);
    monitor.set_instance(|instance| {
        name.clone_into(&mut instance.name);
        instance.lease_seconds = config.lease_seconds.into();
    });
}

/// Names this instance among all others: host, process, and a part that no later process shares.
fn instance_name() -> String {
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|_| "localhost".to_owned());
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}:{}:{}", host.trim(), std::process::id(), &random[..6])
}
