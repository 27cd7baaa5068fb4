//! `peers`: the same drain for a relay and its peers, alternately, so that a ratio holds on a machine
//! whose speed changes from minute to minute.
//!
//! Promises: same rows, same broker, same topic; one of each in every round; every run is audited.
//! Must not: tune one side. Fails: when a peer cannot be run or its audit finds a fault.

mod cdc_table;
pub(crate) mod copy_baseline;
mod debezium;
mod endpoints;
mod everybody;
mod limits;
pub(crate) mod peer;
mod perf_test;
pub(crate) mod plan;
pub(crate) mod poller;
mod producer;
mod recvlogical;
mod slot_copy;
mod table;
mod wal_limit;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio_postgres::Client;

use endpoints::Endpoints;
use everybody::everybody;
use peer::{Peer, PeerKind, slug};
use perf_test::PerfTest;
use plan::{PeersPlan, STALL_LIMIT};
use slot_copy::SlotCopies;
use table::{MeasuredLimit, PeerResult};

use crate::audit::topic::{EventSink, Topic};
use crate::drain::plan::RelayStart;
use crate::drain::report::DrainReport;
use crate::failure::Broken;
use crate::measure::environment::Environment;
use crate::measure::slot;
use crate::workload::outbox;
use crate::{drain, output};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
struct PeersReport {
    schema: &'static str,
    environment: Environment,
    standings: Vec<PeerResult>,
    limits: Vec<Vec<MeasuredLimit>>,
}

/// Does the command `peers`.
///
/// # Errors
/// As the module says.
pub(crate) async fn peers(plan: &PeersPlan) -> Result<()> {
    std::fs::create_dir_all(&plan.out)
        .with_context(|| format!("the folder {} cannot be made", plan.out.display()))?;
    let context = PeersContext::open(plan).await?;
    poller::make_table(&context.client).await?;
    let limit_topic = format!("{}.limit", plan.sink.topic);
    Topic::open(&EventSink { topic: limit_topic.clone(), ..plan.sink.clone() }).await?;
    let all = everybody(plan)?;
    let mut report = PeersReport {
        schema: "postrider-load/peers/2",
        environment: Environment::look(&context.client, Some(&plan.relay), &plan.notes).await?,
        standings: all.iter().map(PeerResult::new).collect(),
        limits: Vec::new(),
    };
    for round in 1..=plan.rounds {
        let mut limits = Vec::new();
        for (at, peer) in all.iter().enumerate() {
            let iteration = context.run_peer(peer, round).await?;
            report.standings[at].runs.extend(iteration.report.runs);
            limits.extend(iteration.limits);
            // After each run, so that an interrupted set keeps what it has.
            write(plan, &report)?;
        }
        limits.extend(context.limits(&limit_topic).await?);
        report.limits.push(limits);
        write(plan, &report)?;
    }
    output::data(&table::markdown(&report.standings, &report.limits)?);
    judge(&report.standings)
}

/// What all runs share.
struct PeersContext<'a> {
    plan: &'a PeersPlan,
    client: Client,
    endpoints: Endpoints,
    debezium: Option<debezium::DebeziumServer>,
    perf_test: Option<PerfTest>,
}

/// One run of one peer, and the limits that were measured together with it.
struct Iteration {
    report: DrainReport,
    limits: Vec<MeasuredLimit>,
}

impl Iteration {
    fn alone(report: DrainReport) -> Self {
        Self { report, limits: Vec::new() }
    }
}

impl<'a> PeersContext<'a> {
    /// Fetches what is missing before anything is measured.
    async fn open(plan: &'a PeersPlan) -> Result<Self> {
        let client = outbox::connect(&plan.source.database_url).await?;
        let endpoints = Endpoints::find(&client, &plan.source.database_url).await?;
        let (debezium, perf_test) = tokio::task::block_in_place(|| {
            let debezium = plan.debezium.then(debezium::install).transpose()?;
            let perf_test = (plan.limits).then(PerfTest::install).transpose()?;
            anyhow::Ok((debezium, perf_test))
        })?;
        Ok(Self { plan, client, endpoints, debezium, perf_test })
    }

    /// One run of one peer.
    async fn run_peer(&self, peer: &Peer, round: u32) -> Result<Iteration> {
        let folder = self.plan.out.join(format!("{}-{round}", slug(&peer.name)));
        let iteration = match (&peer.kind, &self.debezium) {
            (PeerKind::Debezium(profile), Some(server)) => {
                let (client, sink) = (&self.client, &self.plan.sink);
                let command =
                    server.prepare(*profile, client, &self.endpoints, sink, &folder).await?;
                let peer = Peer { command, ..peer.clone() };
                let start = RelayStart::Warm { events: debezium::WARM_UP_EVENTS };
                let report = self.drain(&peer, round, start, &folder).await;
                // A slot that stays would hold the WAL back for everybody's later runs.
                let cleaned = debezium::clean_up(client).await;
                report.and_then(|report| cleaned.map(|()| Iteration::alone(report)))
            }
            (PeerKind::WalReader(polling), _) => self.read_wal(peer, polling, round, &folder).await,
            _ => self.drain(peer, round, RelayStart::Cold, &folder).await.map(Iteration::alone),
        };
        iteration.with_context(|| format!("{} could not be measured", peer.name))
    }

    /// The relay by its slot, and `pg_recvlogical` by copies of it.
    async fn read_wal(
        &self,
        peer: &Peer,
        polling: &str,
        round: u32,
        folder: &Path,
    ) -> Result<Iteration> {
        let slot = drain::prime(&self.plan.drain(peer, RelayStart::WithSlot, folder)).await?;
        let copies = SlotCopies::make(&self.client, &slot, &peer.table).await?;
        let report = self.drain(peer, round, RelayStart::Cold, folder).await;
        let limits = copies.read(&self.endpoints, self.plan.events).await;
        let log = folder.join("relay-leaves-slot.log");
        let released = slot::release(&self.client, polling, &log, STALL_LIMIT).await;
        released?;
        Ok(Iteration { report: report?, limits: limits? })
    }

    async fn drain(
        &self,
        peer: &Peer,
        round: u32,
        start: RelayStart,
        folder: &Path,
    ) -> Result<DrainReport> {
        drain::measure(&self.plan.drain(peer, start, folder), |_, run| {
            let rate = run.events_per_second;
            output::talk(&format!("round {round}, {}: {rate:.0} events/s", peer.name));
        })
        .await
    }

    /// The other limits of this round, if they are wanted. The outbox still holds its rows.
    async fn limits(&self, topic: &str) -> Result<Vec<MeasuredLimit>> {
        let Some(perf_test) = &self.perf_test else { return Ok(Vec::new()) };
        limits::measure(self.plan, &self.client, &self.endpoints, perf_test, topic).await
    }
}

/// Writes what is known so far.
fn write(plan: &PeersPlan, report: &PeersReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the result has no JSON")?;
    let table = table::markdown(&report.standings, &report.limits)?;
    for (name, text) in [("peers.json", &json), ("peers.md", &table)] {
        let path = plan.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn judge(standings: &[PeerResult]) -> Result<()> {
    for standing in standings {
        let audits = standing.runs.iter().filter_map(|run| run.audit.as_ref());
        if let Some(verdict) = audits.into_iter().find(|verdict| !verdict.holds()) {
            bail!(Broken(format!("{}: {}", standing.name, verdict)));
        }
    }
    Ok(())
}
