//! The crossing to Kafka: a bounded channel, one publishing thread, and the reports on the way back.
//!
//! Promises: records go to the producer in the order in which the batches were sent; a batch is
//! reported as delivered when each of its records was acknowledged; after the first failure, and
//! after the end of the lease, nothing more is sent. Must not: know PostgreSQL, cursors, or which bucket an event came from.
//! Fails: once, by [`Report::Failed`]; the publisher is then of no more use and must be replaced.
//!
//! ```text
//!  shard loop (tokio)              publishing thread              poll thread (librdkafka's queue)
//!  try_send ──► bounded channel ──► encode ──► produce
//!  reports  ◄── bounded channel ◄──────────────────────────────── delivery reports
//!     └─ woken by Notify
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::Notify;

use crate::encode::{Encoder, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::event::LendEvent;
use crate::ledger::BatchNumber;
use permit::Permit;

pub mod existing;
pub mod kafka;
pub mod null;
pub mod permit;
pub mod settings;
mod topics;

/// Rows that go to the producer in one piece.
#[derive(Debug)]
pub struct Batch<R> {
    /// The ledger's number for it.
    pub number: BatchNumber,
    /// Its events, in order.
    pub rows: Vec<R>,
}

/// What comes back from the Kafka side.
#[derive(Debug)]
pub enum Report {
    /// Each record of the batch was acknowledged.
    Delivered(BatchNumber),
    /// A record was refused, or its fate is unknown. Nothing that follows it was sent.
    Failed(Error),
}

/// A batch on its way: how many of its records wait for an acknowledgement.
#[derive(Debug)]
pub struct InFlightBatch {
    number: BatchNumber,
    waiting: AtomicU32,
}

impl InFlightBatch {
    /// Takes note of one acknowledged record; true for the last one.
    fn acknowledge(&self) -> bool {
        let before = self.waiting.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a record is acknowledged once");
        before == 1
    }
}

/// The way back: reports for the shard, and its wake-up.
#[derive(Clone, Debug)]
pub struct Reports {
    sender: Sender<Report>,
    wake: Arc<Notify>,
    failed: Arc<AtomicBool>,
}

impl Reports {
    /// Reports that go to `sender`, which must have room for one per batch in flight and one more.
    fn new(sender: Sender<Report>) -> Self {
        Self { sender, wake: Arc::new(Notify::new()), failed: Arc::new(AtomicBool::new(false)) }
    }

    /// One more record of the batch was acknowledged.
    pub fn acknowledged(&self, batch: &InFlightBatch) {
        if batch.acknowledge() {
            self.send(Report::Delivered(batch.number));
        }
    }

    /// The producer is of no more use. Only the first failure is reported.
    pub fn failed(&self, error: Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            self.send(Report::Failed(error));
        }
    }

    /// Whether a failure was reported, or the shard has gone.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn send(&self, report: Report) {
        match self.sender.try_send(report) {
            Ok(()) => self.wake.notify_one(),
            // One report per batch in flight and one failure: the channel holds them all.
            Err(TrySendError::Full(_)) => unreachable!("more reports than batches in flight"),
            // The shard has gone back to its saved cursor; it will read these events again.
            Err(TrySendError::Disconnected(_)) => self.failed.store(true, Ordering::Release),
        }
    }
}

/// A producer of records: Kafka, or nothing at all for benchmarks.
pub trait Produce: Send + 'static {
    /// A batch begins: the moment to look at the clock.
    fn begin_batch(&mut self) {}

    /// Takes one record over. Every record of `batch` is later acknowledged, or a failure reported.
    ///
    /// # Errors
    /// When the record cannot be taken; nothing more may be sent then.
    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<()>;
}

