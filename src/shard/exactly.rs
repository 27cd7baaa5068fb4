//! How a shard begins with buckets whose cursors are committed to Kafka.
//!
//! Promises: what others may have open with a bucket has ended before its cursor is read, and the bucket is still ours
//! after that; a cursor that is missing in Kafka, though one was committed, is refused. Must not: publish an event.
//! Fails: with [`ErrorKind::History`] where what was committed cannot be gone by; as either side.
//!
//! ```text
//!   PostgreSQL: who may have something open ─► Kafka: end that ─► Kafka: the last committed cursor
//!     ─► PostgreSQL: our ids are written down, if the bucket is still ours ─► the later of both cursors
//! ```
//!
//! `tests/model/exact` shows why in this order.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::control::cursors::CursorStore;
use crate::control::cursors::exactly::Taken;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::control_record::{ControlRecord, RecordedPlace};
use crate::order::cursor::Cursor;
use crate::order::history::{Ancestors, History, Worth};
use crate::order::later::{Choice, choose};
use crate::order::snapshot::TransactionId;
use crate::publish::kafka::control_topic::{ControlTopic, KEEP_SAVED};
use crate::shard::transaction_budget::SharedBudget;

/// So often a cursor that was committed is looked for, in a topic that is as it has to be.
const MISSING_LOOKS: u32 = 10;
/// Between two such looks.
const MISSING_PAUSE: Duration = Duration::from_secs(1);

/// What a shard needs for it.
#[derive(Clone, Debug)]
pub struct Exactly {
    /// Where cursors are committed.
    pub control: ControlTopic,
    /// The ids of our producers.
    pub ids: Vec<String>,
    /// Since when events are delivered so.
    pub term: i64,
    /// From where the server's timeline comes.
    pub ancestors: Ancestors,
    /// How much a transaction may have in flight.
    pub budget: SharedBudget,
}

/// What was found of buckets that a shard begins with.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) cursors: Vec<(Bucket, Cursor)>,
    /// Of which nothing was committed under this term.
    pub(super) fresh: Vec<Bucket>,
    /// Parked events that are published, and may not be taken away yet.
    pub(super) retried: Vec<i64>,
    /// Whoever sees what this transaction wrote sees all that was there before.
    pub(super) since: TransactionId,
}

/// What was found of buckets in Kafka.
#[derive(Debug)]
pub struct CommittedCursors {
    /// What was committed last, under this term.
    pub records: HashMap<Bucket, ControlRecord>,
    /// Of which it is not known yet that anything is.
    pub fresh: Vec<Bucket>,
    /// Parked events that are published, and may not be taken away yet.
    pub retried: Vec<i64>,
    /// Whoever sees what this transaction wrote sees all that was there before.
    pub since: TransactionId,
    ancestors: Ancestors,
}

impl CommittedCursors {
    /// With which cursors these buckets go on.
    ///
    /// # Errors
    /// When what was committed cannot be gone by.
    pub fn cursors(
        &self,
        saved: Vec<(Bucket, Cursor)>,
        present: &History,
    ) -> Result<Vec<(Bucket, Cursor)>> {
        let go_on = |(bucket, saved): (Bucket, Cursor)| {
            let cursor = match self.records.get(&bucket) {
                None => saved,
                Some(record) => later(bucket, saved, record, (present, &self.ancestors))?,
            };
            Ok((bucket, cursor))
        };
        saved.into_iter().map(go_on).collect()
    }

    /// Up to where the log is published, as far as that was committed.
    pub fn log(&self, present: &History) -> Option<RecordedPlace> {
        let is_ours = |record: &&ControlRecord| {
            present.judge(&record.history, &self.ancestors) == Worth::Valid
        };
        self.records.values().filter(is_ours).filter_map(|record| record.log).max()
    }
}

impl Exactly {
    /// Finds out where these buckets stand.
    pub(super) async fn begin(&self, store: &CursorStore, buckets: &[Bucket]) -> Result<Begun> {
        let found = self.find(store, buckets).await?;
        let (saved, present) = (store.load(buckets).await?, store.present().await?);
        let cursors = found.cursors(saved, &present)?;
        let (fresh, retried, since) = (found.fresh, found.retried, found.since);
        Ok(Begun { cursors, fresh, retried, since })
    }

