//! Under which names an instance takes part in Kafka's transactions.
//!
//! Promises: no two shards of any instances have an id in common, nor two databases a topic. Must not: take an id.
//! Fails: as PostgreSQL is asked for the cluster's name.

use std::time::Duration;

use crate::capture::mode::{DeliveryMode, Way};
use crate::control::cursors::CursorStore;
use crate::error::Result;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::control_topic::ControlTopic;
use crate::publish::kafka::transaction::TransactionTerms;
use crate::relay::instance::Instance;
use crate::shard::exactly::Exactly;

/// A transaction without an end is ended by its coordinator after this, at the earliest.
const TIMEOUT_MIN: Duration = Duration::from_secs(20);
/// The same, by the leases that it has to outlast.
const LEASES: u32 = 2;

/// What all shards of an instance have in common.
#[derive(Clone, Debug)]
pub(super) struct ExactlyOnce {
    prefix: String,
    instance: String,
    timeout: Duration,
    control: ControlTopic,
    term: i64,
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
        let system = store.present().await?.system_identifier;
        let lease = Duration::from_secs(instance.config.lease_seconds.into());
        let own = (instance.name.as_str(), lease);
        Ok(Some(Self::new((system, database), own, producer, buckets, term)))
    }

    fn new(
        (system_identifier, database): (i64, u32),
        (instance, lease): (&str, Duration),
        producer: &ProducerConfig,
        buckets: u16,
        term: i64,
    ) -> Self {
        let prefix = format!("postrider-{}-{database}", system_identifier.cast_unsigned());
        let control = ControlTopic::new(producer, &format!("{prefix}-cursors"), buckets);
        let timeout = TIMEOUT_MIN.max(lease * LEASES);
        Self { prefix, instance: instance.to_owned(), timeout, control, term }
    }

    /// Since when events are delivered so.
    pub(super) fn term(&self) -> i64 {
        self.term
    }

    /// How a shard's producer takes part.
    pub(super) fn terms(&self, shard: &str) -> TransactionTerms {
        TransactionTerms {
            id: format!("{}-{}-{shard}", self.prefix, self.instance),
            timeout: self.timeout,
            control_topic: self.control.name().to_owned(),
        }
    }

    /// How the shard begins with its buckets.
    pub(super) fn shard(&self, shard: &str) -> Exactly {
        let ids = vec![self.terms(shard).id];
        Exactly { control: self.control.clone(), ids, term: self.term }
    }
}
