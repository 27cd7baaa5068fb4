//! `peers`: the same drain for a relay and its peers, in turns, so that a ratio holds on a machine
//! whose speed changes from minute to minute.
//!
//! Promises: same rows, same broker, same topic; one of each in every round; every run is audited.
//! Must not: tune one side. Fails: when a peer cannot be run or its audit finds a fault.

mod cdc_table;
pub(crate) mod copy_baseline;
mod debezium;
mod endpoints;
mod java;
mod limits;
mod log_limit;
mod perf_test;
pub(crate) mod poller;
mod producer;
mod recvlogical;
mod slot_copy;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio_postgres::Client;

use crate::audit::topic::Topic;
use crate::cli::{DrainArgs, PeersArgs};
use crate::drain::{self, DrainReport, DrainRun};
use crate::failure::Broken;
use crate::measure::environment::Environment;
use crate::measure::process;
use crate::measure::range::Range;
use crate::measure::slot;
use crate::output;
use crate::workload::outbox;
use debezium::Profile;
use endpoints::Ways;
use limits::Limit;
use perf_test::PerfTest;
use slot_copy::Copies;

/// The relay, as the table names it, and the same relay reading the log.
const RELAY: &str = "relay";
const LOG_RELAY: &str = "relay, wal";

/// How long a relay may bring nothing.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The name in the table.
    pub(crate) name: String,
    /// The table that it relays.
    pub(crate) table: String,
    /// Its command line.
    pub(crate) command: String,
    kind: Kind,
}

/// What a peer needs around its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Plain,
    /// A slot before the backlog is written, and a relay that drops it afterwards: this command line.
    LogReader(String),
    /// Table, slot and configuration, made for each run; and warming up.
    Debezium(Profile),
}

/// Reads `name=table=command`.
///
/// # Errors
/// When a part is missing.
pub(crate) fn parse_peer(text: &str) -> Result<Peer, String> {
    let mut parts = text.splitn(3, '=').map(str::to_owned);
    let (name, table, command) = (parts.next(), parts.next(), parts.next());
    match (name, table, command) {
        (Some(name), Some(table), Some(command)) if !command.is_empty() => {
            Ok(Peer { name, table, command, kind: Kind::Plain })
        }
        _ => Err("a peer is NAME=TABLE=COMMAND, as in other=public.outbox=/usr/bin/other".into()),
    }
}

/// What came of one peer.
#[derive(Clone, Debug, Serialize)]
struct Standing {
    name: String,
    command: String,
    runs: Vec<DrainRun>,
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
struct PeersReport {
    schema: &'static str,
    environment: Environment,
    standings: Vec<Standing>,
    limits: Vec<Vec<Limit>>,
}

/// Does the command `peers`.
///
/// # Errors
/// As the module says.
pub(crate) async fn peers(args: &PeersArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    let site = Site::open(args).await?;
    poller::make_table(&site.client).await?;
    let limit_topic = format!("{}.limit", args.sink.topic);
    Topic::open(&args.sink.brokers, &limit_topic, args.sink.partitions).await?;
    let all = everybody(args)?;
    let mut report = PeersReport {
        schema: "postrider-load/peers/2",
        environment: Environment::look(&site.client, Some(&args.relay), &args.note).await?,
        standings: all.iter().map(Standing::new).collect(),
        limits: Vec::new(),
    };
    for round in 1..=args.runs {
        let mut limits = Vec::new();
        for (at, peer) in all.iter().enumerate() {
            let turn = site.turn_of(peer, round).await?;
            report.standings[at].runs.extend(turn.report.runs);
            limits.extend(turn.limits);
            // After each run, so that an interrupted set keeps what it has.
            write(args, &report)?;
        }
        limits.extend(site.limits(&limit_topic).await?);
        report.limits.push(limits);
        write(args, &report)?;
    }
    output::data(&table::markdown(&report.standings, &report.limits)?);
    judge(&report.standings)
}

/// What all runs share.
struct Site<'a> {
    args: &'a PeersArgs,
    client: Client,
    ways: Ways,
    debezium: Option<debezium::Server>,
    perf_test: Option<PerfTest>,
}

