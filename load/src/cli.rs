//! The command line.
//!
//! Promises: every flag has a default that works on one machine, or is required. Must not: do
//! anything. Fails: clap names the flag, the value and the remedy; exit code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::Group;
use crate::measure::environment::parse_note;
use crate::peers::{Peer, parse_peer};
use crate::report::threshold::Threshold;
use crate::workload::event::SMALLEST_PAYLOAD_BYTES;
use crate::workload::outbox::Ids;
use crate::workload::session::{Capture, Workload};

/// Load generator and auditor for a transactional outbox.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 runtime, 2 usage, 4 PostgreSQL, 5 Kafka, \
7 a threshold broke or the audit found a fault.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fill a backlog while no relay runs, then measure how fast a relay drains it.
    #[command(
        after_help = "Example:\n  postrider-load drain --events 500000 --relay 'postrider run'"
    )]
    Drain(DrainArgs),
    /// Write at a fixed rate, audit and time every record, and report.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Do the fixed set of published experiments, one after the other.
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArgs),
    /// Drain the same backlog by a relay, its peers and the limits, in turns.
    #[command(after_help = PEERS_HELP)]
    Peers(PeersArgs),
    /// The hand-made poller that `peers` measures.
    #[command(hide = true)]
    PeerPoller(PollerArgs),
    /// The limit that `peers` measures: copy and produce, nothing else.
    #[command(hide = true)]
    PeerBare(BareArgs),
    /// Audit the topic of an earlier run again: is everything there, in order?
    #[command(after_help = "Example:\n  postrider-load verify runs/live")]
    Verify(VerifyArgs),
    /// Make the report of a run anew, or put two runs side by side.
    #[command(
        after_help = "Example:\n  postrider-load report runs/monday runs/tuesday --out both.html"
    )]
    Report(ReportArgs),
}

const BENCH_HELP: &str =
    "Groups: live, capture, drain, shards, pages, linger, payload, transactions, idle, backlog. All of
them with --runs 3 take about half an hour on two cores and 8 GB of disk; the tool says how long before it
begins. The relay gets --capture poll, wal or message, and is left in poll.

Example:
  postrider-load bench --truncate --relay 'postrider run' --only drain,idle --scale 0.1";

const PEERS_HELP: &str = "Other relays join by --peer; their table has to exist and is emptied too.

Example:
  postrider-load peers --truncate --relay 'postrider run' --events 500000 \\
      --peer 'other=public.other_outbox=/usr/bin/other --some-flag'";

const RUN_EXAMPLES: &str = "Examples:
  postrider-load run --rate 20000 --duration 60s --relay 'postrider run'
  postrider-load run --rate 100000 --tx-size 100 --duration 10m --threshold 'p99<100ms' --out runs/live";

/// Where the events go in.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// The database with the outbox.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// The outbox table.
    #[arg(long, default_value = "public.outbox")]
    pub(crate) outbox: String,
}

/// Where the events come out.
#[derive(Clone, Debug, Args)]
pub(crate) struct SinkArgs {
    /// Kafka bootstrap servers.
    #[arg(long, default_value = "localhost:9092")]
    pub(crate) brokers: String,
    /// The topic that the relay publishes to.
    #[arg(long, default_value = "outbox.event.order")]
    pub(crate) topic: String,
    /// Partitions of the topic, when it has to be made.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub(crate) partitions: i32,
}

