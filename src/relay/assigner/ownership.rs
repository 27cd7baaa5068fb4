//! Which buckets this instance owns, each under its epoch.
//!
//! Promises: whoever saves cursors and whoever truncates know at once what was taken and what was let go.
//! Must not: take or release anything in the database. Fails: where cursors cannot be saved.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::control::cursors::CursorStore;
use crate::control::lease::Owned;
use crate::control::lease::plan::{Holding, Tier};
use crate::control::retention::OwnBuckets;
use crate::error::Result;
use crate::event::Bucket;

/// What was taken and not released yet.
pub(in crate::relay) struct Ownership {
    name: String,
    epochs: BTreeMap<Bucket, i64>,
    store: Arc<CursorStore>,
    retention: watch::Sender<OwnBuckets>,
}

impl Ownership {
    /// Nothing is owned yet under this name.
    pub(in crate::relay) fn new(
        name: &str,
        store: Arc<CursorStore>,
        retention: watch::Sender<OwnBuckets>,
    ) -> Self {
        Self { name: name.to_owned(), epochs: BTreeMap::new(), store, retention }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Owned> {
        self.epochs.iter().map(|(bucket, epoch)| (*bucket, *epoch))
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = Bucket> {
        self.epochs.keys().copied()
    }

    /// Whether the database knows another owner, or another epoch, of anything that is ours.
    pub(super) fn is_lost(&self, tier: &Tier) -> bool {
        self.all()
            .any(|owned| !self.named(tier).any(|holding| (holding.bucket, holding.epoch) == owned))
    }

    /// What carries our name and was not taken in this session. All that worked on it has ended.
    pub(super) fn left_over(&self, tier: &Tier) -> Vec<Owned> {
        self.named(tier)
            .filter(|holding| !self.epochs.contains_key(&holding.bucket))
            .map(|holding| (holding.bucket, holding.epoch))
            .collect()
    }

    fn named<'a>(&'a self, tier: &'a Tier) -> impl Iterator<Item = &'a Holding> {
        tier.holdings.iter().filter(|holding| holding.owner.as_ref() == Some(&self.name))
    }

    /// Saves all cursors, so that what is drained can be let go.
    pub(super) async fn save_all(&self) -> Result<()> {
        self.store.save_all().await
    }

    pub(super) fn add(&mut self, taken: &[Owned]) {
        self.store.own(taken);
        self.epochs.extend(taken.iter().copied());
        self.retention.send_replace(self.epochs.clone());
    }

    pub(super) fn remove(&mut self, released: &[Owned]) {
        let buckets: Vec<Bucket> = released.iter().map(|(bucket, _)| *bucket).collect();
        self.store.disown(&buckets);
        self.epochs.retain(|bucket, _| !buckets.contains(bucket));
        self.retention.send_replace(self.epochs.clone());
    }
}
