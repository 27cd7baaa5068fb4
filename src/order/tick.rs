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
//!   `next`. Each of these keeps the floor of the tick before the one that first met it: the carry. Where it is
//!   known that one of them had drawn nothing yet when this tick's floor was read, it has this tick's floor.
//!
//! All of it rests on a sequence that only goes up. Whoever owns it can set it back, so each tick proves that
//! nobody did. Ticks between which the sequence was set back are of two *lineages*: what lies between them is
//! looked for among all retained rows, as no bound holds. A sequence that is made again shows it by its storage.
//! `setval` leaves no trace but a lower value, which draws since then may have passed: against that a range
//! begins a little below its bound, see [`Tick::margin`].

use crate::order::snapshot::{Snapshot, TransactionId};

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
    /// Where the sequence is stored, the same at both reads.
    pub storage: Storage,
}

/// Names what stores a sequence's value; another one when the sequence was made again.
pub type Storage = i64;

/// Between ticks of one lineage the sequence was not set back, as far as can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// None where it is not known: of the tick before all ticks, and of one that was saved before there
    /// were lineages.
    pub storage: Option<Storage>,
    /// The first tick of the lineage: the one that saw the sequence set back, or the first of all.
    pub began: TransactionId,
}

/// Rows that a range looks at below its bound: a row costs the database about 0.1 us to skip.
const MARGIN_MIN: i64 = 256;
/// At most so many.
const MARGIN_MAX: i64 = 10_000;

/// No row has a `seq` above it.
pub const UNBOUNDED: i64 = i64::MAX;
/// From this many values on it is worth a look whether an open transaction has drawn at all.
const FAR_BACK: i64 = 10_000;
/// The floor of a transaction that may have drawn before the sequence was set back: its rows lie anywhere.
pub const ANYWHERE: i64 = i64::MIN / 2;

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
    /// The sequence's last drawn value, read after the snapshot. Every row that `snapshot` sees has its `seq`
    /// at or below this, if it was drawn since the lineage began.
    pub ceiling: i64,
    /// What may still be open, by rising transaction id.
    pub carry: Vec<Carry>,
    /// With which ticks its bounds can be compared.
    pub lineage: Lineage,
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
#[error("the database went back: transaction id {observed} after {known}")]
pub struct WentBack {
    observed: TransactionId,
    known: TransactionId,
}

impl Tick {
    /// The tick before all ticks: it sees nothing, and nothing was drawn.
    pub fn first() -> Self {
        Self {
            snapshot: Snapshot::empty(),
            next: 3,
            floor: 0,
            ceiling: 0,
            carry: Vec::new(),
            lineage: Lineage::default(),
        }
    }

    /// This tick, but with nothing known of the sequence: no bound holds for the one that follows.
    #[must_use]
    pub fn without_lineage(self) -> Self {
        Self { lineage: Lineage::default(), ..self }
    }

    /// The tick that follows `previous` with what was observed.
    ///
    /// # Errors
    /// [`WentBack`] when the observation cannot come after `previous` on one history.
    ///
    /// # Panics
    /// When the sequence was set back during the observation: whoever drew in between lies anywhere.
    pub fn follow(previous: &Self, observed: Observation) -> Result<Self, WentBack> {
        assert!(
            observed.floor <= observed.ceiling,
            "a look at a sequence that is set back is void"
        );
        if !observed.snapshot.sees(previous.next) {
            return Err(WentBack { observed: observed.next, known: previous.next });
        }
        Ok(if previous.is_set_back(observed.storage, observed.floor) {
            Self::after_setting_back(observed)
        } else {
            previous.followed_by(observed)
        })
    }

    /// Whether a sequence with this storage and last value was set back since, or nothing is known of it.
    pub fn is_set_back(&self, storage: Storage, drawn: i64) -> bool {
        self.lineage.storage != Some(storage) || drawn < self.ceiling
    }

    /// Nothing is known of what was drawn before: all that may be open, or was missed, lies anywhere.
    fn after_setting_back(observed: Observation) -> Self {
        let Observation { floor, snapshot, next, ceiling, storage } = observed;
        let carry = carry(&snapshot, next, ANYWHERE, |_| ANYWHERE);
        let lineage = Lineage { storage: Some(storage), began: next };
        Self { snapshot, next, floor, ceiling, carry, lineage }
    }

    fn followed_by(&self, observed: Observation) -> Self {
        let Observation { floor, snapshot, next, ceiling, .. } = observed;
        // None of the ids from xmax up to the tick's own can be known to us: our own transaction has ended,
        // so that xmax lies above it.
        let carry = carry(&snapshot, next, self.floor, |xid| self.floor_of(xid));
        Self { snapshot, next, floor, ceiling, carry, lineage: self.lineage }
    }

    /// Whether the end of a transaction that is open at this tick would make many rows be looked at again.
    pub fn reaches_far_back(&self) -> bool {
        let is_far = |open: &Carry| self.floor.saturating_sub(open.floor) >= FAR_BACK;
        self.carry.iter().any(|open| self.is_listed(open.first) && is_far(open))
    }

