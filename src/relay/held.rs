//! The session that has made a slot, kept until rows of adopted tables are copied by it.
//!
//! Promises: it passes from the session that polls to the one that reads the log, or ends. Must not: copy anything.

use std::sync::{Arc, Mutex, PoisonError};

use crate::capture::adopted::copy::SlotSession;

/// Where it waits for the reader. Its snapshot holds back the vacuum of the whole database: who does not copy
/// gives it up.
#[derive(Clone, Default)]
pub(super) struct HeldSession(Arc<Mutex<Option<SlotSession>>>);

impl HeldSession {
    /// Keeps one in place of another, or none.
    pub(super) fn put(&self, session: Option<SlotSession>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Takes it out.
    pub(super) fn take(&self) -> Option<SlotSession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends it.
    pub(super) fn give_up(&self) {
        if self.take().is_some() {
            tracing::info!("another instance goes on: the snapshot for a copy is given up");
        }
    }
}
