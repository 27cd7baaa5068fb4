//! The steward: keeps the lease, and sees to it that this instance works on its share of the buckets.
//!
//! Promises: a bucket is handed to a shard only after it was taken, and let go only after no shard
//! has it in hand and its last cursor is saved, so that a planned move repeats nothing; the permit
//! to send ends with the lease. Must not: know events, or plan (`crate::control::lease::plan` does).
//! Fails: with [`ErrorKind::Fenced`] when the lease ran out or a bucket is another instance's; with
//! the connection's error.
//!
//! ```text
//!  renew ─► look ─► plan ─┬─ too many: take them out of `wanted` ─► drained ─► save ─► release
//!    ▲                    └─ too few:  take free ones ─► own ─► put them into `wanted`
//!    └─ a tenth of --lease-seconds, or when a shard has let go
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::control::cursors::CursorStore;
use crate::control::lease::plan::{Deal, Plan, Tier};
use crate::control::lease::{Lease, Owned, Terms};
use crate::control::retention::OwnBuckets;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::publish::send_deadline::Permit;
use crate::shard::assignment::{Buckets, Holdings};

/// The steward's end of the line to one shard.
pub(super) struct Berth {
    wanted: watch::Sender<Buckets>,
    held: watch::Receiver<Buckets>,
}

/// The shard's end; it outlives the shard that is started again.
pub(super) struct ShardBerth {
    wanted: watch::Receiver<Buckets>,
    held: Arc<watch::Sender<Buckets>>,
    moved: Arc<Notify>,
}

impl Berth {
    /// Both ends, with nothing wanted yet.
    pub(super) fn new(moved: &Arc<Notify>) -> (Self, ShardBerth) {
        let (wanted_sender, wanted) = watch::channel(Buckets::new());
        let (held_sender, held) = watch::channel(Buckets::new());
        let (held_sender, moved) = (Arc::new(held_sender), Arc::clone(moved));
        (Self { wanted: wanted_sender, held }, ShardBerth { wanted, held: held_sender, moved })
    }
}

impl ShardBerth {
    /// For a shard that is started.
    pub(super) fn holdings(&self) -> Holdings {
        Holdings::new(self.wanted.clone(), Arc::clone(&self.held), Arc::clone(&self.moved))
    }
}

/// The lines to all shards.
pub(super) struct Berths {
    pub(super) berths: Vec<Berth>,
    /// Told when a shard has let something go.
    pub(super) moved: Arc<Notify>,
}

/// How much an instance is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// As much as any other.
    Fair,
    /// Everything. Another instance that is alive has overlooked that it is not its turn, as one does that
    /// was stopped and goes on.
    All,
}

/// Keeps this instance's lease and its share.
pub(super) struct Steward {
    lease: Lease,
    interval: Duration,
    name: String,
    store: Arc<CursorStore>,
    berths: Berths,
    permit: Arc<Permit>,
    /// What was taken and not released yet.
    owned: BTreeMap<Bucket, i64>,
    own: watch::Sender<OwnBuckets>,
    share: Share,
    /// What shards are to work on.
    deal: Deal,
    /// How many buckets the log was told last.
    said: Option<usize>,
}

impl Steward {
    pub(super) fn new(
        lease: Lease,
        terms: Terms,
        name: &str,
        store: Arc<CursorStore>,
        berths: Berths,
        permit: Arc<Permit>,
        own: watch::Sender<OwnBuckets>,
    ) -> Self {
        let deal = Deal::new(berths.berths.len());
        Self {
            lease,
            interval: terms.interval,
            name: name.to_owned(),
            store,
            berths,
            permit,
            owned: BTreeMap::new(),
            own,
            share: Share::Fair,
            deal,
            said: None,
        }
    }

    /// From here on it wants every bucket.
    pub(super) fn want_all(&mut self) {
        self.share = Share::All;
    }