    /// This tick, with what was found out of the transactions that it lists: for which of them
    /// `had_drawn_nothing` is true, they were open at one moment after this tick's floor was read, and had drawn
    /// nothing by then. All their rows lie above the floor.
    ///
    /// A transaction that has ended must not be among them: it may have drawn before.
    #[must_use]
    pub fn with_undrawn(self, had_drawn_nothing: impl Fn(TransactionId) -> bool) -> Self {
        let mut carry = Vec::with_capacity(self.carry.len());
        for Carry { first, last, floor } in self.carry.iter().copied() {
            let listed_last = last.min(self.snapshot.xmax().saturating_sub(1));
            for xid in first..=listed_last {
                let floor = if had_drawn_nothing(xid) { floor.max(self.floor) } else { floor };
                push(&mut carry, xid, xid, floor);
            }
            let unlisted_first = first.max(self.snapshot.xmax());
            if unlisted_first <= last {
                push(&mut carry, unlisted_first, last, floor);
            }
        }
        Self { carry, ..self }
    }

    /// The transactions of which `known`, the same tick with what was found out since, tells a higher floor.
    pub fn raised_in(&self, known: &Self) -> Vec<TransactionId> {
        let open = known.carry.iter().flat_map(|open| open.first..=open.last);
        open.filter(|xid| self.floor_of(*xid) < known.floor_of(*xid)).collect()
    }

    /// Whether the snapshot lists it, if it is carried: what lies at or above `xmax` is listed nowhere.
    fn is_listed(&self, xid: TransactionId) -> bool {
        xid < self.snapshot.xmax()
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
        if self.lineage != later.lineage {
            return ANYWHERE;
        }
        self.ended(later).map(|open| open.floor).fold(self.floor, i64::min)
    }

    /// Every row that `later` sees and `self` does not has its `seq` at or below this, if the sequence gave it out.
    /// Nothing is passed over for its sake: whoever owns the table can write any number.
    pub fn upper_bound(&self, later: &Self) -> i64 {
        let is_anywhere = |open: &Carry| open.floor == ANYWHERE;
        if self.lineage != later.lineage || self.ended(later).any(is_anywhere) {
            return UNBOUNDED;
        }
        later.ceiling
    }

