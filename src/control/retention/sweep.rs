//! Looks through all partitions for rows that nobody has read, long before these are to be emptied.
//!
//! Promises: a row whose number nobody drew is published within some passes where some hundred thousand rows are retained;
//! takes one hundredth of a core at most, and nothing while nobody writes. Must not: be what the proof rests on.
//! Fails: as retention does.

use std::time::Instant;

use crate::control::retention::proof::tell;
use crate::control::retention::{OwnBuckets, Retention, RetentionSession};
use crate::control::unread;
use crate::control::unread::{BucketPartition, CHUNK_BLOCKS, PartitionState, TickLaw};
use crate::error::Result;

impl Retention {
    /// Goes on where the time ended.
    pub(super) async fn sweep(
        &mut self,
        session: &RetentionSession,
        own: &OwnBuckets,
    ) -> Result<()> {
        self.sweep.gather();
        let states = unread::states(&session.connection, &session.leaves).await?;
        let owned = session
            .leaves
            .iter()
            .filter_map(|leaf| Some((leaf, *own.get(&leaf.bucket)?, states[&leaf.oid])));
        let due: Vec<_> =
            owned.filter(|(leaf, _, state)| self.sweep.is_due(leaf.oid, *state)).collect();
        self.sweep.is_complete = due.is_empty();
        if due.is_empty() || !self.sweep.can_look() {
            return Ok(());
        }
        let began = Instant::now();
        let law = unread::law(&session.connection).await?;
        self.sweep.spend_on_law(began.elapsed());
        if law.judges_nothing() {
            self.sweep.is_complete = true;
            return Ok(());
        }
        for (leaf, epoch, state) in due {
            if self.sweep.allowed.is_zero() {
                return Ok(());
            }
            if let Err(error) = self.look_through(session, leaf, epoch, state, &law).await {
                session.end_transaction().await?;
                self.warnings.trouble(&error);
                // A damaged block keeps no other partition from being looked through.
                self.sweep.seen.insert(leaf.oid, state.written);
            }
        }
        self.sweep.is_complete = true;
        Ok(())
    }

    async fn look_through(
        &mut self,
        session: &RetentionSession,
        leaf: &BucketPartition,
        epoch: i64,
        state: PartitionState,
        law: &TickLaw,
    ) -> Result<()> {
        let (mut first, written) =
            self.sweep.places.remove(&leaf.oid).unwrap_or((0, state.written));
        let mut waits = false;
        while first < state.blocks {
            if self.sweep.allowed.is_zero() {
                self.sweep.places.insert(leaf.oid, (first, written));
                return Ok(());
            }
            let began = Instant::now();
            let rows = unread::chunk(&session.connection, leaf, law, first).await?;
            self.sweep.spend(began.elapsed());
            let count = rows.len();
            let passed: Vec<_> = rows.into_iter().filter(|row| row.is_passed).collect();
            waits |= passed.len() < count;
            if passed.is_empty() {
                first += CHUNK_BLOCKS;
                continue;
            }
            if !session.park_at_once(leaf, epoch, &passed).await? {
                return Ok(());
            }
            self.asks.note();
            tell(leaf, passed.len() as u64);
        }
        // What may be read yet is looked at again.
        if !waits {
            self.sweep.seen.insert(leaf.oid, written);
        }
        Ok(())
    }
}
