//! The lines between whoever assigns buckets and the shards that work on them.
//!
//! Promises: a shard that is started again finds what it is to work on; what it still has in hand is seen until it
//! lets go. Must not: know leases.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::control::lease::plan::Deal;
use crate::event::Bucket;
use crate::shard::assignment::{Buckets, Holdings};

/// The assigner's end of the line to one shard.
struct ShardLine {
    wanted: watch::Sender<Buckets>,
    held: watch::Receiver<Buckets>,
}

/// The shard's end; it outlives the shard that is started again.
pub(in crate::relay) struct Assignment {
    wanted: watch::Receiver<Buckets>,
    held: Arc<watch::Sender<Buckets>>,
    moved: Arc<Notify>,
}

impl Assignment {
    /// For a shard that is started.
    pub(in crate::relay) fn holdings(&self) -> Holdings {
        Holdings::new(self.wanted.clone(), Arc::clone(&self.held), Arc::clone(&self.moved))
    }
}

/// The assigner's ends of the lines to all shards.
pub(in crate::relay) struct ShardLines {
    lines: Vec<ShardLine>,
    /// Told when a shard has let something go.
    moved: Arc<Notify>,
}

impl ShardLines {
    /// Lines to so many shards, with nothing wanted yet.
    pub(in crate::relay) fn to_shards(count: usize) -> (Self, Vec<Assignment>) {
        let moved = Arc::new(Notify::new());
        let (lines, assignments) = (0..count).map(|_| line(&moved)).unzip();
        (Self { lines, moved }, assignments)
    }

    /// The line to the one reader of the log.
    pub(in crate::relay) fn to_reader() -> (Self, Assignment) {
        let moved = Arc::new(Notify::new());
        let (line, assignment) = line(&moved);
        (Self { lines: vec![line], moved }, assignment)
    }

    pub(in crate::relay) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Waits until a shard has let something go.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    pub(super) fn is_in_hand(&self, bucket: Bucket) -> bool {
        self.holder(bucket).is_some()
    }

    /// The shard that has a bucket in hand.
    fn holder(&self, bucket: Bucket) -> Option<usize> {
        self.lines.iter().position(|line| line.held.borrow().contains(&bucket))
    }

    /// What is being given up and not released yet need not go far: back to the shard that has it in hand.
    /// Another would begin at the saved cursor, and repeat what is in flight.
    pub(super) fn take_back(
        &self,
        deal: &mut Deal,
        owned: impl Iterator<Item = Bucket>,
        quota: usize,
    ) {
        for bucket in owned {
            if deal.len() >= quota || deal.contains(bucket) {
                continue;
            }
            match self.holder(bucket) {
                Some(shard) => deal.give(shard, bucket),
                None => deal.add(bucket),
            }
        }
    }

    /// Tells each shard what it is to work on.
    pub(super) fn hand_out(&self, deal: &Deal) {
        for (line, buckets) in self.lines.iter().zip(deal.shards()) {
            line.wanted.send_if_modified(|wanted| {
                let differs = wanted != buckets;
                if differs {
                    wanted.clone_from(buckets);
                }
                differs
            });
        }
    }
}

fn line(moved: &Arc<Notify>) -> (ShardLine, Assignment) {
    let (wanted_sender, wanted) = watch::channel(Buckets::new());
    let (held_sender, held) = watch::channel(Buckets::new());
    let (held_sender, moved) = (Arc::new(held_sender), Arc::clone(moved));
    (ShardLine { wanted: wanted_sender, held }, Assignment { wanted, held: held_sender, moved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_still_has_in_hand_goes_back_to_it() {
        let (lines, ends) = ShardLines::to_shards(3);
        ends[2].held.send_replace([Bucket(0), Bucket(1)].into());
        ends[1].held.send_replace([Bucket(4)].into());
        let mut deal = Deal::new(3);
        deal.give(2, Bucket(1));
        lines.take_back(&mut deal, (0..6).map(Bucket), 5);
        let shards: Vec<Vec<u16>> = deal
            .shards()
            .iter()
            .map(|shard| shard.iter().map(|bucket| bucket.0).collect())
            .collect();
        assert_eq!(shards, [vec![2], vec![3, 4], vec![0, 1]], "and nothing above the quota");
    }

    #[test]
    fn a_shard_is_told_of_changes_alone() {
        let (lines, mut end) = ShardLines::to_reader();
        let mut deal = Deal::new(lines.count());
        deal.add(Bucket(3));
        lines.hand_out(&deal);
        assert_eq!(*end.wanted.borrow_and_update(), [Bucket(3)].into());
        lines.hand_out(&deal);
        assert!(!end.wanted.has_changed().expect("the line is there"));
        end.held.send_replace([Bucket(3)].into());
        assert!(lines.is_in_hand(Bucket(3)) && !lines.is_in_hand(Bucket(2)));
    }
}
