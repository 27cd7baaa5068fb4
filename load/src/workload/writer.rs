//! The writers of an open-loop run: one thread and one connection each.
//!
//! Promises: a transaction is begun at its intended time or, when the writer is behind, at once; none
//! is skipped and none is sent early; nothing is begun after the schedule's end. Must not: slow down
//! because the database does (that would hide its delay). Fails: with the first error of the database,
//! which ends the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::measure::clock;
use crate::measure::latency::{Latencies, PathStage};
use crate::workload::batch::BatchBuilder;
use crate::workload::commit_log::CommitLog;
use crate::workload::event::Intent;
use crate::workload::schedule::Schedule;
use crate::workload::session::WriterSession;

/// The start of a run, on the steady clock and on the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    start: Instant,
    start_unix_us: u64,
}

impl Epoch {
    /// Starts now.
    ///
    /// # Errors
    /// When the system's clock stands before 1970.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self { start: Instant::now(), start_unix_us: clock::unix_us(SystemTime::now())? })
    }

    /// Microseconds since the start.
    pub(crate) fn elapsed_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// The wall clock's time of a moment of the run.
    pub(crate) fn unix_us(&self, elapsed_us: u64) -> u64 {
        self.start_unix_us + elapsed_us
    }

    /// The moment of the run at a time of the wall clock; 0 for times before the start.
    pub(crate) fn elapsed_at(&self, unix_us: u64) -> u64 {
        unix_us.saturating_sub(self.start_unix_us)
    }
}

/// Latencies of the current second and of the measured time. Each is counted once; the second's
/// become part of the measured time's when the second is taken.
#[derive(Debug)]
pub(crate) struct LatencyBook {
    /// Of events that were intended before the measured time, since the last time that it was taken.
    early: Latencies,
    /// Of the others, since then.
    second: Latencies,
    /// Of events that were intended in the measured time, without those of the current second.
    measured: Latencies,
    measured_from_us: u64,
}

impl LatencyBook {
    /// An empty book; events intended before `measured_from_us` count for the second only.
    pub(crate) fn new(measured_from_us: u64) -> Self {
        Self {
            early: Latencies::new(),
            second: Latencies::new(),
            measured: Latencies::new(),
            measured_from_us,
        }
    }

    /// Counts events of one intended time.
    pub(crate) fn record(&mut self, stage: PathStage, intended_us: u64, took_us: u64, count: u64) {
        let early = intended_us < self.measured_from_us;
        let book = if early { &mut self.early } else { &mut self.second };
        book.record(stage, took_us, count);
    }

    /// Adds the current second's to `sum` and begins the next second.
    pub(crate) fn take_second(&mut self, sum: &mut Latencies) {
        sum.add(&self.early);
        sum.add(&self.second);
        self.measured.add(&self.second);
        self.early.clear();
        self.second.clear();
    }

    /// Of all events that were intended in the measured time.
    pub(crate) fn measured(&self) -> Latencies {
        let mut all = self.measured.clone();
        all.add(&self.second);
        all
    }
}

/// What the writers tell the others.
#[derive(Debug)]
pub(crate) struct WriterTotals {
    /// Events whose commit was answered.
    pub(crate) committed: AtomicU64,
    /// Events that were rolled back.
    pub(crate) rolled_back: AtomicU64,
    /// When each transaction was committed.
    pub(crate) commits: CommitLog,
    /// Schedule and insert latencies.
    pub(crate) book: Mutex<LatencyBook>,
    /// Ends the writers before the end of the schedule.
    pub(crate) stop: AtomicBool,
}

impl WriterTotals {
    /// Nothing was written yet.
    pub(crate) fn new(writers: u16, measured_from_us: u64) -> Self {
        Self {
            committed: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            commits: CommitLog::new(writers),
            book: Mutex::new(LatencyBook::new(measured_from_us)),
            stop: AtomicBool::new(false),
        }
    }
}

/// One writer's part of a run.
pub(crate) struct Writer {
    /// Its number.
    pub(crate) number: u16,
    /// The schedule of all writers.
    pub(crate) schedule: Schedule,
    /// Its events.
    pub(crate) builder: BatchBuilder,
    /// Its connection, which belongs to `runtime`.
    pub(crate) session: WriterSession,
    /// A runtime for this thread alone: its connection is driven only while it waits for it.
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Writer {
    /// Writes the schedule to its end; gives back the builder, which knows what was committed.
    ///
    /// # Errors
    /// With the first error of the database.
    pub(crate) fn write(mut self, epoch: Epoch, written: &WriterTotals) -> Result<BatchBuilder> {
        let mut iteration = 0;
        while let Some(intended_us) = self.schedule.intended_us(self.number, iteration) {
            wait_until(epoch, intended_us);
            let begun_us = epoch.elapsed_us();
            if begun_us >= self.schedule.length_us || written.stop.load(Ordering::Relaxed) {
                break;
            }
            self.write_one(epoch, intended_us, begun_us, written)?;
            iteration += 1;
        }
        Ok(self.builder)
    }

    fn write_one(
        &mut self,
        epoch: Epoch,
        intended_us: u64,
        begun_us: u64,
        written: &WriterTotals,
    ) -> Result<()> {
        let intent = self.builder.next_intent();
        let rows = self.schedule.tx_size;
        let batch = self.builder.compose(rows, intent, epoch.unix_us(intended_us));
        self.runtime
            .block_on(self.session.write(batch, intent))
            .with_context(|| format!("writer {} stopped", self.number))?;
        let done_us = epoch.elapsed_us();
        let events = u64::from(rows);
        if intent == Intent::RollBack {
            written.rolled_back.fetch_add(events, Ordering::Relaxed);
            return Ok(());
        }
        written.commits.note(self.number, self.builder.transaction(), done_us);
        written.committed.fetch_add(events, Ordering::Relaxed);
        let mut book = written.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.record(PathStage::Schedule, intended_us, begun_us - intended_us, events);
        book.record(PathStage::Insert, intended_us, done_us - begun_us, events);
        Ok(())
    }
}

fn wait_until(epoch: Epoch, at_us: u64) {
    // The loop guards against a sleep that ends early.
    loop {
        let now_us = epoch.elapsed_us();
        if now_us >= at_us {
            return;
        }
        std::thread::sleep(Duration::from_micros(at_us - now_us));
    }
}
