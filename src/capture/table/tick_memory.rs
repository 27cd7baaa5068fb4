//! What the ticker remembers of its ticks: rows are judged by it before their partition is emptied.
//!
//! Promises: each tick is remembered as durably as it is made, unless hardly anything was drawn since the last one that is.
//! Must not: be kept where the log brings each row, whatever its number. Fails: with the connection's error.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use crate::capture::table::sequence::of_sequence;
use crate::error::Result;
use crate::order::snapshot::TransactionId;
use crate::order::tick::Tick;
use crate::postgres::{Connection, Sql, Xid8, classify};

static TICK: Sql = Sql::of(include_str!("../../../sql/queries/tick_remembered.sql"));
static RELABEL: Sql = Sql::of(include_str!("../../../sql/queries/past_tick_relabel.sql"));
static UNDRAWN: Sql = Sql::of(include_str!("../../../sql/queries/past_tick_undrawn.sql"));
/// Where a tick says which floor was remembered.
const REMEMBERED: usize = 3;

/// The statements, and the floor of the latest tick that is remembered.
#[derive(Debug)]
pub(super) struct TickMemory {
    pub(super) tick: Statement,
    relabel: Statement,
    pub(super) floor: Option<i64>,
}

impl TickMemory {
    /// Takes note of what a tick has remembered.
    pub(super) fn note(&mut self, tick: &Row) {
        self.floor = tick.get::<_, Option<i64>>(REMEMBERED).or(self.floor);
    }

    pub(super) async fn prepare(client: &Client, sequence: u32) -> Result<Self> {
        let tick = of_sequence(TICK.text(), sequence);
        let prepared = tokio::try_join!(client.prepare(&tick), client.prepare(RELABEL.text()));
        let (tick, relabel) = prepared.map_err(|cause| classify("prepare the ticks", cause))?;
        Ok(Self { tick, relabel, floor: None })
    }

    /// What is remembered of a tick is said again of the lineage that it began, or forgotten without one.
    pub(super) async fn relabel(
        &self,
        connection: &Connection,
        next: TransactionId,
        began: Option<TransactionId>,
    ) -> Result<()> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&Xid8(next), &began.map(Xid8)];
        let relabelled = connection.client().execute(&self.relabel, &parameters).await;
        relabelled.map(drop).map_err(|cause| classify("remember a tick", cause))
    }

    /// Remembers who had drawn nothing at a tick, before it is handed on.
    pub(super) async fn note_undrawn(
        &self,
        connection: &Connection,
        tick: &Tick,
        undrawn: &[TransactionId],
    ) -> Result<()> {
        if undrawn.is_empty() {
            return Ok(());
        }
        let undrawn: Vec<Xid8> = undrawn.iter().copied().map(Xid8).collect();
        let (next, oldest) = (Xid8(tick.next), Xid8(tick.snapshot.xmin()));
        let (storage, began) = (tick.lineage.storage, Xid8(tick.lineage.began));
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&next, &oldest, &tick.floor, &storage, &began, &undrawn];
        let noted = connection.client().execute(UNDRAWN.text(), &parameters).await;
        noted.map(drop).map_err(|cause| classify("remember who has drawn nothing", cause))
    }
}
