//! The flags of `drain`.
//!
//! Promises: a relay starts cold, warm or with a slot, never two of these.

use std::time::Duration;

use clap::Args;

use super::shared::{ResultArgs, ShapeArgs, SinkArgs, SourceArgs};
use crate::drain::plan::{DrainPlan, RelayStart};
use crate::output::OutputFormat;

/// Fill a backlog while no relay runs, then measure how fast a relay drains it.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Events in the backlog.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// The relay's command line; no shell is involved.
    #[arg(long, value_name = "COMMAND")]
    relay: String,
    /// How often to repeat; figures are given as minimum, median and maximum.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Empty the outbox before each run.
    #[arg(long)]
    truncate: bool,
    /// Let the relay publish so many events first and halt it (SIGSTOP) while the backlog is filled;
    /// for relays that need warming up. The outbox is emptied in between.
    #[arg(long, default_value_t = 0, value_name = "EVENTS", requires = "truncate")]
    warm_up_events: u64,
    /// The relay reads the WAL: it runs until its slot is in use and some events have come through, and
    /// is stopped, before the backlog is written. The outbox is emptied after that.
    #[arg(long, requires = "truncate", conflicts_with = "warm_up_events")]
    log_reader: bool,
    /// Skip ANALYZE and CHECKPOINT between filling and draining.
    #[arg(long)]
    no_settle: bool,
    /// Give up when the relay publishes nothing for so long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..))]
    stall_seconds: u64,
    #[command(flatten)]
    result: ResultArgs,
}

impl DrainArgs {
    /// How the result is printed.
    pub(crate) fn form(&self) -> OutputFormat {
        self.result.form()
    }
}

impl From<DrainArgs> for DrainPlan {
    fn from(args: DrainArgs) -> Self {
        let start = match (args.log_reader, args.warm_up_events) {
            (true, _) => RelayStart::WithSlot,
            (false, 0) => RelayStart::Cold,
            (false, events) => RelayStart::Warm { events },
        };
        Self {
            events: args.events,
            runs: args.runs,
            truncate: args.truncate,
            start,
            settle: !args.no_settle,
            verify: args.result.verify,
            kafka_pid: args.sink.kafka_pid,
            source: args.source.into(),
            sink: args.sink.into(),
            shape: args.shape.plan(0),
            relay: args.relay,
            stall_limit: Duration::from_secs(args.stall_seconds),
            out: args.result.out,
        }
    }
}
