//! A bucket of the model: its cursor, and what was delivered by way of it.
//!
//! Promises: claims as the claim's statement does, and checks each row that it delivers. Must not: repair what
//! the code under test gets wrong. Fails: the first broken promise comes back as a [`Violation`].

use postrider::order::cursor::Cursor;

use crate::database::{Fate, Row};
use crate::relay::{ClaimRule, Policy, Violation};

/// How a window is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowRule {
    /// With a look for rows below its ranges.
    LookedBelow,
    /// Mutant: without.
    Unseen,
    /// Mutant: with a look at its last range alone.
    LastRangeOnly,
}

/// A bucket: its cursor, and what was delivered by way of it since it was first taken.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) cursor: Cursor,
    /// The cursor of `ClaimRule::AfterLastSeq`.
    pub(crate) last_seq: i64,
    pub(crate) delivered: Vec<i64>,
}

impl Bucket {
    /// The claim query, and what follows from its rows.
    pub(crate) fn claim(
        &mut self,
        policy: Policy,
        rows: &[&Row],
        page_rows: usize,
    ) -> Result<(), Violation> {
        let cursor = &self.cursor;
        let claimed = |row: &&&Row| {
            is_visible(row)
                && row.seq >= cursor.first()
                && row.seq <= cursor.through()
                && !cursor.from().sees(row.xid)
                && cursor.upto().snapshot.sees(row.xid)
        };
        let mut page: Vec<&Row> = rows.iter().filter(claimed).copied().collect();
        page.sort_by_key(|row| row.seq);
        match policy.claim {
            ClaimRule::BySeq | ClaimRule::AfterLastSeq => page.truncate(page_rows),
            ClaimRule::ByXid => page.sort_by_key(|row| (row.xid, row.seq)),
            ClaimRule::ByXidWindow => page.sort_by_key(|row| (row.xid / 4, row.seq)),
        }
        for row in &page {
            self.deliver(row, rows)?;
        }
        if let Some(last) = page.last() {
            self.cursor.advance(last.seq);
        }
        if page.len() < page_rows {
            self.cursor.finish();
        }
        Ok(())
    }

    /// As the shard does before a range is entered.
    pub(crate) fn close_window(&mut self, policy: Policy, rows: &[&Row]) {
        let Some(window) = self.cursor.open_window() else { return };
        let since = match policy.window {
            WindowRule::LookedBelow => &window.since,
            WindowRule::LastRangeOnly => self.cursor.range_from(),
            WindowRule::Unseen => return self.cursor.close_window(),
        };
        let upto = &self.cursor.upto().snapshot;
        let is_below = |row: &&&Row| {
            is_visible(row) && row.seq <= window.bound && !since.sees(row.xid) && upto.sees(row.xid)
        };
        // A look may miss some of them; one is enough.
        if rows.iter().any(|row| is_below(&row)) {
            self.cursor.go_back();
        } else {
            self.cursor.close_window();
        }
    }

    pub(crate) fn claim_after_last_seq(
        &mut self,
        rows: &[&Row],
        page_rows: usize,
    ) -> Result<(), Violation> {
        let last_seq = self.last_seq;
        let claimed = rows.iter().filter(|row| is_visible(row) && row.seq > last_seq);
        for row in claimed.take(page_rows) {
            self.deliver(row, rows)?;
            self.last_seq = row.seq;
        }
        Ok(())
    }

    fn deliver(&mut self, row: &Row, rows: &[&Row]) -> Result<(), Violation> {
        let seq = row.seq;
        let Fate::Committed(commit) = row.fate else {
            return Err(Violation::NotCommitted { seq });
        };
        if self.delivered.contains(&seq) {
            return Err(Violation::Repeated { seq });
        }
        let overtaken = |other: &&&Row| {
            let later = matches!(other.fate, Fate::Committed(theirs) if (theirs, other.seq) > (commit, seq));
            // Where the sequence was set back in between, `seq` tells nothing of the order.
            other.aggregate == row.aggregate
                && other.set_back == row.set_back
                && later
                && self.delivered.contains(&other.seq)
        };
        if rows.iter().any(|other| overtaken(&other)) {
            return Err(Violation::OutOfOrder { seq });
        }
        self.delivered.push(seq);
        Ok(())
    }

    /// What the cursor says of a row is what happened to it.
    pub(crate) fn check_passed(&self, rows: &[&Row]) -> Result<(), Violation> {
        for row in rows.iter().filter(|row| is_visible(row)) {
            let seq = row.seq;
            match (self.cursor.has_passed(row.xid, seq), self.delivered.contains(&seq)) {
                (true, false) => return Err(Violation::Lost { seq }),
                (false, true) => return Err(Violation::Repeated { seq }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the claim's own statement sees.
fn is_visible(row: &Row) -> bool {
    matches!(row.fate, Fate::Committed(_))
}
