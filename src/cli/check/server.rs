//! What of the server would disturb a relay while it runs: its clock, timeouts, clean-up, transactions that stay open.
//!
//! Promises: each is looked at by one statement, whatever the tables hold. Must not: change anything.
//! Fails: as the connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Row;

use crate::cli::check::findings::Findings;
use crate::cli::output::{count, show_age};
use crate::cli::writers::{OpenTransactions, open_transactions};
use crate::config::units::show_bytes;
use crate::error::Result;
use crate::postgres::{Connection, Sql, classify};
use crate::schema;

const TIMEOUTS: &str = include_str!("../../../sql/queries/check_timeouts.sql");
static AUTOVACUUM: Sql = Sql::of(include_str!("../../../sql/queries/check_autovacuum.sql"));

/// Two clocks may differ by so much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
/// A lease is renewed several times while it lasts; so many round trips at least must fit into it.
const ROUND_TRIPS_PER_LEASE: u32 = 50;
/// More dead rows than this in a table of ours are a sign that nobody removes them.
const DEAD_ROWS_MAX: i64 = 100_000;

/// How far the server's clock is from ours, when it was read within this round trip.
pub(super) fn clock(findings: &mut Findings, server_seconds: f64, round_trip: Duration) {
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ahead = server_seconds - (ours - round_trip.as_secs_f64() / 2.0);
    if ahead.abs() <= CLOCK_TOLERANCE.as_secs_f64() + round_trip.as_secs_f64() {
        return findings.passed("clock", format!("the server's is within {} of ours", "1 s"));
    }
    let side = if ahead > 0.0 { "ahead of" } else { "behind" };
    let found = format!(
        "the server's clock is {} {side} this machine's: ages in metrics and logs are wrong by as much",
        show_age(Some(ahead.abs()))
    );
    findings.warned("clock", found, "let both machines keep time by NTP");
}

/// Whether anything ends a session or a lease before its time.
pub(super) async fn timeouts(
    findings: &mut Findings,
    connection: &Connection,
    lease_seconds: u32,
    round_trip: Duration,
) -> Result<()> {
    let failed = |cause| classify("look at the timeouts", cause);
    let mut taken_away = Vec::new();
    let mut is_well = true;
    for row in connection.client().query(TIMEOUTS, &[]).await.map_err(failed)? {
        let (name, given): (&str, &str) = (row.get("name"), row.get("given"));
        if row.get("ends") {
            let holds: &str = row.get("holds");
            let found =
                format!("{name} = {holds} holds in the relay's sessions, and would end them");
            findings.warned("timeouts", found, &format!("alter role … set {name} = 0"));
            is_well = false;
        } else {
            taken_away.push(format!("{name} = {given}"));
        }
    }
    if round_trip * ROUND_TRIPS_PER_LEASE > Duration::from_secs(lease_seconds.into()) {
        let found = format!(
            "a lease of {lease_seconds} s is short for a round trip of {:.0} ms: it may run out while it is renewed",
            round_trip.as_secs_f64() * 1_000.0
        );
        findings.warned("timeouts", found, "raise --lease-seconds");
        is_well = false;
    }
    if is_well {
        let taken_away = match taken_away.as_slice() {
            [] => String::new(),
            some => format!("; {} of this role is taken away in them", some.join(", ")),
        };
        findings.passed("timeouts", format!("none ends the relay's sessions{taken_away}"));
    }
    Ok(())
}

/// Whether postrider's own tables are cleaned up.
pub(super) async fn autovacuum(findings: &mut Findings, connection: &Connection) -> Result<()> {
    let failed = |cause| classify("look at autovacuum", cause);
    let tables = connection.client().query(AUTOVACUUM.text(), &[]).await.map_err(failed)?;
    if tables.first().is_some_and(|table| !table.get::<_, bool>("server_cleans")) {
        let found = "autovacuum or track_counts is off: the cursors' table grows with each save";
        findings.warned("autovacuum", found, "set autovacuum = on and track_counts = on");
        return Ok(());
    }
    let mut is_well = true;
    for table in &tables {
        let name: &str = table.get("name");
        if !table.get::<_, bool>("is_cleaned") {
            let table = schema::chosen().of(name);
            let found = format!("autovacuum is off for {table}, which grows");
            let remedy = format!("run: alter table {table} reset (autovacuum_enabled)");
            findings.warned("autovacuum", found, &remedy);
            is_well = false;
        }
        if table.get::<_, i64>("dead_rows") > DEAD_ROWS_MAX {
            findings.warned(
                "autovacuum",
                dead_rows(table),
                "look for transactions that stay open, then run: vacuum",
            );
            is_well = false;
        }
    }
    if is_well {
        let cleaned = count(tables.len() as i64, "table");
        findings.passed("autovacuum", format!("cleans {cleaned} of postrider's own"));
    }
    Ok(())
}

fn dead_rows(table: &Row) -> String {
    let (name, rows): (&str, i64) = (table.get("name"), table.get("dead_rows"));
    let size = u64::try_from(table.get::<_, i64>("size_bytes")).unwrap_or_default();
    let table = schema::chosen().of(name);
    format!("{table} has {rows} dead rows, and takes {}", show_bytes(size))
}

/// Transactions that hold back what they have written, and clean-up.
pub(super) async fn writers(findings: &mut Findings, connection: &Connection) -> Result<()> {
    let OpenTransactions { oldest, more, hidden } = open_transactions(connection).await?;
    for open in &oldest {
        findings.warned("writers", open.words(), END_IT);
    }
    if more > 0 {
        findings.warned(
            "writers",
            format!("{} more like these", count(more, "transaction")),
            END_IT,
        );
    }
    if oldest.is_empty() {
        let mut found =
            "no transaction that has written is seen to be open for longer than a minute"
                .to_owned();
        if hidden > 0 {
            let sessions = count(hidden, "session");
            found += &format!(
                "; of {sessions} of other roles only the ticks tell, as this role lacks pg_read_all_stats"
            );
        }
        findings.passed("writers", found);
    }
    Ok(())
}

const END_IT: &str =
    "end it (commit, or pg_terminate_backend; rollback prepared), if it is not meant to last";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(server_ahead: f64, round_trip: Duration) -> String {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs_f64();
        let mut findings = Findings::default();
        clock(&mut findings, ours + server_ahead, round_trip);
        findings.list(false)
    }

    #[test]
    fn a_clock_that_differs_is_told_with_its_side() {
        let short = Duration::from_millis(2);
        assert!(said(0.5, short).contains("\u{2714} clock"), "{}", said(0.5, short));
        assert!(said(30.0, short).contains("30.0s ahead of"), "{}", said(30.0, short));
        assert!(said(-90.0, short).contains("1.5min behind"), "{}", said(-90.0, short));
        let long = Duration::from_secs(4);
        assert!(said(3.0, long).contains("\u{2714} clock"), "it may have been read at the start");
    }
}
