//! A tick: one observation of the database, and what may still be in flight behind it.
//!
//! Promises: going from tick P to a later tick C, no row that C sees and P does not has a `seq` at
//! or below [`Tick::lower_bound`]. Must not: read a clock, know a driver. Fails: an observation that
//! lies before the tick it should follow is refused, because it belongs to another history.
//!
//! Why it is not simply "the sequence's value before the snapshot": `seq` is drawn before commit,
//! and a snapshot's `xmax` is the latest *ended* transaction plus one, so that running transactions
//! may lie at or above it and are listed nowhere. What holds is this. `floor` is read before the
//! tick's own transaction id `next` is assigned, and a row's transaction id is assigned before its
//! `seq` is drawn, therefore
//!
//! * every transaction above `next` draws all its `seq` above `floor` (if that was not read too high:
//!   `sql/queries/drawn.sql` says how it is read);
//! * what may be open at the tick is the snapshot's `in_progress` and every id from `xmax` up to
//!   `next`. Each of these keeps the floor of the tick before the one that first met it: the carry.

use crate::snapshot::{Snapshot, TransactionId};

/// What one look at the database returned, in the order in which it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The sequence's last drawn value, read first.
    pub floor: i64,
    /// The snapshot, read after `floor`.
    pub snapshot: Snapshot,
    /// The transaction id of the tick itself, assigned after `floor` was read.
    pub next: TransactionId,
    /// The sequence's last drawn value, read after the snapshot.
    pub ceiling: i64,
}

/// Transactions `first..=last` may be open; all their rows lie above `floor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The lowest transaction id meant.
    pub first: TransactionId,
    /// The highest transaction id meant.
    pub last: TransactionId,
    /// Every `seq` that they drew lies above this.
    pub floor: i64,
}

/// One observation together with the carry of what was still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// What had ended.
    pub snapshot: Snapshot,
    /// The tick's own transaction id.
    pub next: TransactionId,
    /// Every transaction above `next` draws its `seq` above this.
    pub floor: i64,
    /// Every row that `snapshot` sees has its `seq` at or below this.
    pub ceiling: i64,
    /// What may still be open, by rising transaction id.
    pub carry: Vec<Carry>,
}

/// A cheap look, without a transaction id, that tells whether a tick is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The sequence's last drawn value, read before the snapshot.
    pub drawn: i64,
    /// The snapshot.
    pub snapshot: Snapshot,
}

/// The observation lies before the tick that it should follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database went back: transaction id {observed} after {known}, sequence {ceiling} after {floor}"
)]
pub struct WentBack {
    observed: TransactionId,
    known: TransactionId,
    ceiling: i64,
    floor: i64,
}

impl Tick {
    /// The tick before all ticks: it sees nothing, and nothing was drawn.
    pub fn first() -> Self {
        Self { snapshot: Snapshot::empty(), next: 3, floor: 0, ceiling: 0, carry: Vec::new() }
    }

    /// The tick that follows `previous` with what was observed.
    ///
    /// # Errors
    /// [`WentBack`] when the observation cannot come after `previous` on one history.
    pub fn follow(previous: &Self, observed: Observation) -> Result<Self, WentBack> {
        let Observation { floor, snapshot, next, ceiling } = observed;
        if !snapshot.sees(previous.next) || floor < previous.floor {
            return Err(WentBack {
                observed: next,
                known: previous.next,
                ceiling,
                floor: previous.floor,
            });
        }
        let mut carry = Vec::with_capacity(snapshot.in_progress().len() + 1);
        for xid in snapshot.in_progress().iter().copied().filter(|xid| *xid != next) {
            push(&mut carry, xid, xid, previous.floor_of(xid));
        }
        // Ids from xmax up to the tick's own. None of them can be known to `previous`, whose own
        // transaction has ended, so that xmax lies above it.
        if snapshot.xmax() < next {
            push(&mut carry, snapshot.xmax(), next - 1, previous.floor);
        }
        Ok(Self { snapshot, next, floor, ceiling, carry })
    }

    /// Whether this tick was observed after `other`.
    ///
    /// A higher id does not tell: a tick's snapshot is taken before its id is assigned, so that of
    /// two ticks at once the one with the higher id may have the older snapshot.
    pub fn is_later_than(&self, other: &Self) -> bool {
        self.next != other.next && self.snapshot.sees(other.next)
    }

    /// Every row that `later` sees and `self` does not has its `seq` above this.
    pub fn lower_bound(&self, later: &Self) -> i64 {
        self.carry
            .iter()
            .filter(|open| later.snapshot.sees_any(open.first, open.last))
            .map(|open| open.floor)
            .fold(self.floor, i64::min)
    }

