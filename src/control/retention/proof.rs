//! The proof that every row of a partition was read, before the partition is emptied.
//!
//! Promises: a partition is emptied only when each of its rows was read by a cursor, brought by the log, or is parked; what
//! nobody had read is published; no statement is long, and a writer that comes meanwhile is let in. Must not: publish, or
//! hold up who reads. Fails: as retention does; the partition stays.
//!
//! No range is read below its bound, as no number was drawn there (`src/order/tick.rs`), and the looks below windows
//! (`src/capture/table/below.rs`) may miss a row that fills a gap of long ago. Such a row breaks the law of ticks: its
//! transaction came after a tick, and its `seq` lies at or below that tick's floor. So each tick is remembered as durably
//! as it is made, and before its truncation each row of a partition is held against the latest tick that its
//! transaction came after (`sql/queries/unread.sql`): about 0.2 us a row, in chunks, once.
//!
//! * *Nothing that was left out is overlooked.* A range's bound lies at least 256 below the floor of the tick behind which
//!   it begins, or of one before it that its transaction came after, and a tick that is not remembered lies at most
//!   127 above one that is. This holds for each instance's ticks, so that of any instance may be taken.
//! * *Nothing that was read is published again.* Of what breaks the law a part was read: a little below its bound a range
//!   looks, too. Of which ranges rows were read, and down to where, if not all, is noted with the cursors that have passed
//!   them (`window_note.sql`). What the log brought is noted, too.
//! * *What is found* is parked in one transaction with the note that it was, and a shard is asked to publish it. So
//!   restarts and take-overs change nothing: it lies in `postrider.parked`, or is found again.
//! * *It is no news then.* Rows are looked at by the same law long before, `sweep`; the proof finds what came since.
//! * *Nobody adds a row unseen.* The proof holds a lock that keeps writers of the past generation out, and nobody else.
//!   After each chunk it looks whether anybody waits, and if so, ends without a result.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::control::retention::outcome::AttemptOutcome;
use crate::control::retention::{
    ATTEMPTS, BEGIN, Retention, RetentionSession, Steps, attempt_pause,
};
use crate::control::unread;
use crate::control::unread::{BucketPartition, CHUNK_BLOCKS, UnreadRow};
use crate::error::Result;
use crate::order::holds::Reason;
use crate::postgres::{Sql, classify, without_head};

const LOCK: &str = include_str!("../../../sql/queries/proof_lock.sql");
const LOOK: &str = include_str!("../../../sql/queries/proof_look.sql");
static PARK: Sql = Sql::of(include_str!("../../../sql/queries/unread_park.sql"));
static ASK: Sql = Sql::of(include_str!("../../../sql/queries/unread_ask.sql"));

const DETAIL: &str = "its seq was not drawn when it was written, and no cursor has read it";

/// What came of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofOutcome {
    /// Every row was read.
    Holds,
    /// So many were not; they are parked.
    Parked(u64),
    /// A row that breaks the law is not passed yet.
    Waits,
    /// Somebody wants to write.
    Awaited,
    /// The bucket is another instance's.
    Taken,
}

impl ProofOutcome {
    /// What was parked in this look is told before all else.
    fn unless_parked(self, parked: u64) -> Self {
        if parked > 0 { Self::Parked(parked) } else { self }
    }
}

impl Retention {
    /// Empties a partition that is due, if all its rows are proven to be read.
    pub(super) async fn prove_and_empty(
        &self,
        session: &RetentionSession,
        leaf: &BucketPartition,
        epoch: i64,
    ) -> Result<AttemptOutcome> {
        if !session.lock_for_proof(leaf).await? {
            return Ok(AttemptOutcome::Locked);
        }
        let proof = session.prove(leaf, epoch).await?;
        let outcome = match proof {
            ProofOutcome::Holds => {
                return session.attempt(&self.attempt_sql(leaf, epoch, Steps::Act)).await;
            }
            ProofOutcome::Parked(_) => AttemptOutcome::Unread,
            ProofOutcome::Waits => AttemptOutcome::Waiting,
            ProofOutcome::Awaited => AttemptOutcome::Locked,
            ProofOutcome::Taken => AttemptOutcome::Taken,
        };
        session.commit_proof().await?;
        if let ProofOutcome::Parked(rows) = proof {
            self.asks.note();
            tell(leaf, rows);
        }
        Ok(outcome)
    }
}

