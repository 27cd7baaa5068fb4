//! What is needed of the slot where rows of adopted tables are to be copied while its stream goes on.
//!
//! Promises: a table is streamed only where the stream brings it as it did since its rows were copied; the slot that is
//! read stays as it is. Must not: copy a row, or decide when to. Fails: with the connection's error; when rights or room
//! for a slot are missing.

use tokio_postgres::types::ToSql;

use crate::capture::adopted::copy::SlotSession;
use crate::capture::adopted::mapping::Adopted;
use crate::capture::mode::KnownSlot;
use crate::capture::slot::{Gap, SlotKeeper, SlotTerm};
use crate::error::Result;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{PgSnapshot, Sql, classify};

static LEAVE_OUT: Sql = Sql::of(include_str!("../../../sql/queries/adopted_leave_out.sql"));
static SNAPSHOT: Sql = Sql::of(include_str!("../../../sql/queries/capture_snapshot.sql"));
const ROOM: &str = include_str!("../../../sql/queries/slot_room.sql");

/// Which of the adopted tables a session reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptedScope {
    /// All of them: what the stream does not bring of one is copied where the slot begins.
    All,
    /// Those alone whose rows the stream brings already.
    Streamed,
}

impl SlotKeeper {
    /// Leaves out the adopted tables of which rows are to be copied before the stream can bring the rest, and notes those
    /// that their publication does not bring as it did. Nothing is noted where somebody has changed what is `known`
    /// meanwhile.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn leave_out_uncopied(&mut self, known: &KnownSlot) -> Result<()> {
        self.scope = AdoptedScope::Streamed;
        let (mut streamed, mut changed) = (Vec::new(), Vec::new());
        for table in std::mem::take(&mut self.adopted) {
            self.adopted = vec![table.clone()];
            if self.gap_since(known).await? == Some(Gap::Publication) {
                changed.push(table);
            } else if table.is_streamed() && !self.has_unread_part(&table).await? {
                streamed.push(table);
            }
        }
        self.adopted = streamed;
        let noted = self.state().await?.slot;
        if noted.is_some_and(|noted| noted.publication == known.publication) {
            for table in changed {
                self.note_left_out(&table).await?;
            }
        }
        Ok(())
    }

    async fn note_left_out(&self, table: &Adopted) -> Result<()> {
        let OutboxName { schema, table } = &table.name;
        let noted = self.connection().client().execute(LEAVE_OUT.text(), &[schema, table]).await;
        noted.map(drop).map_err(|cause| classify("note which tables are copied", cause))
    }

    /// Takes a snapshot in which rows of adopted tables are copied, and notes it and its place in the log, behind which the
    /// stream brings the rest. The slot stays as it is: another one, which lasts as long as the session, waits for all
    /// older transactions.
    ///
    /// # Errors
    /// When rights or room for a slot are missing, or the connection fails.
    pub async fn take_snapshot(&self) -> Result<(Snapshot, SlotSession)> {
        let (session, lsn, snapshot) = self.create(SlotTerm::Session).await?;
        let session = SlotSession::new(session, lsn, snapshot.clone());
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&self.name(), &PgSnapshot(snapshot.clone()), &lsn];
        let noted = self.connection().client().execute(SNAPSHOT.text(), &parameters).await;
        noted.map_err(|cause| classify("note the snapshot", cause))?;
        Ok((snapshot, session))
    }

    /// Whether the server has room for one more slot.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn has_room(&self) -> Result<bool> {
        let row = self.connection().client().query_one(ROOM, &[]).await;
        let row = row.map_err(|cause| classify("look for room for a slot", cause))?;
        Ok(row.get("has_room"))
    }
}
