//! Which of two cursors of one bucket is further.
//!
//! Promises: of two cursors that one bucket has had, the one that it had later is the later one. Must not: compare
//! cursors of two histories. Fails: with nothing, where neither can have followed the other.

use std::cmp::Ordering;

use crate::order::cursor::Cursor;

/// How far a cursor is in one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leg {
    /// It reads the range, or has read it and nobody has looked below its window.
    Range,
    /// It is back, at what lies below the window.
    Below,
    /// Nothing of the range is left.
    Done,
}

fn leg(cursor: &Cursor) -> Leg {
    match cursor.window() {
        Some(window) if cursor.position() < window.bound => Leg::Below,
        None if cursor.is_finished() => Leg::Done,
        Some(_) | None => Leg::Range,
    }
}

/// How one cursor of a bucket stands to another; none where they have no order.
pub fn compare(one: &Cursor, other: &Cursor) -> Option<Ordering> {
    if one.upto().next == other.upto().next {
        let place = |cursor: &Cursor| (leg(cursor), cursor.position());
        return Some(place(one).cmp(&place(other)));
    }
    match (one.upto().is_later_than(other.upto()), other.upto().is_later_than(one.upto())) {
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        // Two instances looked at once: no cursor goes from one of these ticks to the other.
        (false, false) | (true, true) => None,
    }
}

/// With which cursor a bucket goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// With that of its last committed transaction. PostgreSQL's is a lower bound.
    Committed,
    /// With PostgreSQL's, which is further: somebody has published outside of transactions.
    Saved,
}

/// Chooses between what PostgreSQL has and what was committed last.
pub fn choose(saved: &Cursor, committed: &Cursor) -> Option<Choice> {
    Some(match compare(saved, committed)? {
        Ordering::Less | Ordering::Equal => Choice::Committed,
        Ordering::Greater => Choice::Saved,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::order::saved_cursor::SavedCursor;
    use crate::order::tick::{Observation, Tick};

    /// What becomes of a cursor.
    #[derive(Clone, Copy, Debug)]
    enum Move {
        /// A tick comes, after so many numbers were drawn.
        Tick(i64),
        /// Rows are passed, so far as there are any.
        Advance(i64),
        Finish,
        CloseWindow,
        /// A row lies so far below the window.
        GoBack(i64),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            (1_i64..3_000).prop_map(Move::Tick),
            (1_i64..3_000).prop_map(Move::Advance),
            Just(Move::Finish),
            Just(Move::CloseWindow),
            (0_i64..500).prop_map(Move::GoBack),
        ];
        proptest::collection::vec(one, 1..40)
    }

    fn follow(tick: &Tick, drawn: i64) -> Arc<Tick> {
        let (next, ceiling) = (tick.next + 2, tick.ceiling + drawn);
        let snapshot = format!("{next}:{next}:").parse().unwrap();
        let seen = Observation { floor: ceiling, snapshot, next, ceiling, storage: 1 };
        Arc::new(Tick::follow(tick, seen).unwrap())
    }

    /// Whether it was moved.
    fn step(cursor: &mut Cursor, tick: &mut Arc<Tick>, step: Move) -> bool {
        match step {
            Move::Tick(drawn) => {
                *tick = follow(tick, drawn);
                if cursor.is_finished() && cursor.leaves_window(tick) {
                    cursor.close_window();
                }
                let is_due = cursor.is_finished();
                if is_due {
                    cursor.enter(tick);
                }
                is_due
            }
            Move::Advance(rows) if !cursor.is_finished() => {
                cursor.advance(
                    cursor.position().max(-5_000).saturating_add(rows).min(cursor.through()),
                );
                true
            }
            Move::Finish if !cursor.is_finished() => {
                cursor.finish();
                true
            }
            Move::CloseWindow if cursor.open_window().is_some() => {
                cursor.close_window();
                true
            }
            Move::GoBack(depth) if cursor.open_window().is_some() => {
                let bound = cursor.open_window().unwrap().bound;
                cursor.go_back();
                cursor.advance(bound - depth);
                true
            }
            Move::Advance(_) | Move::Finish | Move::CloseWindow | Move::GoBack(_) => false,
        }
    }

    proptest! {
        #[test]
        fn a_bucket_only_goes_on(moves in moves()) {
            let (mut cursor, mut tick) = (Cursor::initial(), Arc::new(Tick::first()));
            let mut had = vec![cursor.clone()];
            for one in moves {
                if step(&mut cursor, &mut tick, one) {
                    had.push(cursor.clone());
                }
            }
            for (index, earlier) in had.iter().enumerate() {
                let restored = SavedCursor::from(earlier).restore();
                prop_assert_eq!(compare(earlier, &restored), Some(Ordering::Equal));
                for later in &had[index..] {
                    prop_assert_ne!(compare(&restored, later), Some(Ordering::Greater), "{:?} {:?}", earlier, later);
                    prop_assert!(compare(later, earlier).is_some_and(Ordering::is_ge));
                    prop_assert_eq!(choose(earlier, later), Some(Choice::Committed));
                }
            }
        }
    }

    fn at(tick: &Arc<Tick>) -> Cursor {
        let mut cursor = Cursor::initial();
        cursor.enter(tick);
        cursor
    }

    #[test]
    fn what_is_published_outside_of_transactions_is_published() {
        let first = follow(&Tick::first(), 10);
        let (committed, mut saved) = (at(&first), at(&first));
        saved.finish();
        assert_eq!(choose(&saved, &committed), Some(Choice::Saved));
    }

    #[test]
    fn ticks_that_were_seen_at_once_have_no_order() {
        let seen = |snapshot: &str, next| {
            let snapshot = snapshot.parse().unwrap();
            let seen = Observation { floor: 1, snapshot, next, ceiling: 1, storage: 1 };
            at(&Arc::new(Tick::follow(&Tick::first(), seen).unwrap()))
        };
        assert_eq!(compare(&seen("8:8:", 8), &seen("8:8:", 9)), None);
        assert_eq!(choose(&seen("8:8:", 9), &seen("8:8:", 8)), None);
    }
}