/// One producer with its publishing thread, as the shard sees it.
#[derive(Debug)]
pub struct Publisher<R> {
    batches: Option<Sender<Batch<R>>>,
    reports: Receiver<Report>,
    wake: Arc<Notify>,
    failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<R: LendEvent> Publisher<R> {
    /// Starts the publishing thread; `make` builds the producer on the caller's thread.
    ///
    /// # Errors
    /// When the producer cannot be built, or the thread not be started.
    pub fn start<P: Produce>(
        name: &str,
        batches_max: usize,
        encoder: Encoder,
        permit: Arc<Permit>,
        make: impl FnOnce(Reports) -> Result<P>,
    ) -> Result<Self> {
        let (batches, inlet) = crossbeam_channel::bounded(batches_max);
        let (sender, reports) = crossbeam_channel::bounded(batches_max + 1);
        let back = Reports::new(sender);
        let (wake, failed) = (Arc::clone(&back.wake), Arc::clone(&back.failed));
        let producer = make(back.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("publish-{name}"))
            .spawn(move || publish(&inlet, encoder, producer, &permit, &back))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to publish: {cause}"))
            })?;
        Ok(Self { batches: Some(batches), reports, wake, failed, thread: Some(thread) })
    }

    /// Sends a batch. The ledger has made sure that there is room.
    ///
    /// # Panics
    /// When more batches are sent than the ledger's limit allows.
    pub fn send(&self, batch: Batch<R>) {
        let batches = self.batches.as_ref().expect("the publisher is running");
        match batches.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => unreachable!("the ledger bounds the batches in flight"),
            // The thread ends only by a panic, which is a failure like any other.
            Err(TrySendError::Disconnected(_)) => self.failed.store(true, Ordering::Release),
        }
    }

    /// The next report, if there is one.
    ///
    /// # Errors
    /// When the publishing thread has come to an unexpected end.
    pub fn next_report(&self) -> Result<Option<Report>> {
        match self.reports.try_recv() {
            Ok(report) => Ok(Some(report)),
            Err(_) if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => {
                Err(Error::new(ErrorKind::Internal, "the publishing thread has ended"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Waits until a report may be there.
    pub async fn reported(&self) {
        self.wake.notified().await;
    }
}

impl<R> Drop for Publisher<R> {
    /// Throws away what is not sent, and waits for the thread: call it where blocking is allowed.
    fn drop(&mut self) {
        self.failed.store(true, Ordering::Release);
        drop(self.batches.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the publishing thread panicked");
        }
    }
}

/// Wakes the shard when the thread ends, also by a panic.
struct WakeAtEnd<'a>(&'a Notify);

impl Drop for WakeAtEnd<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The publishing thread: batches in, records out, until the shard closes the channel.
fn publish<R: LendEvent, P: Produce>(
    inlet: &Receiver<Batch<R>>,
    mut encoder: Encoder,
    mut producer: P,
    permit: &Permit,
    reports: &Reports,
) {
    let _wake = WakeAtEnd(&reports.wake);
    while let Ok(batch) = inlet.recv() {
        if reports.has_failed() {
            continue;
        }
        let sent = if permit.covers(Instant::now()) {
            publish_batch(&batch, &mut encoder, &mut producer)
        } else {
            Err(Error::new(ErrorKind::Fenced, "the lease ran out; nothing more is sent"))
        };
        if let Err(error) = sent {
            reports.failed(error);
        }
    }
}

fn publish_batch<R: LendEvent, P: Produce>(
    batch: &Batch<R>,
    encoder: &mut Encoder,
    producer: &mut P,
) -> Result<()> {
    let waiting = u32::try_from(batch.rows.len()).expect("a batch has a bounded number of rows");
    let in_flight =
        Arc::new(InFlightBatch { number: batch.number, waiting: AtomicU32::new(waiting) });
    producer.begin_batch();
    for row in &batch.rows {
        let event = row.event();
        let record = encoder.encode(&event).map_err(|cause| {
            Error::new(
                ErrorKind::Unpublishable,
                format!("event {} (seq {}) cannot be published: {cause}", event.id, event.seq),
            )
        })?;
        producer.produce(&record, &in_flight)?;
    }
    Ok(())
}