    /// What was open at this tick and, in part at least, is not at the later one.
    fn ended<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a Carry> {
        self.carry.iter().filter(|open| later.snapshot.sees_any(open.first, open.last))
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

    /// Whether any transaction but the tick's own has ended since, whatever it wrote.
    pub fn is_behind(&self, snapshot: &Snapshot) -> bool {
        snapshot.xmax() > self.next + 1
            || self.carry.iter().any(|open| snapshot.sees_any(open.first, open.last))
    }

    /// How far below its bound a range begins, so that rows are found although the sequence was set back
    /// by `setval` and has passed the bound again before anybody looked. What is drawn between two looks
    /// is about what was drawn between the last two.
    pub fn margin(&self, later: &Self) -> i64 {
        later.ceiling.saturating_sub(self.ceiling).clamp(MARGIN_MIN, MARGIN_MAX)
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

/// What may be open at a tick: those that its snapshot lists, each with its own floor, and every id from
/// `xmax` up to the tick's own.
fn carry(
    snapshot: &Snapshot,
    next: TransactionId,
    floor: i64,
    floor_of: impl Fn(TransactionId) -> i64,
) -> Vec<Carry> {
    let mut carry = Vec::with_capacity(snapshot.in_progress().len() + 1);
    for xid in snapshot.in_progress().iter().copied().filter(|xid| *xid != next) {
        push(&mut carry, xid, xid, floor_of(xid));
    }
    if snapshot.xmax() < next {
        push(&mut carry, snapshot.xmax(), next - 1, floor);
    }
    carry
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
        Observation { floor, snapshot: snapshot.parse().unwrap(), next, ceiling, storage: 7 }
    }

    #[test]
    fn carries_what_is_listed_nowhere() {
        // 12 and 13 run, but 11 is the latest that ended: neither is in the list.
        let tick = Tick::follow(&Tick::first(), observe(40, "12:12:", 14, 41)).unwrap();
        assert_eq!(tick.carry, [Carry { first: 12, last: 13, floor: ANYWHERE }]);
        let later = Tick::follow(&tick, observe(60, "13:16:13", 16, 60)).unwrap();
        assert_eq!(tick.lower_bound(&later), ANYWHERE, "12 ended, and may have drawn since ever");
        assert_eq!(later.carry, [Carry { first: 13, last: 13, floor: ANYWHERE }]);
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
        assert!(Tick::follow(&a, observe(10, "21:21:", 21, 10)).is_ok());
    }

    fn set_back(observed: Observation) -> (Tick, Tick) {
        let a = Tick::follow(&Tick::first(), observe(900, "20:20:", 20, 910)).unwrap();
        let b = Tick::follow(&a, observed).unwrap();
        assert_eq!((a.lower_bound(&b), a.upper_bound(&b)), (ANYWHERE, UNBOUNDED));
        assert!(b.carry.iter().all(|open| open.floor == ANYWHERE));
        (a, b)
    }

    #[test]
    fn a_sequence_that_was_set_back_bounds_nothing() {
        for (floor, ceiling) in [(3, 4), (909, 909)] {
            let (_, b) = set_back(observe(floor, "28:28:", 30, ceiling));
            assert!(b.floor <= ceiling);
        }
        let (_, b) = set_back(Observation { storage: 8, ..observe(950, "28:28:", 30, 950) });
        assert_eq!(b.floor, 950, "it was made anew before");
    }

    #[test]
    fn bounds_hold_again_for_what_was_not_open_when_it_was_set_back() {
        let (_, b) = set_back(observe(3, "28:28:", 30, 4));
        let bounds = |from: &Tick, to: &Tick| (from.lower_bound(to), from.upper_bound(to));
        let c = Tick::follow(&b, observe(9, "28:40:28", 40, 9)).unwrap();
        assert_eq!(bounds(&b, &c), (ANYWHERE, UNBOUNDED), "29 may have drawn before");
        let d = Tick::follow(&c, observe(12, "50:50:", 50, 12)).unwrap();
        assert_eq!(bounds(&c, &d), (ANYWHERE, UNBOUNDED), "28 may");
        let e = Tick::follow(&d, observe(15, "60:60:", 60, 16)).unwrap();
        assert_eq!(bounds(&d, &e), (12, 16));
        assert_eq!(bounds(&b, &e), (ANYWHERE, UNBOUNDED), "whoever comes later has missed both");
    }

    #[test]
    fn ticks_of_two_lineages_are_not_compared() {
        let (a, b) = set_back(observe(3, "28:28:", 30, 4));
        let other = Tick::follow(&a, observe(5, "35:35:", 36, 6)).unwrap();
        assert_eq!(b.lower_bound(&other), ANYWHERE, "it may have been set back twice");
        let forgotten = a.without_lineage();
        let next = Tick::follow(&forgotten, observe(920, "28:28:", 30, 920)).unwrap();
        assert_eq!(forgotten.upper_bound(&next), UNBOUNDED);
    }

    #[test]
    fn whoever_had_drawn_nothing_has_the_floor_of_this_tick() {
        let a = Tick::follow(&Tick::first(), observe(10, "20:20:", 20, 10)).unwrap();
        let b = Tick::follow(&a, observe(50_000, "21:25:21,22", 30, 50_000)).unwrap();
        assert_eq!(b.carry.len(), 2, "21 and 22 are listed, 25 to 29 are not");
        assert!(b.reaches_far_back());
        let known = b.clone().with_undrawn(|xid| xid != 21);
        assert_eq!(b.raised_in(&known), [22], "of the others nothing is known");
        let floors = known.carry.iter().map(|open| (open.first, open.last, open.floor));
        assert_eq!(
            floors.collect::<Vec<_>>(),
            [(21, 21, 10), (22, 22, 50_000), (25, 29, 10)],
            "21 has drawn, and nothing is known of the others"
        );
        let c = Tick::follow(&known, observe(90_000, "22:40:22", 40, 90_000)).unwrap();
        assert_eq!(known.lower_bound(&c), 10);
        let d = Tick::follow(&c, observe(90_000, "50:50:", 50, 90_000)).unwrap();
        assert_eq!(c.lower_bound(&d), 50_000, "22 drew nothing at b");
    }

    #[test]
    fn a_look_at_who_has_drawn_is_worth_it_only_far_back() {
        let a = Tick::follow(&Tick::first(), observe(10, "20:20:", 20, 10)).unwrap();
        let near = Tick::follow(&a, observe(9_000, "21:25:21,22", 25, 9_000)).unwrap();
        assert!(!near.reaches_far_back());
        let unlisted = Tick::follow(&a, observe(50_000, "21:21:", 25, 50_000)).unwrap();
        assert!(!unlisted.reaches_far_back(), "the next tick lists it, or it has ended");
        let far = Tick::follow(&near, observe(90_000, "22:40:22", 40, 90_000)).unwrap();
        assert!(far.reaches_far_back());
        assert!(!far.with_undrawn(|_| true).reaches_far_back());
    }

    #[test]
    fn a_fresh_outbox_in_a_busy_database_comes_to_rest() {
        let tick = Tick::follow(&Tick::first(), observe(0, "20:25:20,22", 26, 0)).unwrap();
        let busy = |snapshot: &str| Probe { drawn: 0, snapshot: snapshot.parse().unwrap() };
        assert!(tick.is_stale(&busy("22:30:22")), "20 may have drawn before we first looked");
        let later = Tick::follow(&tick, observe(0, "40:40:", 40, 0)).unwrap();
        assert!(!later.is_stale(&busy("90:95:")));
    }

    #[test]
    fn a_range_begins_below_its_bound_by_what_is_drawn_between_two_looks() {
        let a = Tick::follow(&Tick::first(), observe(900, "20:20:", 20, 900)).unwrap();
        let after = |drawn| Tick::follow(&a, observe(drawn, "30:30:", 30, drawn)).unwrap();
        let margins = [901, 2_900, 99_999].map(|drawn| a.margin(&after(drawn)));
        assert_eq!(margins, [MARGIN_MIN, 2_000, MARGIN_MAX]);
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
