//! The topic of cursors: one partition per bucket, written inside the transactions that publish.
//!
//! Promises: what is read was committed, and nothing that was committed before the reading began is missed; an id that
//! is fenced has nothing open any more. Must not: know what a cursor says, or write one. Fails: when no broker answers
//! in time; with [`ErrorKind::TopicUnavailable`] where the topic may not be seen, is missing or not as it has to be.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use crate::error::{Error, ErrorKind, Result};
use crate::order::control_record::ControlRecord;
use crate::publish::in_flight_batch::AppendedAt;
use crate::publish::kafka::clients::{AsideContext, ProducerConfig};
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::topic_config::describe;
use crate::publish::kafka::transactional_id::{take_id, transactional};
use crate::record::size::size_bytes_of;
use crate::schema::{self, Schema};

mod read;
mod watched;

pub use crate::publish::kafka::control_topic::watched::WatchedTopic;

/// One answer of a broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_STEP: Duration = Duration::from_millis(50);
const COPIES: i32 = 3;
/// A cursor, and the end of its transaction.
const CURSOR_AND_END: i64 = 2;
/// So many ids are taken side by side: each takes some requests to its own coordinator.
const FENCES_AT_ONCE: usize = 8;
/// Of whoever only ends what another has open.
const FENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// Whoever reads the topic, to the brokers.
const READERS: &str = "postrider-cursors";
const UNAUTHORIZED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

/// What to do where a cursor in Kafka cannot be gone by.
pub const KEEP_SAVED: &str = "find out who deleted or changed the topic, and remove what there is of it: it is made \
     again; `postrider migrate reanchor --cursor-from postgres` goes on from PostgreSQL's cursors, and repeats what was \
     published since they were saved";

/// A cursor has a place with so many transactions open in the server ...
const OPEN_TRANSACTIONS: usize = 1_000;
/// ... and with a whole piece of parked events that were tried again.
const RETRIED: usize = 2_000;
/// The number of a bucket, as text.
const KEY_BYTES: usize = 5;

/// How large a batch the topic of cursors has to take.
pub fn cursor_bytes() -> usize {
    let value = ControlRecord::longest(OPEN_TRANSACTIONS, RETRIED);
    size_bytes_of(KEY_BYTES, Some(value), std::iter::empty())
}

/// The error for one that takes less.
pub fn too_small(name: &str, limit: usize) -> Error {
    let needed = cursor_bytes();
    let cause = format!(
        "topic {name} takes {limit} bytes at once (max.message.bytes), and a cursor may have {needed}"
    );
    Error::new(ErrorKind::KafkaRefused, cause).with_remedy(format!(
        "set its max.message.bytes to {needed} or more, or remove the setting where the brokers' own is as large; \
         nothing has to be made anew"
    ))
}

/// How all is called that an outbox has in Kafka for its transactions.
pub fn prefix(system_identifier: i64, database: u32) -> String {
    prefix_in(schema::chosen(), system_identifier, database)
}

fn prefix_in(schema: &Schema, system_identifier: i64, database: u32) -> String {
    let database = format!("postrider-{}-{database}", system_identifier.cast_unsigned());
    match schema.unusual() {
        // No instance's name behind the database's number begins so.
        Some(_) => format!("{database}.{}", schema.tag()),
        None => database,
    }
}

/// The name of an outbox's topic of cursors.
pub fn name(prefix: &str) -> String {
    format!("{prefix}-cursors")
}

/// The topic of cursors.
#[derive(Clone, Debug)]
pub struct ControlTopic {
    config: ProducerConfig,
    name: String,
    buckets: u16,
}

/// A client that only asks.
type Asker = Arc<BaseProducer<AsideContext>>;
/// A client that reads.
type CursorReader = Arc<BaseConsumer<AsideContext>>;

/// The error for a topic of cursors that was there, and is gone.
fn gone(name: &str) -> Error {
    let cause = format!("topic {name} is gone, and the cursors with it");
    Error::new(ErrorKind::KafkaRefused, cause).with_remedy(KEEP_SAVED)
}

/// The error for one that may be there all the same, where this user may not do that with it.
fn denied(name: &str, what: &str) -> Error {
    let cause = format!("Kafka does not let this user {what} topic {name}, which has the cursors");
    Error::new(ErrorKind::TopicUnavailable, cause)
        .with_remedy(format!("grant Describe, Read and Write on topic {name}"))
}

/// The error for one that is not the one to which cursors were written.
fn made_anew(name: &str) -> Error {
    let cause = format!(
        "topic {name} is gone, and the cursors with it: the one of this name was made anew, or its brokers have lost \
         what was in it"
    );
    Error::new(ErrorKind::KafkaRefused, cause).with_remedy(KEEP_SAVED)
}

