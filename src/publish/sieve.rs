//! The events of a batch that are sent apart together.
//!
//! Promises: one of an aggregate at most. Must not: send.

use hashbrown::HashSet;

use crate::event::LendEvent;
use crate::order::holds::{AggregateKey, SetAside};

/// An event with its place in its batch.
pub(super) type Placed<R> = (usize, R);
/// One that was set aside, with the same.
pub(super) type Aside<R> = (usize, SetAside<R>);

/// Events that were gathered: one of an aggregate at most.
#[derive(Debug)]
pub(super) struct Sieve<R> {
    rows: Vec<Placed<R>>,
    aggregates: HashSet<AggregateKey>,
}

impl<R> Default for Sieve<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), aggregates: HashSet::new() }
    }
}

impl<R: LendEvent> Sieve<R> {
    /// Whether the row waits for an earlier event of its aggregate, which is in it or barred.
    pub(super) fn meets(&self, row: &R) -> bool {
        !self.aggregates.is_empty() && self.aggregates.contains(&AggregateKey::of(&row.event()))
    }

    pub(super) fn push(&mut self, row: Placed<R>) {
        self.aggregates.insert(AggregateKey::of(&row.1.event()));
        self.rows.push(row);
    }

    /// What follows of the row's aggregate waits until the next [`Sieve::take`].
    pub(super) fn bar(&mut self, row: &R) {
        self.aggregates.insert(AggregateKey::of(&row.event()));
    }

    pub(super) fn take(&mut self) -> Vec<Placed<R>> {
        self.aggregates.clear();
        std::mem::take(&mut self.rows)
    }
}
