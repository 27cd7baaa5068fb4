//! What a writer writes: composes transactions of load events and remembers what was committed.
//!
//! Promises: versions of an aggregate count its committed events without a gap; a transaction that
//! will be rolled back uses up none. Must not: touch the database.

use uuid::Uuid;

use crate::workload::event::{EventMark, Intent};
use crate::workload::key_distribution::{KeyDistribution, Rng};
use crate::workload::pg_array::PgArray;

/// The headers that every row carries, as one JSON object.
#[derive(Clone, Debug)]
pub(crate) struct RowHeaders(Option<String>);

impl RowHeaders {
    /// So many headers with short names and values; 0 leaves the column out.
    pub(crate) fn of_count(count: u32) -> Self {
        let pairs: Vec<String> =
            (1..=count).map(|at| format!(r#""header-{at}":"value-{at}""#)).collect();
        Self((count > 0).then(|| format!("{{{}}}", pairs.join(","))))
    }

    /// The object's text, unless there are no headers.
    pub(crate) fn json(&self) -> Option<&String> {
        self.0.as_ref()
    }
}

/// What the events of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct EventShape {
    /// Tells this run's events from others.
    pub(crate) run: u32,
    /// Number of aggregates over all writers.
    pub(crate) aggregates: u32,
    /// Number of writers.
    pub(crate) writers: u16,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// The rows' headers.
    pub(crate) headers: RowHeaders,
    /// Of 100 transactions, how many are rolled back.
    pub(crate) rollback_percent: u32,
}

impl EventShape {
    /// How many aggregates a writer owns: `writer`, `writer + writers`, ...
    pub(crate) fn slots(&self, writer: u16) -> u32 {
        let (aggregates, writers) = (self.aggregates, u32::from(self.writers));
        (aggregates + writers - 1 - u32::from(writer)) / writers
    }
}

/// The rows of one transaction.
#[derive(Debug)]
pub(crate) struct EventBatch {
    /// The aggregates' numbers.
    pub(crate) aggregates: Vec<i64>,
    /// The aggregates' ids.
    pub(crate) keys: PgArray,
    /// The payloads.
    pub(crate) payloads: PgArray,
    /// The events' ids.
    pub(crate) ids: PgArray,
}

impl EventBatch {
    fn new() -> Self {
        Self {
            aggregates: Vec::new(),
            keys: PgArray::of_texts(),
            payloads: PgArray::of_texts(),
            ids: PgArray::of_uuids(),
        }
    }

    fn clear(&mut self) {
        self.aggregates.clear();
        self.keys.clear();
        self.payloads.clear();
        self.ids.clear();
    }
}

/// One writer's events: composes them and remembers what was committed.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    shape: EventShape,
    writer: u16,
    versions: Vec<u32>,
    transaction: u32,
    rng: Rng,
    /// For ids: no other run and no other writer has the same.
    id_rng: Rng,
    keys: KeyDistribution,
    batch: EventBatch,
}

impl BatchBuilder {
    /// The builder of one writer; `seed` makes its choices repeatable.
    pub(crate) fn new(shape: &EventShape, writer: u16, keys: KeyDistribution, seed: u64) -> Self {
        Self {
            versions: vec![0; shape.slots(writer) as usize],
            shape: shape.clone(),
            writer,
            transaction: 0,
            rng: Rng::new(seed ^ (u64::from(writer) << 48)),
            id_rng: Rng::new(Rng::new((u64::from(shape.run) << 16) | u64::from(writer)).next_u64()),
            keys,
            batch: EventBatch::new(),
        }
    }

    /// Decides whether the next transaction commits.
    pub(crate) fn next_intent(&mut self) -> Intent {
        if self.rng.below(100) < self.shape.rollback_percent {
            Intent::RollBack
        } else {
            Intent::Commit
        }
    }

    /// The number of the transaction that was composed last.
    pub(crate) fn transaction(&self) -> u32 {
        self.transaction
    }

