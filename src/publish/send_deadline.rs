//! Until when records may be sent: the end of the lease, as the publishing threads see it.
//!
//! Promises: nothing is handed to the producer after the send deadline's end, also in a process that was
//! stopped for a while and goes on. Must not: know leases or a database.

use std::time::{Duration, Instant};

use crate::publish::atomics::{AtomicU64, Ordering};

/// A moment that moves on as long as somebody extends it.
#[derive(Debug)]
pub struct SendDeadline {
    began: Instant,
    /// From `began` on.
    lasts_nanos: AtomicU64,
}

impl SendDeadline {
    /// A send deadline that has ended.
    pub fn ended() -> Self {
        Self { began: Instant::now(), lasts_nanos: AtomicU64::new(0) }
    }

    /// A send deadline that does not end.
    pub fn endless() -> Self {
        Self { began: Instant::now(), lasts_nanos: AtomicU64::new(u64::MAX) }
    }

    /// Moves the end.
    pub fn extend(&self, until: Instant) {
        let lasts = until.saturating_duration_since(self.began).as_nanos();
        self.lasts_nanos.store(u64::try_from(lasts).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether records may be sent at this moment.
    pub fn covers(&self, now: Instant) -> bool {
        let lasts = Duration::from_nanos(self.lasts_nanos.load(Ordering::Acquire));
        now.saturating_duration_since(self.began) < lasts
    }
}
