//! What the events of a command look like.
//!
//! Promises: one place that makes a run's [`EventShape`] of what was asked. Must not: know of flags.

use crate::workload::batch::{EventShape, RowHeaders};
use crate::workload::outbox::Ids;

/// What was asked of the events.
#[derive(Clone, Debug)]
pub(crate) struct EventPlan {
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// Headers in each row.
    pub(crate) headers: u32,
    /// Who makes the events' ids.
    pub(crate) ids: Ids,
    /// Number of aggregates.
    pub(crate) aggregates: u32,
    /// Connections that write.
    pub(crate) writers: u16,
    /// Of 100 transactions, how many are rolled back.
    pub(crate) rollback_percent: u32,
    /// Seed of the choices of aggregates.
    pub(crate) seed: u64,
}

impl EventPlan {
    /// What the published experiments write, but for what they vary.
    pub(crate) fn published(tx_size: u32, payload_bytes: u32) -> Self {
        Self {
            tx_size,
            payload_bytes,
            headers: 0,
            ids: Ids::Given,
            aggregates: 100_000,
            writers: 4,
            rollback_percent: 0,
            seed: 1,
        }
    }

    /// The shape of the run of this number; each writer has an aggregate at least.
    pub(crate) fn shape(&self, run: u32) -> EventShape {
        EventShape {
            run,
            aggregates: self.aggregates.max(u32::from(self.writers)),
            writers: self.writers,
            payload_bytes: self.payload_bytes,
            headers: RowHeaders::of_count(self.headers),
            rollback_percent: self.rollback_percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_writer_is_without_an_aggregate() {
        let plan = EventPlan { aggregates: 1, writers: 3, ..EventPlan::published(1, 100) };
        let shape = plan.shape(7);
        assert_eq!((shape.run, shape.aggregates), (7, 3));
        assert!((0..3).all(|writer| shape.slots(writer) == 1));
    }
}
