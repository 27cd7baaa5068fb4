//! The command line: what there is to do, and doing it.
//!
//! Promises: the flags become a plan here; the commands see the plan alone. Must not: decide what a
//! plan holds. Fails: clap names the flag, the value and the remedy; exit code 2.

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::args::{
    BenchArgs, CopyArgs, DrainArgs, PeersArgs, PollerArgs, ReportArgs, RunArgs, VerifyArgs,
};
use crate::peers::{copy_baseline, poller};
use crate::{bench, drain, peers, report, run, verify};

/// Load generator and auditor for a transactional outbox.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: LoadCommand,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 runtime, 2 usage, 4 PostgreSQL, 5 Kafka, \
7 a threshold broke or the audit found a fault.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
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
    /// Drain the same backlog by a relay, its peers and the limits, alternately.
    #[command(after_help = PEERS_HELP)]
    Peers(PeersArgs),
    /// The hand-made poller that `peers` measures.
    #[command(hide = true)]
    PeerPoller(PollerArgs),
    /// The limit that `peers` measures: copy and produce, nothing else.
    #[command(hide = true)]
    PeerBare(CopyArgs),
    /// Audit the topic of an earlier run again: is everything there, in order?
    #[command(after_help = "Example:\n  postrider-load verify runs/live")]
    Verify(VerifyArgs),
    /// Make the report of a run once more, or put two runs side by side.
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

impl LoadCommand {
    /// Does it.
    ///
    /// # Errors
    /// As the command says.
    pub(crate) fn act(self) -> anyhow::Result<()> {
        match self {
            Self::Drain(args) => {
                let form = args.form();
                Runtime::new()?.block_on(drain::drain(&args.into(), form))
            }
            Self::Run(args) => {
                let form = args.form();
                run::run(&args.try_into()?, form)
            }
            Self::Bench(args) => bench::bench(&args.into()),
            Self::Peers(args) => Runtime::new()?.block_on(peers::peers(&args.into())),
            Self::PeerPoller(args) => Runtime::new()?.block_on(poller::relay(&args.into())),
            Self::PeerBare(args) => Runtime::new()?.block_on(copy_baseline::publish(&args.into())),
            Self::Verify(args) => {
                let form = args.form();
                verify::verify(&args.into(), form)
            }
            Self::Report(args) => report::report(&args.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