    /// Composes the next transaction: `rows` events that will end as `intent` says. Its versions are
    /// used up when it commits, so what follows must be written, or the run must end.
    pub(crate) fn compose(
        &mut self,
        rows: u32,
        intent: Intent,
        intended_unix_us: u64,
    ) -> &EventBatch {
        self.transaction += 1;
        self.batch.clear();
        for _ in 0..rows {
            let slot = self.keys.next(self.versions.len() as u32, &mut self.rng);
            let version = self.versions[slot as usize] + 1;
            if intent == Intent::Commit {
                self.versions[slot as usize] = version;
            }
            let aggregate = slot * u32::from(self.shape.writers) + u32::from(self.writer);
            self.batch.aggregates.push(i64::from(aggregate));
            let mark = EventMark {
                run: self.shape.run,
                aggregate,
                version,
                writer: self.writer,
                transaction: self.transaction,
                intended_unix_us,
                intent,
            };
            let payload_bytes = self.shape.payload_bytes;
            self.batch.keys.push(|key| mark.write_key(key));
            self.batch.payloads.push(|payload| mark.write_payload(payload_bytes, payload));
            let id = random_id(&mut self.id_rng);
            self.batch.ids.push(|out| out.extend_from_slice(id.as_bytes()));
        }
        &self.batch
    }
}

/// An id as applications make them: a UUID of version 4.
fn random_id(rng: &mut Rng) -> Uuid {
    let bits = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

/// The last committed version of every aggregate: what the topic must hold in the end.
pub(crate) fn committed_versions(shape: &EventShape, builders: &[BatchBuilder]) -> Vec<u32> {
    let mut versions = vec![0; shape.aggregates as usize];
    for builder in builders {
        for (slot, &version) in builder.versions.iter().enumerate() {
            versions[slot * usize::from(shape.writers) + usize::from(builder.writer)] = version;
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(aggregates: u32, writers: u16) -> EventShape {
        EventShape {
            run: 1,
            aggregates,
            writers,
            payload_bytes: 200,
            headers: RowHeaders::of_count(0),
            rollback_percent: 0,
        }
    }

    #[test]
    fn every_aggregate_has_one_writer() {
        for (aggregates, writers) in [(10, 4), (4, 4), (7, 3), (1, 1)] {
            let shape = shape(aggregates, writers);
            let total: u32 = (0..writers).map(|writer| shape.slots(writer)).sum();
            assert_eq!(total, aggregates, "{aggregates} over {writers}");
        }
    }

    #[test]
    fn versions_count_what_was_committed_only() {
        let shape = shape(10, 2);
        let builders: Vec<BatchBuilder> = (0..2)
            .map(|writer| {
                let mut builder =
                    BatchBuilder::new(&shape, writer, KeyDistribution::Walk { step: 0 }, 1);
                builder.compose(30, Intent::Commit, 1);
                builder.compose(30, Intent::RollBack, 1);
                builder
            })
            .collect();
        let versions = committed_versions(&shape, &builders);
        assert_eq!(versions.iter().sum::<u32>(), 60);
    }

    #[test]
    fn no_two_events_have_the_same_id() {
        let mut seen = std::collections::HashSet::new();
        for (run, writer) in [(1, 0), (1, 1), (2, 0)] {
            let shape = EventShape { run, ..shape(10, 2) };
            let mut builder =
                BatchBuilder::new(&shape, writer, KeyDistribution::Walk { step: 0 }, 1);
            for _ in 0..2 {
                let batch = builder.compose(100, Intent::RollBack, 1);
                for id in batch.ids.elements() {
                    let id = Uuid::from_slice(id).unwrap();
                    assert_eq!(id.get_version_num(), 4);
                    assert!(seen.insert(id));
                }
            }
        }
    }

    #[test]
    fn headers_are_one_json_object() {
        assert_eq!(RowHeaders::of_count(0).0, None);
        let text = RowHeaders::of_count(2).0.unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["header-2"], "value-2");
    }
}