/// One run of one peer, and the limits that were measured together with it.
struct Turn {
    report: DrainReport,
    limits: Vec<Limit>,
}

impl Turn {
    fn alone(report: DrainReport) -> Self {
        Self { report, limits: Vec::new() }
    }
}

impl<'a> Site<'a> {
    /// Fetches what is missing before anything is measured.
    async fn open(args: &'a PeersArgs) -> Result<Self> {
        let client = outbox::connect(&args.source.database_url).await?;
        let ways = Ways::find(&client, &args.source.database_url).await?;
        let (debezium, perf_test) = tokio::task::block_in_place(|| {
            let debezium = args.debezium.then(debezium::install).transpose()?;
            let perf_test = (!args.no_limits).then(PerfTest::install).transpose()?;
            anyhow::Ok((debezium, perf_test))
        })?;
        Ok(Self { args, client, ways, debezium, perf_test })
    }

    /// One run of one peer.
    async fn turn_of(&self, peer: &Peer, round: u32) -> Result<Turn> {
        let folder = self.args.out.join(format!("{}-{round}", slug(&peer.name)));
        let turn = match (&peer.kind, &self.debezium) {
            (Kind::Debezium(profile), Some(server)) => {
                let (client, sink) = (&self.client, &self.args.sink);
                let command = server.prepare(*profile, client, &self.ways, sink, &folder).await?;
                let peer = Peer { command, ..peer.clone() };
                let report = self.drain(&peer, round, debezium::WARM_UP_EVENTS, &folder).await;
                // A slot that stays would hold the log back for everybody's later runs.
                let cleaned = debezium::clean_up(client).await;
                report.and_then(|report| cleaned.map(|()| Turn::alone(report)))
            }
            (Kind::LogReader(polling), _) => self.read_log(peer, polling, round, &folder).await,
            _ => self.drain(peer, round, 0, &folder).await.map(Turn::alone),
        };
        turn.with_context(|| format!("{} could not be measured", peer.name))
    }

    /// The relay by its slot, and `pg_recvlogical` by copies of it.
    async fn read_log(
        &self,
        peer: &Peer,
        polling: &str,
        round: u32,
        folder: &Path,
    ) -> Result<Turn> {
        let slot = drain::prime(&drain_args(self.args, peer, 0, folder)).await?;
        let copies = Copies::make(&self.client, &slot, &peer.table).await?;
        let report = self.drain(peer, round, 0, folder).await;
        let limits = copies.read(&self.ways, self.args.events).await;
        let log = folder.join("relay-leaves-slot.log");
        let released = slot::release(&self.client, polling, &log, STALL_LIMIT).await;
        released?;
        Ok(Turn { report: report?, limits: limits? })
    }

    async fn drain(
        &self,
        peer: &Peer,
        round: u32,
        warm_up_events: u64,
        folder: &Path,
    ) -> Result<DrainReport> {
        let drain_args = drain_args(self.args, peer, warm_up_events, folder);
        drain::measure(&drain_args, |_, run| {
            let rate = run.events_per_second;
            output::talk(&format!("round {round}, {}: {rate:.0} events/s", peer.name));
        })
        .await
    }

    /// The other limits of this round, if they are wanted. The outbox still holds its rows.
    async fn limits(&self, topic: &str) -> Result<Vec<Limit>> {
        let Some(perf_test) = &self.perf_test else { return Ok(Vec::new()) };
        limits::measure(self.args, &self.client, &self.ways, perf_test, topic).await
    }
}