/// What the events look like.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Events per transaction.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) tx_size: u32,
    /// Length of each payload, in bytes.
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(i64::from(SMALLEST_PAYLOAD_BYTES)..=10_000_000))]
    pub(crate) payload_bytes: u32,
    /// Headers in each row, besides those that the relay adds; 0 leaves the column out.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) headers: u32,
    /// Who makes an event's id, where the table's `id` is a UUID: the writer, or the column's default, which
    /// costs the database more.
    #[arg(long, value_enum, default_value = "given")]
    pub(crate) ids: Ids,
    /// Number of aggregates (distinct keys).
    #[arg(long, default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) aggregates: u32,
    /// Connections that write; each owns a part of the aggregates.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) writers: u16,
    /// Of 100 transactions, how many are rolled back; their events must never appear. Usually none,
    /// and 2 with --workload orders.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    pub(crate) rollback_percent: Option<u32>,
    /// Seed of the choices of aggregates.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Fill a backlog while no relay runs, then measure how fast a relay drains it.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sink: SinkArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Events in the backlog.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// The relay's command line; no shell is involved.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) relay: String,
    /// How often to repeat; figures are given as minimum, median and maximum.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Empty the outbox before each run.
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Let the relay publish so many events first and halt it (SIGSTOP) while the backlog is filled;
    /// for relays that need warming up. The outbox is emptied in between.
    #[arg(long, default_value_t = 0, value_name = "EVENTS", requires = "truncate")]
    pub(crate) warm_up_events: u64,
    /// The relay reads the log: it runs until its slot is in use and some events have come through, and
    /// is stopped, before the backlog is written. The outbox is emptied after that.
    #[arg(long, requires = "truncate", conflicts_with = "warm_up_events")]
    pub(crate) log_reader: bool,
    /// Skip ANALYZE and CHECKPOINT between filling and draining.
    #[arg(long)]
    pub(crate) no_settle: bool,
    /// Read the whole topic afterwards and audit it.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub(crate) verify: bool,
    /// The broker's process id, to measure its CPU.
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,
    /// Give up when the relay publishes nothing for so long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stall_seconds: u64,
    /// Folder for the relay's log and drain.json.
    #[arg(long, default_value = "postrider-load-out")]
    pub(crate) out: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write at a fixed rate, audit and time every record, and report.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sink: SinkArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Events per second, over all writers.
    #[arg(long, default_value_t = 10_000.0, value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// How long to measure: 60s, 10m, 1h.
    #[arg(long, default_value = "30s", value_parser = parse_seconds)]
    pub(crate) duration: u64,
    /// How long to write before measuring.
    #[arg(long, default_value = "5s", value_parser = parse_seconds_or_none)]
    pub(crate) warmup: u64,
    /// Zipf exponent of the choice of aggregates; 0 uses them evenly, 0.99 is usual for hot keys.
    #[arg(long, default_value_t = 0.0, value_parser = parse_skew)]
    pub(crate) skew: f64,
    /// What a transaction holds.
    #[arg(long, value_enum, default_value_t = Workload::Events)]
    pub(crate) workload: Workload,
    /// How events are written: rows of the outbox, or logical messages that need no table.
    #[arg(long, value_enum, default_value_t = Capture::Table)]
    pub(crate) capture: Capture,
    /// The relay reads the log: nothing is written before its slot is in use. Always so with --capture
    /// message.
    #[arg(long, requires = "relay")]
    pub(crate) log_reader: bool,
    /// The relay's command line, when this tool is to start it; no shell is involved.
    #[arg(long, value_name = "COMMAND", conflicts_with = "relay_pid")]
    pub(crate) relay: Option<String>,
    /// The process id of a relay that runs already, to measure its CPU and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) relay_pid: Option<u32>,
    /// The broker's process id, to measure its CPU and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,
    /// What must hold, as in 'p99<100ms', 'commit_to_consume.p99<80ms', 'rate_out>=99000' or
    /// 'repeats==0'; may be given several times. Exit code 7 when one breaks.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) threshold: Vec<Threshold>,
    /// Let a fault that the audit finds end the run with exit code 7.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub(crate) verify: bool,
    /// Empty the outbox before the run.
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Give the rest up when nothing is delivered for so long after the schedule's end.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stall_seconds: u64,
    /// A name for the run, shown in reports.
    #[arg(long, default_value = "run")]
    pub(crate) name: String,
    /// Something to remember with the run, as key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_note)]
    pub(crate) note: Vec<(String, String)>,
    /// Folder for summary.json, series.csv, latency.hlog, report.html and the relay's log.
    #[arg(long, default_value = "postrider-load-out")]
    pub(crate) out: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Do the fixed set of published experiments, one after the other.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sink: SinkArgs,
    /// The relay's command line; experiments add flags to it. No shell is involved.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) relay: String,
    /// Agree that the outbox is emptied before each experiment.
    #[arg(long, required = true)]
    pub(crate) truncate: bool,
    /// The groups to do; all of them without this flag.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Group>,
    /// How often to repeat each experiment.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Factor on all numbers of events and durations, to try the set out.
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    pub(crate) scale: f64,
    /// The broker's process id, to measure its CPU.
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,
    /// Something to remember with the set, as key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_note)]
    pub(crate) note: Vec<(String, String)>,
    /// Folder for bench.json, bench.md and the files of each experiment.
    #[arg(long, default_value = "postrider-load-bench")]
    pub(crate) out: PathBuf,
}

