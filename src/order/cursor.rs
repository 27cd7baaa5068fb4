//! How far a bucket is published: a snapshot, not a number.
//!
//! Promises: a cursor that is led from tick to tick, page by page, passes every row exactly once, whatever its
//! `seq`, if it is told of those that lie below its ranges. Must not: know a driver, a clock, or who publishes.
//! Fails: leading it past what was claimed is a broken invariant and panics.
//!
//! **Windows.** No range is read below its bound: no number was drawn there for its rows. Whoever owns the table
//! can write one all the same. So a few ranges, one after the other, begin at the same bound: they are a window. It
//! is closed by a look for rows below the bound, and where there are any, the cursor goes back to them.
//!
//! ```
//! use std::sync::Arc;
//! use postrider::order::cursor::Cursor;
//! use postrider::order::tick::{Observation, Tick};
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
//!
//! let seen = Observation {
//!     floor: 9_009,
//!     snapshot: "15:15:".parse()?,
//!     next: 15,
//!     ceiling: 9_009,
//!     storage: 1,
//! };
//! let later = Arc::new(Tick::follow(cursor.upto(), seen)?);
//! cursor.close_window();
//! cursor.enter(&later);
//! cursor.finish();
//! let bound = cursor.open_window().expect("there may be rows below the range").bound;
//! cursor.go_back();
//! assert_eq!((cursor.first(), cursor.through()), (i64::MIN, bound));
//! cursor.finish();
//! assert!(cursor.is_finished() && cursor.open_window().is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use crate::event::Bucket;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::{ANYWHERE, Tick, UNBOUNDED};

/// Ranges are of one window as long as their own bounds lie so little above its bound: each of them skips these rows,
/// at 0.1 us a row, where a look takes the database some 60 us per partition.
const WINDOW_ROWS_MIN: i64 = 1_024;
/// At most so many.
const WINDOW_ROWS_MAX: i64 = 12_000;
/// So many times what a range brings: then looks and skipped rows cost about the same.
const WINDOW_RANGES: i64 = 4;

/// Buckets that are claimed together because their cursors are the same.
pub type CursorGroup = Arc<[Bucket]>;

/// Where a cursor group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCursor {
    /// Which buckets.
    pub cursor_group: CursorGroup,
    /// How far each of them is.
    pub cursor: Cursor,
}

impl GroupCursor {
    /// Whether a later place is one of all these buckets, too.
    pub fn is_covered_by(&self, later: &Self) -> bool {
        self.cursor_group.iter().all(|bucket| later.cursor_group.contains(bucket))
    }
}

/// A place in the outbox: the range from one tick to a later one, and the `seq` reached in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    from: Arc<Tick>,
    upto: Arc<Tick>,
    /// None where no row of the range is done, whatever its `seq`.
    position: Option<i64>,
    through: i64,
    /// No row of the range has a `seq` above this that the sequence gave out.
    drawn: i64,
    /// None where nothing lies below the ranges, or was looked for already. While the cursor goes back the position
    /// lies below the window's bound.
    window: Option<Window>,
    /// The window of which also what lies below is read, until the next range is entered.
    whole: Option<Window>,
}

/// Ranges that were read down to the same bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first of them begins behind this.
    pub since: Snapshot,
    /// No row with a `seq` at or below it was read.
    pub bound: i64,
}

impl Cursor {
    /// The cursor of a bucket of which nothing was published yet.
    pub fn initial() -> Self {
        let first = Arc::new(Tick::first());
        let (from, upto) = (Arc::clone(&first), first);
        Self { from, upto, position: Some(0), through: 0, drawn: 0, window: None, whole: None }
    }

    /// A cursor as it was saved. Of `from` only the snapshot matters any more.
    pub fn restore(
        from: Snapshot,
        upto: Tick,
        position: i64,
        end: i64,
        window: Option<Window>,
    ) -> Self {
        let from = Tick { snapshot: from, ..Tick::first() };
        let (from, upto) = (Arc::new(from), Arc::new(upto));
        Self { from, upto, position: done(position), through: end, drawn: end, window, whole: None }
    }

    /// A cursor that has passed exactly what the tick's snapshot sees.
    pub fn passed(tick: Tick) -> Self {
        let upto = Arc::new(tick);
        let through = upto.ceiling;
        let (from, position) = (Arc::clone(&upto), done(through));
        Self { from, upto, position, through, drawn: through, window: None, whole: None }
    }

    /// Everything visible in this snapshot is done.
    pub fn from(&self) -> &Snapshot {
        match &self.window {
            Some(window) if self.is_back() => &window.since,
            Some(_) | None => &self.from.snapshot,
        }
    }

    /// Where the range at hand began, also while the cursor is back below its window.
    pub fn range_from(&self) -> &Snapshot {
        &self.from.snapshot
    }

    /// The tick up to which the cursor is on its way.
    pub fn upto(&self) -> &Arc<Tick> {
        &self.upto
    }

