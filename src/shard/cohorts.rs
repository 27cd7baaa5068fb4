//! Buckets with equal cursors, claimed together.
//!
//! Promises: cohorts become one only when their cursors stand at the same place, so that no bucket
//! passes a row twice or not at all. Must not: move a cursor.

use crate::event::Bucket;
use crate::order::cursor::{Cohort, CohortCursor, Cursor};

/// Buckets with the same cursor are claimed together.
pub(super) fn group(cursors: Vec<(Bucket, Cursor)>) -> Vec<CohortCursor> {
    let singles = cursors
        .into_iter()
        .map(|(bucket, cursor)| CohortCursor { cohort: Cohort::from([bucket]), cursor })
        .collect();
    merge_where(singles, |_| true)
}

/// Finished cohorts at the same tick become one.
pub(super) fn merge(cohorts: Vec<CohortCursor>) -> Vec<CohortCursor> {
    if cohorts.len() < 2 {
        return cohorts;
    }
    merge_where(cohorts, Cursor::is_finished)
}

/// The cohorts without these buckets.
pub(super) fn without(cohorts: Vec<CohortCursor>, leaving: &[Bucket]) -> Vec<CohortCursor> {
    let stays = |bucket: &Bucket| !leaving.contains(bucket);
    cohorts
        .into_iter()
        .map(|CohortCursor { cohort, cursor }| CohortCursor {
            cohort: cohort.iter().copied().filter(stays).collect(),
            cursor,
        })
        .filter(|at| !at.cohort.is_empty())
        .collect()
}

fn merge_where(cohorts: Vec<CohortCursor>, may: impl Fn(&Cursor) -> bool) -> Vec<CohortCursor> {
    let mut merged: Vec<(Vec<Bucket>, Cursor)> = Vec::new();
    for CohortCursor { cohort, cursor } in cohorts {
        let same = |other: &Cursor| {
            *other == cursor
                || (other.is_finished()
                    && cursor.is_finished()
                    && other.upto() == cursor.upto()
                    && other.window() == cursor.window())
        };
        match merged.iter_mut().find(|(_, other)| may(&cursor) && same(other)) {
            Some((buckets, _)) => buckets.extend(cohort.iter()),
            None => merged.push((cohort.to_vec(), cursor)),
        }
    }
    let sorted = |mut buckets: Vec<Bucket>| {
        buckets.sort_unstable();
        Cohort::from(buckets)
    };
    merged
        .into_iter()
        .map(|(buckets, cursor)| CohortCursor { cohort: sorted(buckets), cursor })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::order::tick::{Observation, Tick};

    fn tick(next: u64) -> Arc<Tick> {
        let snapshot = format!("{next}:{next}:").parse().unwrap();
        let seen = Observation { floor: 5, snapshot, next, ceiling: 9, storage: 1 };
        Arc::new(Tick::follow(&Tick::first(), seen).unwrap())
    }

    fn at(next: u64) -> Cursor {
        let mut cursor = Cursor::initial();
        cursor.enter(&tick(next));
        cursor
    }

    fn buckets(cohorts: &[CohortCursor]) -> Vec<Vec<u16>> {
        cohorts.iter().map(|at| at.cohort.iter().map(|bucket| bucket.0).collect()).collect()
    }

    fn one(bucket: u16, cursor: Cursor) -> CohortCursor {
        CohortCursor { cohort: Cohort::from([Bucket(bucket)]), cursor }
    }

    #[test]
    fn equal_cursors_are_claimed_together() {
        let cohorts = group(vec![
            (Bucket(0), at(10)),
            (Bucket(1), at(20)),
            (Bucket(2), at(10)),
            (Bucket(3), Cursor::initial()),
        ]);
        assert_eq!(buckets(&cohorts), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn a_bucket_that_leaves_takes_nobody_with_it() {
        let cohorts = group((0..4).map(|bucket| (Bucket(bucket), at(10))).collect());
        let left = without(cohorts, &[Bucket(1), Bucket(2)]);
        assert_eq!(buckets(&left), [vec![0, 3]]);
        assert_eq!(without(left, &[Bucket(0), Bucket(3)]), []);
    }

    #[test]
    fn cohorts_meet_at_a_tick_that_both_have_finished() {
        let mut first = at(20);
        first.finish();
        let mut other = at(10);
        other.finish();
        let other_on_its_way = other.clone();
        other.enter(&tick(20));
        let unfinished = vec![one(0, first.clone()), one(1, other_on_its_way)];
        assert_eq!(merge(unfinished).len(), 2, "they are at different ticks");
        other.finish();
        let both = vec![one(4, first), one(1, other)];
        assert_eq!(buckets(&merge(both)), [vec![1, 4]]);
    }
}
