//! Rows below the ranges of a cursor: their numbers were not drawn when they were written.
//!
//! Promises: finds each that was appended to its partition; costs about what its blocks take to be read. Must not: read
//! what was written before the range, but for a bounded part. Fails: with the connection's error.
//!
//! Whoever owns the table can write any `seq`, with `overriding system value` or by `copy`. No claim meets a row
//! below its range, and by the index all retained rows would have to be read to find it. But a new row lies where new rows
//! lie: in the blocks behind those of the last rows that were drawn before the range began. So these are looked
//! at, and some before them, as a small row may have been put into a gap: the longer ago the last look is, the
//! more of them, so that the looks take a small share of the time. Leaves of 256 blocks or less are looked at
//! from end to end.

use std::time::{Duration, Instant};

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::claim::Poller;
use crate::error::Result;
use crate::event::Bucket;
use crate::order::cursor::{CursorGroup, Window};
use crate::order::snapshot::Snapshot;
use crate::outbox::Outbox;
use crate::postgres::{PgSnapshot, Sql, classify, is_about_a_value, without_head};

static LOOK: Sql = Sql::of(include_str!("../../../sql/queries/below.sql"));
const ARM: &str = include_str!("../../../sql/queries/below_arm.sql");

/// Windows are closed that often at least, while ticks come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Blocks of 8 KiB with some 35 rows each, at 3 us a block: less than 1 % of a core.
const GAP_BLOCKS_PER_SECOND: f64 = 2_000.0;
/// For how long a cursor group's looks may save up.
const GAP_TIME_MAX: Duration = Duration::from_secs(6);

/// How a cursor group was looked at last.
#[derive(Debug)]
pub(super) struct GroupLook {
    statement: Statement,
    at: Instant,
}

impl Poller {
    /// Whether the last look at the cursor group is some time ago.
    pub fn is_look_due(&self, cursor_group: &CursorGroup) -> bool {
        self.looks.get(cursor_group).is_none_or(|look| look.at.elapsed() >= LOOK_INTERVAL)
    }

    /// The lowest `seq` among the rows of a window that lie below its ranges, if there are any. The last range ends
    /// at `upto`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn lowest_below(
        &mut self,
        cursor_group: &CursorGroup,
        window: &Window,
        upto: &Snapshot,
    ) -> Result<Option<i64>> {
        let client = self.connection.client();
        let (statement, rested) = match self.looks.get(cursor_group) {
            Some(look) => (look.statement.clone(), look.at.elapsed()),
            None => {
                let statement = client.prepare(&look_sql(&self.outbox, cursor_group)).await;
                let failed = |cause| classify("prepare to look below the ranges", cause);
                (statement.map_err(failed)?, GAP_TIME_MAX)
            }
        };
        let (since, upto) = (PgSnapshot(window.since.clone()), PgSnapshot(upto.clone()));
        let blocks = gap_blocks(rested, cursor_group);
        let parameters: [&(dyn ToSql + Sync); 4] = [&window.bound, &since, &upto, &blocks];
        let row = client.query_one(&statement, &parameters).await;
        self.looks
            .insert(CursorGroup::clone(cursor_group), GroupLook { statement, at: Instant::now() });
        match row {
            Ok(row) => Ok(row.get("lowest")),
            // A block of long ago that cannot be read any more; claims do not come by it.
            Err(cause) if is_about_a_value(&cause) => {
                tracing::warn!(
                    cause = classify("look below the ranges", cause).message(),
                    "rows with numbers that were not drawn may be missed; see `postrider check`"
                );
                Ok(None)
            }
            Err(cause) => Err(classify("look below the ranges", cause)),
        }
    }
}

/// How many blocks before its end are looked at again in each partition.
fn gap_blocks(since_the_last: Duration, cursor_group: &CursorGroup) -> i64 {
    let leaves = (cursor_group.len() * usize::from(Outbox::GENERATIONS)).max(1);
    let blocks = since_the_last.min(GAP_TIME_MAX).as_secs_f64() * GAP_BLOCKS_PER_SECOND;
    (blocks / leaves as f64) as i64
}

fn look_sql(outbox: &Outbox, cursor_group: &CursorGroup) -> String {
    let arm = |bucket: &Bucket, generation: u16| {
        without_head(ARM)
            .replace("{bucket_table}", &outbox.bucket_table(*bucket))
            .replace("{generation}", &generation.to_string())
    };
    let arms: Vec<String> = cursor_group
        .iter()
        .flat_map(|bucket| (0..Outbox::GENERATIONS).map(|generation| arm(bucket, generation)))
        .collect();
    LOOK.text()
        .replace("{leaf_arms}", &arms.join("union all\n"))
        .replace("{bucket_tables}", &outbox.bucket_tables(cursor_group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seldom_looks_go_further_back() {
        let cursor_group = CursorGroup::from((0..4).map(Bucket).collect::<Vec<_>>());
        assert_eq!(gap_blocks(Duration::from_millis(1), &cursor_group), 0);
        assert_eq!(gap_blocks(Duration::from_secs(3), &cursor_group), 500);
        assert_eq!(gap_blocks(Duration::from_secs(600), &cursor_group), 1_000);
    }
}
