//! Who should own how many buckets, and which shard works on which: the arithmetic of the tier.
//!
//! Promises: all instances that see the same tier plan shares that add up to all buckets, differ by
//! one at most, and move as few buckets as that needs; no two of them plan to take the same bucket.
//! Must not: know a database, a clock or a runtime. Fails: never; a plan from an old look at the
//! tier does no harm, because taking is by epoch.
//!
//! ```
//! use postrider::event::Bucket;
//! use postrider::control::lease::plan::{Holding, Tier};
//!
//! let held = |bucket, owner: &str| Holding { bucket: Bucket(bucket), epoch: 1, owner: Some(owner.into()) };
//! let tier = Tier {
//!     live: vec!["a".into(), "b".into()],
//!     holdings: vec![held(0, "a"), held(1, "a"), held(2, "a"), held(3, "dead")],
//! };
//! let (a, b) = (tier.plan("a"), tier.plan("b"));
//! assert_eq!((a.quota, a.take.len()), (2, 0));
//! assert_eq!((b.quota, b.take), (2, vec![(Bucket(3), 1)]));
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Bucket;
use crate::metrics::counters::BucketCounts;

/// Who owned a bucket when the tier was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which bucket.
    pub bucket: Bucket,
    /// Its epoch; whoever takes it must name this one.
    pub epoch: i64,
    /// The instance in whose name it was taken last, alive or not.
    pub owner: Option<String>,
}

/// One look at the tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// The instances that are alive.
    pub live: Vec<String>,
    /// Every bucket of the outbox.
    pub holdings: Vec<Holding>,
}

/// Whose a bucket was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketStanding {
    /// It had been let go.
    Nobody,
    /// The instance's that asks.
    Own,
    /// Another's that is alive.
    Other,
    /// That of one that has died, or hangs.
    Dead,
}

impl BucketStanding {
    /// By which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Own => "itself",
            Self::Other => "other",
            Self::Dead => "dead",
        }
    }
}

/// What one instance has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePlan {
    /// How many buckets are its share. Whatever it owns beyond that it gives up.
    pub quota: usize,
    /// Free buckets that it takes, each with the epoch under which it was seen.
    pub take: Vec<(Bucket, i64)>,
}

/// A live instance in the plan.
struct Member<'a> {
    name: &'a str,
    owned: usize,
    quota: usize,
}

impl Tier {
    /// The plan of the instance `own`, which counts as alive.
    pub fn plan(&self, own: &str) -> LeasePlan {
        let members = self.members(own);
        let mut free = self.free(&members);
        // Each takes its lack in the order of names, so that all plans together take nothing twice.
        for member in &members {
            let lack = member.quota.saturating_sub(member.owned).min(free.len());
            let rest = free.split_off(lack);
            if member.name == own {
                return LeasePlan { quota: member.quota, take: free };
            }
            free = rest;
        }
        unreachable!("the instance is one of the members")
    }

    /// The plan of `own` where it is to have everything: it takes what is free and gives up nothing,
    /// whoever else is alive.
    pub fn plan_alone(&self, own: &str) -> LeasePlan {
        LeasePlan { quota: self.holdings.len(), take: self.free(&self.members(own)) }
    }

    /// Whose a bucket was, for the instance `own`.
    pub fn standing(&self, bucket: Bucket, own: &str) -> BucketStanding {
        let holding = self.holdings.iter().find(|holding| holding.bucket == bucket);
        match holding.and_then(|holding| holding.owner.as_deref()) {
            None => BucketStanding::Nobody,
            Some(owner) if owner == own => BucketStanding::Own,
            Some(owner) if self.live.iter().any(|live| live == owner) => BucketStanding::Other,
            Some(_) => BucketStanding::Dead,
        }
    }

    /// How many buckets are its own, and how many are nobody's or a dead instance's.
    pub fn counts(&self, own: &str) -> BucketCounts {
        let mut counts = BucketCounts { owned: 0, free: 0 };
        for holding in &self.holdings {
            match self.standing(holding.bucket, own) {
                BucketStanding::Own => counts.owned += 1,
                BucketStanding::Nobody | BucketStanding::Dead => counts.free += 1,
                BucketStanding::Other => {}
            }
        }
        counts
    }

    /// The instances that own buckets and are not alive, with how many.
    pub fn dead(&self) -> BTreeMap<&str, usize> {
        let mut dead = BTreeMap::new();
        let owners = self.holdings.iter().filter_map(|holding| holding.owner.as_deref());
        for owner in owners.filter(|owner| !self.live.iter().any(|live| live == owner)) {
            *dead.entry(owner).or_default() += 1;
        }
        dead
    }

