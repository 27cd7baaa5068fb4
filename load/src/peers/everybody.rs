//! The peers of a comparison, in their order.
//!
//! Promises: the relay first; then the limit, the hand-made poller, and those that were asked for.
//! Must not: start any. Fails: when this program does not know its own path.

use anyhow::{Context, Result};

use super::peer::{Peer, PeerKind, Profile, RELAY, WAL_RELAY};
use super::plan::PeersPlan;
use super::{cdc_table, poller};
use crate::measure::process::command_line;

/// The relay first, then the limit, the hand-made poller, and those that were given.
pub(super) fn everybody(plan: &PeersPlan) -> Result<Vec<Peer>> {
    let tool = std::env::current_exe().context("this program's own path is not known")?;
    let tool = tool.to_str().context("this program's path is not text")?;
    let (url, brokers, topic) = (&plan.source.database_url, &plan.sink.brokers, &plan.sink.topic);
    let route = ["--database-url", url, "--brokers", brokers, "--topic", topic];
    let this_tool = |arguments: &[&str]| command_line(&[&[tool], arguments, &route].concat());
    let outbox = &plan.source.outbox;
    let peer = |name: &str, table: &str, command: String| Peer {
        name: name.to_owned(),
        table: table.to_owned(),
        command,
        kind: PeerKind::Plain,
    };
    let mut all = Vec::new();
    if plan.wal {
        let [poll, wal] = ["poll", "wal"].map(|mode| format!("{} --capture {mode}", plan.relay));
        all.push(peer(RELAY, outbox, poll.clone()));
        all.push(Peer { kind: PeerKind::WalReader(poll), ..peer(WAL_RELAY, outbox, wal) });
    } else {
        all.push(peer(RELAY, outbox, plan.relay.clone()));
    }
    all.extend([
        peer("bare copy and produce", outbox, this_tool(&["peer-bare", "--outbox", outbox])?),
        peer("hand-made poller", poller::TABLE, this_tool(&["peer-poller"])?),
    ]);
    if plan.debezium {
        // Its command line names the folder of a run, so it is made when the run begins.
        all.extend([Profile::Lab, Profile::Tuned].map(|profile| Peer {
            kind: PeerKind::Debezium(profile),
            ..peer(profile.name(), cdc_table::TABLE, String::new())
        }));
    }
    all.extend(plan.others.iter().cloned());
    Ok(all)
}
