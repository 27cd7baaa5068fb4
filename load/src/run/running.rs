//! A run while it runs: watched second by second until everything is delivered.
//!
//! Promises: a row for each second; the end is when all that was committed is delivered, or nothing has
//! come for too long. Must not: write or consume. Fails: when a writer, the consumer or the relay ends
//! early.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::audit::consumer::Consumed;
use crate::measure::process::Relay;
use crate::measure::slot::KeptWal;
use crate::output;
use crate::report::summary::Second;
use crate::run::sampler::{Moment, Sampler};
use crate::run::threads::WriterThreads;
use crate::run::window::MeasurementWindow;
use crate::workload::writer::{Epoch, WriterTotals};
use postrider_testkit::figures::grouped;

/// How often the end is looked for once the schedule is over.
const SETTLE_PERIOD: Duration = Duration::from_millis(20);

/// What the watching gave.
pub(super) struct RunProgress {
    /// At the begin of the measured time.
    pub(super) from: Moment,
    /// At its end.
    pub(super) to: Moment,
    /// The seconds.
    pub(super) rows: Vec<Second>,
    /// From the end of the schedule to the last delivery.
    pub(super) settle: Duration,
    /// The most WAL that the server kept for slots, if any were looked at.
    pub(super) kept_wal_bytes: Option<u64>,
}

/// All that runs side by side.
pub(super) struct Running<'a, 'scope> {
    /// The start.
    pub(super) epoch: Epoch,
    /// How long the schedule lasts.
    pub(super) length_us: u64,
    /// What the writers have noted.
    pub(super) written: &'a WriterTotals,
    /// What the consumer has seen.
    pub(super) seen: &'a Mutex<Consumed>,
    /// The writers.
    pub(super) writers: &'a WriterThreads<'scope>,
    /// The consumer.
    pub(super) consumer: &'a ScopedJoinHandle<'scope, Result<()>>,
    /// The relay, if this tool has started it.
    pub(super) relay: &'a mut Option<Relay>,
}

impl Running<'_, '_> {
    /// Takes a row each second until everything is delivered or nothing comes any more.
    ///
    /// # Errors
    /// As the module says.
    pub(super) fn follow(
        mut self,
        mut sampler: Sampler<'_>,
        mut window: MeasurementWindow,
        mut kept_wal: Option<KeptWal>,
        stall_limit: Duration,
    ) -> Result<RunProgress> {
        let (mut settling, mut meter) = (Settling::new(stall_limit), output::Meter::new());
        for second in 1.. {
            self.wait(second * 1_000_000, &mut settling)?;
            if let Some(kept_wal) = &mut kept_wal {
                kept_wal.look()?;
            }
            let (row, now) = sampler.row(window.phase(second))?;
            if meter.is_due() {
                output::progress(&progress_line(row));
            }
            window.pass(second, now);
            if settling.over && window.to.is_some() {
                break;
            }
        }
        output::end_progress();
        let to = window.to.context("the run ended before its measured time")?;
        Ok(RunProgress {
            from: window.from,
            to,
            rows: sampler.into_rows(),
            settle: settling.took(),
            kept_wal_bytes: kept_wal.map(|kept_wal| kept_wal.peak_bytes()),
        })
    }

    /// Waits until then, or until everything is delivered.
    fn wait(&mut self, due_us: u64, settling: &mut Settling) -> Result<()> {
        loop {
            self.check()?;
            let scheduled = self.epoch.elapsed_us() < self.length_us;
            let over = !scheduled && settling.is_over(self);
            if over || self.epoch.elapsed_us() >= due_us {
                return Ok(());
            }
            let left = Duration::from_micros(due_us.saturating_sub(self.epoch.elapsed_us()));
            std::thread::sleep(left.min(SETTLE_PERIOD));
        }
    }

    /// Whether everything still runs that has to.
    fn check(&mut self) -> Result<()> {
        if let Some(relay) = self.relay {
            relay.check_alive()?;
        }
        if self.consumer.is_finished() {
            bail!("the consumer ended early");
        }
        if self.written.stop.load(Ordering::Relaxed) {
            bail!("a writer ended early");
        }
        Ok(())
    }
}

/// The time after the schedule, while the rest is delivered.
struct Settling {
    stall_limit: Duration,
    began: Option<Instant>,
    last_growth: Instant,
    delivered: u64,
    over: bool,
}

impl Settling {
    fn new(stall_limit: Duration) -> Self {
        Self { stall_limit, began: None, last_growth: Instant::now(), delivered: 0, over: false }
    }

    /// Whether all is delivered, or nothing has come for too long.
    fn is_over(&mut self, run: &Running<'_, '_>) -> bool {
        if self.over || !run.writers.is_finished() {
            return self.over;
        }
        self.began.get_or_insert_with(Instant::now);
        let delivered = run.seen.lock().unwrap_or_else(PoisonError::into_inner).auditor.delivered();
        if delivered != self.delivered {
            (self.delivered, self.last_growth) = (delivered, Instant::now());
        }
        let complete = delivered >= run.written.committed.load(Ordering::Relaxed);
        self.over = complete || self.last_growth.elapsed() > self.stall_limit;
        self.over
    }

    /// From the end of the schedule to the last delivery.
    fn took(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.last_growth.saturating_duration_since(began))
    }
}

fn progress_line(row: &Second) -> String {
    format!(
        "{:>4.0} s  in {:>7}/s  out {:>7}/s  p50 {:.1} ms  p99 {:.1} ms  backlog {}  \
         insert late {:.1} ms{}",
        row.at,
        grouped(row.in_per_second as u64),
        grouped(row.out_per_second as u64),
        row.total.p50_ms,
        row.total.p99_ms,
        grouped(row.backlog),
        row.schedule.p99_ms,
        if row.faults > 0 { format!("  FAULTS {}", row.faults) } else { String::new() },
    )
}
