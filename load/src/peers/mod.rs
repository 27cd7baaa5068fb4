//! `peers`: the same drain for a relay and its peers, in turns, so that a ratio holds on a machine
//! whose speed changes from minute to minute.
//!
//! Promises: same rows, same broker, same topic; one of each in every round; every run is audited.
//! Must not: tune one side. Fails: when a peer cannot be run or its audit finds a fault.

pub(crate) mod bare;
mod limits;
pub(crate) mod poller;
mod producer;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::{DrainArgs, PeersArgs};
use crate::drain::{self, DrainRun};
use crate::environment::Environment;
use crate::failure::Broken;
use crate::range::Range;
use crate::topic::Topic;
use crate::{outbox, process, screen};
use limits::Limits;

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The name in the table.
    pub(crate) name: String,
    /// The table that it relays.
    pub(crate) table: String,
    /// Its command line.
    pub(crate) command: String,
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
            Ok(Peer { name, table, command })
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
    limits: Vec<Limits>,
}

/// Does the command `peers`.
///
/// # Errors
/// As the module says.
pub(crate) async fn peers(args: &PeersArgs) -> Result<()> {
    let client = outbox::connect(&args.source.database_url).await?;
    poller::make_table(&client).await?;
    let limit_topic = format!("{}.limit", args.sink.topic);
    Topic::open(&args.sink.brokers, &limit_topic, args.sink.partitions).await?;
    let all = everybody(args)?;
    let mut report = PeersReport {
        schema: "postrider-load/peers/1",
        environment: Environment::look(&client, Some(&args.relay), &args.note).await?,
        standings: all.iter().map(Standing::new).collect(),
        limits: Vec::new(),
    };
    for round in 1..=args.runs {
        for (peer, standing) in all.iter().zip(&mut report.standings) {
            standing.runs.extend(round_of(args, peer, round).await?);
        }
        let (outbox, brokers) = (&args.source.outbox, &args.sink.brokers);
        report.limits.push(limits::measure(&client, outbox, brokers, &limit_topic).await?);
    }
    finish(args, &report)
}

/// One run of one peer.
async fn round_of(args: &PeersArgs, peer: &Peer, round: u32) -> Result<Vec<DrainRun>> {
    let folder = args.out.join(format!("{}-{round}", peer.name.replace(' ', "-")));
    let drain_args = drain_args(args, peer, &folder);
    let report = drain::measure(&drain_args, |_, run| {
        let rate = run.events_per_second;
        screen::talk(&format!("round {round}, {}: {rate:.0} events/s", peer.name));
    });
    let report = report.await.with_context(|| format!("{} could not be measured", peer.name))?;
    Ok(report.runs)
}

fn finish(args: &PeersArgs, report: &PeersReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the result has no JSON")?;
    let table = markdown(&report.standings, &report.limits)?;
    for (name, text) in [("peers.json", &json), ("peers.md", &table)] {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    screen::data(&table);
    judge(&report.standings)
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
    };
    let mut all = vec![
        peer("relay", outbox, args.relay.clone()),
        peer(
            "bare copy and produce",
            outbox,
            format!("{} peer-bare {common} --outbox {}", quoted(tool), quoted(outbox)),
        ),
        peer("hand-made poller", poller::TABLE, format!("{} peer-poller {common}", quoted(tool))),
    ];
    all.extend(args.peer.iter().cloned());
    Ok(all)
}

/// One argument of a command line, whatever it holds.
fn quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn drain_args(args: &PeersArgs, peer: &Peer, folder: &Path) -> DrainArgs {
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
        no_settle: false,
        verify: true,
        kafka_pid: args.kafka_pid,
        stall_seconds: 120,
        out: folder.to_owned(),
        json: false,
    }
}

/// The table, with the relay's rate over each peer's, median by median.
fn markdown(standings: &[Standing], limits: &[Limits]) -> Result<String> {
    let first = standings.first().context("nobody took part")?;
    let rate = |standing: &Standing| standing.range(|run| Some(run.events_per_second));
    let relay_rate = rate(first).context("the relay has no run")?;
    let mut text = String::from(
        "| who | runs | events/s | relay's rate is | CPU µs/event | PostgreSQL CPU µs/event | \
         peak MB | missing / out of order / repeats |\n|---|---|---|---|---|---|---|---|\n",
    );
    for standing in standings {
        let show = |range: Option<Range>, decimals| {
            range.map_or_else(|| "–".to_owned(), |range| range.show(decimals))
        };
        let ratio = rate(standing).map_or(0.0, |range| relay_rate.median / range.median);
        let audits = || standing.runs.iter().filter_map(|run| run.audit.as_ref());
        text.push_str(&format!(
            "| {} | {} | {} | {ratio:.2} × | {} | {} | {} | {} / {} / {} |\n",
            standing.name,
            standing.runs.len(),
            show(rate(standing), 0),
            show(standing.range(|run| Some(run.relay_cpu_us_per_event)), 2),
            show(standing.range(|run| run.postgres_cpu_us_per_event), 2),
            show(standing.range(|run| Some(run.relay_peak_megabytes)), 0),
            audits().map(|audit| audit.missing).sum::<u64>(),
            audits().map(|audit| audit.out_of_order).sum::<u64>(),
            audits().map(|audit| audit.repeats).sum::<u64>(),
        ));
    }
    let mut line = |name: &str, figure: fn(&Limits) -> f64| {
        let range = Range::of(limits.iter().map(figure)).context("no limit was measured")?;
        let (runs, ratio) = (limits.len(), relay_rate.median / range.median);
        let shown = range.show(0);
        text.push_str(&format!("| {name} | {runs} | {shown} | {ratio:.2} × | – | – | – | – |\n"));
        anyhow::Ok(())
    };
    line("limit: reading alone", |limits| limits.rows_read_per_second)?;
    line("limit: producing alone", |limits| limits.records_produced_per_second)?;
    Ok(text)
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
