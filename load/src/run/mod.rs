//! `run`: an open loop at a fixed rate, audited and timed all the while.
//!
//! Promises: latency counts from the intended time, so that a stall is seen in every event that it
//! held up; what the database owes (schedule, insert) is told apart from what the relay owes. Must
//! not: let the generator's own limit pass for the relay's. Fails: when a server refuses, the relay
//! ends, a threshold breaks or the audit finds a fault.

mod outcome;
pub(crate) mod plan;
mod result;
mod sampler;
mod window;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Client;

use crate::audit::auditor::Auditor;
use crate::audit::consumer::{self, Seen};
use crate::audit::manifest::Truth;
use crate::audit::topic::Topic;
use crate::measure::clock;
use crate::measure::environment::Environment;
use crate::measure::process::{self, Relay};
use crate::measure::slot::{self, KeptLog, RelayReads};
use crate::output::{self, OutputFormat};
use crate::report::summary::{Second, Summary};
use crate::run::outcome::Outcome;
use crate::run::plan::RunPlan;
use crate::run::sampler::{HistogramSink, Moment, Sampler, Watched};
use crate::run::window::Marks;
use crate::workload::batch::{self, Pen, Shape};
use crate::workload::key_distribution::{Pick, Zipf};
use crate::workload::outbox::{self, Outbox};
use crate::workload::schedule::Schedule;
use crate::workload::session::{self, Capture, Session, Target, Workload};
use crate::workload::writer::{Epoch, Writer, Written};

/// How often the end is looked for once the schedule is over.
const SETTLE_PERIOD: Duration = Duration::from_millis(20);

/// Does the command `run`.
///
/// # Errors
/// As the module says.
pub(crate) fn run(plan: &RunPlan, form: OutputFormat) -> Result<()> {
    let summary = measure(plan)?;
    result::finish(plan, form, &summary)
}

/// Does the run and writes its files.
///
/// # Errors
/// When a server refuses or the relay ends; faults and broken thresholds are in the summary.
pub(crate) fn measure(plan: &RunPlan) -> Result<Summary> {
    if let Some(relay) = plan.relay.command() {
        process::check_program(relay)?;
    }
    std::fs::create_dir_all(&plan.out)
        .with_context(|| format!("the folder {} cannot be made", plan.out.display()))?;
    let site = Site::open(plan)?;
    let outcome = site.measure()?;
    let summary = result::summarize(plan, &site.environment, site.topic.partitions(), &outcome)?;
    result::write_files(plan, &summary)?;
    Ok(summary)
}

/// Where the run takes place.
struct Site<'a> {
    plan: &'a RunPlan,
    shape: Shape,
    schedule: Schedule,
    target: Target,
    topic: Topic,
    environment: Environment,
    postgres_pid: Option<u32>,
}

impl<'a> Site<'a> {
    fn open(plan: &'a RunPlan) -> Result<Self> {
        let runtime = small_runtime()?;
        runtime.block_on(async {
            let client = outbox::connect(&plan.source.database_url).await?;
            let target = target(&client, plan).await?;
            if plan.workload == Workload::Orders {
                session::make_business_tables(&client).await?;
            }
            let topic = Topic::open(&plan.sink).await?;
            Ok(Self {
                plan,
                shape: plan.shape.shape(clock::new_run_id()?),
                schedule: schedule(plan),
                environment: Environment::look(&client, plan.relay.command(), &plan.notes).await?,
                postgres_pid: outbox::server_pid(&client).await?,
                target,
                topic,
            })
        })
    }

    fn measure(&self) -> Result<Outcome> {
        let from = self.topic.ends()?;
        let writers = self.writers()?;
        let mut relay = self.start_relay()?;
        if let Some(relay) = &mut relay {
            self.await_reader(relay)?;
        }
        let log_path = self.plan.out.join("latency.hlog");
        let file = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let (mut file, mut serializer) = (BufWriter::new(file), V2DeflateSerializer::new());
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("postrider-load: microseconds from the intended time to the consumer")
            .with_base_time(SystemTime::now())
            .with_max_value_divisor(1_000.0)
            .begin_log_with(&mut file, &mut serializer)
            .context("latency.hlog cannot be written")?;
        let mut sink = |histogram: &hdrhistogram::Histogram<u64>, began, length| {
            log.write_histogram(histogram, began, length, None)
                .map_err(|error| anyhow!("latency.hlog cannot be written: {error:?}"))
        };
        let outcome = self.flow(&from, writers, &mut relay, &mut sink)?;
        let versions = &outcome.committed_versions;
        Truth::new(&self.shape, &self.plan.sink.topic, &from, versions).write(&self.plan.out)?;
        file.flush().context("latency.hlog cannot be written")?;
        Ok(outcome)
    }

    fn start_relay(&self) -> Result<Option<Relay>> {
        let log = self.plan.out.join("relay.log");
        self.plan.relay.command().map(|command| Relay::start(command, &log)).transpose()
    }

