//! Under which names an instance takes part in Kafka's transactions.
//!
//! Promises: no two shards of any instances have an id in common, nor two databases a topic. Must not: take an id.
//! Fails: as PostgreSQL is asked for the cluster's name.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::mode::{DeliveryMode, Way};
use crate::control::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::order::history::Ancestors;
use crate::postgres::{DatabaseConfig, connect_walsender};
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::control_topic;
use crate::publish::kafka::control_topic::{ControlTopic, WatchedTopic};
use crate::publish::kafka::transaction::TransactionTerms;
use crate::publish::kafka::transactional_id::transaction_timeout;
use crate::relay::instance::Instance;
use crate::relay::tasks::{Ended, Tasks};
use crate::shard::exactly::Exactly;
use crate::shard::transaction_budget::{SharedBudget, TransactionBudget, TransactionBudgets};

/// How often the topic of cursors is looked at.
const TOPIC_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The one that no promotion began.
const FIRST_TIMELINE: i32 = 1;

/// What all shards of an instance have in common.
#[derive(Clone, Debug)]
pub(super) struct ExactlyOnce {
    prefix: String,
    instance: String,
    timeout: Duration,
    control: ControlTopic,
    term: i64,
    ancestors: Ancestors,
    budgets: Arc<TransactionBudgets>,
}

impl ExactlyOnce {
    /// As the database says; none where events are delivered at least once.
    pub(super) async fn of(
        instance: &Instance,
        store: &CursorStore,
        (way, database): (Way, u32),
        producer: &ProducerConfig,
        buckets: u16,
    ) -> Result<Option<Self>> {
        let DeliveryMode::ExactlyOnce { term } = way.delivery else { return Ok(None) };
        let present = store.present().await?;
        let lease = Duration::from_secs(instance.config.lease_seconds.into());
        let own = (instance.name.as_str(), lease);
        let system = present.system_identifier;
        let ancestors = ancestors(&instance.config.database, present.timeline).await;
        let budgets = Arc::clone(&instance.budgets);
        let exactly = Self::new((system, database), own, producer, buckets, term);
        Ok(Some(Self { ancestors, budgets, ..exactly }))
    }

    fn new(
        (system_identifier, database): (i64, u32),
        (instance, lease): (&str, Duration),
        producer: &ProducerConfig,
        buckets: u16,
        term: i64,
    ) -> Self {
        let prefix = control_topic::prefix(system_identifier, database);
        let control = ControlTopic::new(producer, &control_topic::name(&prefix), buckets);
        let timeout = transaction_timeout(lease);
        let (instance, ancestors) = (instance.to_owned(), Ancestors::default());
        let budgets = Arc::default();
        Self { prefix, instance, timeout, control, term, ancestors, budgets }
    }

    /// Since when events are delivered so.
    pub(super) fn term(&self) -> i64 {
        self.term
    }

    /// Looks now and then whether the topic of cursors is what it was: brokers may make one that is gone anew, for
    /// whoever writes to it.
    pub(super) fn spawn_watch(&self, tasks: &mut Tasks) {
        tasks.spawn(watch(self.control.clone()));
    }

    /// How a shard's producer takes part.
    pub(super) fn terms(&self, shard: &str) -> TransactionTerms {
        TransactionTerms {
            id: format!("{}-{}-{shard}", self.prefix, self.instance),
            timeout: self.timeout,
            control_topic: self.control.name().to_owned(),
        }
    }

    /// How much a transaction of the shard may have in flight; what was learnt of that outlives it.
    pub(super) fn budget(&self, shard: &str, in_flight_bytes: usize) -> SharedBudget {
        self.budgets.of(shard, || TransactionBudget::new(in_flight_bytes, self.timeout))
    }

    /// How the shard begins with its buckets.
    pub(super) fn shard(&self, shard: &str, in_flight_bytes: usize) -> Exactly {
        let ids = vec![self.terms(shard).id];
        let (control, ancestors) = (self.control.clone(), self.ancestors.clone());
        let budget = self.budget(shard, in_flight_bytes);
        Exactly { control, ids, term: self.term, ancestors, budget }
    }
}

async fn watch(control: ControlTopic) -> Result<Ended> {
    let mut watched = None::<WatchedTopic>;
    loop {
        tokio::time::sleep(TOPIC_LOOK_INTERVAL).await;
        let (control, known) = (control.clone(), watched.take());
        let looked = tokio::task::spawn_blocking(move || {
            let mut topic = known.map_or_else(|| control.watched(), Ok)?;
            let looked = topic.look();
            Ok::<_, Error>((topic, looked))
        });
        let looked =
            looked.await.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
        let (topic, looked) = looked?;
        watched = Some(topic);
        match looked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::KafkaRefused => return Err(error),
            // Shards meet the same, and tell it.
            Err(error) => {
                tracing::debug!(cause = error.message(), "the topic of cursors cannot be looked at")
            }
        }
    }
}

/// From where a promoted server's timeline comes. To learn that takes the right to read the log: without it, what was
/// committed on an earlier timeline is not gone by.
async fn ancestors(database: &DatabaseConfig, timeline: i32) -> Ancestors {
    if timeline <= FIRST_TIMELINE {
        return Ancestors::default();
    }
    ask_ancestors(database, timeline).await.unwrap_or_else(|error| {
        tracing::warn!(
            timeline,
            cause = error.message(),
            remedy = "give the relay's role the attribute replication, and a line for its database in pg_hba.conf",
            "nobody tells where the server's timeline began: what was published before it may be repeated"
        );
        Ancestors::default()
    })
}

async fn ask_ancestors(database: &DatabaseConfig, timeline: i32) -> Result<Ancestors> {
    let mut session = connect_walsender(database, "history").await?;
    let answer = session.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
    let content = answer.first().and_then(|row| row.get(1)?.as_deref()).unwrap_or_default();
    content.parse().map_err(|cause| {
        let cause = format!("the history of timeline {timeline} cannot be read: {cause}");
        Error::new(ErrorKind::History, cause)
    })
}
