//! Once a second: counters, latencies, CPU and memory, as one row of the run's series.
//!
//! Promises: rates are per real second, whatever the sampler's own delay. Must not: keep more than
//! the rows. Fails: when a watched process ends, or `/proc` cannot be read.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::audit::consumer::Consumed;
use crate::measure::latency::{Latencies, PathStage};
use crate::measure::process::{ProcessTable, Usage};
use crate::report::summary::{ProcessCost, RunPhase, Sample, Second};
use crate::workload::writer::{Epoch, WriterTotals};

/// The processes that share the work, in the order of the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Processes<T> {
    /// The relay.
    pub(crate) relay: T,
    /// The PostgreSQL server.
    pub(crate) postgres: T,
    /// The broker.
    pub(crate) kafka: T,
    /// This process.
    pub(crate) generator: T,
}

impl<T: Copy> Processes<T> {
    /// Both answers side by side.
    pub(crate) fn zip<U: Copy>(&self, other: &Processes<U>) -> Processes<(T, U)> {
        Processes {
            relay: (self.relay, other.relay),
            postgres: (self.postgres, other.postgres),
            kafka: (self.kafka, other.kafka),
            generator: (self.generator, other.generator),
        }
    }

    /// One answer from each.
    pub(crate) fn map<U>(&self, change: impl Fn(T) -> U) -> Processes<U> {
        Processes {
            relay: change(self.relay),
            postgres: change(self.postgres),
            kafka: change(self.kafka),
            generator: change(self.generator),
        }
    }
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Since the start.
    pub(crate) at_us: u64,
    /// Committed events.
    pub(crate) committed: u64,
    /// Delivered events.
    pub(crate) delivered: u64,
    /// Events that were rolled back.
    pub(crate) rolled_back: u64,
    /// CPU and memory.
    pub(crate) usage: Processes<Option<Usage>>,
}

impl Moment {
    /// Seconds from an earlier moment to this one.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at_us.saturating_sub(earlier.at_us).max(1) as f64 / 1e6
    }

    /// What each process has cost since an earlier moment.
    pub(crate) fn cost_since(&self, earlier: &Self) -> Processes<Option<ProcessCost>> {
        let seconds = self.seconds_since(earlier);
        let events = (self.delivered - earlier.delivered).max(1) as f64;
        self.usage.zip(&earlier.usage).map(|(now, then)| {
            let (now, then) = now.zip(then)?;
            let cpu = now.cpu.saturating_sub(then.cpu).as_secs_f64();
            Some(ProcessCost {
                cpu_us_per_event: cpu * 1e6 / events,
                cores: cpu / seconds,
                megabytes_at_start: then.resident_bytes as f64 / 1e6,
                megabytes_at_end: now.resident_bytes as f64 / 1e6,
                peak_megabytes: now.peak_resident_bytes as f64 / 1e6,
            })
        })
    }
}

/// Takes the histogram of a second, its begin and its length.
pub(crate) type HistogramSink<'a> =
    &'a mut dyn FnMut(&Histogram<u64>, Duration, Duration) -> Result<()>;

/// Takes a row each second.
pub(crate) struct Sampler<'a> {
    epoch: Epoch,
    pids: Processes<Option<u32>>,
    written: &'a WriterTotals,
    seen: &'a Mutex<Consumed>,
    sink: HistogramSink<'a>,
    last: Moment,
    rows: Vec<Second>,
}

impl<'a> Sampler<'a> {
    /// A sampler; the first row is about the time from now on.
    ///
    /// # Errors
    /// When a process does not exist.
    pub(crate) fn new(
        epoch: Epoch,
        pids: Processes<Option<u32>>,
        written: &'a WriterTotals,
        seen: &'a Mutex<Consumed>,
        sink: HistogramSink<'a>,
    ) -> Result<Self> {
        let last = moment(epoch, &pids, written, seen)?;
        Ok(Self { epoch, pids, written, seen, sink, last, rows: Vec::new() })
    }

    /// All counters as they are now.
    ///
    /// # Errors
    /// When a process has ended.
    pub(crate) fn moment(&self) -> Result<Moment> {
        moment(self.epoch, &self.pids, self.written, self.seen)
    }

    /// Adds a row for the time since the last one.
    ///
    /// # Errors
    /// When a process has ended, or the histogram log cannot be written.
    pub(crate) fn row(&mut self, phase: RunPhase) -> Result<(&Second, Moment)> {
        let now = self.moment()?;
        let seconds = now.seconds_since(&self.last);
        let latencies = self.take_latencies();
        let began = Duration::from_micros(self.last.at_us);
        let length = Duration::from_micros(now.at_us - self.last.at_us);
        (self.sink)(latencies.of(PathStage::Total), began, length)?;
        let (repeats, faults) = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.auditor.counts().repeats, seen.auditor.counts().faults())
        };
        let samples = samples(&now, &self.last);
        self.rows.push(Second {
            at: now.at_us as f64 / 1e6,
            seconds,
            phase,
            in_per_second: (now.committed - self.last.committed) as f64 / seconds,
            out_per_second: (now.delivered - self.last.delivered) as f64 / seconds,
            backlog: now.committed.saturating_sub(now.delivered),
            repeats,
            faults,
            total: latencies.percentiles(PathStage::Total),
            commit_to_consume: latencies.percentiles(PathStage::CommitToConsume),
            schedule: latencies.percentiles(PathStage::Schedule),
            insert: latencies.percentiles(PathStage::Insert),
            relay: samples.relay,
            postgres: samples.postgres,
            kafka: samples.kafka,
            generator: samples.generator,
        });
        self.last = now;
        Ok((self.rows.last().expect("a row was pushed"), now))
    }

    /// All rows.
    pub(crate) fn into_rows(self) -> Vec<Second> {
        self.rows
    }

    fn take_latencies(&self) -> Latencies {
        let mut latencies = Latencies::new();
        let mut book = self.written.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.take_second(&mut latencies);
        drop(book);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take_second(&mut latencies);
        latencies
    }
}

fn samples(now: &Moment, last: &Moment) -> Processes<Option<Sample>> {
    now.cost_since(last)
        .map(|cost| cost.map(|cost| Sample { cores: cost.cores, megabytes: cost.megabytes_at_end }))
}

fn moment(
    epoch: Epoch,
    pids: &Processes<Option<u32>>,
    written: &WriterTotals,
    seen: &Mutex<Consumed>,
) -> Result<Moment> {
    let table = ProcessTable::read()?;
    let tree = |pid: Option<u32>| pid.map(|pid| table.usage(pid)).transpose();
    // The relay may be this process's child, so its tree would hold the relay.
    let alone = |pid: Option<u32>| pid.map(|pid| table.usage_alone(pid)).transpose();
    let usage = Processes {
        relay: tree(pids.relay).context("the relay")?,
        postgres: tree(pids.postgres).context("PostgreSQL")?,
        kafka: tree(pids.kafka).context("Kafka (--kafka-pid)")?,
        generator: alone(pids.generator)?,
    };
    let committed = written.committed.load(Ordering::Relaxed);
    let delivered = seen.lock().unwrap_or_else(PoisonError::into_inner).auditor.delivered();
    Ok(Moment {
        at_us: epoch.elapsed_us(),
        committed,
        delivered,
        rolled_back: written.rolled_back.load(Ordering::Relaxed),
        usage,
    })
}
