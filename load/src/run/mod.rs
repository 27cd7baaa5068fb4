//! `run`: an open loop at a fixed rate, audited and timed all the while.
//!
//! Promises: latency counts from the intended time, so that a stall is seen in every event that it
//! held up; what the database owes (schedule, insert) is told apart from what the relay owes. Must
//! not: let the generator's own limit pass for the relay's. Fails: when a server refuses, the relay
//! ends, a threshold breaks or the audit finds a fault.

mod outcome;
pub(crate) mod plan;
mod result;
mod running;
mod sampler;
mod threads;
mod window;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Client;

use crate::audit::auditor::RunAuditor;
use crate::audit::consumer::{self, Consumed};
use crate::audit::manifest::Manifest;
use crate::audit::topic::Topic;
use crate::measure::clock;
use crate::measure::environment::Environment;
use crate::measure::process::{self, Relay};
use crate::measure::slot::{self, KeptWal, RelayReads};
use crate::output::OutputFormat;
use crate::report::summary::Summary;
use crate::run::outcome::RunOutcome;
use crate::run::plan::RunPlan;
use crate::run::running::{RunProgress, Running};
use crate::run::sampler::{HistogramSink, Processes, Sampler};
use crate::run::threads::{StopOnDrop, WriterThreads};
use crate::run::window::MeasurementWindow;
use crate::workload::batch::{self, BatchBuilder, EventShape};
use crate::workload::key_distribution::{KeyDistribution, Zipf};
use crate::workload::outbox::{self, EventTable};
use crate::workload::schedule::Schedule;
use crate::workload::session::{self, Target, Workload, WriteForm, WriterSession};
use crate::workload::writer::{Epoch, Writer, WriterTotals};

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
    let context = RunContext::open(plan)?;
    let outcome = context.measure()?;
    let summary =
        result::summarize(plan, &context.environment, context.topic.partitions(), &outcome)?;
    result::write_files(plan, &summary)?;
    Ok(summary)
}

/// Where the run takes place.
struct RunContext<'a> {
    plan: &'a RunPlan,
    shape: EventShape,
    schedule: Schedule,
    target: Target,
    topic: Topic,
    environment: Environment,
    postgres_pid: Option<u32>,
}

impl<'a> RunContext<'a> {
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

    fn measure(&self) -> Result<RunOutcome> {
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
        Manifest::new(&self.shape, &self.plan.sink.topic, &from, versions).write(&self.plan.out)?;
        file.flush().context("latency.hlog cannot be written")?;
        Ok(outcome)
    }

    fn start_relay(&self) -> Result<Option<Relay>> {
        let log = self.plan.out.join("relay.log");
        self.plan.relay.command().map(|command| Relay::start(command, &log)).transpose()
    }

    /// Waits until the relay reads the WAL, if it is one that does.
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

    /// Watches what slots keep of the WAL; none where no relay has a slot.
    fn kept_wal(&self) -> Result<Option<KeptWal>> {
        if self.plan.reads == RelayReads::Table {
            return Ok(None);
        }
        let runtime = small_runtime()?;
        let client = runtime.block_on(outbox::connect(&self.plan.source.database_url))?;
        Ok(Some(KeptWal::new(runtime, client)))
    }

    fn writers(&self) -> Result<Vec<Writer>> {
        (0..self.shape.writers)
            .map(|number| {
                let runtime = small_runtime()?;
                let session = runtime.block_on(WriterSession::open(
                    &self.plan.source.database_url,
                    &self.target,
                    &self.shape.headers,
                    self.plan.workload,
                    self.shape.writers,
                ))?;
                let skew = self.plan.skew;
                let slots = self.shape.slots(number);
                let keys = if skew > 0.0 {
                    KeyDistribution::Zipf(Zipf::new(slots, skew))
                } else {
                    KeyDistribution::Uniform
                };
                let builder = BatchBuilder::new(&self.shape, number, keys, self.plan.shape.seed);
                Ok(Writer { number, schedule: self.schedule, builder, session, runtime })
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
    ) -> Result<RunOutcome> {
        let measured_from_us = self.plan.warmup_seconds * 1_000_000;
        let written = WriterTotals::new(self.shape.writers, measured_from_us);
        let shape = &self.shape;
        let auditor = RunAuditor::new(shape.run, shape.aggregates, shape.payload_bytes);
        let seen = Mutex::new(Consumed::new(auditor, measured_from_us));
        let reader = self.topic.reader(from)?;
        let stop_consumer = AtomicBool::new(false);
        let epoch = Epoch::now()?;
        let (progress, builders) = std::thread::scope(|scope| {
            let _stops = [StopOnDrop(&written.stop), StopOnDrop(&stop_consumer)];
            let auditor = std::thread::Builder::new().name("auditor".to_owned());
            let consumer_thread = auditor.spawn_scoped(scope, || {
                consumer::follow(&self.topic, reader, &seen, epoch, &written, &stop_consumer)
            })?;
            let threads = WriterThreads::start(scope, writers, epoch, &written)?;
            let running = Running {
                epoch,
                length_us: self.schedule.length_us,
                written: &written,
                seen: &seen,
                writers: &threads,
                consumer: &consumer_thread,
                relay,
            };
            let progress = self.watch(running, sink);
            written.stop.store(true, Ordering::Relaxed);
            let builders = threads.join();
            let stopped = relay.take().map(Relay::stop).transpose();
            stop_consumer.store(true, Ordering::Release);
            let followed = consumer_thread.join().map_err(|_| anyhow!("the consumer broke"))?;
            let builders = builders?;
            followed?;
            let progress = progress?;
            stopped?;
            anyhow::Ok((progress, builders))
        })?;
        Ok(RunOutcome {
            from: progress.from,
            to: progress.to,
            rows: progress.rows,
            settle: progress.settle,
            committed_versions: batch::committed_versions(&self.shape, &builders),
            written,
            seen: seen.into_inner().unwrap_or_else(PoisonError::into_inner),
            scheduled: self.schedule.events(),
            kept_wal_bytes: progress.kept_wal_bytes,
        })
    }

    /// Watches what runs, with a row each second, until the end.
    fn watch(&self, running: Running<'_, '_>, sink: HistogramSink<'_>) -> Result<RunProgress> {
        let relay_pid = running.relay.as_ref().map(Relay::pid);
        let pids = Processes {
            relay: relay_pid.or_else(|| self.plan.relay.running_pid()),
            postgres: self.postgres_pid,
            kafka: self.plan.kafka_pid,
            generator: Some(std::process::id()),
        };
        let (written, seen) = (running.written, running.seen);
        let sampler = Sampler::new(running.epoch, pids, written, seen, sink)?;
        let window = MeasurementWindow::new(self.plan, sampler.moment()?);
        running.follow(sampler, window, self.kept_wal()?, self.plan.stall_limit)
    }
}

/// Where the events go; a table is empty then, if that was asked for.
async fn target(client: &Client, plan: &RunPlan) -> Result<Target> {
    if plan.capture == WriteForm::Message {
        slot::check_wal_level(client).await?;
        return Ok(Target::Wal);
    }
    let table = EventTable::find(client, &plan.source.outbox).await?.with_ids(plan.shape.ids);
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
