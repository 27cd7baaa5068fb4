//! Which buckets a shard is to work on, and which it still has in hand.
//!
//! Promises: a bucket that is to be given up stays in hand until the last page that was claimed for
//! it is done; one that is in hand is not begun a second time. Must not: know leases or cursors.
//!
//! ```text
//!  wanted + b ─► join: b in hand, its cursor is loaded
//!  wanted - b ─► leave: claimed no more ─► its last page is done ─► no more in hand
//! ```
//!
//! The assigner takes a bucket out of `wanted`, then looks whether it is in hand; the shard puts it in
//! hand, then looks whether it is still wanted. One of the two sees the other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::event::Bucket;

/// Buckets, as they are handed to shards and back.
pub type Buckets = BTreeSet<Bucket>;

/// A shard's end of the line to whoever deals out buckets.
#[derive(Debug)]
pub struct Holdings {
    wanted: watch::Receiver<Buckets>,
    held: Arc<watch::Sender<Buckets>>,
    /// Told whenever something is no more in hand.
    moved: Arc<Notify>,
    /// Buckets that are claimed no more, and how many pages must be done before each is free.
    leaving: VecDeque<(u64, Bucket)>,
}

impl Holdings {
    /// With nothing in hand.
    pub fn new(
        wanted: watch::Receiver<Buckets>,
        held: Arc<watch::Sender<Buckets>>,
        moved: Arc<Notify>,
    ) -> Self {
        let mut wanted = wanted;
        wanted.mark_changed();
        Self { wanted, held, moved, leaving: VecDeque::new() }
    }

    /// Waits until other buckets are wanted.
    ///
    /// # Errors
    /// When nobody deals out buckets any more.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let changed = self.wanted.changed().await;
        self.wanted.mark_changed();
        changed
    }

    /// Whether there is something to do once so many pages are done.
    pub(super) fn is_due(&self, pages_finished: u64) -> bool {
        self.wanted.has_changed().unwrap_or(false) || self.is_drained(pages_finished)
    }

    fn is_drained(&self, pages_finished: u64) -> bool {
        self.leaving.front().is_some_and(|(pages, _)| *pages <= pages_finished)
    }

    /// What is in hand.
    pub(super) fn held(&self) -> Vec<Bucket> {
        self.held.borrow().iter().copied().collect()
    }

    /// Buckets whose last page is done, and that [`Holdings::settle`] would let go.
    pub(super) fn drained(&self, pages_finished: u64) -> Vec<Bucket> {
        let done = self.leaving.iter().take_while(|(pages, _)| *pages <= pages_finished);
        done.map(|(_, bucket)| *bucket).collect()
    }

    /// Lets buckets go whose last page is done; whether there may be more to do.
    pub(super) fn settle(&mut self, pages_finished: u64) -> bool {
        let due = self.is_due(pages_finished);
        while self.is_drained(pages_finished)
            && let Some((_, bucket)) = self.leaving.pop_front()
        {
            self.drop_from_hand(bucket);
        }
        due
    }

    /// The buckets to claim no more for: `pages_opened` pages have to be done before they are free.
    pub(super) fn leave(&mut self, pages_opened: u64) -> Vec<Bucket> {
        let wanted = self.wanted.borrow_and_update();
        let leaving: Vec<Bucket> = self
            .held
            .borrow()
            .difference(&wanted)
            .copied()
            .filter(|bucket| !self.leaving.iter().any(|(_, known)| known == bucket))
            .collect();
        self.leaving.extend(leaving.iter().map(|bucket| (pages_opened, *bucket)));
        leaving
    }

    /// Whether anything in hand is to be given up.
    pub(super) fn is_revoked(&mut self) -> bool {
        let wanted = self.wanted.borrow_and_update();
        !self.held.borrow().is_subset(&wanted)
    }

    /// Takes all of these in hand, as soon as all are wanted.
    ///
    /// # Errors
    /// When nobody deals out buckets any more.
    pub async fn take_all(&mut self, all: &Buckets) -> Result<(), watch::error::RecvError> {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted == *all && self.join().len() == all.len() {
                return Ok(());
            }
            self.wanted.changed().await?;
        }
    }

    /// Whether there are buckets to begin with.
    pub(super) fn wants_more(&self) -> bool {
        let held = self.held.borrow();
        self.wanted.borrow().iter().any(|bucket| !held.contains(bucket))
    }

    /// The buckets to begin with; they are in hand now.
    pub(super) fn join(&mut self) -> Vec<Bucket> {
        let wanted = self.wanted.borrow().clone();
        let mut joining: Vec<Bucket> = wanted.difference(&self.held.borrow()).copied().collect();
        self.held.send_modify(|held| held.extend(joining.iter().copied()));
        let still_wanted = self.wanted.borrow().clone();
        joining.retain(|bucket| {
            let stays = still_wanted.contains(bucket);
            if !stays {
                self.drop_from_hand(*bucket);
            }
            stays
        });
        joining
    }

    fn drop_from_hand(&self, bucket: Bucket) {
        self.held.send_modify(|held| {
            held.remove(&bucket);
        });
        self.moved.notify_one();
    }
}

