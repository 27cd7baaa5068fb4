//! Saves how far the stream has led.
//!
//! Promises: the slot learns of a place only when everything up to it is on disk: cursors, and what is remembered of
//! adopted tables. Must not: read the stream. Fails: with the connection's error; with that of the proof.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::capture::adopted::registry::AdoptionStore;
use crate::capture::slot::SlotKeeper;
use crate::control::cursors::{CursorStore, pause_after_save};
use crate::error::Result;
use crate::order::cursor::{CursorGroup, GroupCursor};
use crate::order::ledger::Finished;
use crate::postgres::Lsn;
use crate::relay::stream_proof::StreamProof;
use crate::relay::tasks::Ended;
use crate::shard::log_loop::Landing;

/// Saves how far the stream has led.
pub(super) struct LogSaver {
    pub(super) keeper: Arc<SlotKeeper>,
    pub(super) store: Arc<CursorStore>,
    pub(super) proof: Arc<StreamProof>,
    /// Where there are adopted tables.
    pub(super) adoption: Option<Arc<AdoptionStore>>,
    pub(super) cursor_group: CursorGroup,
    pub(super) interval: Duration,
}

impl LogSaver {
    pub(super) async fn run(
        self,
        mut landed: watch::Receiver<Option<Landing>>,
        saved: watch::Sender<Lsn>,
    ) -> Result<Ended> {
        while landed.changed().await.is_ok() {
            let landing = landed.borrow_and_update().clone();
            let began = Instant::now();
            if let Some(landing) = landing {
                let place = landing.place;
                self.save(landing).await?;
                saved.send_replace(place);
            }
            tokio::time::sleep(pause_after_save(self.interval, began.elapsed())).await;
        }
        Ok(Ended::Helper)
    }

    /// In this order: a publication that lacked the outbox for a while has let rows pass unseen, the
    /// cursors must not. What is saved is on disk before the slot learns of it.
    async fn save(&self, landing: Landing) -> Result<()> {
        let Landing { place: landed, cursor, proven } = landing;
        self.proof.prove(cursor.as_ref()).await?;
        let epoch = self.store.epoch_of_all()?;
        let brings_cursor = cursor.is_some();
        if let Some(cursor) = cursor {
            let passed = cursor.from().clone();
            let place = GroupCursor { cursor_group: Arc::clone(&self.cursor_group), cursor };
            self.store.note(&Finished { place, events: 1, parked: 0 });
            self.store.save_all().await?;
            if let Some(adoption) = &self.adoption {
                adoption.save(adoption.tables(), &passed, &proven, epoch).await?;
            }
        }
        self.keeper.deliver(landed, epoch).await?;
        if brings_cursor {
            self.proof.forget(landed);
        }
        Ok(())
    }
}
