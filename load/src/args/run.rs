//! The flags of `run`.
//!
//! Promises: what cannot go together is refused before anything is done.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::shared::{
    NoteArgs, ResultArgs, ShapeArgs, SinkArgs, SourceArgs, parse_between, parse_seconds,
    parse_seconds_or_none,
};
use crate::measure::slot::RelayReads;
use crate::output::OutputFormat;
use crate::report::threshold::Threshold;
use crate::run::plan::{RelayProcess, RunPlan};
use crate::workload::session::{Workload, WriteForm};

/// Write at a fixed rate, audit and time every record, and report.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Events per second, over all writers.
    #[arg(long, default_value_t = 10_000.0, value_parser = parse_rate)]
    rate: f64,
    /// How long to measure: 60s, 10m, 1h.
    #[arg(long, default_value = "30s", value_parser = parse_seconds)]
    duration: u64,
    /// How long to write before measuring.
    #[arg(long, default_value = "5s", value_parser = parse_seconds_or_none)]
    warmup: u64,
    /// Zipf exponent of the choice of aggregates; 0 uses them evenly, 0.99 is usual for hot keys.
    #[arg(long, default_value_t = 0.0, value_parser = parse_skew)]
    skew: f64,
    /// What a transaction holds.
    #[arg(long, value_enum, default_value_t = Workload::Events)]
    workload: Workload,
    /// How events are written: rows of the outbox, or logical messages that need no table.
    #[arg(long, value_enum, default_value_t = WriteForm::Table)]
    capture: WriteForm,
    /// The relay reads the WAL: nothing is written before its slot is in use. Always so with --capture
    /// message.
    #[arg(long, requires = "relay")]
    log_reader: bool,
    /// The relay's command line, when this tool is to start it; no shell is involved.
    #[arg(long, value_name = "COMMAND", conflicts_with = "relay_pid")]
    relay: Option<String>,
    /// The process id of a relay that runs already, to measure its CPU and memory.
    #[arg(long, value_name = "PID")]
    relay_pid: Option<u32>,
    /// What must hold, as in 'p99<100ms', 'commit_to_consume.p99<80ms', 'rate_out>=99000' or
    /// 'repeats==0'; may be given several times. Exit code 7 when one breaks.
    #[arg(long, value_name = "CONDITION")]
    threshold: Vec<Threshold>,
    /// Empty the outbox before the run.
    #[arg(long)]
    truncate: bool,
    /// Give up waiting for the rest when nothing is delivered for so long after the schedule's end.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..))]
    stall_seconds: u64,
    /// A name for the run, shown in reports.
    #[arg(long, default_value = "run")]
    name: String,
    #[command(flatten)]
    notes: NoteArgs,
    #[command(flatten)]
    result: ResultArgs,
}

impl RunArgs {
    /// How the result is printed.
    pub(crate) fn form(&self) -> OutputFormat {
        self.result.form()
    }
}

impl TryFrom<RunArgs> for RunPlan {
    type Error = anyhow::Error;

    fn try_from(args: RunArgs) -> Result<Self> {
        if args.capture == WriteForm::Message && args.truncate {
            bail!("--capture message writes to no table: leave --truncate out");
        }
        let reads_wal = args.log_reader || args.capture == WriteForm::Message;
        let usual_rollback_percent = if args.workload == Workload::Orders { 2 } else { 0 };
        let relay = match (args.relay, args.relay_pid) {
            (Some(command), _) => RelayProcess::Started { command },
            (None, Some(pid)) => RelayProcess::Running { pid },
            (None, None) => RelayProcess::Unknown,
        };
        Ok(Self {
            kafka_pid: args.sink.kafka_pid,
            source: args.source.into(),
            sink: args.sink.into(),
            shape: args.shape.plan(usual_rollback_percent),
            rate: args.rate,
            warmup_seconds: args.warmup,
            measured_seconds: args.duration,
            skew: args.skew,
            workload: args.workload,
            capture: args.capture,
            reads: if reads_wal { RelayReads::Wal } else { RelayReads::Table },
            relay,
            thresholds: args.threshold,
            verify: args.result.verify,
            truncate: args.truncate,
            stall_limit: Duration::from_secs(args.stall_seconds),
            name: args.name,
            notes: args.notes.note,
            out: args.result.out,
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse_between(text, (0.1, 1e7), "rate: events per second from 0.1 to 10000000")
}

fn parse_skew(text: &str) -> Result<f64, String> {
    parse_between(text, (0.0, 5.0), "skew: from 0 (even) to 5")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn plan(flags: &str) -> Result<RunPlan> {
        let words = ["run", "--database-url", "host=h"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(words)?.args.try_into()
    }

    #[test]
    fn rates_and_skews_have_bounds() {
        assert_eq!(parse_rate("100000"), Ok(100_000.0));
        assert!(parse_rate("0").is_err() && parse_rate("nan").is_err());
        assert!(parse_skew("0.99").is_ok() && parse_skew("-1").is_err());
    }

    #[test]
    fn a_relay_of_messages_reads_the_wal() {
        assert_eq!(plan("").unwrap().reads, RelayReads::Table);
        assert_eq!(plan("--capture message").unwrap().reads, RelayReads::Wal);
        assert_eq!(plan("--relay r --log-reader").unwrap().reads, RelayReads::Wal);
    }

    #[test]
    fn messages_have_no_table_to_empty() {
        let refused = plan("--capture message --truncate").unwrap_err().to_string();
        assert!(refused.contains("leave --truncate out"), "{refused}");
    }

    #[test]
    fn orders_are_rolled_back_at_times_unless_it_is_said_otherwise() {
        assert_eq!(plan("").unwrap().shape.rollback_percent, 0);
        assert_eq!(plan("--workload orders").unwrap().shape.rollback_percent, 2);
        let none = plan("--workload orders --rollback-percent 0").unwrap();
        assert_eq!(none.shape.rollback_percent, 0);
    }
}