/// Writes what is known so far.
fn write(args: &PeersArgs, report: &PeersReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the result has no JSON")?;
    let table = table::markdown(&report.standings, &report.limits)?;
    for (name, text) in [("peers.json", &json), ("peers.md", &table)] {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Standing {
    fn new(peer: &Peer) -> Self {
        let command = process::without_passwords(&peer.command);
        Self { name: peer.name.clone(), command, runs: Vec::new() }
    }

    fn range(&self, figure: impl Fn(&DrainRun) -> Option<f64>) -> Option<Range> {
        Range::of(self.runs.iter().filter_map(figure))
    }
}

/// A folder's name for a peer.
fn slug(name: &str) -> String {
    name.replace(", ", "-").replace(' ', "-")
}

/// The relay first, then the limit, the hand-made poller, and those that were given.
fn everybody(args: &PeersArgs) -> Result<Vec<Peer>> {
    let tool = std::env::current_exe().context("this program's own path is not known")?;
    let tool = tool.to_str().context("this program's path is not text")?;
    let common = format!(
        "--database-url {} --brokers {} --topic {}",
        quoted(&args.source.database_url),
        quoted(&args.sink.brokers),
        quoted(&args.sink.topic)
    );
    let outbox = &args.source.outbox;
    let peer = |name: &str, table: &str, command: String| Peer {
        name: name.to_owned(),
        table: table.to_owned(),
        command,
        kind: Kind::Plain,
    };
    let mut all = Vec::new();
    if args.wal {
        let [poll, wal] = ["poll", "wal"].map(|way| format!("{} --capture {way}", args.relay));
        all.push(peer(RELAY, outbox, poll.clone()));
        all.push(Peer { kind: Kind::LogReader(poll), ..peer(LOG_RELAY, outbox, wal) });
    } else {
        all.push(peer(RELAY, outbox, args.relay.clone()));
    }
    all.extend([
        peer(
            "bare copy and produce",
            outbox,
            format!("{} peer-bare {common} --outbox {}", quoted(tool), quoted(outbox)),
        ),
        peer("hand-made poller", poller::TABLE, format!("{} peer-poller {common}", quoted(tool))),
    ]);
    if args.debezium {
        // Its command line names the folder of a run, so it is made when the run begins.
        all.extend([Profile::Lab, Profile::Tuned].map(|profile| Peer {
            kind: Kind::Debezium(profile),
            ..peer(profile.name(), cdc_table::TABLE, String::new())
        }));
    }
    all.extend(args.peer.iter().cloned());
    Ok(all)
}

/// One argument of a command line, whatever it holds.
fn quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn drain_args(args: &PeersArgs, peer: &Peer, warm_up_events: u64, folder: &Path) -> DrainArgs {
    let mut source = args.source.clone();
    source.outbox.clone_from(&peer.table);
    DrainArgs {
        source,
        sink: args.sink.clone(),
        shape: args.shape.clone(),
        events: args.events,
        relay: peer.command.clone(),
        runs: 1,
        truncate: true,
        warm_up_events,
        log_reader: false,
        no_settle: false,
        verify: true,
        kafka_pid: args.kafka_pid,
        stall_seconds: STALL_LIMIT.as_secs(),
        out: folder.to_owned(),
        json: false,
    }
}

fn judge(standings: &[Standing]) -> Result<()> {
    for standing in standings {
        let audits = standing.runs.iter().filter_map(|run| run.audit.as_ref());
        if let Some(verdict) = audits.into_iter().find(|verdict| !verdict.is_clean()) {
            bail!(Broken(format!("{}: {}", standing.name, verdict.summary())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_with_their_commands_whole() {
        let peer = parse_peer("other=public.outbox=run --a=b c").unwrap();
        assert_eq!((peer.name.as_str(), peer.table.as_str()), ("other", "public.outbox"));
        assert_eq!(peer.command, "run --a=b c");
        assert!(parse_peer("other=table").is_err() && parse_peer("a=b=").is_err());
    }

    #[test]
    fn quoted_arguments_survive_the_splitting() {
        for argument in ["host=a user=b", "it's", "\"x\" \\y"] {
            let line = format!("tool {}", quoted(argument));
            assert_eq!(process::split_command_line(&line).unwrap()[1], argument);
        }
    }
}
