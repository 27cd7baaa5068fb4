//! Adopted tables in a session that reads the log.
//!
//! Promises: the stream begins only where all rows before it are published, or can be copied in the very
//! snapshot where the slot begins. Must not: read a row. Fails: with the connection's error, or with
//! [`ErrorKind::SlotUnusable`] where a new slot is needed.

use std::sync::Arc;

use crate::capture::adopted::copy::SlotSession;
use crate::capture::adopted::mapping::{Adopted, ValueForm};
use crate::capture::adopted::registry::{
    AdoptionStore, adopted_tables, forms, known_tables, value_form,
};
use crate::capture::log::decode::AdoptedTables;
use crate::capture::mode::CaptureState;
use crate::capture::slot::{AdoptedScope, Gap, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{DatabaseConfig, connect};
use crate::shard::log_loop::AdoptedWiring;

/// Whether the rows that lie before the slot are published.
fn is_copied(tables: &[Adopted], state: &CaptureState) -> bool {
    let slot = state.slot.as_ref();
    let is_covered = |table: &Adopted| slot.is_some_and(|slot| table.covers(&slot.snapshot));
    tables.iter().all(|table| table.is_streamed() && is_covered(table))
}

/// Whether they are, or can be now.
pub(super) fn can_copy(
    tables: &[Adopted],
    state: &CaptureState,
    held: &Option<SlotSession>,
) -> bool {
    held.is_some() || is_copied(tables, state)
}

/// What a reader needs for adopted tables.
pub(super) struct Adoption {
    pub(super) store: Arc<AdoptionStore>,
    held: Option<SlotSession>,
}

impl Adoption {
    /// None where there are no such tables.
    pub(super) async fn open(
        database: &DatabaseConfig,
        keeper: &SlotKeeper,
        held: Option<SlotSession>,
    ) -> Result<Option<Self>> {
        if keeper.adopted().is_empty() {
            return Ok(None);
        }
        let names = keeper.adopted().iter().map(|table| table.name.clone()).collect();
        let store = AdoptionStore::new(connect(database, "adopted").await?, names);
        Ok(Some(Self { store: Arc::new(store), held }))
    }

    /// Where the tables stand now that nobody else moves them. `values` is the form in which they come at least.
    pub(super) async fn wiring(
        self,
        keeper: &SlotKeeper,
        state: &CaptureState,
        event_bytes_max: usize,
        values: ValueForm,
    ) -> Result<(AdoptedWiring, AdoptedTables)> {
        let Self { store, held } = self;
        let mut tables = adopted_tables(store.connection()).await?;
        if keeper.scope() == AdoptedScope::Streamed {
            tables.retain(|table| store.tables().contains(&table.name));
        }
        let names: Vec<&OutboxName> = tables.iter().map(|table| &table.name).collect();
        let is_as_planned = names.iter().copied().eq(store.tables());
        let is_streamed = keeper.scope() == AdoptedScope::Streamed;
        if !is_as_planned || !(is_streamed || can_copy(&tables, state, &held)) {
            return Err(Error::new(ErrorKind::SlotUnusable, Gap::Uncopied.words()));
        }
        let known = known_tables(store.connection(), &tables).await?;
        let forms = forms(store.connection()).await?;
        let form = match values {
            ValueForm::Text => ValueForm::Text,
            ValueForm::Binary => value_form(store.connection(), &tables).await?,
        };
        let copy = match held.filter(|_| !is_copied(&tables, state)) {
            Some(held) => Some(held.copy(&tables, store, event_bytes_max).await?),
            None => None,
        };
        let passed =
            tables.iter().map(|table| table.passed.clone().unwrap_or_else(Snapshot::empty));
        let passed = passed.collect();
        let proven = tables.iter().flat_map(|table| table.streamed.clone().unwrap_or_default());
        let wiring = AdoptedWiring { passed, proven: proven.collect(), copy };
        Ok((wiring, AdoptedTables { tables, known, forms, form }))
    }
}
