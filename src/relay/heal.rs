//! Closes the gap before a slot: the table is polled until what is published covers where it begins.
//!
//! Promises: the stream takes over only when every transaction that it does not bring is published.
//! Must not: stop polling before. Fails: with the connection's error, or when rights are missing.
//!
//! The slot comes first, then the cursors pass the snapshot of what had committed where it begins. A
//! comparison of log positions would not do: a transaction becomes visible after its commit is in the
//! log, and in another order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::session::Ended;
use crate::capture::adoption::SlotSession;
use crate::capture::mode::KnownSlot;
use crate::capture::slot::{Gap, SlotKeeper};
use crate::cursor::Cursor;
use crate::cursors::CursorStore;
use crate::error::Result;
use crate::snapshot::Snapshot;

/// How often the cursors are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A gap, and who can close it.
pub(super) struct Healing {
    pub(super) keeper: SlotKeeper,
    pub(super) gap: Gap,
    pub(super) known: Option<KnownSlot>,
    /// Where the session that makes the slot waits for the reader, who copies by it.
    pub(super) held: HeldSession,
}

/// The session that made the slot, from then on until rows of adopted tables are copied by it.
pub(super) type HeldSession = Arc<Mutex<Option<SlotSession>>>;

/// Makes a slot where the one that is there is of no use, waits until the cursors cover it, and ends the
/// session.
pub(super) async fn heal(
    healing: Healing,
    store: Arc<CursorStore>,
    nudge: Arc<Notify>,
    end: Arc<watch::Sender<bool>>,
) -> Result<Ended> {
    let Healing { keeper, gap, known, held } = healing;
    let known = match known.filter(|_| gap == Gap::Uncovered) {
        Some(known) => known,
        None => {
            tracing::info!(
                slot = keeper.name(),
                reason = gap.words(),
                "polling, while a slot is made"
            );
            keeper.free().await?;
            let (known, session) = keeper.make().await?;
            *held.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(session).filter(|_| !keeper.adopted().is_empty());
            known
        }
    };
    loop {
        store.save_all().await?;
        let cursors = store.all().await?;
        if cursors.iter().all(|cursor| covers(cursor, &known.snapshot)) {
            break;
        }
        // An outbox at rest does not tick by itself.
        nudge.notify_one();
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    tracing::info!(
        slot = keeper.name(),
        "what the slot does not bring is published: the log is read from here on"
    );
    keeper.cover().await?;
    end.send_replace(true);
    Ok(Ended::Aide)
}

fn covers(cursor: &Cursor, snapshot: &Snapshot) -> bool {
    cursor.from().covers(snapshot)
        || (cursor.is_finished() && cursor.upto().snapshot.covers(snapshot))
}