impl Drop for Holdings {
    /// Whatever was in flight is forgotten with the shard.
    fn drop(&mut self) {
        self.held.send_replace(Buckets::new());
        self.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(wanted: &[u16]) -> (watch::Sender<Buckets>, Arc<watch::Sender<Buckets>>, Holdings) {
        let (sender, receiver) = watch::channel(wanted.iter().copied().map(Bucket).collect());
        let held = Arc::new(watch::Sender::default());
        let holdings = Holdings::new(receiver, Arc::clone(&held), Arc::default());
        (sender, held, holdings)
    }

    fn numbers(buckets: &[Bucket]) -> Vec<u16> {
        buckets.iter().map(|bucket| bucket.0).collect()
    }

    #[test]
    fn a_bucket_stays_in_hand_until_its_last_page_is_done() {
        let (wanted, held, mut holdings) = line(&[1, 2]);
        assert!(holdings.settle(0));
        assert_eq!((holdings.leave(0), numbers(&holdings.join())), (vec![], vec![1, 2]));
        assert!(!holdings.is_due(0), "nothing has changed since");

        wanted.send_replace([Bucket(2), Bucket(3)].into());
        assert!(holdings.settle(4));
        assert_eq!(numbers(&holdings.leave(6)), [1]);
        assert_eq!(numbers(&holdings.join()), [3]);
        assert!(!holdings.settle(5), "pages 5 and 6 are on their way");
        assert!(held.borrow().contains(&Bucket(1)));
        assert!(holdings.settle(6));
        assert!(!held.borrow().contains(&Bucket(1)));
    }

    #[test]
    fn one_that_is_wanted_again_begins_anew_when_it_has_left() {
        let (wanted, _held, mut holdings) = line(&[1]);
        holdings.settle(0);
        holdings.leave(0);
        holdings.join();
        wanted.send_replace(Buckets::new());
        holdings.settle(0);
        assert_eq!(numbers(&holdings.leave(3)), [1]);
        wanted.send_replace([Bucket(1)].into());
        holdings.settle(2);
        assert_eq!((holdings.leave(3), holdings.join()), (vec![], vec![]), "it is still in hand");
        assert!(holdings.settle(3));
        holdings.leave(3);
        assert_eq!(numbers(&holdings.join()), [1]);
    }

    #[test]
    fn a_shard_that_ends_has_nothing_in_hand() {
        let (_wanted, held, mut holdings) = line(&[1]);
        holdings.settle(0);
        holdings.join();
        assert_eq!(held.borrow().len(), 1);
        drop(holdings);
        assert!(held.borrow().is_empty());
    }
}