    /// The live instances in the order of their names, each with what it owns and its share.
    fn members(&self, own: &str) -> Vec<Member<'_>> {
        let mut owned: BTreeMap<&str, usize> =
            self.live.iter().map(|name| (name.as_str(), 0)).collect();
        assert!(owned.contains_key(own), "an instance is alive for itself");
        for holding in &self.holdings {
            if let Some(count) = holding.owner.as_deref().and_then(|name| owned.get_mut(name)) {
                *count += 1;
            }
        }
        let mut members: Vec<Member<'_>> =
            owned.into_iter().map(|(name, owned)| Member { name, owned, quota: 0 }).collect();
        // Who owns most gets the larger shares: then the fewest buckets move.
        members.sort_by(|a, b| b.owned.cmp(&a.owned).then(a.name.cmp(b.name)));
        let (share, larger) =
            (self.holdings.len() / members.len(), self.holdings.len() % members.len());
        for (place, member) in members.iter_mut().enumerate() {
            member.quota = share + usize::from(place < larger);
        }
        members.sort_by(|a, b| a.name.cmp(b.name));
        members
    }

    /// The buckets that no live instance owns, in their order.
    fn free(&self, members: &[Member<'_>]) -> Vec<(Bucket, i64)> {
        let live = |owner: &str| members.iter().any(|member| member.name == owner);
        self.holdings
            .iter()
            .filter(|holding| !holding.owner.as_deref().is_some_and(live))
            .map(|holding| (holding.bucket, holding.epoch))
            .collect()
    }
}

/// Which shard of an instance works on which of its buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    shards: Vec<BTreeSet<Bucket>>,
}

impl Deal {
    /// Shards without buckets.
    ///
    /// # Panics
    /// When there is no shard.
    pub fn new(shards: usize) -> Self {
        assert!(shards > 0, "buckets need a shard");
        Self { shards: vec![BTreeSet::new(); shards] }
    }

    /// The buckets of each shard.
    pub fn shards(&self) -> &[BTreeSet<Bucket>] {
        &self.shards
    }

    /// How many buckets are dealt out.
    pub fn len(&self) -> usize {
        self.shards.iter().map(BTreeSet::len).sum()
    }

    /// Whether no bucket is dealt out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a shard has the bucket.
    pub fn contains(&self, bucket: Bucket) -> bool {
        self.shards.iter().any(|shard| shard.contains(&bucket))
    }

    /// Deals a bucket to the shard with the fewest.
    pub fn add(&mut self, bucket: Bucket) {
        assert!(!self.contains(bucket), "a bucket has one shard");
        let fewest = self.shards.iter_mut().min_by_key(|shard| shard.len());
        fewest.expect("there is a shard").insert(bucket);
    }

    /// Gives a bucket to that shard.
    pub fn give(&mut self, shard: usize, bucket: Bucket) {
        assert!(!self.contains(bucket), "a bucket has one shard");
        self.shards[shard].insert(bucket);
    }

