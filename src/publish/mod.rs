//! The crossing to Kafka: a bounded channel, one publishing thread, and the reports on the way back.
//!
//! Promises: records go to the producer in the order in which the batches were sent; a batch is
//! reported as delivered when each of its records was acknowledged or handed back; after the first
//! failure, and after the end of the lease, nothing more is sent. Must not: know PostgreSQL, cursors,
//! or which bucket an event came from.
//! Fails: once, by [`Report::Failed`]; the publisher is then no longer usable and must be replaced.
//!
//! ```text
//!  shard loop (tokio)              publishing thread              poll thread (librdkafka's queue)
//!  orders   ──► bounded channel ──► dispatcher: encode ──► produce
//!  set aside ◄─ bounded channel ◄─────┘ (held, or cannot be sent)
//!  reports  ◄── bounded channel ◄──────────────────────────────── delivery reports
//!     └─ woken by Notify
//! ```
//!
//! What a batch has set aside is there before the batch is reported as delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Bucket, LendEvent};
use crate::metrics::counters::{PublisherGauge, ShardGauge};
use crate::order::holds::{AggregateKey, Hold, Holds, SetAside};
use crate::order::ledger::BatchNumber;
pub use crate::publish::answer::{Answer, Company, Ground, Haste, Proof, Suspect, WAYS_MAX};
use crate::publish::dispatch::Dispatcher;
pub use crate::publish::dispatch::OnPoison;
pub use crate::publish::in_flight_batch::InFlightBatch;
pub use crate::publish::produce::{Offer, Produce};
pub use crate::publish::reports::{Report, Reports};
use crate::publish::send_deadline::SendDeadline;
use crate::publish::signals::{Latch, Letterbox};
use crate::publish::suspense::Suspense;
use crate::record::encode::Encoder;

mod answer;
mod atomics;
mod dispatch;
mod in_flight_batch;
pub mod kafka;
pub mod null;
mod produce;
mod reports;
pub mod send_deadline;
#[cfg(test)]
mod send_deadline_tests;
mod sieve;
mod sift;
mod signals;
mod suspense;
pub mod warnings;

/// Orders besides batches that may be on their way; the shard sends a few of them per second at most.
const ORDERS_MAX: usize = 64;
/// A publishing thread without orders gives a sign of life this often.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Rows that go to the producer in one piece.
#[derive(Debug)]
pub struct Batch<R> {
    /// The ledger's number for it.
    pub number: BatchNumber,
    /// Its events, in order.
    pub rows: Vec<R>,
}

/// What the publishing thread does, in the order in which it was told.
#[derive(Debug)]
enum Order<R> {
    /// Send these, but for those that are held.
    Send(Batch<R>),
    /// Hold exactly these aggregates, and see when these topics can be used.
    Renew { holds: Holds, topics: Vec<String> },
    /// Try these topics again, and hold these aggregates no more.
    Resume { topics: Vec<String>, aggregates: Vec<AggregateKey> },
    /// Hold these, too.
    Hold(Vec<Hold>),
    /// End the transaction, with these cursors as its last records.
    End(Vec<(Bucket, String)>),
}

/// One producer with its publishing thread, as the shard sees it.
#[derive(Debug)]
pub struct Publisher<R> {
    orders: Option<Sender<Order<R>>>,
    reports: Receiver<Report>,
    set_aside: Receiver<(BatchNumber, Vec<SetAside<R>>)>,
    wake: Arc<Notify>,
    failed: Arc<Latch>,
    topics_back: Arc<Letterbox<String>>,
    suspense: Arc<Suspense>,
    held: Arc<AtomicUsize>,
    gauge: Arc<ShardGauge>,
    thread: Option<JoinHandle<()>>,
}