    /// Of the range, everything with a `seq` at or below this is done.
    pub fn position(&self) -> i64 {
        self.position.unwrap_or(i64::MIN)
    }

    /// No row that is still to be read has a `seq` below this.
    pub fn first(&self) -> i64 {
        self.position.map_or(i64::MIN, |position| position.saturating_add(1))
    }

    /// No row that is still to be read has a `seq` above this. While the range is not finished that is the highest
    /// number there is: a row may have one that the sequence did not give out.
    pub fn through(&self) -> i64 {
        match &self.window {
            Some(window) if self.is_back() => window.bound,
            Some(_) | None => self.through,
        }
    }

    /// Where the position will be when all is done.
    pub fn end(&self) -> i64 {
        self.through
    }

    /// The ranges below whose bound nobody has looked yet, or is reading.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// The window, if it can be closed: its ranges are read.
    pub fn open_window(&self) -> Option<&Window> {
        self.window.as_ref().filter(|_| self.is_finished())
    }

    /// The window of which every row is read, also those below its bound, if the cursor has just gone back there.
    pub fn whole_window(&self) -> Option<&Window> {
        self.whole.as_ref()
    }

    /// Whether the window has to be closed before the range is entered that ends at `tick`.
    pub fn leaves_window(&self, tick: &Tick) -> bool {
        let (bound, margin) = (self.bound_of(tick), self.upto.margin(tick));
        self.window.as_ref().is_some_and(|window| !window.takes(bound, margin))
    }

    /// Whether the rows below the window are being read.
    fn is_back(&self) -> bool {
        self.window.as_ref().is_some_and(|window| self.position() < window.bound)
    }

