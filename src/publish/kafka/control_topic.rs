//! The topic of cursors: one partition per bucket, written inside the transactions that publish.
//!
//! Promises: what is read was committed, and nothing that was committed before the reading began is missed; an id that
//! is fenced has nothing open any more. Must not: know what a cursor says, or write one. Fails: when no broker answers
//! in time; with [`ErrorKind::TopicUnavailable`] where the topic is missing or not as it has to be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::BaseProducer;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::publish::in_flight_batch::AppendedAt;
use crate::publish::kafka::clients::{AsideContext, ProducerConfig};
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::transactional_id::{take_id, transactional};
use crate::schema::{self, Schema};

/// One answer of a broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// All of a reading.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_STEP: Duration = Duration::from_millis(50);
/// The last records of a partition are read first; twice as many each time that none of them was committed.
const FIRST_STEP: i64 = 16;
const COPIES: i32 = 3;
/// A cursor, and the end of its transaction.
const CURSOR_AND_END: i64 = 2;
/// Of whoever only ends what another has open.
const FENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do where a cursor in Kafka cannot be gone by.
pub const KEEP_SAVED: &str = "find out who deleted or changed the topic, and remove what there is of it: it is made \
     again; `postrider migrate reanchor --cursor-from postgres` goes on from PostgreSQL's cursors, and repeats what was \
     published since they were saved";

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

/// Who reads the topic, and who sees how far it goes whatever is decided.
struct CursorReaders {
    of_committed: CursorReader,
    of_everything: CursorReader,
}

/// The error for a topic of cursors that was there, and is gone.
fn gone(name: &str) -> Error {
    let cause = format!("topic {name} is gone, and the cursors with it");
    Error::new(ErrorKind::KafkaRefused, cause).with_remedy(KEEP_SAVED)
}

/// The error for one that is not the one to which cursors were written.
fn made_anew(name: &str) -> Error {
    let cause = format!(
        "topic {name} is gone, and the cursors with it: the one of this name was made anew, or its brokers have lost \
         what was in it"
    );
    Error::new(ErrorKind::KafkaRefused, cause).with_remedy(KEEP_SAVED)
}

/// The topic of cursors, for whoever looks at it again and again.
#[derive(Clone)]
pub struct WatchedTopic {
    topic: ControlTopic,
    asker: Asker,
    furthest: Option<PartitionEnd>,
}

/// Up to where a partition was seen to go. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartitionEnd {
    partition: i32,
    end: i64,
}

impl std::fmt::Debug for WatchedTopic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.topic.fmt(formatter)
    }
}

impl WatchedTopic {
    /// Whether it is there, with a partition for each bucket, and the same as before.
    ///
    /// # Errors
    /// [`ErrorKind::KafkaRefused`] where it has another number of partitions, or was made anew; when no broker answers
    /// in time.
    pub fn is_there(&mut self) -> Result<bool> {
        match self.topic.partitions(&self.asker)? {
            0 => Ok(false),
            partitions => {
                self.topic.check(partitions)?;
                self.look_at_the_furthest().map(|()| true)
            }
        }
    }

    /// Looks at the partition that went furthest: in a topic that is made anew it begins at its start. All of them
    /// are looked at as long as nothing is in them.
    fn look_at_the_furthest(&mut self) -> Result<()> {
        let looked_at = match self.furthest {
            Some(known) => vec![known.partition],
            None => (0..self.topic.buckets.into()).collect(),
        };
        for partition in looked_at {
            let (_, end) = rdkafka::producer::Producer::client(&*self.asker)
                .fetch_watermarks(&self.topic.name, partition, ANSWER_TIMEOUT)
                .map_err(|cause| unavailable(&cause, None))?;
            self.furthest = further(self.furthest, PartitionEnd { partition, end })
                .map_err(|Back| made_anew(&self.topic.name))?;
        }
        Ok(())
    }
}

/// Whether it is only that another broker leads the partition from now on.
fn moves(cause: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        cause.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::FencedLeaderEpoch
                | Code::OffsetNotAvailable
        )
    )
}

/// A partition is not as long as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Back;