impl<R: LendEvent> Publisher<R> {
    /// Starts the publishing thread; `make` builds the producer on the caller's thread. Whoever has
    /// several publishers gives them one `wake`, and waits for all of them at once.
    ///
    /// # Errors
    /// When the producer cannot be built, or the thread not be started.
    pub fn start<P: Produce>(
        gauge: PublisherGauge,
        batches_max: usize,
        encoder: Encoder,
        on_poison: OnPoison,
        send_deadline: Arc<SendDeadline>,
        wake: Arc<Notify>,
        make: impl FnOnce(Reports) -> Result<P>,
    ) -> Result<Self> {
        let (orders, inlet) = crossbeam_channel::bounded(batches_max + ORDERS_MAX);
        let (sender, reports) = crossbeam_channel::bounded(batches_max + 2);
        let (aside, set_aside) = crossbeam_channel::bounded(batches_max);
        let (name, shard) = (format!("publish-{}", gauge.name), Arc::clone(&gauge.shard));
        let back = Reports::new(sender, Arc::clone(&wake), gauge);
        let (failed, suspense) = (Arc::clone(&back.failed), Arc::clone(&back.suspense));
        let (topics_back, held) = (Arc::clone(&back.topics_back), Arc::new(AtomicUsize::new(0)));
        let producer = make(back.clone())?;
        let dispatcher = Dispatcher::new(
            encoder,
            on_poison,
            producer,
            Arc::clone(&held),
            Arc::clone(&send_deadline),
        );
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || publish(&inlet, dispatcher, &back, &aside))
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, format!("no thread to publish: {cause}"))
            })?;
        Ok(Self {
            orders: Some(orders),
            reports,
            set_aside,
            wake,
            failed,
            topics_back,
            suspense,
            held,
            gauge: shard,
            thread: Some(thread),
        })
    }

    /// Sends a batch. The ledger has made sure that there is room.
    ///
    /// # Panics
    /// When more batches are sent than the ledger's limit allows.
    pub fn send(&self, batch: Batch<R>) {
        self.gauge.note_sent();
        self.order(Order::Send(batch));
    }

    /// From here on exactly these aggregates are held, and these topics are looked at until they can
    /// be used.
    pub fn renew(&self, holds: Holds, topics: Vec<String>) {
        // Nothing is on its way to the thread that could change it meanwhile.
        self.held.store(holds.len(), Ordering::Relaxed);
        self.order(Order::Renew { holds, topics });
    }

    /// From here on these topics are tried again, and these aggregates are not held.
    pub fn resume(&self, topics: Vec<String>, aggregates: Vec<AggregateKey>) {
        self.order(Order::Resume { topics, aggregates });
    }

    /// From here on these are held, too.
    pub fn hold(&self, holds: Vec<Hold>) {
        self.order(Order::Hold(holds));
    }

    /// Ends the transaction, with these cursors as its last records; one at a time.
    pub fn end(&self, cursors: Vec<(Bucket, String)>) {
        self.order(Order::End(cursors));
    }

    fn order(&self, order: Order<R>) {
        let orders = self.orders.as_ref().expect("the publisher is running");
        match orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => unreachable!("the shard bounds what is on its way"),
            Err(TrySendError::Disconnected(_)) => self.failed.set(), // The thread has panicked.
        }
    }

    /// The next events that were not sent, with the number of their batch.
    pub fn next_set_aside(&self) -> Option<(BatchNumber, Vec<SetAside<R>>)> {
        self.set_aside.try_recv().ok()
    }

    /// Held topics that can be used again.
    pub fn topics_back(&self) -> Vec<String> {
        // To try one of them would take a moment at which nothing is in flight.
        if self.is_in_suspense() { Vec::new() } else { self.topics_back.take() }
    }

    /// Whether nobody knows if it is a topic's trouble or Kafka's for which events were set aside: they are not
    /// to be parked yet. It ends with a word that something was taken, or with a failure.
    pub fn is_in_suspense(&self) -> bool {
        self.suspense.since().is_some()
    }

    /// There is no room to go on as long as it is so.
    pub fn press(&self) {
        self.suspense.press();
    }

    /// How many aggregates are held, as far as they lie in memory.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
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
        self.failed.set();
        drop(self.orders.take());
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

/// The publishing thread: orders in, records out, until the shard closes the channel.
fn publish<R: LendEvent, P: Produce>(
    inlet: &Receiver<Order<R>>,
    mut dispatcher: Dispatcher<P>,
    reports: &Reports,
    aside: &Sender<(BatchNumber, Vec<SetAside<R>>)>,
) {
    let _wake = WakeAtEnd(&reports.wake);
    loop {
        reports.gauge().pulse.beat();
        let order = match inlet.recv_timeout(BEAT_INTERVAL) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if reports.has_failed() {
            continue;
        }
        let done = match order {
            Order::Send(batch) => dispatcher
                .check_send_deadline()
                .and_then(|()| publish_batch(batch, &mut dispatcher, reports, aside)),
            Order::Renew { holds, topics } => dispatcher.renew(holds, topics),
            Order::Resume { topics, aggregates } => {
                dispatcher.resume(&topics, &aggregates);
                Ok(())
            }
            Order::Hold(holds) => {
                dispatcher.hold(holds);
                Ok(())
            }
            Order::End(cursors) => dispatcher
                .check_send_deadline()
                .and_then(|()| dispatcher.producer.end(&cursors))
                .map(|()| reports.send(Report::Ended)),
        };
        if let Err(error) = done {
            reports.failed(error);
        }
    }
}

fn publish_batch<R: LendEvent, P: Produce>(
    batch: Batch<R>,
    dispatcher: &mut Dispatcher<P>,
    reports: &Reports,
    aside: &Sender<(BatchNumber, Vec<SetAside<R>>)>,
) -> Result<()> {
    let waiting = u32::try_from(batch.rows.len()).expect("a batch has a bounded number of rows");
    let number = batch.number;
    let in_flight = Arc::new(InFlightBatch::new(number, waiting, Instant::now()));
    let set_aside = dispatcher.publish(batch.rows, &in_flight)?;
    let count = set_aside.len();
    if count == 0 {
        return Ok(());
    }
    in_flight.note_set_aside(count);
    match aside.try_send((number, set_aside)) {
        // Not before the shard can find them: the batch may be complete with the last of these.
        Ok(()) => (0..count).for_each(|_| reports.acknowledged(&in_flight)),
        Err(TrySendError::Full(_)) => unreachable!("more set aside than batches in flight"),
        Err(TrySendError::Disconnected(_)) => reports.failed.set(),
    }
    Ok(())
}
