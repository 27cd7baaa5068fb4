//! `drain`: fills a backlog while no relay runs, then measures how fast a relay drains it.
//!
//! Promises: the rate is taken from the records' own stamps, first to last, and from the start of
//! the process; CPU is that of whole process trees between start and last record; the audit reads
//! the topic afterwards, so that it costs the measurement nothing. A relay that needs warming up
//! relays some events first and is halted while the backlog is filled. Must not: write while the
//! relay runs. Fails: when the relay ends, stalls, or the audit finds a fault.

pub(crate) mod plan;
pub(crate) mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use plan::{DrainPlan, RelayStart};
use report::{DrainReport, DrainRun};

use crate::audit::manifest::Manifest;
use crate::audit::topic::Topic;
use crate::measure::clock;
use crate::measure::process::{self, ProcessTable, Relay};
use crate::measure::slot;
use crate::output::{self, OutputFormat};
use crate::verify::{Stamps, TopicAudit};
use crate::workload::backlog::Backlog;
use crate::workload::batch::EventShape;
use crate::workload::outbox::{self, EventTable};
use crate::workload::session::Target;
use postrider_testkit::audit::Verdict;
use postrider_testkit::figures::grouped;

/// How often the ends of the topic are asked for.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// Events that a relay which reads the WAL has to bring before the backlog is written.
const PRIME_EVENTS: u64 = 1_000;

/// Does the command `drain`.
///
/// # Errors
/// As the module says.
pub(crate) async fn drain(plan: &DrainPlan, form: OutputFormat) -> Result<()> {
    let report = measure(plan, |number, run| {
        if form == OutputFormat::Text {
            run.show(number);
        }
    })
    .await?;
    report.finish(form)
}

/// Does all runs; `each` is told of every run as it ends.
///
/// # Errors
/// When a server refuses, or the relay ends or stalls; faults that the audit finds are in the report.
pub(crate) async fn measure(
    plan: &DrainPlan,
    mut each: impl FnMut(u32, &DrainRun),
) -> Result<DrainReport> {
    let context = DrainContext::open(plan).await?;
    let mut runs = Vec::new();
    for number in 1..=plan.runs {
        let run = context.run(number).await?;
        each(number, &run);
        runs.push(run);
    }
    let report = DrainReport::new(plan, context.topic.partitions(), runs)?;
    let json = serde_json::to_string_pretty(&report).context("the report cannot be written")?;
    let path = plan.out.join("drain.json");
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(report)
}

/// Lets a relay that reads the WAL have its slot, as [`RelayStart::WithSlot`] says;
/// gives the slot's name.
///
/// # Errors
/// As [`measure`].
pub(crate) async fn prime(plan: &DrainPlan) -> Result<String> {
    let context = DrainContext::open(plan).await?;
    context.prepare().await?;
    context.prime(&plan.out.join("relay-before.log")).await
}

struct DrainContext<'a> {
    plan: &'a DrainPlan,
    client: Client,
    table: EventTable,
    topic: Topic,
}

/// CPU used so far by the servers that the relay works with.
struct ServerCpu {
    postgres: Option<Duration>,
    kafka: Option<Duration>,
}

impl ServerCpu {
    fn read(postgres_pid: Option<u32>, kafka_pid: Option<u32>) -> Result<Self> {
        let table = ProcessTable::read()?;
        let cpu = |pid: u32| table.usage(pid).map(|usage| usage.cpu);
        Ok(Self {
            postgres: postgres_pid.map(cpu).transpose()?,
            kafka: kafka_pid.map(cpu).transpose().context("--kafka-pid is wrong")?,
        })
    }
}

/// What was measured between the relay's start and the last record.
struct Measured {
    relay_started_ms: i64,
    relay_cpu: Duration,
    relay_peak_bytes: u64,
    before: ServerCpu,
    after: ServerCpu,
}

impl<'a> DrainContext<'a> {
    async fn open(plan: &'a DrainPlan) -> Result<Self> {
        process::check_program(&plan.relay)?;
        std::fs::create_dir_all(&plan.out)
            .with_context(|| format!("the folder {} cannot be made", plan.out.display()))?;
        let client = outbox::connect(&plan.source.database_url).await?;
        let table = EventTable::find(&client, &plan.source.outbox).await?.with_ids(plan.shape.ids);
        let topic = Topic::open(&plan.sink).await?;
        Ok(Self { plan, client, table, topic })
    }

