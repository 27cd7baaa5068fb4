//! Buckets with equal cursors, claimed together.
//!
//! Promises: cursor groups become one only when their cursors stand at the same place, so that no bucket
//! passes a row twice or not at all. Must not: move a cursor.

use crate::event::Bucket;
use crate::order::cursor::{Cursor, CursorGroup, GroupCursor};

/// Buckets with the same cursor are claimed together.
pub(super) fn group(cursors: Vec<(Bucket, Cursor)>) -> Vec<GroupCursor> {
    let singles = cursors
        .into_iter()
        .map(|(bucket, cursor)| GroupCursor { cursor_group: CursorGroup::from([bucket]), cursor })
        .collect();
    merge_where(singles, |_| true)
}

/// Finished cursor groups at the same tick become one.
pub(super) fn merge(cursor_groups: Vec<GroupCursor>) -> Vec<GroupCursor> {
    if cursor_groups.len() < 2 {
        return cursor_groups;
    }
    merge_where(cursor_groups, Cursor::is_finished)
}

/// The cursor groups without these buckets.
pub(super) fn without(cursor_groups: Vec<GroupCursor>, leaving: &[Bucket]) -> Vec<GroupCursor> {
    let stays = |bucket: &Bucket| !leaving.contains(bucket);
    cursor_groups
        .into_iter()
        .map(|GroupCursor { cursor_group, cursor }| GroupCursor {
            cursor_group: cursor_group.iter().copied().filter(stays).collect(),
            cursor,
        })
        .filter(|at| !at.cursor_group.is_empty())
        .collect()
}

fn merge_where(cursor_groups: Vec<GroupCursor>, may: impl Fn(&Cursor) -> bool) -> Vec<GroupCursor> {
    let mut merged: Vec<(Vec<Bucket>, Cursor)> = Vec::new();
    for GroupCursor { cursor_group, cursor } in cursor_groups {
        let same = |other: &Cursor| {
            *other == cursor
                || (other.is_finished()
                    && cursor.is_finished()
                    && other.upto() == cursor.upto()
                    && other.window() == cursor.window())
        };
        match merged.iter_mut().find(|(_, other)| may(&cursor) && same(other)) {
            Some((buckets, _)) => buckets.extend(cursor_group.iter()),
            None => merged.push((cursor_group.to_vec(), cursor)),
        }
    }
    let sorted = |mut buckets: Vec<Bucket>| {
        buckets.sort_unstable();
        CursorGroup::from(buckets)
    };
    merged
        .into_iter()
        .map(|(buckets, cursor)| GroupCursor { cursor_group: sorted(buckets), cursor })
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

    fn buckets(cursor_groups: &[GroupCursor]) -> Vec<Vec<u16>> {
        cursor_groups
            .iter()
            .map(|at| at.cursor_group.iter().map(|bucket| bucket.0).collect())
            .collect()
    }

    fn one(bucket: u16, cursor: Cursor) -> GroupCursor {
        GroupCursor { cursor_group: CursorGroup::from([Bucket(bucket)]), cursor }
    }

    #[test]
    fn equal_cursors_are_claimed_together() {
        let cursor_groups = group(vec![
            (Bucket(0), at(10)),
            (Bucket(1), at(20)),
            (Bucket(2), at(10)),
            (Bucket(3), Cursor::initial()),
        ]);
        assert_eq!(buckets(&cursor_groups), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn a_bucket_that_leaves_takes_nobody_with_it() {
        let cursor_groups = group((0..4).map(|bucket| (Bucket(bucket), at(10))).collect());
        let left = without(cursor_groups, &[Bucket(1), Bucket(2)]);
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