/// Drain the same backlog by a relay, its peers and the limits, in turns.
#[derive(Clone, Debug, Args)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sink: SinkArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Events in the backlog.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// The relay's command line; no shell is involved.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) relay: String,
    /// Another relay; may be given several times.
    #[arg(long, value_name = "NAME=TABLE=COMMAND", value_parser = parse_peer)]
    pub(crate) peer: Vec<Peer>,
    /// Add Debezium Server, as it comes and tuned. It is fetched once (780 MB) through Maven; Java 21
    /// or newer, wal_level = logical and the rights of a superuser are needed.
    #[arg(long)]
    pub(crate) debezium: bool,
    /// Add the relay with --capture wal, and pg_recvlogical on copies of its slot; the relay itself gets
    /// --capture poll. The rights of a superuser and wal_level = logical are needed.
    #[arg(long)]
    pub(crate) wal: bool,
    /// Leave the limits out, all but those of --wal.
    #[arg(long)]
    pub(crate) no_limits: bool,
    /// Agree that the tables are emptied before each run.
    #[arg(long, required = true)]
    pub(crate) truncate: bool,
    /// Number of rounds; each has one run of everybody.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// The broker's process id, to measure its CPU.
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,
    /// Something to remember with the result, as key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_note)]
    pub(crate) note: Vec<(String, String)>,
    /// Folder for peers.json, peers.md and the files of each run.
    #[arg(long, default_value = "postrider-load-peers")]
    pub(crate) out: PathBuf,
}

/// The hand-made poller that `peers` measures.
#[derive(Clone, Debug, Args)]
pub(crate) struct PollerArgs {
    /// The database with the poller's table.
    #[arg(long)]
    pub(crate) database_url: String,
    /// Kafka bootstrap servers.
    #[arg(long)]
    pub(crate) brokers: String,
    /// The topic.
    #[arg(long)]
    pub(crate) topic: String,
    /// Rows in a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) batch: i64,
}

/// The limit that `peers` measures: copy and produce, nothing else.
#[derive(Clone, Debug, Args)]
pub(crate) struct BareArgs {
    /// The database with the outbox.
    #[arg(long)]
    pub(crate) database_url: String,
    /// The table; it needs a column seq.
    #[arg(long)]
    pub(crate) outbox: String,
    /// Kafka bootstrap servers.
    #[arg(long)]
    pub(crate) brokers: String,
    /// The topic.
    #[arg(long)]
    pub(crate) topic: String,
}

/// Audit the topic of an earlier run again: is everything there, in order?
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of a run or drain, with its truth.json.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Kafka bootstrap servers.
    #[arg(long, default_value = "localhost:9092")]
    pub(crate) brokers: String,
    /// The topic, when it is not the one of the run.
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Print the verdict as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make the report of a run anew, or put two runs side by side.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder of a run, or its summary.json.
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// Folder of the run to set beside it.
    #[arg(value_name = "B")]
    pub(crate) second: Option<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    pub(crate) out: PathBuf,
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    match parse_seconds_or_none(text)? {
        0 => Err("at least one second is needed".to_owned()),
        seconds => Ok(seconds),
    }
}

fn parse_seconds_or_none(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(format!("{text} is no duration: use whole seconds, or 60s, 10m, 1h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no duration"))?;
    let seconds = number.checked_mul(factor).filter(|&seconds| seconds <= 864_000);
    seconds.ok_or_else(|| format!("{text} is longer than ten days"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.1..=1e7).contains(rate));
    rate.ok_or_else(|| format!("{text} is no rate: events per second from 0.1 to 10000000"))
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().ok().filter(|scale| (0.001..=10.0).contains(scale));
    scale.ok_or_else(|| format!("{text} is no scale: from 0.001 to 10"))
}

fn parse_skew(text: &str) -> Result<f64, String> {
    let skew = text.parse::<f64>().ok().filter(|skew| (0.0..=5.0).contains(skew));
    skew.ok_or_else(|| format!("{text} is no skew: from 0 (even) to 5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_seconds("90"), Ok(90));
        assert_eq!(parse_seconds("10m"), Ok(600));
        assert_eq!(parse_seconds_or_none("0s"), Ok(0));
        for wrong in ["0", "1.5s", "s", "3d", "99999999999999999999h", "1000h"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_and_skews_have_bounds() {
        assert_eq!(parse_rate("100000"), Ok(100_000.0));
        assert!(parse_rate("0").is_err() && parse_rate("nan").is_err());
        assert!(parse_skew("0.99").is_ok() && parse_skew("-1").is_err());
    }
}