    async fn run(&self, number: u32) -> Result<DrainRun> {
        self.prepare().await?;
        let log = self.plan.out.join(format!("relay-{number}.log"));
        if self.plan.start == RelayStart::WithSlot {
            self.prime(&self.plan.out.join(format!("relay-{number}-before.log"))).await?;
        }
        let warm = self.warm_up(&log).await?;
        let from = self.topic.ends()?;
        let shape = self.plan.shape.shape(clock::new_run_id()?);
        let fill_started = Instant::now();
        let committed = self.fill(&shape, self.plan.events).await?;
        let fill_seconds = fill_started.elapsed().as_secs_f64();
        let filled = grouped(self.plan.events);
        output::talk(&format!("run {number}: filled {filled} events in {fill_seconds:.1} s"));
        let manifest = Manifest::new(&shape, &self.plan.sink.topic, &from, &committed);
        manifest.write(&self.plan.out)?;
        if self.plan.settle {
            self.table.settle(&self.client).await?;
        }
        let postgres_pid = outbox::server_pid(&self.client).await?;
        let (measured, audit, stamps) = tokio::task::block_in_place(|| {
            let (measured, relay) = self.watch(&from, &log, warm, postgres_pid)?;
            let (audit, stamps) = self.stop_and_audit(relay, &manifest)?;
            anyhow::Ok((measured, audit, stamps))
        })?;
        let stamps = stamps.context("the topic has no record of this run")?;
        Ok(self.figures(fill_seconds, &measured, stamps, audit))
    }

    async fn prepare(&self) -> Result<()> {
        if self.plan.truncate {
            return self.table.truncate(&self.client).await;
        }
        if self.table.has_rows(&self.client).await? {
            output::talk(
                "the outbox is not empty: rows that the relay has not published yet come first and \
                 are in its CPU, not in the rate; --truncate empties it",
            );
        }
        Ok(())
    }

    async fn fill(&self, shape: &EventShape, events: u64) -> Result<Vec<u32>> {
        let backlog = Backlog {
            database_url: &self.plan.source.database_url,
            target: &Target::Table(self.table.clone()),
            events,
            tx_size: self.plan.shape.tx_size,
            seed: self.plan.shape.seed,
        };
        backlog.fill(shape).await
    }

    /// Starts the relay, lets it relay some events so that it is warm, and halts it.
    async fn warm_up(&self, log: &Path) -> Result<Option<Relay>> {
        let RelayStart::Warm { events } = self.plan.start else { return Ok(None) };
        let from = self.topic.ends()?;
        let mut relay = Relay::start(&self.plan.relay, log)?;
        // No measured run has this number, so repeats of these events are foreign to it.
        self.fill(&self.plan.shape.shape(0), events).await?;
        tokio::task::block_in_place(|| {
            self.wait_for_records(&mut relay, &from, events)?;
            relay.halt()
        })?;
        self.table.truncate(&self.client).await?;
        Ok(Some(relay))
    }

    /// Lets a relay that reads the WAL have its slot, so that all of the backlog is in it; gives the
    /// slot's name. The relay is stopped again: what it finds in the table it would not read by the slot.
    async fn prime(&self, log: &Path) -> Result<String> {
        let from = self.topic.ends()?;
        let limit = self.plan.stall_limit;
        let mut relay = Relay::start(&self.plan.relay, log)?;
        let slot = slot::await_reader(&self.client, &mut relay, limit).await?;
        self.fill(&self.plan.shape.shape(0), PRIME_EVENTS).await?;
        tokio::task::block_in_place(|| {
            self.wait_for_records(&mut relay, &from, PRIME_EVENTS)?;
            relay.stop()
        })?;
        self.table.truncate(&self.client).await?;
        Ok(slot)
    }

