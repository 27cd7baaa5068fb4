//! Keeps the lease, and sees to it that this instance works on its share of the buckets.
//!
//! Promises: a bucket is handed to a shard only after it was taken, and let go only after no shard
//! has it in hand and its last cursor is saved, so that a planned move repeats nothing; the send deadline
//! to send ends with the lease. Must not: know events, or plan (`crate::control::lease::plan` does).
//! Fails: with [`ErrorKind::Fenced`] when the lease ran out or a bucket is another instance's; with
//! the connection's error.
//!
//! ```text
//!  renew ─► look ─► plan ─┬─ too many: take them out of `wanted` ─► drained ─► save ─► release
//!    ▲                    └─ too few:  take free ones ─► own ─► put them into `wanted`
//!    └─ a tenth of --lease-seconds, or when a shard has let go
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::control::lease::plan::{Deal, LeasePlan, Tier};
use crate::control::lease::{Lease, Owned};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::Monitor;
use crate::publish::send_deadline::SendDeadline;
use crate::relay::assigner::neighbours::Neighbours;
use crate::relay::assigner::ownership::Ownership;
use crate::relay::assigner::shard_lines::ShardLines;
use crate::relay::assigner::told::Told;
use crate::relay::assigner::untaken::Untaken;
use crate::relay::instance::Instance;
use crate::relay::watch::LeaseEnd;

mod neighbours;
pub(super) mod ownership;
pub(super) mod shard_lines;
mod told;
mod untaken;

/// How much an instance is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// As much as any other.
    Fair,
    /// Everything. Another instance that is alive has overlooked that it is not its turn, as one does that
    /// was stopped and goes on.
    All,
}

/// Keeps this instance's lease and its share.
pub(super) struct Assigner {
    lease: Lease,
    ownership: Ownership,
    lines: ShardLines,
    share: Share,
    send_deadline: Arc<SendDeadline>,
    lease_end: Arc<LeaseEnd>,
    monitor: Arc<Monitor>,
    neighbours: Neighbours,
    /// What shards are to work on.
    deal: Deal,
    told: Told,
    untaken: Untaken,
}

impl Assigner {
    pub(super) fn new(
        instance: &Instance,
        lease: Lease,
        ownership: Ownership,
        lines: ShardLines,
        share: Share,
        send_deadline: Arc<SendDeadline>,
    ) -> Self {
        Self {
            deal: Deal::new(lines.count()),
            lease,
            ownership,
            lines,
            share,
            send_deadline,
            lease_end: Arc::clone(&instance.lease_end),
            monitor: Arc::clone(&instance.monitor),
            neighbours: Neighbours::default(),
            told: Told::Nothing,
            untaken: Untaken::default(),
        }
    }

    /// Works until something fails; after the signal to stop it takes nothing more.
    pub(super) async fn run(&mut self, stop: &watch::Receiver<bool>) -> Error {
        loop {
            let stopping = *stop.borrow();
            if let Err(error) = self.round(stopping).await {
                return error;
            }
        }
    }

    /// One renewal, one look, and the pause until the next.
    async fn round(&mut self, stopping: bool) -> Result<()> {
        self.lease.renew().await?;
        let deadline = self.lease.deadline();
        self.send_deadline.extend(deadline);
        self.lease_end.set(Some(deadline));
        let ahead = self.lease.database_ahead_micros();
        self.monitor.figures().database_ahead_micros.store(ahead, Ordering::Relaxed);
        let follow = async {
            if !stopping {
                let tier = self.lease.look().await?;
                self.follow(&tier).await?;
            }
            self.pause().await
        };
        // Whatever hangs, hangs no longer than the lease lasts.
        tokio::time::timeout_at(deadline.into(), follow).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Fenced, "PostgreSQL did not answer within the lease"))
        })
    }

    /// Waits for the next round, and releases what shards let go meanwhile.
    async fn pause(&mut self) -> Result<()> {
        let until = tokio::time::Instant::now() + self.lease.interval();
        loop {
            self.release_what_is_drained().await?;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.lines.moved() => {}
            }
        }
    }

    /// Gives up and takes what the plan says.
    async fn follow(&mut self, tier: &Tier) -> Result<()> {
        if self.ownership.is_lost(tier) {
            return Err(Error::fenced());
        }
        self.neighbours.look(&self.lease, tier).await?;
        self.monitor.set_buckets(tier.counts(self.lease.name()));
        let plan = match self.share {
            Share::Fair => tier.plan(self.lease.name()),
            Share::All => tier.plan_alone(self.lease.name()),
        };
        while self.deal.len() > plan.quota && self.deal.remove_one().is_some() {}
        self.lines.take_back(&mut self.deal, self.ownership.buckets(), plan.quota);
        self.take(tier, &plan).await?;
        self.lines.hand_out(&self.deal);
        let buckets = |shard: &BTreeSet<Bucket>| shard.iter().map(|bucket| bucket.0).collect();
        self.monitor.set_dealt(self.deal.shards().iter().map(buckets).collect());
        // Who gets none of those that are free does not stand by for others.
        if self.untaken.count() == 0 || !self.deal.is_empty() {
            self.told.tell(self.deal.len(), tier.live.len(), self.lines.count());
        }
        Ok(())
    }

    /// Takes free buckets. Those that carry our name from a session before this come first; what of
    /// them is too much is let go: nobody else could take what a live instance seems to own.
    async fn take(&mut self, tier: &Tier, plan: &LeasePlan) -> Result<()> {
        let mut free = self.ownership.left_over(tier);
        let lack = plan.quota.saturating_sub(self.deal.len());
        let too_much = free.split_off(lack.min(free.len()));
        if !too_much.is_empty() {
            self.lease.release(&too_much).await?;
        }
        free.extend(plan.take.iter().copied().take(lack - free.len()));
        let taken = if free.is_empty() { Vec::new() } else { self.lease.take(&free).await? };
        self.untaken.note(&free, &taken);
        self.monitor.buckets_untaken.store(self.untaken.count(), Ordering::Relaxed);
        for (bucket, _) in &taken {
            let from = tier.standing(*bucket, self.lease.name()).name();
            self.monitor.buckets_taken.add(from, 1);
        }
        self.ownership.add(&taken);
        for (bucket, _) in taken {
            self.deal.add(bucket);
        }
        Ok(())
    }

    async fn release_what_is_drained(&mut self) -> Result<()> {
        let is_drained =
            |(bucket, _): &Owned| !self.deal.contains(*bucket) && !self.lines.is_in_hand(*bucket);
        let drained: Vec<Owned> = self.ownership.all().filter(is_drained).collect();
        if drained.is_empty() {
            return Ok(());
        }
        self.ownership.save_all().await?;
        self.release(&drained).await
    }

    async fn release(&mut self, drained: &[Owned]) -> Result<()> {
        self.lease.release(drained).await?;
        self.ownership.remove(drained);
        Ok(())
    }

    /// Lets everything go and leaves the tier. All shards have ended, and all cursors are saved.
    pub(super) async fn leave(mut self) -> Result<()> {
        let owned: Vec<Owned> = self.ownership.all().collect();
        self.release(&owned).await?;
        self.lease.leave().await
    }
}
