//! How the last committed cursors are read from their topic.
//!
//! Promises: nothing is read of a partition in which anything is undecided, and no older cursor is taken for the last one
//! where another broker came to lead the partition meanwhile. Must not: know what a cursor says. Fails: when that cannot
//! be had in time.

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::publish::kafka::control_topic::{
    ANSWER_TIMEOUT, ControlTopic, CursorReader, POLL_STEP, READERS, denied,
};
use crate::publish::kafka::errors::unavailable;

/// All of a reading.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The last records of a partition are read first; twice as many each time that none of them was committed.
const FIRST_STEP: i64 = 16;

/// Who reads the topic, and who sees how far it goes whatever is decided.
struct CursorReaders {
    of_committed: CursorReader,
    of_everything: CursorReader,
}

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
struct Extent {
    low: i64,
    /// The last stable offset.
    end: i64,
    start: i64,
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

/// Whether no wait helps: a right is missing.
fn is_denial(cause: &KafkaError) -> bool {
    cause.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}

impl ControlTopic {
    fn reader(&self, isolation: &str) -> Result<CursorReader> {
        self.config.consumer(&[
            ("group.id", READERS),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            // Whoever jumps to the end has missed what is there.
            ("auto.offset.reset", "error"),
            ("fetch.wait.max.ms", "20"),
        ])
    }

    /// The last committed record of each of these buckets, if it has one.
    ///
    /// # Errors
    /// When no broker answers in time, or the partitions change their leaders all the time.
    pub fn read(&self, buckets: &[Bucket]) -> Result<HashMap<Bucket, Vec<u8>>> {
        let (asker, admin) = (self.config.asker()?, self.config.admin()?);
        let readers = CursorReaders {
            of_committed: self.reader("read_committed")?,
            of_everything: self.reader("read_uncommitted")?,
        };
        let deadline = Instant::now() + READ_TIMEOUT;
        loop {
            let leaders = self.leaders(&asker)?;
            match leaders.len() {
                // Nothing is there to be read. What that means is not known here.
                0 => return Ok(HashMap::new()),
                partitions => self.check(partitions)?,
            }
            self.check_size(&admin)?;
            let found = self.read_once(&readers, buckets, deadline)?;
            // Whoever has just come to lead a partition may not show all of it that is committed.
            if self.leaders(&asker)? == leaders {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(self.unread("the leaders of its partitions change all the time"));
            }
        }
    }

    fn read_once(
        &self,
        readers: &CursorReaders,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<HashMap<Bucket, Vec<u8>>> {
        let mut wanted: HashMap<Bucket, Extent> = HashMap::new();
        for bucket in buckets {
            let (low, end) = self.extent(readers, *bucket, deadline)?;
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
        // A partition that changes its leader may tell of its end twice.
        let mut open: HashSet<i32> = wanted.keys().map(|bucket| bucket.0.into()).collect();
        while !open.is_empty() {
            match consumer.poll(POLL_STEP) {
                Some(Ok(message)) => {
                    if let (Ok(bucket), Some(value)) =
                        (u16::try_from(message.partition()), message.payload())
                    {
                        found.insert(Bucket(bucket), value.to_vec());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(cause)) if is_denial(&cause) => return Err(denied(&self.name, "read")),
                Some(Err(cause)) => tracing::debug!(%cause, "the cursors cannot be read yet"),
                None => {}
            }
            if Instant::now() > deadline {
                return Err(self.unread("not all of its leaders answer"));
            }
        }
        Ok(())
    }

    fn unread(&self, why: &str) -> Error {
        let cause = format!("topic {} cannot be read in time: {why}", self.name);
        Error::new(ErrorKind::KafkaUnavailable, cause)
            .with_remedy("check that the leaders of its partitions answer")
    }
}
