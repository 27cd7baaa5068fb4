//! What is said on the way back from Kafka, and to whom.
//!
//! Promises: a batch is reported as delivered once, when each of its records was acknowledged or handed back;
//! only the first failure is reported. Must not: block.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::Notify;

use crate::error::Error;
use crate::metrics::counters::{Figures, PublisherGauge};
use crate::order::ledger::BatchNumber;
use crate::publish::in_flight_batch::InFlightBatch;
use crate::publish::signals::{Latch, Letterbox};
use crate::publish::suspense::Suspense;

/// What comes back from the Kafka side.
#[derive(Debug)]
pub enum Report {
    /// Each record of the batch was acknowledged, but for those that were set aside.
    Delivered(BatchNumber),
    /// The oldest transaction that was to end has ended, for sure.
    Ended,
    /// A record was refused, or its fate is unknown. Nothing that follows it was sent.
    Failed(Error),
}

/// The way back: reports for the shard, and its wake-up.
#[derive(Clone, Debug)]
pub struct Reports {
    sender: Sender<Report>,
    pub(super) wake: Arc<Notify>,
    pub(super) failed: Arc<Latch>,
    /// Held topics that can be used again, as far as metadata tells.
    pub(super) topics_back: Arc<Letterbox<String>>,
    pub(super) suspense: Arc<Suspense>,
    gauge: PublisherGauge,
}

impl Reports {
    /// Reports that go to `sender`, which must have room for one per batch in flight and two more.
    pub(super) fn new(sender: Sender<Report>, wake: Arc<Notify>, gauge: PublisherGauge) -> Self {
        Self {
            sender,
            wake,
            gauge,
            failed: Arc::new(Latch::new()),
            topics_back: Arc::new(Letterbox::new()),
            suspense: Arc::default(),
        }
    }

    /// A held topic can be used again.
    pub fn topic_is_back(&self, topic: String) {
        self.topics_back.put(topic);
        self.wake.notify_one();
    }

    /// One more record of the batch was acknowledged.
    pub fn acknowledged(&self, batch: &InFlightBatch) {
        if batch.acknowledge() {
            batch.measure(&self.gauge.shard, Instant::now());
            self.gauge.shard.note_answered();
            self.send(Report::Delivered(batch.number()));
        }
    }

    /// What all publishers count together.
    pub(super) fn figures(&self) -> &Figures {
        &self.gauge.shard.instance
    }

    /// What is counted of the publisher.
    pub(super) fn gauge(&self) -> &PublisherGauge {
        &self.gauge
    }

    /// The producer is no longer usable. Only the first failure is reported.
    pub fn failed(&self, error: Error) {
        if self.begin_failure() {
            self.send(Report::Failed(error));
        }
    }

    /// From here on nothing more is sent; whether it is the caller who reports why, with
    /// [`Reports::end_failure`]. Nobody replaces the producer before.
    pub(super) fn begin_failure(&self) -> bool {
        self.failed.take()
    }

    pub(super) fn end_failure(&self, error: Error) {
        self.send(Report::Failed(error));
    }

    /// What was set aside is the trouble of its topics. Whoever waits for that may go on.
    pub(super) fn end_suspense(&self) {
        self.wake.notify_one();
    }

    /// Whether a failure was reported, or the shard has gone.
    pub fn has_failed(&self) -> bool {
        self.failed.is_taken()
    }

    pub(super) fn send(&self, report: Report) {
        match self.sender.try_send(report) {
            Ok(()) => self.wake.notify_one(),
            // One report per batch in flight, one end and one failure: the channel holds them all.
            Err(TrySendError::Full(_)) => unreachable!("more reports than batches in flight"),
            // The shard has gone back to its saved cursor; it will read these events again.
            Err(TrySendError::Disconnected(_)) => self.failed.set(),
        }
    }
}
