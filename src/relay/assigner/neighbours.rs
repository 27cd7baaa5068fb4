//! What becomes of the other instances.
//!
//! Promises: a death is told as a warning, a planned stop as news; the dead leave the list of instances after a lease.
//! Must not: decide who takes what. Fails: with the connection's error.

use std::collections::BTreeSet;

use crate::control::lease::Lease;
use crate::control::lease::plan::Tier;
use crate::error::Result;

/// Looks between two at the list of instances: about a lease passes.
const LOOKS_PER_FORGETTING: u32 = 10;

/// The others, as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    alive: BTreeSet<String>,
    /// Whose death was told.
    dead: BTreeSet<String>,
    looks: u32,
}

impl Neighbours {
    /// Tells who has come, gone, or died since the look before.
    pub(super) async fn look(&mut self, lease: &Lease, tier: &Tier) -> Result<()> {
        for (name, buckets) in self.newly_dead(tier) {
            tracing::warn!(
                instance = name,
                buckets,
                remedy = "look at its log, which tells whether it has ended with an error, and at its machine; nothing is lost, \
                          what was in flight is sent again",
                "an instance has died, or hangs: others take its buckets"
            );
        }
        let gone = self.gone(tier);
        if !gone.is_empty() {
            // Who stops in order takes its name from the list.
            let listed = lease.listed(&gone).await?;
            for name in gone {
                if listed.contains(&name) {
                    tracing::warn!(
                        instance = name,
                        "an instance has died, hangs, or stands by; it owns nothing any more"
                    );
                } else {
                    tracing::info!(instance = name, "an instance has stopped");
                }
            }
        }
        if self.looks.is_multiple_of(LOOKS_PER_FORGETTING) {
            lease.forget_the_dead().await?;
        }
        self.looks = self.looks.wrapping_add(1);
        Ok(())
    }

    /// Owners of buckets whose death was not told yet, with how many they have.
    fn newly_dead<'a>(&mut self, tier: &'a Tier) -> Vec<(&'a str, usize)> {
        let dead = tier.dead();
        self.dead.retain(|name| dead.contains_key(name.as_str()));
        let new = dead.into_iter().filter(|(name, _)| self.dead.insert((*name).to_owned()));
        new.collect()
    }

    /// Those that were alive and are not, and of whose death nothing was told.
    fn gone(&mut self, tier: &Tier) -> Vec<String> {
        let live = tier.live.iter().cloned().collect();
        let before = std::mem::replace(&mut self.alive, live);
        let gone = before.into_iter().filter(|name| !self.alive.contains(name));
        gone.filter(|name| !self.dead.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::lease::plan::Holding;
    use crate::event::Bucket;

    fn tier(live: &[&str], owners: &[&str]) -> Tier {
        let holding = |(bucket, owner): (u16, &&str)| Holding {
            bucket: Bucket(bucket),
            epoch: 1,
            owner: Some((*owner).to_owned()),
        };
        Tier {
            live: live.iter().map(|name| (*name).to_owned()).collect(),
            holdings: (0..).zip(owners).map(holding).collect(),
        }
    }

    #[test]
    fn a_death_is_told_once_and_is_no_departure() {
        let mut neighbours = Neighbours::default();
        let both = tier(&["a", "b", "c"], &["a", "b", "b"]);
        assert!(neighbours.newly_dead(&both).is_empty() && neighbours.gone(&both).is_empty());
        let died = tier(&["a"], &["a", "b", "b"]);
        assert_eq!(neighbours.newly_dead(&died), [("b", 2)]);
        assert_eq!(neighbours.gone(&died), ["c"], "it owned nothing");
        assert!(neighbours.newly_dead(&died).is_empty() && neighbours.gone(&died).is_empty());
        let taken = tier(&["a"], &["a", "a", "a"]);
        assert!(neighbours.newly_dead(&taken).is_empty() && neighbours.gone(&taken).is_empty());
        // It hung, comes back, and dies.
        assert!(neighbours.newly_dead(&both).is_empty() && neighbours.gone(&both).is_empty());
        assert_eq!(neighbours.newly_dead(&died), [("b", 2)]);
    }
}
