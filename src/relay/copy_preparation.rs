//! Prepares the copy of adopted tables, while the stream of all else goes on.
//!
//! Promises: the snapshot is handed on only when what is published covers it, so that the next session can begin where
//! the snapshot was taken; a right that is missing is waited for. Must not: copy a row, or stop the stream before.
//! Fails: with the connection's error.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::backoff::Backoff;
use crate::capture::adopted::copy::SlotSession;
use crate::capture::adopted::mapping::Adopted;
use crate::capture::adopted::registry::adopted_tables;
use crate::capture::slot::SlotKeeper;
use crate::control::cursors::CursorStore;
use crate::error::Result;
use crate::metrics::counters::Monitor;
use crate::metrics::health::LogRefusal;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::relay::held::HeldSession;
use crate::relay::slot_recovery::{covers, may_pass};
use crate::relay::tasks::Ended;

/// How often it is looked how far all else is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The pauses after a refusal.
const REFUSAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// What is to be copied beside the stream.
pub(super) struct Preparation {
    /// Looks after the slot, and knows all adopted tables.
    pub(super) keeper: SlotKeeper,
    /// The tables that are streamed already.
    pub(super) streamed: Vec<OutboxName>,
    /// Who tells what is waited for.
    pub(super) monitor: Arc<Monitor>,
}

/// Takes the snapshot, waits until all that is streamed covers it, and ends the session.
pub(super) async fn prepare(
    mut preparation: Preparation,
    store: Arc<CursorStore>,
    nudge: Arc<Notify>,
    end: Arc<watch::Sender<bool>>,
    prepared: HeldSession,
) -> Result<Ended> {
    let keeper = &preparation.keeper;
    tracing::info!(
        slot = keeper.name(),
        "preparing the copy of adopted rows that the stream does not bring; it goes on meanwhile"
    );
    let waits = "they are copied once the transactions that were open before have ended".to_owned();
    preparation.monitor.set_log_refusal(Some(LogRefusal::Copy(waits)));
    let (snapshot, session) = take_until_answered(&mut preparation).await?;
    let Preparation { keeper, streamed, .. } = &preparation;
    loop {
        let cursors = store.all().await?;
        if cursors.iter().all(|cursor| covers(cursor, &snapshot))
            && are_covered(keeper, streamed, &snapshot).await?
        {
            break;
        }
        // An outbox at rest does not tick by itself.
        nudge.notify_one();
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    prepared.put(Some(session));
    end.send_replace(true);
    Ok(Ended::Helper)
}

async fn are_covered(
    keeper: &SlotKeeper,
    streamed: &[OutboxName],
    snapshot: &Snapshot,
) -> Result<bool> {
    let tables = adopted_tables(keeper.connection()).await?;
    let is_streamed = |table: &&Adopted| streamed.contains(&table.name);
    Ok(tables.iter().filter(is_streamed).all(|table| table.covers(snapshot)))
}

/// What the server refuses, it may allow later.
async fn take_until_answered(preparation: &mut Preparation) -> Result<(Snapshot, SlotSession)> {
    let (mut refusals, mut backoff) = (0_u64, REFUSAL);
    loop {
        let refusal = match take(&mut preparation.keeper).await {
            Ok(taken) => {
                preparation.monitor.set_log_refusal(None);
                return Ok(taken);
            }
            Err(error) if may_pass(&error) && preparation.keeper.is_connected() => error,
            Err(error) => return Err(error),
        };
        refusals += 1;
        preparation.monitor.set_log_refusal(Some(LogRefusal::Copy(refusal.message().to_owned())));
        if refusals.is_power_of_two() {
            tracing::warn!(
                cause = refusal.message(),
                remedy = refusal.remedy(),
                refusals,
                "rows of adopted tables cannot be copied; all else is published meanwhile"
            );
        }
        tokio::time::sleep(backoff.take()).await;
    }
}

async fn take(keeper: &mut SlotKeeper) -> Result<(Snapshot, SlotSession)> {
    keeper.check_adopted(None).await?;
    keeper.check_adopted_logged().await?;
    keeper.mend_adopted_publication().await?;
    keeper.take_snapshot().await
}
