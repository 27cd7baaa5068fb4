//! PostgreSQL's `pg_snapshot`: which transactions had ended when it was taken.
//!
//! Promises: [`Snapshot::sees`] answers as `pg_visible_in_snapshot` does.
//! Must not: know where a snapshot comes from.
//! Fails: text that is not a snapshot is refused with the reason.
//!
//! Source: PostgreSQL documentation, "System Information Functions", `pg_snapshot` components.

use std::fmt;
use std::str::FromStr;

/// A 64-bit transaction id with its epoch (`xid8`).
pub type TransactionId = u64;

/// The set of transactions that had ended at one moment.
///
/// Everything below `xmin` had ended, nothing at or above `xmax` had, and in between everything had
/// but the listed ones. Mind that `xmax` is the latest *ended* transaction id plus one: transactions
/// at or above it may be running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: TransactionId,
    xmax: TransactionId,
    in_progress: Vec<TransactionId>,
}

impl Snapshot {
    /// The snapshot that sees no transaction of any application (3 is the first normal id).
    pub fn empty() -> Self {
        Self { xmin: 3, xmax: 3, in_progress: Vec::new() }
    }

    /// Builds a snapshot from its parts.
    ///
    /// # Errors
    /// When `xmin > xmax`, or `in_progress` is not strictly rising inside `xmin..xmax`.
    pub fn new(
        xmin: TransactionId,
        xmax: TransactionId,
        in_progress: Vec<TransactionId>,
    ) -> Result<Self, InvalidSnapshot> {
        let rising = in_progress.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = in_progress.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin == 0 || xmin > xmax || !rising || !inside {
            return Err(InvalidSnapshot);
        }
        Ok(Self { xmin, xmax, in_progress })
    }

    /// All transactions below this one had ended.
    pub fn xmin(&self) -> TransactionId {
        self.xmin
    }

    /// The latest transaction that had ended, plus one.
    pub fn xmax(&self) -> TransactionId {
        self.xmax
    }

    /// The transactions between `xmin` and `xmax` that had not ended, rising.
    pub fn in_progress(&self) -> &[TransactionId] {
        &self.in_progress
    }

    /// Whether the transaction had ended when the snapshot was taken.
    pub fn sees(&self, xid: TransactionId) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// Whether any transaction of `first..=last` had ended.
    pub fn sees_any(&self, first: TransactionId, last: TransactionId) -> bool {
        let below_xmax = last.min(self.xmax - 1);
        if first > below_xmax {
            return false;
        }
        let start = self.in_progress.partition_point(|xid| *xid < first);
        let end = self.in_progress.partition_point(|xid| *xid <= below_xmax);
        let ended = (below_xmax - first + 1) - (end - start) as u64;
        ended > 0
    }

    /// Whether this one sees every transaction that `other` sees.
    pub fn covers(&self, other: &Self) -> bool {
        !self.in_progress.iter().any(|xid| other.sees(*xid))
            && !other.sees_any(self.xmax, TransactionId::MAX)
    }

    /// The snapshot that sees what either of the two sees.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let listed = self.in_progress.iter().chain(&other.in_progress).copied();
        let unseen = listed.filter(|xid| !self.sees(*xid) && !other.sees(*xid)).collect();
        Self::of_unseen(unseen, self.xmax.max(other.xmax))
    }

    /// The snapshot that sees what both of them see.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let xmax = self.xmax.min(other.xmax);
        let listed = self.in_progress.iter().chain(&other.in_progress).copied();
        Self::of_unseen(listed.filter(|xid| *xid < xmax).collect(), xmax)
    }

    /// The snapshot that sees these transactions as well.
    #[must_use]
    pub fn with(&self, seen: &[TransactionId]) -> Self {
        let mut seen: Vec<TransactionId> =
            seen.iter().copied().filter(|xid| !self.sees(*xid)).collect();
        seen.sort_unstable();
        let mut unseen = self.in_progress.clone();
        unseen.retain(|xid| seen.binary_search(xid).is_err());
        let mut xmax = self.xmax;
        for xid in seen.into_iter().filter(|xid| *xid >= self.xmax) {
            unseen.extend(xmax..xid);
            xmax = xmax.max(xid + 1);
        }
        Self::of_unseen(unseen, xmax)
    }

    fn of_unseen(mut unseen: Vec<TransactionId>, xmax: TransactionId) -> Self {
        unseen.sort_unstable();
        unseen.dedup();
        let xmin = unseen.first().copied().unwrap_or(xmax);
        Self { xmin, xmax, in_progress: unseen }
    }
}

