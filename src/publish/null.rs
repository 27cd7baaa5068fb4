//! A producer that acknowledges at once: what the relay costs without a broker.
//!
//! Promises: every record is acknowledged. Must not: be used outside benchmarks and tests.

use std::sync::Arc;

use crate::error::Result;
use crate::publish::{InFlightBatch, Offer, Produce, Reports};
use crate::record::encode::Record;

/// Takes records and keeps nothing.
#[derive(Debug)]
pub struct NullProducer {
    reports: Reports,
    bytes: u64,
}

impl NullProducer {
    /// A producer that reports to `reports`.
    pub fn new(reports: Reports) -> Self {
        Self { reports, bytes: 0 }
    }
}

impl Produce for NullProducer {
    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<Offer> {
        self.bytes += record.value.map_or(0, <[u8]>::len) as u64;
        self.reports.acknowledged(batch);
        Ok(Offer::Taken)
    }
}
