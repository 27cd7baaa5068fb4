//! One run: the stage is set, customers come, things are killed, and in the end everything is compared.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use hashbrown::HashSet;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::arguments::Options;
use crate::audit::{Findings, audit};
use crate::chaos;
use crate::customers::{Customers, Figures};
use crate::ledger::{self, Losses, NAIVE_TOPIC, WITHOUT};
use crate::page;
use crate::scenes::{Slowness, slow_consumer, switch_twice};
use crate::stage::Stage;
use crate::topics::{aside, read_all};
use crate::watch::Watch;

/// The last effects may take so long: the databases must agree then.
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);
const PROGRESS: Duration = Duration::from_secs(5);
/// Differences that are told; the rest is counted.
const TOLD_DIFFERENCES: usize = 20;

/// Shows it. Exit code 0 says that everything agrees.
pub(crate) fn run(runtime: &Runtime, options: Options) -> Result<ExitCode> {
    let stage = Arc::new(runtime.block_on(Stage::start(&options))?);
    println!("logs: {}", stage.folder.display());
    let verdict = runtime.block_on(play(&stage, &options))?;
    if verdict.findings.differences.is_empty() {
        std::fs::remove_dir_all(&stage.folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("the logs are kept: {}", stage.folder.display());
    Ok(ExitCode::FAILURE)
}

async fn play(stage: &Arc<Stage>, options: &Options) -> Result<Verdict> {
    let customers = Arc::new(Customers {
        orders: stage.orders,
        naive: stage.naive,
        seed: options.seed,
        figures: Figures::default(),
    });
    let (stage_of_watch, customers_of_watch) = (Arc::clone(stage), Arc::clone(&customers));
    let view = Mutex::default();
    let watch = Arc::new(Watch { stage: stage_of_watch, customers: customers_of_watch, view });
    if !options.headless {
        tokio::spawn(Arc::clone(&watch).run());
        println!("the page: {}", page::serve(Arc::clone(&watch), options.page).await?);
    }
    let progress = tokio::spawn(tell(Arc::clone(&customers)));
    let stop = Stop::listen();
    let scenes = show(stage, options, &customers, &stop).await;
    progress.abort();
    let verdict = conclude(stage, options, &customers).await?;
    let lines = report(stage, options, &customers, &scenes?, &verdict);
    for line in &lines {
        println!("{line}");
    }
    if !options.headless {
        watch.update(|view| view.verdict = Some(lines.join("\n")));
        println!("the page stays until Ctrl-C");
        stop.said().await;
    }
    Ok(verdict)
}

/// Traffic and faults, until the time is over or somebody says Ctrl-C; then the last orders come to their end.
async fn show(
    stage: &Arc<Stage>,
    options: &Options,
    customers: &Arc<Customers>,
    stop: &Stop,
) -> Result<Option<Slowness>> {
    let whole = Duration::from_secs(options.seconds);
    let chaos = options.chaos.then(|| {
        let every = Duration::from_millis(options.kill_every);
        tokio::spawn(chaos::rage(Arc::clone(stage), every, options.seed))
    });
    let switch = options.switch.then(|| tokio::spawn(switch_twice(Arc::clone(stage), whole)));
    let slowness = async {
        match options.slow_consumer {
            true => slow_consumer(Arc::clone(stage), &customers.figures, whole).await.map(Some),
            false => Ok(None),
        }
    };
    let enough = async move {
        tokio::select! {
            () = tokio::time::sleep(whole) => {}
            () = stop.said() => println!("stopped before its time"),
        }
        if let Some(chaos) = chaos {
            chaos.abort();
        }
    };
    let ((), slowness) = tokio::join!(Arc::clone(customers).come(options.rate, enough), slowness);
    if let Some(switch) = switch {
        switch.await??;
    }
    slowness
}

/// The word to stop, Ctrl-C: the first time the traffic ends and the audit comes, the second time all ends at once.
struct Stop(watch::Receiver<bool>);

impl Stop {
    fn listen() -> Self {
        let (say, said) = watch::channel(false);
        tokio::spawn(async move {
            let mut words = 0;
            while tokio::signal::ctrl_c().await.is_ok() {
                words += 1;
                say.send_replace(true);
                if words > 1 {
                    std::process::exit(1);
                }
            }
        });
        Self(said)
    }

    async fn said(&self) {
        // Where nobody can say it, it is never said.
        if self.0.clone().wait_for(|is_said| *is_said).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A line now and then.
async fn tell(customers: Arc<Customers>) {
    let begin = Instant::now();
    loop {
        tokio::time::sleep(PROGRESS).await;
        let [placed, ended, asked_again] = customers.figures.counts();
        let seconds = begin.elapsed().as_secs();
        println!(
            "{seconds:>4} s  {placed} orders placed, {ended} at their end, {asked_again} requests asked again"
        );
    }
}

/// What it all came to.
#[derive(Debug)]
struct Verdict {
    findings: Findings,
    losses: Vec<Losses>,
    /// Repeats that consumers were given and dropped.
    dropped: i64,
}

/// Waits until everything agrees, or for so long that it never will.
async fn conclude(stage: &Arc<Stage>, options: &Options, customers: &Customers) -> Result<Verdict> {
    // A server that was killed last is there again when its turn is over.
    stage.is_whole().await;
    let begin = Instant::now();
    let mut findings = loop {
        let looked = audit(stage).await;
        let is_late = begin.elapsed() > AGREEMENT_DEADLINE;
        match looked {
            Ok(findings) if findings.differences.is_empty() || is_late => break findings,
            Err(error) if is_late => return Err(error),
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    let [placed, ended, ..] = customers.figures.counts();
    if placed != ended {
        findings.differences.push(format!("of {placed} orders, {ended} came to their end"));
    }
    if u64::try_from(findings.orders)? != placed {
        let orders = findings.orders;
        findings.differences.push(format!("{orders} orders, but customers placed {placed}"));
    }
    let mut dropped = 0;
    for owner in ["orders", "stock", "payments", "read-model"] {
        let database = stage.database(owner).await?;
        let row = database.query_one(include_str!("sql/page_figures.sql"), &[]).await?;
        dropped += row.try_get::<_, i64>("repeats")?;
    }
    let losses = if options.naive { losses(stage).await? } else { Vec::new() };
    Ok(Verdict { findings, losses, dropped })
}

async fn losses(stage: &Arc<Stage>) -> Result<Vec<Losses>> {
    // The last orders are settled then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let brokers = stage.brokers().to_owned();
    let seen = aside(move || read_all(&brokers, &[NAIVE_TOPIC])).await?;
    let events: HashSet<String> = seen.into_iter().map(|record| record.key).collect();
    ledger::compare(&stage.database("naive").await?, WITHOUT, &events).await
}

fn report(
    stage: &Stage,
    options: &Options,
    customers: &Customers,
    slowness: &Option<Slowness>,
    verdict: &Verdict,
) -> Vec<String> {
    let findings = &verdict.findings;
    let mut lines = Vec::new();
    if options.chaos {
        let kills = stage.kills();
        let all: u32 = kills.iter().map(|(_, count)| count).sum();
        let each: Vec<String> =
            kills.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(format!("kills: {all} ({})", each.join(", ")));
    }
    lines.push(format!(
        "orders: {} placed, {} shipped for {}.{:02}; requests asked again: {}",
        findings.orders,
        findings.shipped,
        findings.turnover_cents / 100,
        findings.turnover_cents % 100,
        customers.figures.counts()[2]
    ));
    lines.push(format!(
        "events: {} written; {} repeats in the topics, {} records dropped by inboxes",
        findings.events, findings.repeats, verdict.dropped
    ));
    for Losses { variant, orders, orders_without_event, events_without_order } in &verdict.losses {
        lines.push(format!(
            "{variant}: {orders} orders; {orders_without_event} orders without event, \
             {events_without_order} events without order"
        ));
    }
    if options.switch {
        lines.push("capture: poll, wal and poll again, in mid-traffic".to_owned());
    }
    lines.extend(slowness.as_ref().map(told));
    let differences = &findings.differences;
    if differences.is_empty() {
        lines.push(
            "agreement: orders, stock, payments, read model and topics say the same".to_owned(),
        );
        return lines;
    }
    lines.push(format!("NO AGREEMENT: {} differences", differences.len()));
    lines.extend(differences.iter().take(TOLD_DIFFERENCES).map(|line| format!("  {line}")));
    lines
}

fn told(slowness: &Slowness) -> String {
    let Slowness { highest_lag, drained_in, before, meanwhile } = slowness;
    let latency = |latency: &Option<(Duration, Duration)>| match latency {
        Some((p50, p99)) => format!("p50 {} ms, p99 {} ms", p50.as_millis(), p99.as_millis()),
        None => "not at all".to_owned(),
    };
    let drained = match drained_in {
        Some(time) => format!("drained in {:.1} s", time.as_secs_f64()),
        None => "was not drained in time".to_owned(),
    };
    format!(
        "slow consumer: {highest_lag} records waited in Kafka, {drained}; new orders were answered: before {}, \
         meanwhile {}",
        latency(before),
        latency(meanwhile)
    )
}