    /// Waits until the relay reads the log, if it is one that does.
    fn await_reader(&self, relay: &mut Relay) -> Result<()> {
        let plan = self.plan;
        if plan.reads == RelayReads::Table {
            return Ok(());
        }
        small_runtime()?.block_on(async {
            let client = outbox::connect(&plan.source.database_url).await?;
            slot::await_reader(&client, relay, plan.stall_limit).await.map(drop)
        })
    }

    /// Watches what slots keep of the log; none where no relay has a slot.
    fn kept_log(&self) -> Result<Option<KeptLog>> {
        if self.plan.reads == RelayReads::Table {
            return Ok(None);
        }
        let runtime = small_runtime()?;
        let client = runtime.block_on(outbox::connect(&self.plan.source.database_url))?;
        Ok(Some(KeptLog::new(runtime, client)))
    }

    fn writers(&self) -> Result<Vec<Writer>> {
        (0..self.shape.writers)
            .map(|number| {
                let runtime = small_runtime()?;
                let session = runtime.block_on(Session::open(
                    &self.plan.source.database_url,
                    &self.target,
                    &self.shape.headers,
                    self.plan.workload,
                    self.shape.writers,
                ))?;
                let skew = self.plan.skew;
                let slots = self.shape.slots(number);
                let pick =
                    if skew > 0.0 { Pick::Zipf(Zipf::new(slots, skew)) } else { Pick::Uniform };
                let pen = Pen::new(&self.shape, number, pick, self.plan.shape.seed);
                Ok(Writer { number, schedule: self.schedule, pen, session, runtime })
            })
            .collect()
    }

    /// Runs writers, consumer and sampler together.
    fn flow(
        &self,
        from: &[i64],
        writers: Vec<Writer>,
        relay: &mut Option<Relay>,
        sink: HistogramSink<'_>,
    ) -> Result<Outcome> {
        let measured_from_us = self.plan.warmup_seconds * 1_000_000;
        let written = Written::new(self.shape.writers, measured_from_us);
        let shape = &self.shape;
        let auditor = Auditor::new(shape.run, shape.aggregates, shape.payload_bytes);
        let seen = Mutex::new(Seen::new(auditor, measured_from_us));
        let reader = self.topic.reader(from)?;
        let stop_tail = AtomicBool::new(false);
        let epoch = Epoch::now()?;
        let (course, pens) = std::thread::scope(|scope| {
            let _stops = [StopOnDrop(&written.stop), StopOnDrop(&stop_tail)];
            let auditor = std::thread::Builder::new().name("auditor".to_owned());
            let tail = auditor.spawn_scoped(scope, || {
                consumer::follow(&self.topic, reader, &seen, epoch, &written, &stop_tail)
            })?;
            let crew = Crew::start(scope, writers, epoch, &written)?;
            let course = self.watch(epoch, &written, &seen, &crew, &tail, relay, sink);
            written.stop.store(true, Ordering::Relaxed);
            let pens = crew.join();
            let stopped = relay.take().map(Relay::stop).transpose();
            stop_tail.store(true, Ordering::Release);
            let followed = tail.join().map_err(|_| anyhow!("the consumer broke"))?;
            let pens = pens?;
            followed?;
            let course = course?;
            stopped?;
            anyhow::Ok((course, pens))
        })?;
        Ok(Outcome {
            from: course.from,
            to: course.to,
            rows: course.rows,
            settle: course.settle,
            committed_versions: batch::committed_versions(&self.shape, &pens),
            written,
            seen: seen.into_inner().unwrap_or_else(PoisonError::into_inner),
            scheduled: self.schedule.events(),
            kept_log_bytes: course.kept_log_bytes,
        })
    }

    /// Takes a row each second until everything is delivered or nothing comes any more.
    #[expect(clippy::too_many_arguments, reason = "all that runs side by side meets here")]
    fn watch(
        &self,
        epoch: Epoch,
        written: &Written,
        seen: &Mutex<Seen>,
        crew: &Crew<'_>,
        tail: &ScopedJoinHandle<'_, Result<()>>,
        relay: &mut Option<Relay>,
        sink: HistogramSink<'_>,
    ) -> Result<Course> {
        let pids = Watched {
            relay: relay.as_ref().map(Relay::pid).or_else(|| self.plan.relay.running_pid()),
            postgres: self.postgres_pid,
            kafka: self.plan.kafka_pid,
            generator: Some(std::process::id()),
        };
        let mut sampler = Sampler::new(epoch, pids, written, seen, sink)?;
        let mut marks = Marks::new(self.plan, sampler.moment()?);
        let mut settling = Settling::new(self.plan.stall_limit);
        let (mut meter, mut kept_log) = (output::Meter::new(), self.kept_log()?);
        for second in 1.. {
            let due_us = second * 1_000_000;
            loop {
                check(written, tail, relay)?;
                let scheduled = epoch.elapsed_us() < self.schedule.length_us;
                let over = !scheduled && settling.is_over(crew, written, seen);
                if over || epoch.elapsed_us() >= due_us {
                    break;
                }
                let left = Duration::from_micros(due_us.saturating_sub(epoch.elapsed_us()));
                std::thread::sleep(left.min(SETTLE_PERIOD));
            }
            if let Some(kept_log) = &mut kept_log {
                kept_log.look()?;
            }
            let (row, now) = sampler.row(marks.phase(second))?;
            if meter.is_due() {
                output::progress(&progress_line(row));
            }
            marks.pass(second, now);
            if settling.over && marks.to.is_some() {
                break;
            }
        }
        output::end_progress();
        let to = marks.to.context("the run ended before its measured time")?;
        Ok(Course {
            from: marks.from,
            to,
            rows: sampler.into_rows(),
            settle: settling.took(),
            kept_log_bytes: kept_log.map(|kept_log| kept_log.peak_bytes()),
        })
    }
}

