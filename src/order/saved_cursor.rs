//! A cursor as it lies outside of memory, in a table or in a topic.
//!
//! Promises: what was saved leads to the same rows when it is restored; a little more is looked at, as a sequence may
//! have been set back meanwhile. Must not: know where it lies.

use crate::order::cursor::{Cursor, Window};
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::{ANYWHERE, Carry, Lineage, Tick};

/// What is read of a saved cursor begins so far below its bounds. `setval` leaves no trace when the sequence
/// passes its former value again, and nobody looked meanwhile.
const START_MARGIN: i64 = 100_000;

/// What is kept of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedCursor {
    /// Everything visible in it is done.
    pub from: Snapshot,
    /// What the cursor is on its way to.
    pub upto: Snapshot,
    /// That tick's own transaction.
    pub next: TransactionId,
    /// That tick's floor.
    pub floor: i64,
    /// Where the position will be when all is done.
    pub end: i64,
    /// What may still have been open at that tick.
    pub carry: Vec<Carry>,
    /// With which ticks its bounds can be compared.
    pub lineage: Lineage,
    /// Of the range, everything with a `seq` at or below this is done.
    pub position: i64,
    /// The ranges below whose bound nobody has looked yet.
    pub window: Option<Window>,
}

impl From<&Cursor> for SavedCursor {
    fn from(cursor: &Cursor) -> Self {
        let upto = cursor.upto();
        Self {
            from: cursor.range_from().clone(),
            upto: upto.snapshot.clone(),
            next: upto.next,
            floor: upto.floor,
            end: cursor.end(),
            carry: upto.carry.clone(),
            lineage: upto.lineage,
            position: cursor.position(),
            window: cursor.window().cloned(),
        }
    }
}

impl SavedCursor {
    /// The cursor, to go on with.
    pub fn restore(self) -> Cursor {
        let below_floor = |open: Carry| Carry { floor: below(open.floor), ..open };
        let tick = Tick {
            snapshot: self.upto,
            next: self.next,
            floor: below(self.floor),
            // After a crash the server may give out again what it had not logged. What was known to be logged
            // tells whether the sequence was set back.
            ceiling: self.floor,
            carry: self.carry.into_iter().map(below_floor).collect(),
            lineage: self.lineage,
        };
        Cursor::restore(self.from, tick, self.position, self.end, self.window)
    }
}

fn below(bound: i64) -> i64 {
    if bound == ANYWHERE { ANYWHERE } else { bound.saturating_sub(START_MARGIN) }
}
