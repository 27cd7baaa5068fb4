//! Windows that were closed, as they are saved with the cursors behind them.
//!
//! Promises: each says of which buckets and ranges rows were read, and above which bound, if any. Must not: know a session, or
//! whether the cursors have passed it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::types::ToSql;

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
pub(super) struct ClosedWindows(Mutex<Vec<ClosedWindow>>);

impl ClosedWindows {
    pub(super) fn push(&self, window: ClosedWindow) {
        self.lock().push(window);
    }

    pub(super) fn waiting(&self) -> Vec<ClosedWindow> {
        self.lock().clone()
    }

    /// The first of them are saved.
    pub(super) fn forget(&self, count: usize) {
        self.lock().drain(..count);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ClosedWindow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
