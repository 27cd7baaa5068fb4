//! The flags of `peers`, and of the peers that are this program.
//!
//! Promises: a peer of the command line is whole, or is refused.

use std::path::PathBuf;

use clap::Args;

use super::shared::{NoteArgs, SetArgs, ShapeArgs, SinkArgs, SourceArgs};
use crate::peers::copy_baseline::CopyPlan;
use crate::peers::peer::{Peer, parse_peer};
use crate::peers::plan::PeersPlan;
use crate::peers::poller::PollerPlan;

/// Drain the same backlog by a relay, its peers and the limits, alternately.
#[derive(Clone, Debug, Args)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    set: SetArgs,
    /// Events in the backlog.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Another relay; may be given several times.
    #[arg(long, value_name = "NAME=TABLE=COMMAND", value_parser = parse_peer)]
    peer: Vec<Peer>,
    /// Add Debezium Server, as it comes and tuned. It is fetched once (780 MB) through Maven; Java 21
    /// or newer, wal_level = logical and the rights of a superuser are needed.
    #[arg(long)]
    debezium: bool,
    /// Add the relay with --capture wal, and pg_recvlogical on copies of its slot; the relay itself gets
    /// --capture poll. The rights of a superuser and wal_level = logical are needed.
    #[arg(long)]
    wal: bool,
    /// Leave the limits out, all but those of --wal.
    #[arg(long)]
    no_limits: bool,
    #[command(flatten)]
    notes: NoteArgs,
    /// Folder for peers.json, peers.md and the files of each run.
    #[arg(long, default_value = "postrider-load-peers")]
    out: PathBuf,
}

impl From<PeersArgs> for PeersPlan {
    fn from(args: PeersArgs) -> Self {
        Self {
            kafka_pid: args.sink.kafka_pid,
            source: args.source.into(),
            sink: args.sink.into(),
            shape: args.shape.plan(0),
            events: args.events,
            relay: args.set.relay,
            others: args.peer,
            debezium: args.debezium,
            wal: args.wal,
            limits: !args.no_limits,
            rounds: args.set.runs,
            notes: args.notes.note,
            out: args.out,
        }
    }
}

/// Where a peer reads and publishes.
#[derive(Clone, Debug, Args)]
struct RouteArgs {
    /// The database with the peer's table.
    #[arg(long)]
    database_url: String,
    /// Kafka bootstrap servers.
    #[arg(long)]
    brokers: String,
    /// The topic.
    #[arg(long)]
    topic: String,
}

/// The hand-made poller that `peers` measures.
#[derive(Clone, Debug, Args)]
pub(crate) struct PollerArgs {
    #[command(flatten)]
    route: RouteArgs,
    /// Rows in a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..))]
    batch: i64,
}

impl From<PollerArgs> for PollerPlan {
    fn from(args: PollerArgs) -> Self {
        let RouteArgs { database_url, brokers, topic } = args.route;
        Self { database_url, brokers, topic, batch_rows: args.batch }
    }
}

/// The limit that `peers` measures: copy and produce, nothing else.
#[derive(Clone, Debug, Args)]
pub(crate) struct CopyArgs {
    #[command(flatten)]
    route: RouteArgs,
    /// The table; it needs a column seq.
    #[arg(long)]
    outbox: String,
}

impl From<CopyArgs> for CopyPlan {
    fn from(args: CopyArgs) -> Self {
        let RouteArgs { database_url, brokers, topic } = args.route;
        Self { database_url, outbox: args.outbox, brokers, topic }
    }
}
