//! What passes from one session of this instance to the next: the session that has made a slot, or taken a snapshot, until
//! rows of adopted tables are copied by it; and the lock of the log's reader with it.
//!
//! Promises: it passes to the session that reads the log, or ends; whoever prepared a copy makes it. Must not: copy
//! anything.

use std::sync::{Arc, Mutex, PoisonError};

use crate::capture::adopted::copy::SlotSession;
use crate::postgres::Connection;

/// Where it waits for the reader. Its snapshot holds back the vacuum of the whole database: who does not copy
/// gives it up.
#[derive(Clone, Default)]
pub(super) struct HeldSession(Arc<Mutex<Option<SlotSession>>>);

/// Where the session waits that keeps the lock of the log's reader.
#[derive(Clone, Default)]
pub(super) struct HeldLock(Arc<Mutex<Option<Connection>>>);

impl HeldSession {
    /// Keeps one in place of another, or none.
    pub(super) fn put(&self, session: Option<SlotSession>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Takes it out.
    pub(super) fn take(&self) -> Option<SlotSession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends it.
    pub(super) fn give_up(&self) {
        if self.take().is_some() {
            tracing::info!("another instance goes on: the snapshot for a copy is given up");
        }
    }
}

impl HeldLock {
    /// Keeps it for the next session.
    pub(super) fn put(&self, lock: Connection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }

    /// Takes it out; none where it was not kept, or is lost.
    pub(super) fn take(&self) -> Option<Connection> {
        let lock = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        lock.filter(|lock| !lock.client().is_closed())
    }
}
