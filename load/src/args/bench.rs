//! The flags of `bench`.
//!
//! Promises: without a group, all of them are chosen.

use std::path::PathBuf;

use clap::Args;

use super::shared::{NoteArgs, SetArgs, SinkArgs, SourceArgs, parse_between};
use crate::bench::experiments::Group;
use crate::bench::plan::BenchPlan;

/// Do the fixed set of published experiments, one after the other.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    set: SetArgs,
    /// The groups to do; all of them without this flag.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Factor on all numbers of events and durations, to try the set out.
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    #[command(flatten)]
    notes: NoteArgs,
    /// Folder for bench.json, bench.md and the files of each experiment.
    #[arg(long, default_value = "postrider-load-bench")]
    out: PathBuf,
}

impl From<BenchArgs> for BenchPlan {
    fn from(args: BenchArgs) -> Self {
        Self {
            kafka_pid: args.sink.kafka_pid,
            source: args.source.into(),
            sink: args.sink.into(),
            relay: args.set.relay,
            only: args.only,
            runs: args.set.runs,
            scale: args.scale,
            notes: args.notes.note,
            out: args.out,
        }
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    parse_between(text, (0.001, 10.0), "scale: from 0.001 to 10")
}