    /// Takes over from whoever had these buckets: what is committed of each of them.
    ///
    /// # Errors
    /// When a bucket is another's, or what was committed cannot be gone by.
    pub async fn find(&self, store: &CursorStore, buckets: &[Bucket]) -> Result<CommittedCursors> {
        let taken = store.taken(buckets).await?;
        let records = self.read_committed(&taken).await?;
        let since = store.record_ids(buckets, &self.ids).await?;
        let (fresh, retried, ancestors) = (Vec::new(), Vec::new(), self.ancestors.clone());
        let mut found = CommittedCursors { records, fresh, retried, since, ancestors };
        for Taken { bucket, term, .. } in taken {
            if let Some(record) = found.records.get(&bucket) {
                found.retried.extend(&record.retried);
            }
            if term != Some(self.term) {
                found.fresh.push(bucket);
            }
        }
        Ok(found)
    }

    /// What is committed of each of these under this term. A broker that has just started may not show all of it at once,
    /// or refuse what it will allow: that is looked at some times before it ends the process.
    async fn read_committed(&self, taken: &[Taken]) -> Result<HashMap<Bucket, ControlRecord>> {
        let mut looks = 1;
        loop {
            let refusal = match self.look(taken).await {
                Err(refusal) if refusal.kind() == ErrorKind::KafkaRefused => refusal,
                found => return found,
            };
            if looks == MISSING_LOOKS {
                return Err(refusal);
            }
            tracing::debug!(
                cause = refusal.message(),
                looks,
                "the cursors are looked at once more"
            );
            looks += 1;
            tokio::time::sleep(MISSING_PAUSE).await;
        }
    }

    async fn look(&self, taken: &[Taken]) -> Result<HashMap<Bucket, ControlRecord>> {
        let mut records = self.fence_and_read(taken).await?;
        records.retain(|_, record| record.term == self.term);
        let is_missing =
            |taken: &&Taken| taken.term == Some(self.term) && !records.contains_key(&taken.bucket);
        match taken.iter().find(is_missing) {
            None => Ok(records),
            Some(taken) => Err(self.missing(taken.bucket)),
        }
    }

    async fn fence_and_read(&self, taken: &[Taken]) -> Result<HashMap<Bucket, ControlRecord>> {
        let ids: HashSet<&String> = taken.iter().flat_map(|taken| &taken.fence).collect();
        let others: Vec<String> =
            ids.into_iter().filter(|id| !self.ids.contains(id)).cloned().collect();
        let buckets: Vec<Bucket> = taken.iter().map(|taken| taken.bucket).collect();
        let is_known = taken.iter().any(|taken| taken.term == Some(self.term));
        let control = self.control.clone();
        let read = tokio::task::spawn_blocking(move || {
            if !is_known {
                control.ensure()?;
            }
            control.fence(&others)?;
            control.read(&buckets)
        });
        let read =
            read.await.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
        let decode = |(bucket, value): (Bucket, Vec<u8>)| {
            let record = ControlRecord::decode(&value).map_err(|cause| {
                let (name, cause) = (self.control.name(), cause.to_string());
                unusable(bucket, &format!("the last record in topic {name}: {cause}"))
            })?;
            Ok((bucket, record))
        };
        read?.into_iter().map(decode).collect()
    }

    fn missing(&self, bucket: Bucket) -> Error {
        let name = self.control.name();
        Error::new(
            ErrorKind::KafkaRefused,
            format!("topic {name} has no cursor of bucket {bucket}, though one was committed"),
        )
        .with_remedy(KEEP_SAVED)
    }
}

/// With which cursor a bucket goes on.
fn later(
    bucket: Bucket,
    saved: Cursor,
    record: &ControlRecord,
    (present, ancestors): (&History, &Ancestors),
) -> Result<Cursor> {
    match present.judge(&record.history, ancestors) {
        Worth::Valid => {}
        worth @ (Worth::Forgotten | Worth::Unknown) => {
            tracing::warn!(
                %bucket,
                ?worth,
                "the database may not remember what was published last: going on from PostgreSQL's cursor, and \
                 events may be repeated"
            );
            return Ok(saved);
        }
        Worth::Foreign => return Err(unusable(bucket, "what was committed is of another cluster")),
        Worth::LeftBehind => {
            return Err(unusable(bucket, "what was committed is of a later timeline"));
        }
    }
    // Of messages nothing is said that means anything for a table.
    let Some(committed) = record.cursor.clone() else { return Ok(saved) };
    let committed = committed.restore();
    match choose(&saved, &committed) {
        Some(Choice::Committed) => Ok(committed),
        Some(Choice::Saved) => Ok(saved),
        None => Err(unusable(bucket, "what was committed does not lead to what was saved")),
    }
}

fn unusable(bucket: Bucket, cause: &str) -> Error {
    Error::new(
        ErrorKind::History,
        format!("bucket {bucket} cannot be delivered exactly once from here: {cause}"),
    )
    .with_remedy(KEEP_SAVED)
}