/// The text or the parts do not describe a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pg_snapshot (expected xmin:xmax:xid,xid,...)")]
pub struct InvalidSnapshot;

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let mut parts = text.splitn(3, ':');
        let number = |part: Option<&str>| part.and_then(|part| part.parse().ok());
        let xmin = number(parts.next()).ok_or(InvalidSnapshot)?;
        let xmax = number(parts.next()).ok_or(InvalidSnapshot)?;
        let list = parts.next().ok_or(InvalidSnapshot)?;
        let in_progress = if list.is_empty() {
            Vec::new()
        } else {
            list.split(',')
                .map(|xid| xid.parse().map_err(|_| InvalidSnapshot))
                .collect::<Result<_, _>>()?
        };
        Self::new(xmin, xmax, in_progress)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:", self.xmin, self.xmax)?;
        for (index, xid) in self.in_progress.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{xid}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_the_text_form() {
        for text in ["3:3:", "10:20:10,14,15", "734:734:"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        for text in ["", "3", "3:2:", "a:b:", "5:9:4", "5:9:9", "5:9:7,6", "5:9:6,6", "0:0:"] {
            assert_eq!(text.parse::<Snapshot>(), Err(InvalidSnapshot), "{text}");
        }
    }

    #[test]
    fn sees_what_had_ended() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        let seen: Vec<u64> = (8..23).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        (3_u64..20, proptest::collection::btree_set(3_u64..30, 0..8)).prop_map(|(ids, open)| {
            let xmax = ids + 10;
            Snapshot::of_unseen(open.into_iter().filter(|xid| *xid < xmax).collect(), xmax)
        })
    }

    fn seen(snapshot: &Snapshot) -> BTreeSet<u64> {
        (1..60).filter(|xid| snapshot.sees(*xid)).collect()
    }

    proptest! {
        #[test]
        fn snapshots_are_sets(
            one in snapshot(), other in snapshot(), more in proptest::collection::vec(3_u64..50, 0..6),
        ) {
            let both = seen(&one).union(&seen(&other)).copied().collect::<BTreeSet<_>>();
            prop_assert_eq!(seen(&one.union(&other)), both);
            let common = seen(&one).intersection(&seen(&other)).copied().collect::<BTreeSet<_>>();
            prop_assert_eq!(seen(&one.intersection(&other)), common);
            let added = seen(&one).into_iter().chain(more.iter().copied()).collect::<BTreeSet<_>>();
            prop_assert_eq!(seen(&one.with(&more)), added);
            prop_assert_eq!(one.covers(&other), seen(&one).is_superset(&seen(&other)));
            for made in [one.union(&other), one.intersection(&other), one.with(&more)] {
                prop_assert_eq!(made.to_string().parse::<Snapshot>().unwrap(), made);
            }
        }
    }

    #[test]
    fn sees_any_is_the_disjunction_of_sees() {
        let snapshot: Snapshot = "10:20:10,11,14,19".parse().unwrap();
        for first in 7..24 {
            for last in first..24 {
                let expected = (first..=last).any(|xid| snapshot.sees(xid));
                assert_eq!(snapshot.sees_any(first, last), expected, "{first}..={last}");
            }
        }
    }
}
