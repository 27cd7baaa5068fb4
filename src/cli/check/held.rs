//! What keeps events back although all works: what is parked, and a pause.
//!
//! Promises: says of each who or what ends it. Must not: change anything. Fails: as the connection.

use std::collections::BTreeSet;

use crate::capture::mode::CaptureState;
use crate::cli::check::findings::Findings;
use crate::cli::output::count;
use crate::cli::pause::words;
use crate::error::Result;
use crate::postgres::{Connection, Sql, classify};

static COUNT: Sql = Sql::of(include_str!("../../../sql/queries/parked_count.sql"));
static TOPICS: Sql = Sql::of(include_str!("../../../sql/queries/parked_topics.sql"));

/// Whether publishing is paused, and what is parked; gives the topics for which events are parked.
pub(super) async fn look(
    findings: &mut Findings,
    connection: &Connection,
    state: &CaptureState,
    buckets: u16,
) -> Result<BTreeSet<String>> {
    if let Some(pause) = &state.pause {
        findings.warned("pause", words(pause), "run `postrider resume` when it may go on");
    }
    let failed = |cause| classify("look at what is parked", cause);
    let row = connection.client().query_one(COUNT.text(), &[]).await.map_err(failed)?;
    let (events, aggregates): (i64, i64) = (row.get("events"), row.get("aggregates"));
    if events == 0 {
        findings.passed("parked", "nothing is");
        return Ok(BTreeSet::new());
    }
    findings.warned(
        "parked",
        format!("{} of {}", count(events, "event"), count(aggregates, "aggregate")),
        "see `postrider parked list`: it has the reason of each, and what helps",
    );
    let numbers: Vec<i16> = (0..buckets).map(u16::cast_signed).collect();
    let topics = connection.client().query(TOPICS.text(), &[&numbers]).await.map_err(failed)?;
    Ok(topics.iter().map(|row| row.get("topic")).collect())
}
