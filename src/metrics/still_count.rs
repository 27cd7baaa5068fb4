//! For how long a count has stood still.
//!
//! Promises: time passes only as it is told, and each change of the count begins it anew. Must not: read a clock.

/// Since when a count stands still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StillCount {
    count: u64,
    pub(super) since_millis: u64,
}

impl StillCount {
    pub(super) fn begin(count: u64, now_millis: u64) -> Self {
        Self { count, since_millis: now_millis }
    }

    pub(super) fn look(&mut self, count: u64, now_millis: u64) {
        if count != self.count {
            *self = Self::begin(count, now_millis);
        }
    }

    pub(super) fn lasts_millis(&self, now_millis: u64) -> u64 {
        now_millis.saturating_sub(self.since_millis)
    }
}
