//! `drain`: fills a backlog while no relay runs, then measures how fast a relay drains it.
//!
//! Promises: the rate is taken from the records' own stamps, first to last, and from the start of
//! the process; CPU is that of whole process trees between start and last record; the audit reads
//! the topic afterwards, so that it costs the measurement nothing. A relay that needs warming up
//! relays some events first and is halted while the backlog is filled. Must not: write while the
//! relay runs. Fails: when the relay ends, stalls, or the audit finds a fault.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio_postgres::Client;

use crate::audit::auditor::Verdict;
use crate::audit::manifest::Truth;
use crate::audit::topic::{RecordClock, Topic};
use crate::cli::DrainArgs;
use crate::failure::Broken;
use crate::measure::clock;
use crate::measure::process::{self, ProcessTable, Relay};
use crate::measure::range::Range;
use crate::measure::slot;
use crate::output::{self, grouped};
use crate::verify::{Stamps, TopicAudit};
use crate::workload::backlog::Backlog;
use crate::workload::batch::{RowHeaders, Shape};
use crate::workload::outbox::{self, Ids, Outbox};
use crate::workload::session::Target;

/// How often the ends of the topic are asked for.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// Events that a relay which reads the log has to bring before the backlog is written.
const PRIME_EVENTS: u64 = 1_000;

/// One drained backlog.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainRun {
    /// Events in the backlog.
    pub(crate) events: u64,
    /// Time to fill it, in seconds.
    pub(crate) fill_seconds: f64,
    /// Whose clock stamped the records.
    pub(crate) record_clock: RecordClock,
    /// Events per second from the first to the last record's stamp.
    pub(crate) events_per_second: f64,
    /// Events per second from the start of the relay's process to the last record's stamp.
    pub(crate) events_per_second_from_start: f64,
    /// Seconds from the start of the relay's process to the first record's stamp.
    pub(crate) first_record_seconds: f64,
    /// CPU of the relay's process tree per event, in microseconds.
    pub(crate) relay_cpu_us_per_event: f64,
    /// Highest resident memory of the relay, in megabytes (10^6 bytes).
    pub(crate) relay_peak_megabytes: f64,
    /// CPU of the PostgreSQL server per event, when it runs on this machine.
    pub(crate) postgres_cpu_us_per_event: Option<f64>,
    /// CPU of the broker per event, when its process id was given.
    pub(crate) kafka_cpu_us_per_event: Option<f64>,
    /// What the audit found.
    pub(crate) audit: Option<Verdict>,
}

/// All runs, and the ranges of the main figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainReport {
    /// Names this layout.
    pub(crate) schema: &'static str,
    /// The relay's command line.
    pub(crate) relay: String,
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// Headers in each row.
    pub(crate) headers: u32,
    /// Who made the events' ids.
    pub(crate) ids: Ids,
    /// Number of aggregates.
    pub(crate) aggregates: u32,
    /// Connections that wrote.
    pub(crate) writers: u16,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// Range of the rate, first to last record.
    pub(crate) events_per_second: Range,
    /// Range of the relay's CPU per event.
    pub(crate) relay_cpu_us_per_event: Range,
    /// The runs.
    pub(crate) runs: Vec<DrainRun>,
}

/// Does the command `drain`.
///
/// # Errors
/// As the module says.
pub(crate) async fn drain(args: &DrainArgs) -> Result<()> {
    let report = measure(args, |number, run| {
        if !args.json {
            show_run(number, run);
        }
    })
    .await?;
    finish(args, &report)
}

/// Does all runs; `each` is told of every run as it ends.
///
/// # Errors
/// When a server refuses, or the relay ends or stalls; faults that the audit finds are in the report.
pub(crate) async fn measure(
    args: &DrainArgs,
    mut each: impl FnMut(u32, &DrainRun),
) -> Result<DrainReport> {
    let site = Site::open(args).await?;
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let run = site.run(number).await?;
        each(number, &run);
        runs.push(run);
    }
    let report = report(args, site.topic.partitions(), runs)?;
    let json = serde_json::to_string_pretty(&report).context("the report cannot be written")?;
    let path = args.out.join("drain.json");
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(report)
}

/// Lets a relay that reads the log have its slot, as a run with `log_reader` does before its backlog;
/// gives the slot's name.
///
/// # Errors
/// As [`measure`].
pub(crate) async fn prime(args: &DrainArgs) -> Result<String> {
    let site = Site::open(args).await?;
    site.prepare().await?;
    site.prime(&args.out.join("relay-before.log")).await
}

fn report(args: &DrainArgs, partitions: i32, runs: Vec<DrainRun>) -> Result<DrainReport> {
    let range = |figure: fn(&DrainRun) -> f64| {
        Range::of(runs.iter().map(figure)).context("there was no run")
    };
    Ok(DrainReport {
        schema: "postrider-load/drain/1",
        relay: process::without_passwords(&args.relay),
        tx_size: args.shape.tx_size,
        payload_bytes: args.shape.payload_bytes,
        headers: args.shape.headers,
        ids: args.shape.ids,
        aggregates: args.shape.aggregates,
        writers: args.shape.writers,
        partitions,
        events_per_second: range(|run| run.events_per_second)?,
        relay_cpu_us_per_event: range(|run| run.relay_cpu_us_per_event)?,
        runs,
    })
}

