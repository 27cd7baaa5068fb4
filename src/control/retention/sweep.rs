//! Looks through all partitions for rows that nobody has read, long before these are to be emptied.
//!
//! Promises: a row whose number nobody drew is published within some passes where some hundred thousand rows are retained;
//! takes one hundredth of a core at most, and nothing while nobody writes. Must not: be what the proof rests on.
//! Fails: as retention does.

use std::time::Instant;

use crate::control::retention::allowance::Sweep;
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
        let is_due = |seen: &Sweep, leaf: &BucketPartition, state: PartitionState| {
            state.blocks > 0 && seen.seen.get(&leaf.oid) != Some(&state.written)
        };
        if !session.leaves.iter().any(|leaf| is_due(&self.sweep, leaf, states[&leaf.oid])) {
            return Ok(());
        }
        let began = Instant::now();
        let law = unread::law(&session.connection).await?;
        self.sweep.spend(began.elapsed());
        for leaf in session.leaves.iter().filter(|_| !law.judges_nothing()) {
            let Some(epoch) = own.get(&leaf.bucket) else { continue };
            let state = states[&leaf.oid];
            if self.sweep.allowed.is_zero() {
                return Ok(());
            }
            if is_due(&self.sweep, leaf, state)
                && let Err(error) = self.look_through(session, leaf, *epoch, state, &law).await
            {
                session.end_transaction().await?;
                self.warnings.trouble(&error);
                // A damaged block keeps no other partition from being looked through.
                self.sweep.seen.insert(leaf.oid, state.written);
            }
        }
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
