//! Starts a shard, and starts it again after trouble with Kafka.
//!
//! Promises: what one shard meets with Kafka ends its producer alone; it begins again at its saved
//! cursors, after a pause that grows. Must not: touch other shards.
//! Fails: with errors that concern the session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::capture::table::claim::Poller;
use crate::config::Config;
use crate::control::cursors::CursorStore;
use crate::control::parked::Parked;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::ShardGauge;
use crate::order::tick::Tick;
use crate::outbox::Outbox;
use crate::publish::Publisher;
use crate::relay::assigner::shard_lines::Assignment;
use crate::relay::concerns_producer;
use crate::relay::exactly::ExactlyOnce;
use crate::relay::publishers::Publishers;
use crate::relay::tasks::{Ended, TROUBLE};
use crate::shard::{OutgoingRow, Shard, ShardLimits, Wiring};

/// Everything that a shard needs to be started again.
pub(super) struct ShardContext {
    pub(super) config: Config,
    pub(super) publishers: Publishers,
    pub(super) outbox: Outbox,
    pub(super) shards: usize,
    pub(super) store: Arc<CursorStore>,
    pub(super) parked: Arc<Parked>,
    pub(super) ticks: watch::Receiver<Arc<Tick>>,
    /// Asks for a tick at once.
    pub(super) nudge: Arc<Notify>,
    pub(super) stop: watch::Receiver<bool>,
    /// Where events are delivered exactly once.
    pub(super) exactly: Option<ExactlyOnce>,
    /// Since which switch events are delivered as they are.
    pub(super) delivery_term: i64,
}

/// Runs one shard; after trouble with Kafka starts it again from its saved cursors.
pub(super) async fn supervise(
    context: Arc<ShardContext>,
    index: usize,
    assignment: Assignment,
    gauge: Arc<ShardGauge>,
) -> Result<Ended> {
    let mut backoff = TROUBLE;
    loop {
        let before = gauge.published.load(Ordering::Relaxed);
        let (ended, past) = match context.make_shard(index, &assignment, Arc::clone(&gauge)).await {
            Ok(shard) => (shard.run().await, ProducerPast::Sent),
            Err(error) => (Err(error), ProducerPast::Unborn),
        };
        let error = match ended {
            Ok(()) => return Ok(Ended::Shard),
            Err(error) if concerns_producer(&error) => error,
            Err(error) => return Err(error),
        };
        note_replaced(&gauge, &error, past);
        if *context.stop.borrow() {
            return Err(error);
        }
        if gauge.published.load(Ordering::Relaxed) > before {
            backoff.reset();
        }
        let pause = backoff.take();
        context.tell(index, &error, pause);
        let mut stop = context.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return Ok(Ended::Shard),
        }
    }
}

/// What a producer did before it gave way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProducerPast {
    /// Nothing: it could not be made yet, as where the topic of cursors has no leader.
    Unborn,
    /// It was there, and may have sent.
    Sent,
}

/// It has work from here on: what was in flight.
fn note_replaced(gauge: &ShardGauge, error: &Error, past: ProducerPast) {
    let why = error.kind().name();
    gauge.instance.note_trouble(error.message());
    if past == ProducerPast::Sent {
        gauge.instance.producers_replaced.add(why, 1);
    }
    gauge.begun_anew.fetch_add(1, Ordering::Relaxed);
    gauge.has_work.store(true, Ordering::Relaxed);
    gauge.begin_anew(why);
}

impl ShardContext {
    /// All shards share what was said: what one met is the others' trouble, too.
    fn tell(&self, index: usize, error: &Error, pause: Duration) {
        if let Some(unsaid) = self.publishers.warnings.note(error.message(), Instant::now()) {
            tracing::warn!(
                shard = index,
                cause = error.message(),
                remedy = error.remedy(),
                pause_ms = pause.as_millis() as u64,
                unsaid,
                "the producer is replaced; the shard goes back to its saved cursors"
            );
        }
    }

    async fn make_shard(
        &self,
        index: usize,
        assignment: &Assignment,
        gauge: Arc<ShardGauge>,
    ) -> Result<Shard> {
        let name = index.to_string();
        let event_bytes_max = self.config.max_event_bytes;
        let poller =
            Poller::connect(&self.config.database, &self.outbox, &name, event_bytes_max).await?;
        if self.exactly.is_some() {
            // Kafka may give no answer while it is asked for the id, and then this does not get on.
            gauge.has_work.store(true, Ordering::Relaxed);
        }
        let publisher = self.start_publisher(index).await?;
        let in_flight_bytes = (self.config.max_in_flight_bytes / self.shards).max(1);
        let limits =
            ShardLimits { page_rows: self.config.page_rows, in_flight_bytes, event_bytes_max };
        let wiring = Wiring {
            poller,
            publisher,
            store: Arc::clone(&self.store),
            parked: Arc::clone(&self.parked),
            warnings: Arc::clone(&self.publishers.warnings),
            ticks: self.ticks.clone(),
            nudge: Arc::clone(&self.nudge),
            stop: self.stop.clone(),
            holdings: assignment.holdings(),
            delivery_term: self.delivery_term,
            gauge,
            exactly: self.exactly.as_ref().map(|exactly| exactly.shard(&name, in_flight_bytes)),
        };
        Ok(Shard::new(wiring, limits))
    }

    /// Where it takes part in transactions it waits for the end of what was open before.
    async fn start_publisher(&self, index: usize) -> Result<Publisher<OutgoingRow>> {
        let Some(exactly) = &self.exactly else {
            return self.publishers.start(index, &Arc::default(), None);
        };
        let (publishers, terms) = (self.publishers.clone(), exactly.terms(&index.to_string()));
        let started = tokio::task::spawn_blocking(move || {
            publishers.start(index, &Arc::default(), Some(&terms))
        });
        started.await.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?
    }
}