/// Says that rows were found that nobody had read.
pub(super) fn tell(leaf: &BucketPartition, rows: u64) {
    tracing::warn!(
        leaf = leaf.name,
        rows,
        remedy = "let the column's default stand",
        "rows were written with a seq that was not drawn for them, and no cursor had read them; they are published now"
    );
}

impl RetentionSession {
    /// Whether the lock was to be had, at one of some attempts.
    async fn lock_for_proof(&self, leaf: &BucketPartition) -> Result<bool> {
        let lock = without_head(LOCK).replace("{table}", &leaf.name);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(attempt_pause()).await;
            }
            let locked = self.connection.client().batch_execute(&lock).await;
            match locked {
                Ok(()) => return Ok(true),
                Err(cause) if cause.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    self.end_transaction().await?;
                }
                Err(cause) => return Err(classify("look at a past generation", cause)),
            }
        }
        Ok(false)
    }

    async fn prove(&self, leaf: &BucketPartition, epoch: i64) -> Result<ProofOutcome> {
        // Behind the lock: nobody writes any more.
        let law = unread::law(&self.connection).await?;
        let (mut first, mut parked) = (0, 0);
        loop {
            let (blocks, is_awaited) = self.look_at_lock(leaf).await?;
            if is_awaited {
                return Ok(ProofOutcome::Awaited.unless_parked(parked));
            }
            if first >= blocks {
                return Ok(ProofOutcome::Holds.unless_parked(parked));
            }
            let rows = unread::chunk(&self.connection, leaf, &law, first).await?;
            if rows.iter().any(|row| !row.is_passed) {
                return Ok(ProofOutcome::Waits.unless_parked(parked));
            }
            if rows.is_empty() {
                first += CHUNK_BLOCKS;
                continue;
            }
            if !self.park_unread(leaf, epoch, &rows).await? {
                return Ok(ProofOutcome::Taken);
            }
            parked += rows.len() as u64;
        }
    }

    /// How many blocks there are, and whether anybody waits.
    async fn look_at_lock(&self, leaf: &BucketPartition) -> Result<(i64, bool)> {
        let row = self.connection.client().query_one(LOOK, &[&leaf.oid]).await;
        let row = row.map_err(|cause| classify("look who waits for a past generation", cause))?;
        Ok((row.get("blocks"), row.get("is_awaited")))
    }

    /// Whether the bucket is ours still.
    async fn park_unread(
        &self,
        leaf: &BucketPartition,
        epoch: i64,
        rows: &[UnreadRow],
    ) -> Result<bool> {
        let failed = |cause| classify("park rows that nobody has read", cause);
        let bucket = i16::try_from(leaf.bucket.0).expect("there are at most 64 buckets");
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let client = self.connection.client();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&bucket, &epoch, &seqs, &ids, &Reason::Follows.name(), &DETAIL];
        let parked = client.query_one(PARK.text(), &parameters).await.map_err(failed)?;
        if parked.get::<_, Option<i64>>("written").is_none() {
            return Ok(false);
        }
        client.execute(ASK.text(), &[&bucket, &leaf.oid, &seqs, &ids]).await.map_err(failed)?;
        Ok(true)
    }

    /// As [`RetentionSession::park_unread`], in a transaction of its own.
    pub(super) async fn park_at_once(
        &self,
        leaf: &BucketPartition,
        epoch: i64,
        rows: &[UnreadRow],
    ) -> Result<bool> {
        let failed = |cause| classify("park rows that nobody has read", cause);
        self.connection.client().batch_execute(BEGIN).await.map_err(failed)?;
        let is_ours = self.park_unread(leaf, epoch, rows).await?;
        self.commit_proof().await?;
        Ok(is_ours)
    }

    async fn commit_proof(&self) -> Result<()> {
        let ended = self.connection.client().batch_execute("commit").await;
        ended.map_err(|cause| classify("end the look at a past generation", cause))
    }
}
