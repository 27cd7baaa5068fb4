//! The consumer of an open-loop run: audits every record as it comes and takes its latencies.
//!
//! Promises: sees every record once, in partition order, in bounded memory. Must not: fall behind in
//! silence; the backlog counts what it has not seen. Fails: when the topic cannot be read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rdkafka::message::{BorrowedMessage, Message};

use crate::audit::auditor::{RunAuditor, Sighting};
use crate::audit::topic::{PartitionReader, ReadStep, Topic};
use crate::measure::clock::{RecordClock, Stamp};
use crate::measure::latency::{Latencies, PathStage};
use crate::workload::commit_log::Commit;
use crate::workload::event::EventMark;
use crate::workload::writer::{Epoch, LatencyBook, WriterTotals};

/// How long one wait for a record lasts.
const STEP_LIMIT: Duration = Duration::from_millis(50);

/// The broker's stamp is cut to whole milliseconds; half of one is the fair guess.
const STAMP_MIDDLE_US: u64 = 500;

/// So many records are taken under one lock at most.
const READY_LIMIT: u32 = 1_024;

/// The clock is read once for so many records that lie ready: some twenty microseconds.
const CLOCK_PERIOD: u32 = 32;

/// What the consumer knows.
#[derive(Debug)]
pub(crate) struct Consumed {
    /// The audit so far.
    pub(crate) auditor: RunAuditor,
    /// Latencies of delivered events.
    pub(crate) book: LatencyBook,
    /// Whose clock stamped the records.
    pub(crate) record_clock: Option<RecordClock>,
    /// Records that came before the answer to their commit.
    pub(crate) before_commit_answer: u64,
    /// Records whose commit lay too far back.
    pub(crate) commit_forgotten: u64,
}

impl Consumed {
    /// Nothing was seen yet.
    pub(crate) fn new(auditor: RunAuditor, measured_from_us: u64) -> Self {
        Self {
            auditor,
            book: LatencyBook::new(measured_from_us),
            record_clock: None,
            before_commit_answer: 0,
            commit_forgotten: 0,
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, now_us: u64) -> Option<ArrivedEvent> {
        let sighting = self.auditor.observe(message.partition(), message.key(), message.payload());
        match sighting {
            Sighting::First(mark) => Some(ArrivedEvent { mark, stamp: Stamp::of(message), now_us }),
            Sighting::Repeat | Sighting::Foreign | Sighting::Fault => None,
        }
    }

    /// Adds the latencies of the current second to `sum` and begins the next second.
    pub(crate) fn take_second(&mut self, sum: &mut Latencies) {
        self.book.take_second(sum);
    }

    /// Takes the latencies of `count` events that came alike.
    fn time(&mut self, alike: &ArrivedEvent, count: u64, epoch: Epoch, written: &WriterTotals) {
        let ArrivedEvent { mark, stamp, now_us } = *alike;
        let intended_us = epoch.elapsed_at(mark.intended_unix_us);
        let mut record = |stage, from: u64, to: u64| {
            self.book.record(stage, intended_us, to.saturating_sub(from), count);
        };
        record(PathStage::Total, intended_us, now_us);
        let stamp_us = stamp.map(|stamp| {
            let unix_us = stamp.unix_ms.unsigned_abs() * 1_000 + STAMP_MIDDLE_US;
            epoch.elapsed_at(unix_us)
        });
        if let Some(stamp_us) = stamp_us {
            record(PathStage::StampToConsume, stamp_us, now_us);
        }
        let committed_us = match written.commits.find(mark.writer, mark.transaction) {
            Commit::At(at_us) => at_us,
            Commit::NotYet => now_us,
            Commit::Forgotten => {
                self.commit_forgotten += count;
                return;
            }
        };
        record(PathStage::CommitToConsume, committed_us, now_us);
        if let Some(stamp_us) = stamp_us {
            record(PathStage::CommitToStamp, committed_us, stamp_us);
        }
        if committed_us == now_us {
            self.before_commit_answer += count;
        }
        self.record_clock = self.record_clock.or(stamp.map(|stamp| stamp.clock));
    }
}

/// The first appearance of an event.
#[derive(Clone, Copy, Debug)]
struct ArrivedEvent {
    mark: EventMark,
    stamp: Option<Stamp>,
    now_us: u64,
}

impl ArrivedEvent {
    /// Whether all latencies of the two are the same: one transaction, one stamp, one moment.
    fn is_like(&self, other: &Self) -> bool {
        self.mark.transaction == other.mark.transaction
            && self.mark.writer == other.mark.writer
            && self.stamp == other.stamp
            && self.now_us == other.now_us
    }
}

/// Events that came alike, one after the other: the events of a transaction lie together in a
/// partition, so most of them are timed in one go.
#[derive(Debug, Default)]
struct Alike {
    first: Option<ArrivedEvent>,
    count: u64,
}

impl Alike {
    fn add(
        &mut self,
        arrival: ArrivedEvent,
        seen: &mut Consumed,
        epoch: Epoch,
        written: &WriterTotals,
    ) {
        if !self.first.is_some_and(|first| first.is_like(&arrival)) {
            self.flush(seen, epoch, written);
            self.first = Some(arrival);
        }
        self.count += 1;
    }

    fn flush(&mut self, seen: &mut Consumed, epoch: Epoch, written: &WriterTotals) {
        if let Some(first) = self.first.take() {
            seen.time(&first, self.count, epoch, written);
        }
        self.count = 0;
    }
}

/// Follows the topic until `stop`, then reads to the end that it has then.
///
/// # Errors
/// When the topic cannot be read.
pub(crate) fn follow(
    topic: &Topic,
    mut reader: PartitionReader,
    seen: &Mutex<Consumed>,
    epoch: Epoch,
    written: &WriterTotals,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        // Waits outside of the lock; what is there then is taken under one lock.
        let mut first = None;
        reader.step(STEP_LIMIT, |message| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            first = seen.take(message, epoch.elapsed_us());
        })?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alike = Alike::default();
        if let Some(arrival) = first {
            alike.add(arrival, &mut seen, epoch, written);
        }
        take_ready(&mut reader, &mut seen, &mut alike, epoch, written)?;
        alike.flush(&mut seen, epoch, written);
    }
    // Only a new reader is certain to reach the end: this one may hold old signs of it.
    let mut last = topic.reader(reader.positions())?;
    last.read_to(&topic.ends()?, |message| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arrival) = seen.take(message, epoch.elapsed_us()) {
            seen.time(&arrival, 1, epoch, written);
        }
    })
}

/// Takes records as long as there are some, but not for so long that the sampler waits.
fn take_ready(
    reader: &mut PartitionReader,
    seen: &mut Consumed,
    alike: &mut Alike,
    epoch: Epoch,
    written: &WriterTotals,
) -> Result<()> {
    let mut now_us = epoch.elapsed_us();
    for at in 1..READY_LIMIT {
        if at % CLOCK_PERIOD == 0 {
            now_us = epoch.elapsed_us();
        }
        let mut arrival = None;
        let step = reader.step(Duration::ZERO, |message| arrival = seen.take(message, now_us))?;
        if let Some(arrival) = arrival {
            alike.add(arrival, seen, epoch, written);
        }
        if step != ReadStep::Record {
            return Ok(());
        }
    }
    Ok(())
}
