//! The result of a comparison as a table that people can paste.
//!
//! Promises: the relay's rate over each other's, median by median. Must not: leave a peer out that
//! has a run. Fails: when the relay has no run.

use anyhow::{Context, Result};

use serde::Serialize;

use super::peer::Peer;
use crate::drain::report::DrainRun;
use crate::measure::process;
use crate::measure::range::Range;

/// What came of one peer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PeerResult {
    /// The name in the table.
    pub(super) name: String,
    /// Its command line.
    pub(super) command: String,
    /// Its runs.
    pub(super) runs: Vec<DrainRun>,
}

impl PeerResult {
    /// Nothing came of it yet.
    pub(super) fn new(peer: &Peer) -> Self {
        let command = process::without_passwords(&peer.command);
        Self { name: peer.name.clone(), command, runs: Vec::new() }
    }

    fn range(&self, figure: impl Fn(&DrainRun) -> Option<f64>) -> Option<Range> {
        Range::of(self.runs.iter().filter_map(figure))
    }
}

/// One limit, measured once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasuredLimit {
    /// What was done, and at which endpoint.
    pub(crate) name: &'static str,
    /// Whose rate it bounds.
    pub(crate) beside: &'static str,
    /// Rows or records per second.
    pub(crate) per_second: f64,
}

/// The table, with the relay's rate over each peer's, median by median.
pub(super) fn markdown(standings: &[PeerResult], limits: &[Vec<MeasuredLimit>]) -> Result<String> {
    let first = standings.first().context("nobody took part")?;
    let rate = |standing: &PeerResult| standing.range(|run| Some(run.events_per_second));
    let relay_rate = rate(first).context("the relay has no run")?.median;
    let mut text = String::from(
        "| who | runs | events/s | relay's rate is | CPU µs/event | PostgreSQL CPU µs/event | \
         peak MB | missing / out of order / repeats |\n|---|---|---|---|---|---|---|---|\n",
    );
    for standing in standings.iter().filter(|standing| !standing.runs.is_empty()) {
        let show = |range: Option<Range>, decimals| {
            range.map_or_else(|| "–".to_owned(), |range| range.show(decimals))
        };
        let ratio = rate(standing).map_or(0.0, |range| relay_rate / range.median);
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
    let named = |name: &'static str| {
        limits
            .iter()
            .flatten()
            .filter(move |limit| limit.name == name)
            .map(|limit| limit.per_second)
    };
    // Every round has the same ones, in the same order.
    for limit in limits.first().into_iter().flatten() {
        let range = Range::of(named(limit.name)).context("no limit was measured")?;
        let beside = standings.iter().find(|standing| standing.name == limit.beside);
        let bounded = beside.and_then(rate).context("nobody was measured beside a limit")?.median;
        let whose = match limit.beside {
            beside if beside == first.name => String::new(),
            beside => format!("({beside}) "),
        };
        let (runs, ratio) = (named(limit.name).count(), bounded / range.median);
        let (name, shown) = (limit.name, range.show(0));
        text.push_str(&format!(
            "| {name} | {runs} | {shown} | {whose}{ratio:.2} × | – | – | – | – |\n"
        ));
    }
    Ok(text)
}