/// What the watching gave.
struct Course {
    from: Moment,
    to: Moment,
    rows: Vec<Second>,
    settle: Duration,
    kept_log_bytes: Option<u64>,
}

/// Tells threads to stop when the scope is left, however that comes: the scope waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
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
    fn is_over(&mut self, crew: &Crew<'_>, written: &Written, seen: &Mutex<Seen>) -> bool {
        if self.over || !crew.is_finished() {
            return self.over;
        }
        self.began.get_or_insert_with(Instant::now);
        let delivered = seen.lock().unwrap_or_else(PoisonError::into_inner).auditor.delivered();
        if delivered != self.delivered {
            (self.delivered, self.last_growth) = (delivered, Instant::now());
        }
        let complete = delivered >= written.committed.load(Ordering::Relaxed);
        self.over = complete || self.last_growth.elapsed() > self.stall_limit;
        self.over
    }

    /// From the end of the schedule to the last delivery.
    fn took(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.last_growth.saturating_duration_since(began))
    }
}

/// The writers' threads.
struct Crew<'scope> {
    handles: Vec<ScopedJoinHandle<'scope, Result<Pen>>>,
}

impl<'scope> Crew<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        writers: Vec<Writer>,
        epoch: Epoch,
        written: &'scope Written,
    ) -> Result<Self> {
        let start = |writer: Writer| {
            let thread = std::thread::Builder::new().name(format!("writer-{}", writer.number));
            let started = thread.spawn_scoped(scope, move || {
                let result = writer.write(epoch, written);
                if result.is_err() {
                    written.stop.store(true, Ordering::Relaxed);
                }
                result
            });
            started.context("a writer's thread cannot be started")
        };
        Ok(Self { handles: writers.into_iter().map(start).collect::<Result<_>>()? })
    }

    fn is_finished(&self) -> bool {
        self.handles.iter().all(ScopedJoinHandle::is_finished)
    }

    fn join(self) -> Result<Vec<Pen>> {
        let join = |handle: ScopedJoinHandle<'_, Result<Pen>>| {
            handle.join().unwrap_or_else(|_| Err(anyhow!("a writer broke")))
        };
        // All are joined before the first error is told.
        let results: Vec<Result<Pen>> = self.handles.into_iter().map(join).collect();
        results.into_iter().collect()
    }
}

/// Whether everything still runs that has to.
fn check(
    written: &Written,
    tail: &ScopedJoinHandle<'_, Result<()>>,
    relay: &mut Option<Relay>,
) -> Result<()> {
    if let Some(relay) = relay {
        relay.check_alive()?;
    }
    if tail.is_finished() {
        bail!("the consumer ended early");
    }
    if written.stop.load(Ordering::Relaxed) {
        bail!("a writer ended early");
    }
    Ok(())
}

fn progress_line(row: &Second) -> String {
    format!(
        "{:>4.0} s  in {:>7}/s  out {:>7}/s  p50 {:.1} ms  p99 {:.1} ms  backlog {}  \
         insert late {:.1} ms{}",
        row.at,
        output::grouped(row.in_per_second as u64),
        output::grouped(row.out_per_second as u64),
        row.total.p50_ms,
        row.total.p99_ms,
        output::grouped(row.backlog),
        row.schedule.p99_ms,
        if row.faults > 0 { format!("  FAULTS {}", row.faults) } else { String::new() },
    )
}

/// Where the events go; a table is empty then, if that was asked for.
async fn target(client: &Client, plan: &RunPlan) -> Result<Target> {
    if plan.capture == Capture::Message {
        slot::check_log(client).await?;
        return Ok(Target::Log);
    }
    let table = Outbox::find(client, &plan.source.outbox).await?.with_ids(plan.shape.ids);
    if plan.truncate {
        table.truncate(client).await?;
    }
    Ok(Target::Table(table))
}

fn schedule(plan: &RunPlan) -> Schedule {
    Schedule {
        events_per_second: plan.rate,
        tx_size: plan.shape.tx_size,
        writers: plan.shape.writers,
        length_us: (plan.warmup_seconds + plan.measured_seconds) * 1_000_000,
    }
}

fn small_runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}
