//! What was committed before a moment, and whether it is published.
//!
//! Promises: says yes only when every event that was committed before the barrier was taken is acknowledged or
//! parked, whichever way events are read. Must not: change anything, or hold a snapshot while it waits.
//! Fails: with the connection's error; [`ErrorKind::History`] where the cursors are of another cluster.

use tokio_postgres::Row;

use crate::capture::adopted::registry::adopted_tables;
use crate::capture::mode::{CaptureState, Mode};
use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Lsn, PgSnapshot, Sql, classify};

const BEGIN: &str = include_str!("../../sql/queries/wait_begin.sql");
static LOOK: Sql = Sql::of(include_str!("../../sql/queries/wait_look.sql"));

/// A moment, in the table's terms and in the log's.
#[derive(Clone, Debug)]
pub struct Barrier {
    snapshot: Snapshot,
    lsn: Lsn,
}

/// What is still before a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    Nothing,
    /// Events of so many buckets may be.
    Buckets(usize),
    /// So many rows that the cursors have passed and nobody has read; none where not all could be looked at.
    Unread(usize),
    /// So many bytes of the server's log.
    LogBytes(u64),
    /// The log is not read yet.
    Log,
    /// Rows of this adopted table may be: it is behind the others, or waits to be read.
    Adopted(OutboxName),
}

impl Barrier {
    /// Everything that was committed before now.
    ///
    /// # Errors
    /// When the connection fails, or the server is a standby.
    pub async fn take(connection: &Connection) -> Result<Self> {
        let row = connection.client().query_one(BEGIN, &[]).await;
        let row = row.map_err(|cause| classify("look what is committed", cause))?;
        Ok(Self { snapshot: row.get::<_, PgSnapshot>("snapshot").0, lsn: row.get("lsn") })
    }

    /// What is not published yet.
    ///
    /// # Errors
    /// As the module says.
    pub async fn behind(&self, connection: &Connection, state: &CaptureState) -> Result<Behind> {
        match state.mode {
            Mode::Poll => self.behind_in_table(connection).await,
            Mode::Message => Ok(self.behind_in_log(state.delivered)),
            Mode::Wal => match self.behind_in_log(state.delivered) {
                Behind::Nothing => self.behind_in_adopted(connection).await,
                // Until the log can be read the table is polled, but no table that is adopted.
                behind => {
                    let is_told_by_cursors = adopted_tables(connection).await?.is_empty()
                        && self.behind_in_table(connection).await? == Behind::Nothing;
                    Ok(if is_told_by_cursors { Behind::Nothing } else { behind })
                }
            },
        }
    }

    /// Rows that the stream does not bring are read from their tables, when it may have gone on.
    async fn behind_in_adopted(&self, connection: &Connection) -> Result<Behind> {
        let tables = adopted_tables(connection).await?;
        let behind = tables.into_iter().find(|table| !table.covers(&self.snapshot));
        Ok(behind.map_or(Behind::Nothing, |table| Behind::Adopted(table.name)))
    }

    async fn behind_in_table(&self, connection: &Connection) -> Result<Behind> {
        let rows = connection.client().query(LOOK.text(), &[]).await;
        let rows = rows.map_err(|cause| classify("look how far events are published", cause))?;
        if rows.iter().any(|row| !row.get::<_, bool>("is_of_this_history")) {
            let cause = "the cursors are of another cluster, or of a later state of this one";
            let remedy = "see `postrider check`";
            return Err(Error::new(ErrorKind::History, cause).with_remedy(remedy));
        }
        Ok(match rows.iter().filter(|row| !self.is_passed_by(row)).count() {
            0 => Behind::Nothing,
            buckets => Behind::Buckets(buckets),
        })
    }

    fn is_passed_by(&self, cursor: &Row) -> bool {
        let (from, upto): (PgSnapshot, PgSnapshot) =
            (cursor.get("from_snapshot"), cursor.get("upto_snapshot"));
        from.0.covers(&self.snapshot)
            || (cursor.get("is_finished") && upto.0.covers(&self.snapshot))
    }

    fn behind_in_log(&self, delivered: Option<Lsn>) -> Behind {
        match delivered {
            None => Behind::Log,
            Some(delivered) if delivered >= self.lsn => Behind::Nothing,
            Some(delivered) => Behind::LogBytes(self.lsn.0 - delivered.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_to_the_barrier_or_not() {
        let barrier = Barrier { snapshot: "9:9:".parse().expect("it is one"), lsn: Lsn(500) };
        for (delivered, behind) in [
            (None, Behind::Log),
            (Some(Lsn(499)), Behind::LogBytes(1)),
            (Some(Lsn(500)), Behind::Nothing),
        ] {
            assert_eq!(barrier.behind_in_log(delivered), behind);
        }
    }
}
