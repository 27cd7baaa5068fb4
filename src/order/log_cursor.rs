//! How far the log was streamed, said as a cursor.
//!
//! Promises: a cursor that comes from here has passed no transaction that was not streamed before the
//! tick's commit, so that a poller that begins with it loses nothing. Must not: know a connection, or
//! what an event says. Fails: never; where the log is far ahead of what a tick saw, it waits for a later one.
//!
//! A place in the log is a set of transactions: those whose commit lies before it. At the commit of
//! a tick all that its snapshot sees have been streamed, because a transaction is seen only after its
//! commit is in the log. But more than that was streamed: a transaction may be in the log and not yet
//! be seen, for as long as it waits for a synchronous standby. A `pg_snapshot` can name these, too: a
//! transaction that is not seen is listed, one that is seen is not. So the place is again a snapshot:
//! what the tick sees, with what was streamed as well.

use std::collections::VecDeque;

use crate::order::cursor::Cursor;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::Tick;

/// A tick is seen and commits within moments. Where more ids than these lie between what it saw and what had
/// committed before it, naming them one by one would cost more than to wait for the next tick.
const DISTANCE_MAX: u64 = 1 << 22;

/// What the stream has brought, and where the ticks lie in it.
#[derive(Debug)]
pub struct Streamed {
    /// At the last tick.
    passed: Snapshot,
    /// Transactions since the last tick's commit.
    recent: Vec<TransactionId>,
    /// What ticks brought that were passed by.
    pending: Vec<TransactionId>,
    marks: VecDeque<TickMark>,
}

/// A tick's commit in the stream.
#[derive(Debug)]
struct TickMark {
    tick: TransactionId,
    /// Transactions that came between the mark before and this one.
    brought: Vec<TransactionId>,
}

impl Streamed {
    /// A stream that goes on where these cursors end.
    pub fn new<'a>(cursors: impl IntoIterator<Item = &'a Cursor>) -> Self {
        let passed = cursors
            .into_iter()
            .map(|cursor| cursor.from().clone())
            .reduce(|one, other| one.intersection(&other))
            .unwrap_or_else(Snapshot::empty);
        Self { passed, recent: Vec::new(), pending: Vec::new(), marks: VecDeque::new() }
    }

    /// A transaction with events has come to its end.
    pub fn bring(&mut self, xid: TransactionId) {
        self.recent.push(xid);
    }

    /// Whether anything came that no cursor has passed and no mark bounds.
    pub fn has_recent(&self) -> bool {
        !self.recent.is_empty() || self.is_behind()
    }

    /// Whether something that came before a tick waits for a later one.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The commit of the tick with this transaction id.
    pub fn mark(&mut self, tick: TransactionId) {
        self.marks.push_back(TickMark { tick, brought: std::mem::take(&mut self.recent) });
    }

    /// The cursor at the commit of this tick, which was marked. Ticks come in their order. None when the log
    /// is so far ahead of what the tick saw that a later one has to say it.
    ///
    /// # Panics
    /// When the tick was not marked: what came behind it would count as passed.
    pub fn cursor_at(&mut self, tick: &Tick) -> Option<Cursor> {
        assert!(self.marks.iter().any(|mark| mark.tick == tick.next), "the tick was streamed");
        while let Some(mark) = self.marks.pop_front() {
            self.pending.extend(mark.brought);
            if mark.tick == tick.next {
                break;
            }
        }
        // First what the tick saw: an outbox that was at rest lies far behind it.
        let seen = tick.snapshot.union(&self.passed);
        let last = self.pending.iter().copied().max().unwrap_or_default();
        if last.saturating_sub(seen.xmax()) > DISTANCE_MAX {
            return None;
        }
        self.passed = seen.with(&std::mem::take(&mut self.pending));
        // Whatever the set lacks had drawn above the tick's floors: the tick lacks it, too.
        Some(Cursor::passed(Tick { snapshot: self.passed.clone(), ..tick.clone() }))
    }
}

