//! The partitions of the outbox as the log has them: which there are, and whether it brings their rows.
//!
//! Promises: a partition is known by its object identifier and its bound, whatever it is called and wherever it lies;
//! one whose rows are in no log is found, with what helps. Must not: change anything. Fails: with the connection's
//! error; with [`ErrorKind::PostgresRefused`] for a partition whose rows the log does not bring.

use hashbrown::HashMap;

use tokio_postgres::Row;

use crate::capture::mode::Mode;
use crate::capture::slot::SlotKeeper;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::outbox::OutboxName;
use crate::postgres::{Sql, classify};

const PARTS: &str = include_str!("../../../sql/queries/outbox_parts.sql");
const PRESENT: &str = include_str!("../../../sql/queries/present_id.sql");
static COURSE: Sql = Sql::of(include_str!("../../../sql/queries/capture_course.sql"));

/// Why a partition's rows are in no log of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unlogged {
    Unlogged,
    Foreign,
}

/// A partition whose rows the log does not bring.
#[derive(Debug)]
pub struct UnloggedPart {
    name: OutboxName,
    why: Unlogged,
}

impl UnloggedPart {
    fn read(row: &Row) -> Option<Self> {
        let why = match (row.get("is_foreign"), row.get("is_unlogged")) {
            (true, _) => Unlogged::Foreign,
            (false, true) => Unlogged::Unlogged,
            (false, false) => return None,
        };
        let name = OutboxName { schema: row.get("schema_name"), table: row.get("table_name") };
        Some(Self { name, why })
    }

    /// What is wrong, and what helps.
    pub fn words(&self) -> (String, String) {
        let (name, quoted) = (&self.name, self.name.quoted());
        match self.why {
            Unlogged::Unlogged => (
                format!(
                    "the rows of {name}, a partition of the outbox, are not in the log: it is unlogged"
                ),
                format!("run: alter table {quoted} set logged; `poll` reads them until then"),
            ),
            Unlogged::Foreign => (
                format!(
                    "the rows of {name}, a partition of the outbox, are not in the log: it is a foreign table"
                ),
                "put a table of this database in its place; `poll` reads its rows until then"
                    .to_owned(),
            ),
        }
    }
}

impl SlotKeeper {
    /// The partitions that hold rows, each with its bucket.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn buckets_of_parts(&self) -> Result<HashMap<u32, Bucket>> {
        let bucket = |row: &Row| {
            let number = row.get::<_, Option<i32>>("bucket")?;
            Some((row.get("relid"), Bucket(number.try_into().ok()?)))
        };
        Ok(self.parts().await?.iter().filter_map(bucket).collect())
    }

    /// The first partition whose rows the log does not bring; none when it brings them all.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn unlogged_part(&self) -> Result<Option<UnloggedPart>> {
        Ok(self.parts().await?.iter().find_map(UnloggedPart::read))
    }

    /// Refuses to read the log while it does not bring the rows of a partition.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] with the partition and what helps; the connection's error.
    pub async fn check_logged(&self) -> Result<()> {
        if self.mode() != Mode::Wal {
            return Ok(());
        }
        let Some(part) = self.unlogged_part().await? else { return Ok(()) };
        let (cause, remedy) = part.words();
        Err(Error::new(ErrorKind::PostgresRefused, cause).with_remedy(remedy))
    }

    async fn parts(&self) -> Result<Vec<Row>> {
        let parts = self.connection().client().query(PARTS, &[&self.outbox().quoted()]).await;
        parts.map_err(|cause| classify("look at the partitions of the outbox", cause))
    }

    /// What every transaction sees that begins once all have ended that have written until now.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn written_so_far(&self) -> Result<Snapshot> {
        let row = self.connection().client().query_one(PRESENT, &[]).await;
        let row = row.map_err(|cause| classify("look where transaction ids are", cause))?;
        let present: TransactionId = row.get::<_, i64>(0).cast_unsigned();
        Ok(Snapshot::new(present, present, Vec::new()).expect("its ends are the same"))
    }

    /// Notes that all is published which the log did not bring before the tables became what they are `now`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn note_course(&self, now: &str, before: &str) -> Result<()> {
        let noted =
            self.connection().client().execute(COURSE.text(), &[&self.name(), &now, &before]).await;
        noted.map(drop).map_err(|cause| classify("note the course of the outbox", cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_helps() {
        let name = OutboxName { schema: "Shop".to_owned(), table: "o".to_owned() };
        let (cause, remedy) = UnloggedPart { name, why: Unlogged::Unlogged }.words();
        assert!(cause.contains("\"Shop\".o") && cause.contains("unlogged"), "{cause}");
        assert!(remedy.contains("alter table \"Shop\".\"o\" set logged"), "{remedy}");
    }
}