/// The one of both that goes further, if anything is in it.
fn further(
    known: Option<PartitionEnd>,
    seen: PartitionEnd,
) -> std::result::Result<Option<PartitionEnd>, Back> {
    match known {
        Some(known) if known.partition == seen.partition && seen.end < known.end => Err(Back),
        Some(known) if seen.end < known.end => Ok(Some(known)),
        Some(_) | None => Ok(Some(seen).filter(|seen| seen.end > 0)),
    }
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

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
struct Extent {
    low: i64,
    /// The last stable offset.
    end: i64,
    start: i64,
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
        let found = self.partitions(&asker)?;
        if found > 0 {
            return self.check(found).map(|()| true);
        }
        self.make()?;
        let begin = Instant::now();
        while begin.elapsed() < ANSWER_TIMEOUT {
            if self.partitions(&asker)? == usize::from(self.buckets) {
                return Ok(false);
            }
            std::thread::sleep(POLL_STEP);
        }
        self.check(self.partitions(&asker)?).map(|()| false)
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

    /// The same, by a client that stays.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn watched(&self) -> Result<WatchedTopic> {
        Ok(WatchedTopic { topic: self.clone(), asker: self.config.asker()?, furthest: None })
    }

    /// The error for one that was there, and is gone.
    pub fn gone(&self) -> Error {
        gone(&self.name)
    }

    /// How many partitions it has; none where it is missing.
    fn partitions(&self, asker: &Asker) -> Result<usize> {
        // Asked for all of them: for one that is missing the brokers might make it, with their own settings.
        let metadata = rdkafka::producer::Producer::client(&**asker)
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|cause| unavailable(&cause, None))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.name);
        Ok(found.map_or(0, |topic| topic.partitions().len()))
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
        for id in ids {
            let producer = transactional(&self.config, id, FENCE_TIMEOUT).asker()?;
            take_id(&*producer, id)?;
        }
        Ok(())
    }

    fn reader(&self, isolation: &str) -> Result<CursorReader> {
        self.config.consumer(&[
            ("group.id", "postrider-cursors"),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", "20"),
        ])
    }

    /// The last committed record of each of these buckets, if it has one.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn read(&self, buckets: &[Bucket]) -> Result<HashMap<Bucket, Vec<u8>>> {
        let readers = CursorReaders {
            of_committed: self.reader("read_committed")?,
            of_everything: self.reader("read_uncommitted")?,
        };
        let deadline = Instant::now() + READ_TIMEOUT;
        match self.partitions(&self.config.asker()?)? {
            // Nothing is there to be read. What that means is not known here.
            0 => return Ok(HashMap::new()),
            partitions => self.check(partitions)?,
        }
        let mut wanted: HashMap<Bucket, Extent> = HashMap::new();
        for bucket in buckets {
            let (low, end) = self.extent(&readers, *bucket, deadline)?;
            if end > low {
                wanted.insert(*bucket, Extent { low, end, start: (end - FIRST_STEP).max(low) });
            }
        }
        let mut found = HashMap::new();
        while !wanted.is_empty() {
            self.read_ends(&readers.of_committed, &wanted, &mut found, deadline)?;
            wanted.retain(|bucket, extent| {
                let goes_on = !found.contains_key(bucket) && extent.start > extent.low;
                let read = extent.end - extent.start;
                extent.start = (extent.end - 2 * read).max(extent.low);
                goes_on
            });
        }
        Ok(found)
    }

    /// From where to where a partition goes, once nothing in it is undecided: all that may have had something open there
    /// is ended by now, but the ends may not be written yet. Nobody else writes there.
    fn extent(
        &self,
        readers: &CursorReaders,
        bucket: Bucket,
        deadline: Instant,
    ) -> Result<(i64, i64)> {
        loop {
            let everything = self.ends(&readers.of_everything, bucket, deadline)?;
            let committed = self.ends(&readers.of_committed, bucket, deadline)?;
            if committed.1 >= everything.1 {
                return Ok(committed);
            }
            if Instant::now() > deadline {
                return Err(self.undecided(bucket));
            }
            std::thread::sleep(POLL_STEP);
        }
    }

    /// A topic that was just made has no leaders yet, and they may move.
    fn ends(&self, reader: &CursorReader, bucket: Bucket, deadline: Instant) -> Result<(i64, i64)> {
        loop {
            match reader.fetch_watermarks(&self.name, bucket.0.into(), ANSWER_TIMEOUT) {
                Err(cause) if moves(&cause) && Instant::now() < deadline => {
                    std::thread::sleep(POLL_STEP);
                }
                found => return found.map_err(|cause| unavailable(&cause, None)),
            }
        }
    }

    fn undecided(&self, bucket: Bucket) -> Error {
        let (name, partition) = (&self.name, bucket.0);
        let cause =
            format!("partition {partition} of topic {name} has a transaction that does not end");
        Error::new(ErrorKind::KafkaUnavailable, cause).with_remedy(
            "look who has it open: kafka-transactions.sh find-hanging, and abort; nobody but postrider may write there",
        )
    }

    /// Reads each of the partitions from its start to its end.
    fn read_ends(
        &self,
        consumer: &CursorReader,
        wanted: &HashMap<Bucket, Extent>,
        found: &mut HashMap<Bucket, Vec<u8>>,
        deadline: Instant,
    ) -> Result<()> {
        let mut places = TopicPartitionList::new();
        for (bucket, extent) in wanted {
            places
                .add_partition_offset(&self.name, bucket.0.into(), Offset::Offset(extent.start))
                .map_err(|cause| unavailable(&cause, None))?;
        }
        consumer.assign(&places).map_err(|cause| unavailable(&cause, None))?;
        let mut open = wanted.len();
        while open > 0 {
            match consumer.poll(POLL_STEP) {
                Some(Ok(message)) => {
                    if let (Ok(bucket), Some(value)) =
                        (u16::try_from(message.partition()), message.payload())
                    {
                        found.insert(Bucket(bucket), value.to_vec());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(cause)) => tracing::debug!(%cause, "the cursors cannot be read yet"),
                None => {}
            }
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::KafkaUnavailable,
                    format!("topic {} cannot be read in time", self.name),
                )
                .with_remedy("check that the leaders of its partitions answer"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_never_goes_back() {
        let at = |partition, end| PartitionEnd { partition, end };
        assert_eq!(further(None, at(0, 0)), Ok(None), "nothing is in it");
        assert_eq!(further(None, at(3, 8)), Ok(Some(at(3, 8))));
        assert_eq!(further(Some(at(3, 8)), at(4, 7)), Ok(Some(at(3, 8))), "it is another one");
        assert_eq!(further(Some(at(3, 8)), at(4, 9)), Ok(Some(at(4, 9))));
        assert_eq!(further(Some(at(3, 8)), at(3, 8)), Ok(Some(at(3, 8))), "nothing came");
        assert_eq!(further(Some(at(3, 8)), at(3, 7)), Err(Back));
        assert_eq!(further(Some(at(3, 8)), at(3, 0)), Err(Back));
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
