//! Parts of adopted tables that were filled before they became parts: the stream does not bring these rows.
//!
//! Promises: such a part is found before anything is noted as published that its becoming a part belongs to; one that
//! was made empty is none. Must not: read a value. Fails: with the connection's error; when rights are missing.

use crate::capture::adopted::mapping::Adopted;
use crate::capture::adopted::registry::{adopted_tables, attached};
use crate::capture::slot::{AdoptedScope, SlotKeeper};
use crate::error::Result;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{classify, fill, without_head};

const NEAR: &str = include_str!("../../../sql/queries/adopted_near.sql");
const ROWS: &str = include_str!("../../../sql/queries/adopted_attached_rows.sql");

impl SlotKeeper {
    /// Whether rows of an adopted table neither came in the stream nor were copied where the slot begins, as they
    /// lay in another table until then.
    ///
    /// # Errors
    /// When the connection fails, or the table may not be read.
    pub async fn has_unread_parts(&self, slot_begins: &Snapshot) -> Result<bool> {
        if self.adopted().is_empty() {
            return Ok(false);
        }
        let is_read = |table: &Adopted| self.adopted().iter().any(|one| one.name == table.name);
        let tables = adopted_tables(self.connection()).await?;
        for table in tables.into_iter().filter(is_read) {
            let is_streamed = self.scope() == AdoptedScope::Streamed || table.covers(slot_begins);
            let read = match table.passed.clone().filter(|_| is_streamed) {
                Some(_) => table,
                // They are copied now, in the slot's snapshot.
                None => Adopted { passed: Some(slot_begins.clone()), streamed: None, ..table },
            };
            if self.has_unread_part(&read).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same of one table, by what is published of it.
    pub(in crate::capture) async fn has_unread_part(&self, table: &Adopted) -> Result<bool> {
        let Some(passed) = &table.passed else { return Ok(false) };
        // Asked in the same statement: to an answer of before, what came since would seem to be old.
        let near = format!("({})", without_head(NEAR).trim_end());
        let parts = self.connection().client();
        let parts = parts.query(&attached(table, passed, &near), &[]).await;
        let parts = parts.map_err(|cause| classify("look at the parts of a table", cause))?;
        for part in parts {
            let part = AttachedPart {
                relid: part.get("relid"),
                name: OutboxName { schema: part.get("schema_name"), table: part.get("part_name") },
                attached_by: part.get("attached_by"),
                attached_at: part.get("attached_at"),
                was_there: part.get("was_there"),
                made_at: part.get("made_at"),
                has_rows: part.get("has_rows"),
                may_read: part.get("may_read"),
            };
            if part.has_rows && self.had_rows(table, &part).await? {
                tracing::info!(table = %table.name, part = %part.name, "a table with rows has become a part of it");
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn had_rows(&self, table: &Adopted, part: &AttachedPart) -> Result<bool> {
        let source = if part.may_read { &part.name } else { &table.name };
        let (relid, was_there) = (part.relid.to_string(), part.was_there.to_string());
        let (source, attached_at) = (source.quoted(), part.attached_at.as_str());
        let places = [
            ("{table}", source.as_str()),
            ("{attached_by}", part.attached_by.as_str()),
            ("{part}", relid.as_str()),
            ("{was_there}", was_there.as_str()),
            ("{made_at}", part.made_at.as_str()),
            ("{attached_at}", attached_at),
            ("{attached_at}", attached_at),
        ];
        let query = fill(without_head(ROWS), &places);
        let row = self.connection().client().query_one(&query, &[]).await;
        let row = row.map_err(|cause| classify("look into a part of a table", cause))?;
        Ok(row.get(0))
    }
}

/// A table that became a part of another one lately.
struct AttachedPart {
    relid: u32,
    name: OutboxName,
    /// The lower half of the transaction's id.
    attached_by: String,
    /// The number of the command in it.
    attached_at: String,
    /// Whether it was made by another transaction, or a savepoint of it.
    was_there: bool,
    /// The number of the command that made it, where others may lie between.
    made_at: String,
    has_rows: bool,
    may_read: bool,
}