    /// Takes a bucket from the shard with the most.
    pub fn remove_one(&mut self) -> Option<Bucket> {
        self.shards.iter_mut().rev().max_by_key(|shard| shard.len())?.pop_last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tier(live: &[&str], owners: &[Option<&str>]) -> Tier {
        let holding = |(bucket, owner): (usize, &Option<&str>)| Holding {
            bucket: Bucket(bucket as u16),
            epoch: 7,
            owner: owner.map(str::to_owned),
        };
        Tier {
            live: live.iter().map(|&name| name.to_owned()).collect(),
            holdings: owners.iter().enumerate().map(holding).collect(),
        }
    }

    fn buckets(plan: &LeasePlan) -> Vec<u16> {
        plan.take.iter().map(|(bucket, _)| bucket.0).collect()
    }

    #[test]
    fn the_dead_and_the_free_are_told_apart() {
        let tier = tier(&["a", "b"], &[Some("a"), None, Some("dead"), Some("b"), Some("dead")]);
        assert_eq!(tier.dead(), BTreeMap::from([("dead", 2)]));
        assert_eq!(tier.counts("a"), BucketCounts { owned: 1, free: 3 });
        let names = [0, 1, 2, 3].map(|bucket| tier.standing(Bucket(bucket), "a").name());
        assert_eq!(names, ["itself", "nobody", "dead", "other"]);
    }

    #[test]
    fn the_first_instance_takes_everything() {
        let plan = tier(&["a"], &[None, Some("dead"), None]).plan("a");
        assert_eq!((plan.quota, buckets(&plan)), (3, vec![0, 1, 2]));
    }

    #[test]
    fn who_joins_waits_until_others_give() {
        let all_with_a = tier(&["a", "b"], &[Some("a"); 5]);
        assert_eq!(all_with_a.plan("a").quota, 3, "who owns most keeps the larger share");
        let plan = all_with_a.plan("b");
        assert_eq!((plan.quota, plan.take.len()), (2, 0));
    }

    #[test]
    fn who_is_to_have_everything_waits_for_it_and_keeps_it() {
        let half = tier(&["a", "b"], &[Some("a"), Some("b"), None, Some("dead")]);
        let plan = half.plan_alone("a");
        assert_eq!((plan.quota, buckets(&plan)), (4, vec![2, 3]));
        let plan = tier(&["a", "b"], &[Some("a"); 4]).plan_alone("a");
        assert_eq!((plan.quota, plan.take.len()), (4, 0));
    }

    #[test]
    fn the_buckets_of_a_dead_instance_are_shared() {
        let owners = [Some("a"), Some("dead"), Some("dead"), Some("b"), Some("dead"), Some("dead")];
        let tier = tier(&["a", "b"], &owners);
        assert_eq!(buckets(&tier.plan("a")), [1, 2]);
        assert_eq!(buckets(&tier.plan("b")), [4, 5]);
    }

    #[test]
    fn more_instances_than_buckets() {
        let tier = tier(&["a", "b", "c"], &[Some("b"), Some("c")]);
        let quotas: Vec<usize> = ["a", "b", "c"].map(|name| tier.plan(name).quota).to_vec();
        assert_eq!(quotas, [0, 1, 1]);
    }

    #[test]
    fn shards_differ_by_one_at_most() {
        let mut deal = Deal::new(3);
        (0..8).for_each(|bucket| deal.add(Bucket(bucket)));
        for left in (0..8).rev() {
            let removed = deal.remove_one().unwrap();
            assert!(!deal.contains(removed));
            assert_eq!(deal.len(), left);
            let sizes: Vec<usize> = deal.shards().iter().map(BTreeSet::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        assert_eq!(deal.remove_one(), None);
    }

    proptest! {
        /// Every instance follows its plan, one after the other, until nobody has anything to do.
        #[test]
        fn plans_agree_and_come_to_rest(
            members in 1_usize..6,
            owners in prop::collection::vec(prop::option::of(0_usize..8), 1..40),
        ) {
            const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let live = &NAMES[..members];
            let owners: Vec<Option<&str>> =
                owners.iter().map(|owner| owner.map(|index| NAMES[index])).collect();
            let mut tier = tier(live, &owners);
            let plans: Vec<LeasePlan> = live.iter().map(|name| tier.plan(name)).collect();
            prop_assert_eq!(plans.iter().map(|plan| plan.quota).sum::<usize>(), owners.len());
            let mut taken: Vec<u16> = plans.iter().flat_map(buckets).collect();
            let count = taken.len();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), count, "two plans take one bucket");

            let lack: usize = live.iter().zip(&plans).map(|(name, plan)| {
                plan.quota.saturating_sub(owned(&tier, name))
            }).sum();
            let moved = settle(&mut tier, live);
            prop_assert_eq!(moved, lack, "a bucket moved that need not");
            for name in live {
                let plan = tier.plan(name);
                prop_assert_eq!(plan.quota, owned(&tier, name));
                prop_assert!(plan.take.is_empty());
            }
        }
    }

    fn owned(tier: &Tier, name: &str) -> usize {
        tier.holdings.iter().filter(|holding| holding.owner.as_deref() == Some(name)).count()
    }

    /// Lets all act in turn; how many buckets were taken.
    fn settle(tier: &mut Tier, live: &[&str]) -> usize {
        let mut moved = 0;
        for name in live.iter().chain(live) {
            let plan = tier.plan(name);
            for (bucket, epoch) in plan.take {
                let holding = &mut tier.holdings[usize::from(bucket.0)];
                assert_eq!(holding.epoch, epoch);
                (holding.epoch, holding.owner) = (epoch + 1, Some((*name).to_owned()));
                moved += 1;
            }
            while owned(tier, name) > plan.quota {
                let mut own = tier.holdings.iter_mut().rev();
                let given = own.find(|holding| holding.owner.as_deref() == Some(*name));
                given.expect("it owns more than its share").owner = None;
            }
        }
        moved
    }
}