    /// Whether a tick now could see rows that this one does not.
    ///
    /// With the sequence at rest since before this tick, only a transaction that was open at the
    /// tick, and had drawn, can bring rows. Anything else that goes on in the database is not ours.
    pub fn is_stale(&self, probe: &Probe) -> bool {
        probe.drawn != self.ceiling
            || self.floor != self.ceiling
            || self.carry.iter().any(|open| {
                open.floor < self.ceiling && probe.snapshot.sees_any(open.first, open.last)
            })
    }

    fn floor_of(&self, xid: TransactionId) -> i64 {
        // The carry is rising: at most the last range that begins at or below the id can hold it.
        let index = self.carry.partition_point(|open| open.first <= xid);
        self.carry[..index]
            .last()
            .filter(|open| xid <= open.last)
            .map_or(self.floor, |open| open.floor)
    }
}

/// Appends to the carry; neighbours with the same floor become one range.
fn push(carry: &mut Vec<Carry>, first: TransactionId, last: TransactionId, floor: i64) {
    match carry.last_mut() {
        Some(open) if open.last + 1 == first && open.floor == floor => open.last = last,
        _ => carry.push(Carry { first, last, floor }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(floor: i64, snapshot: &str, next: u64, ceiling: i64) -> Observation {
        Observation { floor, snapshot: snapshot.parse().unwrap(), next, ceiling }
    }

    #[test]
    fn carries_what_is_listed_nowhere() {
        // 12 and 13 run, but 11 is the latest that ended: neither is in the list.
        let tick = Tick::follow(&Tick::first(), observe(40, "12:12:", 14, 41)).unwrap();
        assert_eq!(tick.carry, [Carry { first: 12, last: 13, floor: 0 }]);
        let later = Tick::follow(&tick, observe(60, "13:16:13", 16, 60)).unwrap();
        assert_eq!(tick.lower_bound(&later), 0, "12 ended, and may have drawn since ever");
        assert_eq!(later.carry, [Carry { first: 13, last: 13, floor: 0 }]);
    }

    #[test]
    fn a_transaction_keeps_the_floor_of_the_tick_before_it() {
        let a = Tick::follow(&Tick::first(), observe(10, "20:20:", 20, 10)).unwrap();
        let b = Tick::follow(&a, observe(50, "21:25:21", 30, 50)).unwrap();
        let c = Tick::follow(&b, observe(90, "21:35:21,33", 40, 90)).unwrap();
        assert_eq!(c.carry[0], Carry { first: 21, last: 21, floor: 10 });
        assert_eq!(c.carry[1], Carry { first: 33, last: 33, floor: 50 });
        let d = Tick::follow(&c, observe(99, "33:45:33", 45, 99)).unwrap();
        assert_eq!(c.lower_bound(&d), 10, "21 has ended");
        assert_eq!(d.lower_bound(&d), 99, "nothing ended since");
    }

    #[test]
    fn no_tick_is_later_than_itself() {
        let first = Tick::first();
        let tick = Tick::follow(&first, observe(10, "20:20:", 20, 10)).unwrap();
        assert!(!first.is_later_than(&first), "a shard would enter it again and again");
        assert!(!tick.is_later_than(&tick));
        assert!(tick.is_later_than(&first) && !first.is_later_than(&tick));
    }

    #[test]
    fn refuses_an_observation_from_another_history() {
        let a = Tick::follow(&Tick::first(), observe(10, "20:20:", 20, 10)).unwrap();
        assert!(Tick::follow(&a, observe(10, "20:20:", 20, 10)).is_err());
        assert!(Tick::follow(&a, observe(9, "30:30:", 30, 10)).is_err());
        assert!(Tick::follow(&a, observe(10, "21:21:", 21, 10)).is_ok());
    }

    #[test]
    fn an_idle_outbox_in_a_busy_database_is_not_stale() {
        let tick = Tick::follow(&Tick::first(), observe(10, "20:20:", 20, 10)).unwrap();
        let settled = Tick::follow(&tick, observe(10, "25:25:", 26, 10)).unwrap();
        let busy = Probe { drawn: 10, snapshot: "90:95:".parse().unwrap() };
        assert!(!settled.is_stale(&busy));
        assert!(settled.is_stale(&Probe { drawn: 11, ..busy.clone() }));
        let holding = Tick::follow(&tick, observe(12, "22:26:22", 30, 12)).unwrap();
        assert!(
            !holding
                .is_stale(&Probe { drawn: 12, snapshot: "22:95:22,26,27,28,29".parse().unwrap() })
        );
        assert!(holding.is_stale(&Probe { drawn: 12, snapshot: "90:95:".parse().unwrap() }));
    }
}