fn finish(args: &DrainArgs, report: &DrainReport) -> Result<()> {
    if args.json {
        let json = serde_json::to_string_pretty(report).context("no JSON")?;
        output::data(&json);
    } else if report.runs.len() > 1 {
        output::data(&format!(
            "{} runs (min–median–max): {} events/s, relay {} µs of CPU per event",
            report.runs.len(),
            report.events_per_second.show(0),
            report.relay_cpu_us_per_event.show(2),
        ));
    }
    let faulty = report.runs.iter().filter_map(|run| run.audit.as_ref()).find(|v| !v.is_clean());
    match faulty {
        None => Ok(()),
        Some(verdict) => {
            Err(Broken(format!("the audit found a fault: {}", verdict.summary())).into())
        }
    }
}

fn show_run(number: u32, run: &DrainRun) {
    output::data(&format!(
        "run {number}: {} events at {}/s ({}/s from process start, first record after {:.2} s)",
        grouped(run.events),
        grouped(run.events_per_second as u64),
        grouped(run.events_per_second_from_start as u64),
        run.first_record_seconds,
    ));
    let also = |name: &str, figure: Option<f64>| {
        figure.map_or(String::new(), |figure| format!(", {name} {figure:.2} µs"))
    };
    output::data(&format!(
        "  CPU per event: relay {:.2} µs{}{}; relay peak memory {:.1} MB",
        run.relay_cpu_us_per_event,
        also("PostgreSQL", run.postgres_cpu_us_per_event),
        also("Kafka", run.kafka_cpu_us_per_event),
        run.relay_peak_megabytes,
    ));
    if run.record_clock == RecordClock::Create {
        output::data(
            "  the topic keeps the relay's stamps (CreateTime), so the rate is the sender's",
        );
    }
    if let Some(verdict) = &run.audit {
        output::data(&format!("  audit: {}", verdict.summary()));
    }
}

struct Site<'a> {
    args: &'a DrainArgs,
    client: Client,
    table: Outbox,
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
struct Watched {
    relay_started_ms: i64,
    relay_cpu: Duration,
    relay_peak_bytes: u64,
    before: ServerCpu,
    after: ServerCpu,
}

impl<'a> Site<'a> {
    async fn open(args: &'a DrainArgs) -> Result<Self> {
        process::check_program(&args.relay)?;
        std::fs::create_dir_all(&args.out)
            .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
        let client = outbox::connect(&args.source.database_url).await?;
        let table = Outbox::find(&client, &args.source.outbox).await?.with_ids(args.shape.ids);
        let topic = Topic::open(&args.sink.brokers, &args.sink.topic, args.sink.partitions).await?;
        Ok(Self { args, client, table, topic })
    }

    async fn run(&self, number: u32) -> Result<DrainRun> {
        self.prepare().await?;
        let log = self.args.out.join(format!("relay-{number}.log"));
        if self.args.log_reader {
            self.prime(&self.args.out.join(format!("relay-{number}-before.log"))).await?;
        }
        let warm = self.warm_up(&log).await?;
        let from = self.topic.ends()?;
        let shape = self.shape()?;
        let fill_started = Instant::now();
        let committed = self.fill(&shape, self.args.events).await?;
        let fill_seconds = fill_started.elapsed().as_secs_f64();
        let filled = grouped(self.args.events);
        output::talk(&format!("run {number}: filled {filled} events in {fill_seconds:.1} s"));
        let truth = Truth::new(&shape, &self.args.sink.topic, &from, &committed);
        truth.write(&self.args.out)?;
        if !self.args.no_settle {
            self.table.settle(&self.client).await?;
        }
        let postgres_pid = outbox::server_pid(&self.client).await?;
        let (watched, audit, stamps) = tokio::task::block_in_place(|| {
            let (watched, relay) = self.watch(&from, &log, warm, postgres_pid)?;
            let (audit, stamps) = self.stop_and_audit(relay, &truth)?;
            anyhow::Ok((watched, audit, stamps))
        })?;
        let stamps = stamps.context("the topic has no record of this run")?;
        Ok(self.figures(fill_seconds, &watched, stamps, audit))
    }

