//! Windows that were closed, as they are saved with the cursors behind them.
//!
//! Promises: each says of which buckets and ranges rows were read, and above which bound. Must not: know a session, or
//! whether the cursors have passed it.

use tokio_postgres::types::ToSql;

use crate::order::cursor::{CursorGroup, Window};
use crate::order::snapshot::Snapshot;
use crate::postgres::PgSnapshot;

/// Rows that were read down to a bound, and not below.
#[derive(Clone, Debug)]
pub(super) struct ClosedWindow {
    cursor_group: CursorGroup,
    window: Window,
    upto: Snapshot,
}

impl ClosedWindow {
    pub(super) fn new(cursor_group: &CursorGroup, window: &Window, upto: &Snapshot) -> Self {
        let (cursor_group, window) = (CursorGroup::clone(cursor_group), window.clone());
        Self { cursor_group, window, upto: upto.clone() }
    }
}

/// Closed windows as the statement takes them.
#[derive(Debug)]
pub(super) struct WindowColumns {
    buckets: Vec<String>,
    from: Vec<PgSnapshot>,
    upto: Vec<PgSnapshot>,
    above: Vec<i64>,
}

impl WindowColumns {
    pub(super) fn of(closed: &[ClosedWindow]) -> Self {
        Self {
            buckets: closed.iter().map(|one| buckets_text(&one.cursor_group)).collect(),
            from: closed.iter().map(|one| PgSnapshot(one.window.since.clone())).collect(),
            upto: closed.iter().map(|one| PgSnapshot(one.upto.clone())).collect(),
            above: closed.iter().map(|one| one.window.bound).collect(),
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