/// The whole transaction id of which the log gives the lower half, close to a known one.
pub fn widen(xid: u32, near: TransactionId) -> TransactionId {
    let offset = xid.wrapping_sub(near as u32).cast_signed();
    near.saturating_add_signed(offset.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::order::tick::Observation;

    fn tick(previous: &Tick, snapshot: &str, next: u64, drawn: i64) -> Tick {
        let snapshot = snapshot.parse().unwrap();
        let seen = Observation { floor: drawn, snapshot, next, ceiling: drawn, storage: 1 };
        Tick::follow(previous, seen).unwrap()
    }

    #[test]
    fn what_is_in_the_log_and_not_seen_yet_is_passed_all_the_same() {
        let first = tick(&Tick::first(), "10:10:", 10, 50_000);
        let mut streamed = Streamed::new([&Cursor::passed(first.clone())]);
        streamed.bring(11);
        streamed.bring(14);
        let second = tick(&first, "11:13:11", 15, 90_000);
        streamed.mark(second.next);
        streamed.bring(16);
        let cursor = streamed.cursor_at(&second).expect("it is near");
        let passed: Vec<u64> = (9..18).filter(|xid| cursor.has_passed(*xid, 1)).collect();
        assert_eq!(passed, [9, 10, 11, 12, 14], "16 came behind the tick");
        assert!(cursor.is_finished());
        // A poller goes on with everything else, and with nothing of this.
        let third = Arc::new(tick(&second, "20:20:", 20, 300_000));
        let mut polled = cursor;
        polled.enter(&third);
        let rest: Vec<u64> =
            (9..20).filter(|xid| third.snapshot.sees(*xid) && !polled.from().sees(*xid)).collect();
        assert_eq!(rest, [13, 15, 16, 17, 18, 19]);
        assert!(polled.position() < 50_000, "13 and 15 may have drawn since the first tick");
        assert!(polled.position() >= 40_000, "but not before");
    }

    #[test]
    fn a_tick_that_nobody_asks_for_hands_on_what_came_before_it() {
        let first = tick(&Tick::first(), "10:10:", 10, 5);
        let mut streamed = Streamed::new([&Cursor::passed(first.clone())]);
        streamed.bring(30);
        streamed.mark(20);
        let later = tick(&first, "25:25:", 25, 9);
        streamed.mark(later.next);
        let cursor = streamed.cursor_at(&later).expect("it is near");
        assert!(cursor.has_passed(30, 7));
    }

    #[test]
    fn only_what_all_buckets_have_passed_counts_at_the_start() {
        let first = tick(&Tick::first(), "10:10:", 10, 5);
        let ahead = Cursor::passed(Tick { snapshot: "10:13:11".parse().unwrap(), ..first.clone() });
        let mut streamed = Streamed::new([&Cursor::passed(first.clone()), &ahead]);
        let second = tick(&first, "11:13:12", 15, 9);
        streamed.mark(15);
        let cursor = streamed.cursor_at(&second).expect("it is near");
        assert!(!cursor.has_passed(12, 1));
    }

    /// Nothing is made room for, and nothing is forgotten.
    #[test]
    fn what_lies_far_ahead_of_a_tick_waits_for_the_next() {
        let first = tick(&Tick::first(), "10:10:", 10, 5);
        let far = u64::MAX >> 1;
        for ahead in [15 + DISTANCE_MAX, far, u64::MAX] {
            let mut streamed = Streamed::new([&Cursor::passed(first.clone())]);
            streamed.bring(ahead);
            streamed.bring(11);
            let second = tick(&first, "11:13:11", 15, 9);
            streamed.mark(second.next);
            assert_eq!(streamed.cursor_at(&second), None, "{ahead}");
        }
        let mut streamed = Streamed::new([&Cursor::passed(first.clone())]);
        streamed.bring(far);
        let second = tick(&first, "11:13:11", 15, 9);
        streamed.mark(second.next);
        assert_eq!(streamed.cursor_at(&second), None);
        let third = tick(&second, &format!("{far}:{far}:"), far + 1, 12);
        streamed.mark(third.next);
        let cursor = streamed.cursor_at(&third).expect("it is near now");
        assert!(cursor.has_passed(far, 9) && cursor.has_passed(far - 1, 9));
    }

    /// An outbox that was at rest while others wrote: its cursor is old, the tick is not.
    #[test]
    fn an_old_cursor_is_no_distance() {
        let first = tick(&Tick::first(), "10:10:", 10, 5);
        let mut streamed = Streamed::new([&Cursor::passed(first.clone())]);
        let now = 3_000_000_000;
        streamed.bring(now);
        let second = tick(&first, &format!("{now}:{now}:"), now + 1, 9);
        streamed.mark(second.next);
        let cursor = streamed.cursor_at(&second).expect("it is near");
        assert!(cursor.has_passed(now, 9) && !cursor.has_passed(now + 1, 9));
    }

    #[test]
    fn ids_are_widened_to_the_nearest() {
        let round = 1_u64 << 32;
        for (xid, near, whole) in [
            (5, 3, 5),
            (3, 5, 3),
            (5, round - 2, round + 5),
            (u32::MAX, round + 3, round - 1),
            (7, 4 * round + 9, 4 * round + 7),
        ] {
            assert_eq!(widen(xid, near), whole, "{xid} near {near}");
        }
    }
}