    async fn prepare(&self) -> Result<()> {
        if self.args.truncate {
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

    fn shape(&self) -> Result<Shape> {
        let args = &self.args.shape;
        Ok(Shape {
            run: clock::new_run_id()?,
            aggregates: args.aggregates.max(u32::from(args.writers)),
            writers: args.writers,
            payload_bytes: args.payload_bytes,
            headers: RowHeaders::of_count(args.headers),
            rollback_percent: args.rollback_percent.unwrap_or(0),
        })
    }

    async fn fill(&self, shape: &Shape, events: u64) -> Result<Vec<u32>> {
        let backlog = Backlog {
            database_url: &self.args.source.database_url,
            target: &Target::Table(self.table.clone()),
            events,
            tx_size: self.args.shape.tx_size,
            seed: self.args.shape.seed,
        };
        backlog.fill(shape).await
    }

    /// Starts the relay, lets it relay some events so that it is warm, and halts it.
    async fn warm_up(&self, log: &Path) -> Result<Option<Relay>> {
        let events = self.args.warm_up_events;
        if events == 0 {
            return Ok(None);
        }
        let from = self.topic.ends()?;
        let mut relay = Relay::start(&self.args.relay, log)?;
        // No measured run has this number, so repeats of these events are foreign to it.
        self.fill(&Shape { run: 0, ..self.shape()? }, events).await?;
        tokio::task::block_in_place(|| {
            self.wait_for_records(&mut relay, &from, events)?;
            relay.halt()
        })?;
        self.table.truncate(&self.client).await?;
        Ok(Some(relay))
    }

    /// Lets a relay that reads the log have its slot, so that all of the backlog is in it; gives the
    /// slot's name. The relay is stopped again: what it finds in the table it would not read by the slot.
    async fn prime(&self, log: &Path) -> Result<String> {
        let from = self.topic.ends()?;
        let limit = Duration::from_secs(self.args.stall_seconds);
        let mut relay = Relay::start(&self.args.relay, log)?;
        let slot = slot::await_reader(&self.client, &mut relay, limit).await?;
        self.fill(&Shape { run: 0, ..self.shape()? }, PRIME_EVENTS).await?;
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
    ) -> Result<(Watched, Relay)> {
        let before = ServerCpu::read(postgres_pid, self.args.kafka_pid)?;
        let (mut relay, cpu_before) = match warm {
            None => (Relay::start(&self.args.relay, log)?, Duration::ZERO),
            Some(mut relay) => {
                let cpu = relay.usage()?.cpu;
                relay.resume()?;
                (relay, cpu)
            }
        };
        self.wait_for_records(&mut relay, from, self.args.events)?;
        let usage = relay.usage()?;
        let watched = Watched {
            relay_started_ms: clock::unix_ms(relay.started_at)?,
            relay_cpu: usage.cpu.saturating_sub(cpu_before),
            relay_peak_bytes: usage.peak_resident_bytes,
            before,
            after: ServerCpu::read(postgres_pid, self.args.kafka_pid)?,
        };
        Ok((watched, relay))
    }

    fn wait_for_records(&self, relay: &mut Relay, from: &[i64], events: u64) -> Result<()> {
        let stall_limit = Duration::from_secs(self.args.stall_seconds);
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
                if self.args.verify {
                    output::talk(&format!(
                        "nothing came for {stall_limit:?}; the audit will say what is missing"
                    ));
                    return Ok(());
                }
                bail!(
                    "{published} of {} events are in the topic and nothing came for {stall_limit:?}; \
                     see the relay's log in {}",
                    events,
                    self.args.out.display(),
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
        truth: &Truth,
    ) -> Result<(Option<Verdict>, Option<Stamps>)> {
        if !self.args.verify {
            relay.stop()?;
            return Ok((None, self.topic.first_and_last_stamp(&truth.from)?));
        }
        let mut audit = TopicAudit::new(&self.topic, truth)?;
        audit.read_until_complete(self.args.events)?;
        relay.stop()?;
        audit.reopen()?;
        audit.read_to_end()?;
        Ok((Some(audit.verdict(truth)), audit.stamps))
    }

    fn figures(
        &self,
        fill_seconds: f64,
        watched: &Watched,
        (first, last): Stamps,
        audit: Option<Verdict>,
    ) -> DrainRun {
        let events = audit.as_ref().map_or(self.args.events, |verdict| verdict.delivered);
        let seconds = |from_ms: i64, to_ms: i64| (to_ms - from_ms).max(1) as f64 / 1_000.0;
        let per_event = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;
        let between = |after: Option<Duration>, before: Option<Duration>| {
            after.zip(before).map(|(after, before)| per_event(after.saturating_sub(before)))
        };
        let (before, after, started_ms) =
            (&watched.before, &watched.after, watched.relay_started_ms);
        DrainRun {
            events,
            fill_seconds,
            record_clock: last.clock,
            events_per_second: events as f64 / seconds(first.unix_ms, last.unix_ms),
            events_per_second_from_start: events as f64 / seconds(started_ms, last.unix_ms),
            first_record_seconds: seconds(started_ms, first.unix_ms),
            relay_cpu_us_per_event: per_event(watched.relay_cpu),
            relay_peak_megabytes: watched.relay_peak_bytes as f64 / 1e6,
            postgres_cpu_us_per_event: between(after.postgres, before.postgres),
            kafka_cpu_us_per_event: between(after.kafka, before.kafka),
            audit,
        }
    }
}