/// Where the next cursor of each partition comes at the earliest, for its only writer.
#[derive(Debug, Default)]
pub(super) struct CursorEnds(HashMap<i32, i64>);

impl CursorEnds {
    /// A cursor was acknowledged there, in the topic of this name. It has to come behind all that were there before.
    ///
    /// # Errors
    /// [`ErrorKind::KafkaRefused`] where it does not: the topic was made anew.
    pub(super) fn note(&mut self, name: &str, at: AppendedAt) -> Result<()> {
        let next = self.0.entry(at.partition).or_default();
        // A broker that has it already may not say where.
        if at.offset < 0 {
            return Ok(());
        }
        if at.offset < *next {
            return Err(made_anew(name));
        }
        *next = at.offset + CURSOR_AND_END;
        Ok(())
    }
}

impl ControlTopic {
    /// The topic of an outbox with so many buckets.
    pub fn new(config: &ProducerConfig, name: &str, buckets: u16) -> Self {
        Self { config: config.clone(), name: name.to_owned(), buckets }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it, if it is not there; whether it was.
    ///
    /// # Errors
    /// When the brokers do not make it, or it has another number of partitions.
    pub fn ensure(&self) -> Result<bool> {
        let asker = self.config.asker()?;
        let found = self.leaders(&asker)?.len();
        if found > 0 {
            return self.check(found).map(|()| true);
        }
        self.make()?;
        let begin = Instant::now();
        loop {
            match self.leaders(&asker)?.len() {
                all if all == usize::from(self.buckets) => return Ok(false),
                found if begin.elapsed() >= ANSWER_TIMEOUT => return self.judge_made(found),
                _ => std::thread::sleep(POLL_STEP),
            }
        }
    }

    /// What to say of a topic that was made, and is not to be seen whole: brokers may still be at it.
    fn judge_made(&self, partitions: usize) -> Result<bool> {
        if partitions > 0 {
            return self.check(partitions).map(|()| false);
        }
        let cause = format!("topic {} was made, and no broker shows it yet", self.name);
        Err(Error::new(ErrorKind::KafkaUnavailable, cause).with_remedy(
            "wait: postrider goes on when it is there; if it lasts, look at the brokers",
        ))
    }

    fn check(&self, partitions: usize) -> Result<()> {
        if partitions == usize::from(self.buckets) {
            return Ok(());
        }
        let (name, buckets) = (&self.name, self.buckets);
        Err(Error::new(
            ErrorKind::KafkaRefused,
            format!("topic {name} has {partitions} partitions, and there are {buckets} buckets"),
        )
        .with_remedy(KEEP_SAVED))
    }

    /// Refuses one that may take no cursor. One of which that is not told is taken as it is.
    fn check_size(&self, admin: &AdminClient<AsideContext>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("the runtime cannot start: {cause}"))
        })?;
        let told = runtime.block_on(describe(admin, &self.name)).unwrap_or_default();
        match told.limit_bytes {
            Some(limit) if limit < cursor_bytes() => Err(too_small(&self.name, limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// The topic for whoever looks at it again and again, by a client that stays.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn watched(&self) -> Result<WatchedTopic> {
        Ok(WatchedTopic::new(self.clone(), self.config.asker()?, self.config.admin()?))
    }

    /// Who leads each of its partitions, with -1 for nobody; empty where it is missing.
    ///
    /// # Errors
    /// When no broker answers in time; [`ErrorKind::TopicUnavailable`] where this user may not see it.
    fn leaders(&self, asker: &Asker) -> Result<BTreeMap<i32, i32>> {
        // Asked for all of them: for one that is missing the brokers might make it, with their own settings.
        let metadata = asker
            .client()
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?;
        let Some(found) = metadata.topics().iter().find(|topic| topic.name() == self.name) else {
            return self.check_seen().map(|()| BTreeMap::new());
        };
        let leaders = found.partitions().iter();
        Ok(leaders.map(|partition| (partition.id(), partition.leader())).collect())
    }

    /// Refuses to take for missing what brokers do not list because this user may not see it. For a client that only
    /// reads they make no topic that is asked for by name.
    fn check_seen(&self) -> Result<()> {
        let metadata = self
            .config
            .consumer(&[("group.id", READERS), ("allow.auto.create.topics", "false")])?
            .fetch_metadata(Some(&self.name), ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?;
        let errors = metadata.topics().iter().filter_map(|topic| topic.error());
        match errors.into_iter().any(|error| error == UNAUTHORIZED) {
            true => Err(denied(&self.name, "see")),
            false => Ok(()),
        }
    }

    fn make(&self) -> Result<()> {
        let admin = self.config.admin()?;
        let brokers = admin
            .inner()
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?
            .brokers()
            .len();
        let copies = i32::try_from(brokers).unwrap_or(COPIES).clamp(1, COPIES);
        let in_sync = if copies == COPIES { "2" } else { "1" };
        let topic = NewTopic::new(&self.name, self.buckets.into(), TopicReplication::Fixed(copies))
            .set("cleanup.policy", "compact")
            .set("min.insync.replicas", in_sync)
            .set("unclean.leader.election.enable", "false");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("the runtime cannot start: {cause}"))
        })?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT));
        let made = runtime.block_on(admin.create_topics([&topic], &options));
        match made.map_err(|cause| unavailable(&cause, None))?.pop() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(Error::new(
                ErrorKind::TopicUnavailable,
                format!("topic {} cannot be made: {code}", self.name),
            )
            .with_remedy(format!("grant Create and Write on topic {}", self.name))),
        }
    }

    /// Ends what these ids have open; whoever has one of them commits nothing more with it.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn fence(&self, ids: &[String]) -> Result<()> {
        for some in ids.chunks(FENCES_AT_ONCE) {
            thread::scope(|scope| {
                let fences: Vec<_> =
                    some.iter().map(|id| scope.spawn(move || self.fence_one(id))).collect();
                fences
                    .into_iter()
                    .try_for_each(|fence| fence.join().unwrap_or_else(|panic| resume_unwind(panic)))
            })?;
        }
        Ok(())
    }

    fn fence_one(&self, id: &str) -> Result<()> {
        let producer = transactional(&self.config, id, FENCE_TIMEOUT).asker()?;
        take_id(&*producer, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::topic::TopicTemplate;

    #[test]
    fn no_event_goes_to_a_topic_of_cursors() {
        for schema in [schema::chosen().clone(), "Other-1".parse().expect("it is a name")] {
            let topic = name(&prefix_in(&schema, -7_450_000_000_000_000_000, 16_384));
            let refused = topic.parse::<TopicTemplate>().expect_err("it is kept");
            assert!(refused.to_string().contains("keeps cursors"), "{refused}");
        }
    }

    #[test]
    fn what_brokers_take_by_default_is_enough_for_a_cursor() {
        const DEFAULT: usize = 1_048_588;
        assert!((100_000..DEFAULT / 2).contains(&cursor_bytes()), "{}", cursor_bytes());
        let error = too_small("t", 200);
        assert_eq!(error.kind(), ErrorKind::KafkaRefused);
        assert!(error.message().contains("topic t takes 200 bytes at once"), "{error}");
    }

    #[test]
    fn a_cursor_comes_behind_the_one_before_and_the_end_of_its_transaction() {
        let noted = |offsets: &[i64]| {
            let mut ends = CursorEnds::default();
            offsets
                .iter()
                .try_for_each(|offset| ends.note("t", AppendedAt { partition: 0, offset: *offset }))
        };
        assert!(noted(&[0, 2, 4, 17, 19]).is_ok(), "others may end what they had open");
        assert!(noted(&[5, -1_001, 7]).is_ok(), "nobody says where it is");
        for made_anew in [&[0, 0][..], &[0, 1], &[40, 42, 0], &[40, 41], &[7, -1_001, 1]] {
            let error = noted(made_anew).expect_err("it is another topic");
            assert_eq!(error.kind(), ErrorKind::KafkaRefused, "{made_anew:?}");
            assert!(error.message().contains("t is gone, and the cursors with it"), "{error}");
        }
        let mut ends = CursorEnds::default();
        for partition in [0, 1] {
            let at = AppendedAt { partition, offset: 0 };
            ends.note("t", at).expect("each partition has its own");
        }
    }

    /// What begins with the one prefix and a dash does not begin with the other.
    #[test]
    fn two_outboxes_of_a_database_have_no_topic_and_no_id_in_common() {
        let other: Schema = "billing".parse().expect("it is a name");
        let (usual, other) = (prefix_in(&Schema::default(), -1, 7), prefix_in(&other, -1, 7));
        assert_eq!(usual, "postrider-18446744073709551615-7");
        assert_eq!(other, "postrider-18446744073709551615-7.billing");
        assert_eq!(name(&other), "postrider-18446744073709551615-7.billing-cursors");
        assert!(!other.starts_with(&format!("{usual}-")));
    }
}
