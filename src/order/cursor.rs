//! How far a bucket is published: a snapshot, not a number.
//!
//! Promises: a cursor that is led from tick to tick, page by page, passes every row exactly once.
//! Must not: know a driver, a clock, or who publishes. Fails: leading it past what was claimed is a
//! broken invariant and panics.
//!
//! ```
//! use std::sync::Arc;
//! use postrider::cursor::Cursor;
//! use postrider::tick::{Observation, Tick};
//!
//! let seen = Observation {
//!     floor: 7,
//!     snapshot: "12:12:".parse()?,
//!     next: 12,
//!     ceiling: 9,
//!     storage: 1,
//! };
//! let tick = Arc::new(Tick::follow(&Tick::first(), seen)?);
//! let mut cursor = Cursor::initial();
//! cursor.enter(&tick);
//! assert!(cursor.position() < 0 && cursor.through() == i64::MAX, "nothing was known before");
//! cursor.advance(5);
//! assert!(!cursor.is_finished());
//! cursor.finish();
//! assert!(cursor.is_finished());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use crate::event::Bucket;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::{Tick, UNBOUNDED};

/// Buckets that are claimed together because their cursors are the same.
pub type Cohort = Arc<[Bucket]>;

/// Where a cohort stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CohortCursor {
    /// Which buckets.
    pub cohort: Cohort,
    /// How far each of them is.
    pub cursor: Cursor,
}

impl CohortCursor {
    /// Whether a later place is one of all these buckets, too.
    pub fn is_covered_by(&self, later: &Self) -> bool {
        self.cohort.iter().all(|bucket| later.cohort.contains(bucket))
    }
}

/// A place in the outbox: the range from one tick to a later one, and the `seq` reached in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    from: Arc<Tick>,
    upto: Arc<Tick>,
    position: i64,
    through: i64,
    /// No row of the range has a `seq` above this that the sequence gave out.
    drawn: i64,
}

impl Cursor {
    /// The cursor of a bucket of which nothing was published yet.
    pub fn initial() -> Self {
        let first = Arc::new(Tick::first());
        Self { from: Arc::clone(&first), upto: first, position: 0, through: 0, drawn: 0 }
    }

    /// A cursor as it was saved. Of `from` only the snapshot matters any more.
    pub fn restore(from: Snapshot, upto: Tick, position: i64, through: i64) -> Self {
        let from = Tick { snapshot: from, ..Tick::first() };
        Self { from: Arc::new(from), upto: Arc::new(upto), position, through, drawn: through }
    }

    /// A cursor that has passed exactly what the tick's snapshot sees.
    pub fn passed(tick: Tick) -> Self {
        let upto = Arc::new(tick);
        let through = upto.ceiling;
        Self { from: Arc::clone(&upto), upto, position: through, through, drawn: through }
    }

    /// Everything visible in this snapshot is done.
    pub fn from(&self) -> &Snapshot {
        &self.from.snapshot
    }

    /// The tick up to which the cursor is on its way.
    pub fn upto(&self) -> &Arc<Tick> {
        &self.upto
    }

    /// Of the range, everything with a `seq` at or below this is done.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// No row of the range has a `seq` above this. While the range is not finished that is the highest number
    /// there is: a row may have one that the sequence did not give out.
    pub fn through(&self) -> i64 {
        self.through
    }

    /// Whether the range is done, so that the next one can be entered.
    pub fn is_finished(&self) -> bool {
        self.position >= self.through
    }

    /// Whether what lies behind the range can be entered only by a tick that is begun from now on: this one
    /// was observed by somebody else at the same time as the range's end, or before it. Where nothing is
    /// written any more, nobody may look for such a tick by himself.
    pub fn awaits_more_than(&self, tick: &Tick) -> bool {
        tick.next != self.upto.next && !tick.is_later_than(&self.upto)
    }

    /// Enters the range that ends at `tick`.
    ///
    /// # Panics
    /// When the present range is not finished, or `tick` is not later than its end.
    pub fn enter(&mut self, tick: &Arc<Tick>) {
        assert!(self.is_finished(), "a range is left only when it is finished");
        assert!(tick.is_later_than(&self.upto), "a cursor goes from a tick to a later one");
        let margin = self.upto.margin(tick);
        self.position = self.upto.lower_bound(tick).saturating_sub(margin);
        self.through = UNBOUNDED;
        self.drawn = self.upto.upper_bound(tick);
        self.from = std::mem::replace(&mut self.upto, Arc::clone(tick));
    }

    /// Marks all rows of the range with a `seq` at or below `seq` as done.
    ///
    /// # Panics
    /// When `seq` lies before the position or beyond the range.
    pub fn advance(&mut self, seq: i64) {
        assert!(
            (self.position..=self.through()).contains(&seq),
            "seq {seq} lies outside {}..={}",
            self.position,
            self.through()
        );
        self.position = seq;
    }

    /// Marks the whole range as done: no row of it is left, whatever its `seq`.
    pub fn finish(&mut self) {
        if self.is_finished() {
            return;
        }
        // Behind a row that nobody drew there may have been others.
        self.through = if self.position > self.drawn { UNBOUNDED } else { self.drawn };
        debug_assert!(self.position <= self.through, "a cursor only goes on");
        self.position = self.through;
    }

    /// Whether a row is published: what the view `postrider.events` computes.
    pub fn has_passed(&self, xid: TransactionId, seq: i64) -> bool {
        self.from.snapshot.sees(xid) || (seq <= self.position && self.upto.snapshot.sees(xid))
    }
}