    /// Works until something fails; after the word to stop it takes nothing more.
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
        self.permit.extend(deadline);
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
        let until = tokio::time::Instant::now() + self.interval;
        loop {
            self.release_what_is_drained().await?;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.berths.moved.notified() => {}
            }
        }
    }

    /// Gives up and takes what the plan says.
    async fn follow(&mut self, tier: &Tier) -> Result<()> {
        let lost = self.owned.iter().any(|(bucket, epoch)| !self.still_owns(tier, *bucket, *epoch));
        if lost {
            return Err(Error::fenced());
        }
        let plan = match self.share {
            Share::Fair => tier.plan(&self.name),
            Share::All => tier.plan_alone(&self.name),
        };
        while self.deal.len() > plan.quota && self.deal.remove_one().is_some() {}
        self.take_back(plan.quota);
        self.take(tier, &plan).await?;
        self.hand_out();
        self.say(tier);
        Ok(())
    }

    fn still_owns(&self, tier: &Tier, bucket: Bucket, epoch: i64) -> bool {
        tier.holdings.iter().any(|holding| {
            holding.bucket == bucket
                && holding.epoch == epoch
                && holding.owner.as_ref() == Some(&self.name)
        })
    }

    /// What is being given up and not released yet need not go far: back to the shard that has it in hand.
    /// Another would begin at the saved cursor, and repeat what is in flight.
    fn take_back(&mut self, quota: usize) {
        take_back(&mut self.deal, &self.berths.berths, self.owned.keys().copied(), quota);
    }

    /// Takes free buckets. Those that carry our name from a session before this come first; what of
    /// them is too much is let go: nobody else could take what a live instance seems to own.
    async fn take(&mut self, tier: &Tier, plan: &Plan) -> Result<()> {
        let mut free = self.left_over(tier);
        let lack = plan.quota.saturating_sub(self.deal.len());
        let too_much = free.split_off(lack.min(free.len()));
        if !too_much.is_empty() {
            self.lease.release(&too_much).await?;
        }
        free.extend(plan.take.iter().copied().take(lack - free.len()));
        if free.is_empty() {
            return Ok(());
        }
        let taken = self.lease.take(&free).await?;
        self.store.own(&taken);
        self.owned.extend(taken.iter().copied());
        for (bucket, _) in taken {
            self.deal.add(bucket);
        }
        self.own.send_replace(self.owned.clone());
        Ok(())
    }

    /// What carries our name and was not taken in this session. All that worked on it has ended.
    fn left_over(&self, tier: &Tier) -> Vec<Owned> {
        let ours =
            tier.holdings.iter().filter(|holding| holding.owner.as_ref() == Some(&self.name));
        ours.filter(|holding| !self.owned.contains_key(&holding.bucket))
            .map(|holding| (holding.bucket, holding.epoch))
            .collect()
    }

    /// Tells each shard what it is to work on.
    fn hand_out(&self) {
        for (berth, buckets) in self.berths.berths.iter().zip(self.deal.shards()) {
            berth.wanted.send_if_modified(|wanted| {
                let differs = wanted != buckets;
                if differs {
                    wanted.clone_from(buckets);
                }
                differs
            });
        }
    }

    async fn release_what_is_drained(&mut self) -> Result<()> {
        let in_hand = |bucket: &Bucket| {
            self.berths.berths.iter().any(|berth| berth.held.borrow().contains(bucket))
        };
        let drained: Vec<Owned> = self
            .owned
            .iter()
            .filter(|(bucket, _)| !self.deal.contains(**bucket) && !in_hand(bucket))
            .map(|(bucket, epoch)| (*bucket, *epoch))
            .collect();
        if drained.is_empty() {
            return Ok(());
        }
        self.store.save_all().await?;
        self.release(&drained).await
    }

    async fn release(&mut self, drained: &[Owned]) -> Result<()> {
        self.lease.release(drained).await?;
        let buckets: Vec<Bucket> = drained.iter().map(|(bucket, _)| *bucket).collect();
        self.store.disown(&buckets);
        self.owned.retain(|bucket, _| !buckets.contains(bucket));
        self.own.send_replace(self.owned.clone());
        Ok(())
    }

    /// Lets everything go and leaves the tier. All shards have ended, and all cursors are saved.
    pub(super) async fn leave(mut self) -> Result<()> {
        let owned: Vec<Owned> =
            self.owned.iter().map(|(bucket, epoch)| (*bucket, *epoch)).collect();
        self.release(&owned).await?;
        self.lease.leave().await
    }

    /// Says in the log when the share has changed.
    fn say(&mut self, tier: &Tier) {
        let (buckets, instances) = (self.deal.len(), tier.live.len());
        match self.said {
            Some(said) if said == buckets => return,
            None | Some(0) if buckets > 0 => {
                tracing::info!(buckets, instances, shards = self.deal.shards().len(), "relaying");
            }
            None | Some(_) if buckets == 0 => {
                tracing::info!(instances, "other instances have all buckets; standing by");
            }
            None | Some(_) => tracing::info!(buckets, instances, "the share has changed"),
        }
        self.said = Some(buckets);
    }
}

fn take_back(deal: &mut Deal, berths: &[Berth], owned: impl Iterator<Item = Bucket>, quota: usize) {
    for bucket in owned {
        if deal.len() >= quota || deal.contains(bucket) {
            continue;
        }
        match berths.iter().position(|berth| berth.held.borrow().contains(&bucket)) {
            Some(shard) => deal.give(shard, bucket),
            None => deal.add(bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_still_has_in_hand_goes_back_to_it() {
        let moved = Arc::default();
        let (berths, ends): (Vec<Berth>, Vec<ShardBerth>) =
            (0..3).map(|_| Berth::new(&moved)).unzip();
        ends[2].held.send_replace([Bucket(0), Bucket(1)].into());
        ends[1].held.send_replace([Bucket(4)].into());
        let mut deal = Deal::new(3);
        deal.give(2, Bucket(1));
        take_back(&mut deal, &berths, (0..6).map(Bucket), 5);
        let shards: Vec<Vec<u16>> = deal
            .shards()
            .iter()
            .map(|shard| shard.iter().map(|bucket| bucket.0).collect())
            .collect();
        assert_eq!(shards, [vec![2], vec![3, 4], vec![0, 1]], "and nothing above the quota");
    }
}
