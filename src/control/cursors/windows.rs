//! Windows that were closed, as they are saved with the cursors behind them.
//!
//! Promises: each says of which buckets and ranges rows were read, and above which bound, if any. Must not: know a session, or
//! whether the cursors have passed it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::types::ToSql;

use crate::event::Bucket;
use crate::order::cursor::{CursorGroup, Window};
use crate::order::snapshot::Snapshot;
use crate::postgres::PgSnapshot;

/// Rows that were read.
#[derive(Clone, Debug)]
pub(super) struct ClosedWindow {
    cursor_group: CursorGroup,
    since: Snapshot,
    upto: Snapshot,
    /// None where those below the window's bound were read, too.
    above: Option<i64>,
}

impl ClosedWindow {
    /// Down to the window's bound, and not below.
    pub(super) fn bounded(cursor_group: &CursorGroup, window: &Window, upto: &Snapshot) -> Self {
        Self { above: Some(window.bound), ..Self::whole(cursor_group, window, upto) }
    }

    /// All of them, whatever their `seq`.
    pub(super) fn whole(cursor_group: &CursorGroup, window: &Window, upto: &Snapshot) -> Self {
        let (cursor_group, since) = (CursorGroup::clone(cursor_group), window.since.clone());
        Self { cursor_group, since, upto: upto.clone(), above: None }
    }
}

/// Those that are not saved yet, in their order.
#[derive(Debug, Default)]
pub(super) struct ClosedWindows {
    waiting: Mutex<Vec<ClosedWindow>>,
    /// Of which not all rows are acknowledged.
    held: Mutex<Vec<ClosedWindow>>,
}

impl ClosedWindows {
    pub(super) fn push(&self, window: ClosedWindow) {
        lock(&self.waiting).push(window);
    }

    /// It waits until the cursor of its buckets, as far as all is acknowledged, has left the window: whoever looks below it
    /// again may find nothing.
    pub(super) fn hold(&self, window: ClosedWindow) {
        lock(&self.held).push(window);
    }

    /// So far all is acknowledged. Of several places the last alone is told.
    pub(super) fn release(&self, cursor_group: &CursorGroup, at: Option<&Window>) {
        let mut held = lock(&self.held);
        let is_left = |window: &mut ClosedWindow| {
            window.cursor_group.iter().any(|bucket| cursor_group.contains(bucket))
                && at.is_none_or(|at| at.since != window.since)
        };
        let left: Vec<ClosedWindow> = held.extract_if(.., is_left).collect();
        lock(&self.waiting).extend(left);
    }

    /// Who owns these now reads them from where they were saved.
    pub(super) fn disown(&self, buckets: &[Bucket]) {
        let is_kept = |window: &ClosedWindow| {
            window.cursor_group.iter().all(|bucket| !buckets.contains(bucket))
        };
        lock(&self.held).retain(is_kept);
    }

    pub(super) fn waiting(&self) -> Vec<ClosedWindow> {
        lock(&self.waiting).clone()
    }

    /// The first of them are saved.
    pub(super) fn forget(&self, count: usize) {
        lock(&self.waiting).drain(..count);
    }
}

fn lock(windows: &Mutex<Vec<ClosedWindow>>) -> MutexGuard<'_, Vec<ClosedWindow>> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closed windows as the statement takes them.
#[derive(Debug)]
pub(super) struct WindowColumns {
    buckets: Vec<String>,
    from: Vec<PgSnapshot>,
    upto: Vec<PgSnapshot>,
    above: Vec<Option<i64>>,
}

impl WindowColumns {
    pub(super) fn of(closed: &[ClosedWindow]) -> Self {
        Self {
            buckets: closed.iter().map(|one| buckets_text(&one.cursor_group)).collect(),
            from: closed.iter().map(|one| PgSnapshot(one.since.clone())).collect(),
            upto: closed.iter().map(|one| PgSnapshot(one.upto.clone())).collect(),
            above: closed.iter().map(|one| one.above).collect(),
        }
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.buckets, &self.from, &self.upto, &self.above]
    }
}

/// As PostgreSQL's array text: groups of different sizes cannot be one array of arrays.
fn buckets_text(cursor_group: &CursorGroup) -> String {
    let buckets: Vec<String> = cursor_group.iter().map(ToString::to_string).collect();
    format!("{{{}}}", buckets.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(since: &str) -> Window {
        Window { since: since.parse().unwrap(), bound: 7 }
    }

    fn held(buckets: &[u16], since: &str) -> ClosedWindows {
        let closed = ClosedWindows::default();
        let cursor_group: CursorGroup = buckets.iter().copied().map(Bucket).collect();
        closed.hold(ClosedWindow::whole(&cursor_group, &window(since), &"20:20:".parse().unwrap()));
        closed
    }

    #[test]
    fn a_window_that_was_read_whole_is_saved_when_the_cursor_has_left_it() {
        let group = |buckets: &[u16]| buckets.iter().copied().map(Bucket).collect::<CursorGroup>();
        let closed = held(&[1, 2], "10:10:");
        closed.release(&group(&[1, 2]), Some(&window("10:10:")));
        closed.release(&group(&[3]), None);
        assert!(closed.waiting().is_empty(), "it is on its way, or of others");
        // The place at which it was left may be told of no more: several became one.
        closed.release(&group(&[1, 2, 3]), Some(&window("20:20:")));
        assert_eq!(closed.waiting().len(), 1);
        closed.release(&group(&[1, 2, 3]), None);
        assert_eq!(closed.waiting().len(), 1, "once");
        closed.forget(1);
        assert!(closed.waiting().is_empty());
    }

    #[test]
    fn of_buckets_that_are_let_go_nothing_is_held() {
        let closed = held(&[1], "10:10:");
        closed.disown(&[Bucket(1)]);
        closed.release(&[Bucket(1)].into(), None);
        assert!(closed.waiting().is_empty());
    }
}
