//! What a comparison is to do, and the plan of each drain in it.
//!
//! Promises: everybody drains a backlog of the same shape into the same topic. Must not: know of flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peer::Peer;
use crate::audit::topic::EventSink;
use crate::drain::plan::{DrainPlan, RelayStart};
use crate::workload::outbox::EventSource;
use crate::workload::plan::EventPlan;

/// How long a relay may bring nothing.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(120);

/// What a comparison is to do.
#[derive(Clone, Debug)]
pub(crate) struct PeersPlan {
    /// Where the events go in.
    pub(crate) source: EventSource,
    /// Where they come out.
    pub(crate) sink: EventSink,
    /// What they look like.
    pub(crate) shape: EventPlan,
    /// Events in each backlog.
    pub(crate) events: u64,
    /// The relay's command line.
    pub(crate) relay: String,
    /// Other relays that join.
    pub(crate) others: Vec<Peer>,
    /// Whether Debezium joins.
    pub(crate) debezium: bool,
    /// Whether the relay that reads the WAL joins.
    pub(crate) wal: bool,
    /// Whether the limits are measured.
    pub(crate) limits: bool,
    /// How many rounds; each has one run of everybody.
    pub(crate) rounds: u32,
    /// The broker's process id.
    pub(crate) kafka_pid: Option<u32>,
    /// What is remembered with the result.
    pub(crate) notes: Vec<(String, String)>,
    /// Folder of the results.
    pub(crate) out: PathBuf,
}

impl PeersPlan {
    /// The drain of a peer, whose results go into `folder`.
    pub(super) fn drain(&self, peer: &Peer, start: RelayStart, folder: &Path) -> DrainPlan {
        DrainPlan {
            source: EventSource { outbox: peer.table.clone(), ..self.source.clone() },
            sink: self.sink.clone(),
            shape: self.shape.clone(),
            events: self.events,
            relay: peer.command.clone(),
            start,
            runs: 1,
            truncate: true,
            settle: true,
            verify: true,
            kafka_pid: self.kafka_pid,
            stall_limit: STALL_LIMIT,
            out: folder.to_owned(),
        }
    }
}
