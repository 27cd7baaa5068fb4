//! What the log is told of this instance's share.
//!
//! Promises: one line when the share changes. Must not: decide on it.

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet.
    Nothing,
    /// That others have all buckets.
    StandingBy,
    /// That so many buckets are ours.
    Relaying {
        /// How many.
        buckets: usize,
    },
}

impl Told {
    /// Tells how many buckets are ours, of so many instances, unless that is known.
    pub(super) fn tell(&mut self, buckets: usize, instances: usize, shards: usize) {
        let now = match buckets {
            0 => Self::StandingBy,
            buckets => Self::Relaying { buckets },
        };
        match (*self, now) {
            (before, now) if before == now => {}
            (_, Self::StandingBy | Self::Nothing) => {
                tracing::info!(instances, "other instances have all buckets; standing by");
            }
            (Self::Nothing | Self::StandingBy, Self::Relaying { .. }) => {
                tracing::info!(buckets, instances, shards, "relaying");
            }
            (Self::Relaying { .. }, Self::Relaying { .. }) => {
                tracing::info!(buckets, instances, "bucket assignment changed");
            }
        }
        *self = now;
    }
}