    /// Whether the range is done, so that the next one can be entered.
    pub fn is_finished(&self) -> bool {
        self.position() >= self.through
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
    /// When the present range is not finished, `tick` is not later than its end, or the range is none of the open
    /// window's.
    pub fn enter(&mut self, tick: &Arc<Tick>) {
        assert!(self.is_finished(), "a range is left only when it is finished");
        assert!(tick.is_later_than(&self.upto), "a cursor goes from a tick to a later one");
        assert!(!self.leaves_window(tick), "a window is closed before another one is opened");
        let own = self.bound_of(tick);
        let window = self.window.take().unwrap_or_else(|| {
            let since = self.upto.snapshot.clone();
            Window { since, bound: own }
        });
        // Where rows lie anywhere, all of them are read, and nothing lies below.
        self.window = (window.bound > ANYWHERE).then_some(window);
        self.whole = None;
        self.position = self.window.as_ref().map(|window| window.bound);
        self.through = UNBOUNDED;
        self.drawn = self.upto.upper_bound(tick);
        self.from = std::mem::replace(&mut self.upto, Arc::clone(tick));
    }

    fn bound_of(&self, tick: &Tick) -> i64 {
        self.upto.lower_bound(tick).saturating_sub(self.upto.margin(tick))
    }

    /// Closes the window: nothing lies below its ranges.
    ///
    /// # Panics
    /// When its ranges are not read.
    pub fn close_window(&mut self) {
        assert!(self.is_finished(), "a window is closed when its ranges are read");
        self.window = None;
    }

    /// Goes back to all that lies below the window: whoever has found one row there may have missed another, with a
    /// lower number.
    ///
    /// # Panics
    /// When its ranges are not read.
    pub fn go_back(&mut self) {
        assert!(self.open_window().is_some(), "the ranges of the window are read");
        self.position = None;
    }

    /// Marks all rows of the range with a `seq` at or below `seq` as done.
    ///
    /// # Panics
    /// When `seq` lies before the position or beyond the range.
    pub fn advance(&mut self, seq: i64) {
        assert!(
            (self.position()..=self.through()).contains(&seq),
            "seq {seq} lies outside {}..={}",
            self.position(),
            self.through()
        );
        let is_at_the_end = self.is_back() && seq == self.through();
        self.position = Some(seq);
        if is_at_the_end {
            self.come_forth();
        }
    }

    /// Marks all rows of the range with a `seq` below this as done; there may be none.
    ///
    /// # Panics
    /// As [`Cursor::advance`].
    pub fn advance_before(&mut self, seq: i64) {
        if let Some(before) = seq.checked_sub(1) {
            self.advance(before);
        }
    }

    /// All below the window is read.
    fn come_forth(&mut self) {
        self.position = Some(self.through);
        self.whole = self.window.take();
    }

    /// Marks the whole range as done: no row of it is left, whatever its `seq`.
    pub fn finish(&mut self) {
        if self.is_finished() {
            return;
        }
        if self.is_back() {
            return self.come_forth();
        }
        // Behind a row that nobody drew there may have been others.
        self.through = if self.position() > self.drawn { UNBOUNDED } else { self.drawn };
        debug_assert!(self.position() <= self.through, "a cursor only goes on");
        self.position = Some(self.through);
    }

    /// Whether a row is published: what the view `postrider.events` computes.
    pub fn has_passed(&self, xid: TransactionId, seq: i64) -> bool {
        let is_in = |seq_max| seq <= seq_max && self.upto.snapshot.sees(xid);
        match &self.window {
            Some(window) if seq <= window.bound => {
                window.since.sees(xid) || (self.is_back() && is_in(self.position()))
            }
            Some(_) if self.is_back() => self.upto.snapshot.sees(xid),
            Some(_) | None => self.from.snapshot.sees(xid) || is_in(self.position()),
        }
    }
}

/// A position as it was saved. Of the lowest number there is nobody knows whether its rows were read.
fn done(position: i64) -> Option<i64> {
    (position > i64::MIN).then_some(position)
}

impl Window {
    /// Whether a range with this bound, that brings about so many rows, can be one of the window's.
    fn takes(&self, bound: i64, rows: i64) -> bool {
        let rows_max = (WINDOW_RANGES * rows).clamp(WINDOW_ROWS_MIN, WINDOW_ROWS_MAX);
        (self.bound..=self.bound.saturating_add(rows_max)).contains(&bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tick::Observation;

    /// The tick at which so many numbers were drawn; each has an id of its own, and nobody else writes.
    fn after(previous: &Tick, drawn: i64) -> Arc<Tick> {
        let next = previous.next + 2;
        let snapshot = format!("{next}:{next}:").parse().unwrap();
        let seen = Observation { floor: drawn, snapshot, next, ceiling: drawn, storage: 1 };
        Arc::new(Tick::follow(previous, seen).unwrap())
    }

    fn at(drawn: i64) -> Cursor {
        let mut cursor = Cursor::initial();
        cursor.enter(&after(&Tick::first(), drawn));
        cursor.finish();
        assert_eq!(cursor.window(), None, "all was read");
        cursor
    }

    #[test]
    fn ranges_of_a_window_begin_at_its_bound() {
        let mut cursor = at(10_000);
        let (tick, since) = (after(cursor.upto(), 10_600), cursor.upto().snapshot.clone());
        cursor.enter(&tick);
        let bound = cursor.window().unwrap().bound;
        assert_eq!((cursor.position(), cursor.open_window()), (bound, None), "it is being read");
        cursor.finish();
        let tick = after(cursor.upto(), 10_700);
        assert!(!cursor.leaves_window(&tick));
        cursor.enter(&tick);
        assert_eq!((cursor.position(), &cursor.window().unwrap().since), (bound, &since));
        cursor.finish();
        let far = after(cursor.upto(), 10_800);
        assert!(cursor.leaves_window(&far), "too much would be skipped again and again");
        cursor.close_window();
        cursor.enter(&far);
        assert!(cursor.position() > bound);
    }

    #[test]
    fn the_lowest_number_there_is_is_read_once() {
        let mut cursor = Cursor::initial();
        cursor.enter(&after(&Tick::first(), 1_000));
        assert_eq!(cursor.first(), i64::MIN, "rows lie anywhere");
        let mut below = at(10_000);
        below.enter(&after(below.upto(), 10_600));
        below.finish();
        below.go_back();
        for mut cursor in [cursor, below] {
            cursor.advance_before(i64::MIN);
            assert_eq!(cursor.first(), i64::MIN, "nothing of it was sent");
            let restored = Cursor::restore(
                cursor.range_from().clone(),
                Tick::clone(cursor.upto()),
                cursor.position(),
                cursor.end(),
                cursor.window().cloned(),
            );
            assert_eq!(restored.first(), i64::MIN);
            cursor.advance(i64::MIN);
            assert_eq!(cursor.first(), i64::MIN + 1);
            cursor.advance_before(i64::MIN + 2);
            assert_eq!(cursor.first(), i64::MIN + 2);
            cursor.finish();
            assert!(cursor.is_finished());
        }
    }

    #[test]
    fn what_lies_below_a_window_is_read_after_its_ranges() {
        let mut cursor = at(10_000);
        cursor.enter(&after(cursor.upto(), 10_600));
        cursor.finish();
        let (end, bound) = (cursor.end(), cursor.window().unwrap().bound);
        let of_the_range = cursor.from().clone();
        for last in [3, bound] {
            let mut back = cursor.clone();
            back.go_back();
            assert_eq!((back.first(), back.through(), back.end()), (i64::MIN, bound, end));
            assert_eq!(back.from(), &of_the_range, "there is one range");
            assert!(!back.is_finished() && !back.has_passed(6, 3) && back.has_passed(6, end));
            assert!(back.whole_window().is_none(), "it is not read yet");
            back.advance(last);
            back.finish();
            assert!(back.is_finished() && back.window().is_none());
            assert_eq!(back.whole_window(), cursor.window(), "all of it is read");
            assert_eq!(back.position(), end, "last {last}");
            back.enter(&after(back.upto(), 11_200));
            assert!(back.whole_window().is_none(), "it was said");
        }
    }
}