    /// Starts the relay, or lets the warm one go on, and waits until the topic holds as many new
    /// records as the backlog has.
    fn watch(
        &self,
        from: &[i64],
        log: &Path,
        warm: Option<Relay>,
        postgres_pid: Option<u32>,
    ) -> Result<(Measured, Relay)> {
        let before = ServerCpu::read(postgres_pid, self.plan.kafka_pid)?;
        let (mut relay, cpu_before) = match warm {
            None => (Relay::start(&self.plan.relay, log)?, Duration::ZERO),
            Some(mut relay) => {
                let cpu = relay.usage()?.cpu;
                relay.resume()?;
                (relay, cpu)
            }
        };
        self.wait_for_records(&mut relay, from, self.plan.events)?;
        let usage = relay.usage()?;
        let measured = Measured {
            relay_started_ms: clock::unix_ms(relay.started_at)?,
            relay_cpu: usage.cpu.saturating_sub(cpu_before),
            relay_peak_bytes: usage.peak_resident_bytes,
            before,
            after: ServerCpu::read(postgres_pid, self.plan.kafka_pid)?,
        };
        Ok((measured, relay))
    }

    fn wait_for_records(&self, relay: &mut Relay, from: &[i64], events: u64) -> Result<()> {
        let stall_limit = self.plan.stall_limit;
        let (mut published, mut last_growth) = (0, Instant::now());
        let mut meter = output::Meter::new();
        loop {
            let now_published = self.published_since(from)?;
            if now_published > published {
                (published, last_growth) = (now_published, Instant::now());
            }
            if meter.is_due() {
                let (done, all) = (grouped(published), grouped(events));
                output::progress(&format!("{done} of {all} events in the topic"));
            }
            if published >= events {
                output::end_progress();
                return Ok(());
            }
            relay.check_alive()?;
            if last_growth.elapsed() > stall_limit {
                output::end_progress();
                if self.plan.verify {
                    output::talk(&format!(
                        "nothing came for {stall_limit:?}; the audit will say what is missing"
                    ));
                    return Ok(());
                }
                bail!(
                    "{published} of {} events are in the topic and nothing came for {stall_limit:?}; \
                     see the relay's log in {}",
                    events,
                    self.plan.out.display(),
                );
            }
            std::thread::sleep(WATCH_PERIOD);
        }
    }

    fn published_since(&self, from: &[i64]) -> Result<u64> {
        let ends = self.topic.ends()?;
        Ok(ends.iter().zip(from).map(|(end, from)| u64::try_from(end - from).unwrap_or(0)).sum())
    }

    /// Stops the relay; with the audit before it, while late events may still come, and after it.
    fn stop_and_audit(
        &self,
        relay: Relay,
        manifest: &Manifest,
    ) -> Result<(Option<Verdict>, Option<Stamps>)> {
        if !self.plan.verify {
            relay.stop()?;
            return Ok((None, self.topic.first_and_last_stamp(&manifest.from)?));
        }
        let mut audit = TopicAudit::new(&self.topic, manifest)?;
        audit.read_until_complete(self.plan.events)?;
        relay.stop()?;
        audit.reopen()?;
        audit.read_to_end()?;
        Ok((Some(audit.verdict(manifest)), audit.stamps))
    }

    fn figures(
        &self,
        fill_seconds: f64,
        measured: &Measured,
        (first, last): Stamps,
        audit: Option<Verdict>,
    ) -> DrainRun {
        let events = audit.as_ref().map_or(self.plan.events, |verdict| verdict.delivered);
        let seconds = |from_ms: i64, to_ms: i64| (to_ms - from_ms).max(1) as f64 / 1_000.0;
        let per_event = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;
        let between = |after: Option<Duration>, before: Option<Duration>| {
            after.zip(before).map(|(after, before)| per_event(after.saturating_sub(before)))
        };
        let (before, after, started_ms) =
            (&measured.before, &measured.after, measured.relay_started_ms);
        DrainRun {
            events,
            fill_seconds,
            record_clock: last.clock,
            events_per_second: events as f64 / seconds(first.unix_ms, last.unix_ms),
            events_per_second_from_start: events as f64 / seconds(started_ms, last.unix_ms),
            first_record_seconds: seconds(started_ms, first.unix_ms),
            relay_cpu_us_per_event: per_event(measured.relay_cpu),
            relay_peak_megabytes: measured.relay_peak_bytes as f64 / 1e6,
            postgres_cpu_us_per_event: between(after.postgres, before.postgres),
            kafka_cpu_us_per_event: between(after.kafka, before.kafka),
            audit,
        }
    }
}
