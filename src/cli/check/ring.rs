//! The outbox's partitions and its sequence: that all are where they were made, can be read in order, are emptied in
//! time, and count on.
//!
//! Promises: reads the catalog and sizes, no row. Must not: change anything. Fails: as the connection.

use crate::cli::check::findings::Findings;
use crate::cli::output::{count, show_age};
use crate::config::units::show_bytes;
use crate::control::migrate;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::outbox::Outbox;
use crate::postgres::{Connection, classify};

const PARTITIONS: &str = include_str!("../../../sql/queries/check_partitions.sql");
const SEQUENCE: &str = include_str!("../../../sql/queries/check_sequence.sql");
const RING: &str = include_str!("../../../sql/queries/check_ring.sql");

/// What was past for a generation is emptied within this part of the next one.
const EMPTIED_WITHIN: u32 = 4;

/// Whether each partition is there, with an index on `seq`.
pub(super) async fn partitions(
    findings: &mut Findings,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<()> {
    let failed = |cause| classify("look at the outbox's partitions", cause);
    let all = leaves(outbox);
    let root = outbox.name().quoted();
    let flawed = connection.client().query(PARTITIONS, &[&root, &all]).await.map_err(failed)?;
    let Some(first) = flawed.first() else {
        let found = format!("{} with an index on seq each", count(all.len() as i64, "partition"));
        findings.passed("index", found);
        return Ok(());
    };
    let misnamed = migrate::misnamed(connection.client(), &outbox.name()).await?;
    if let Some(error) = migrate::moved_parts(misnamed.iter()) {
        return Err(error);
    }
    let name: &str = first.get("name");
    let others = match flawed.len() - 1 {
        0 => String::new(),
        more => format!(", nor have {more} more"),
    };
    if !first.get::<_, bool>("is_there") {
        let cause =
            format!("{name} is no partition of {root} any more: it was detached or dropped");
        let remedy = "give it back its place, as `postrider migrate print` shows it";
        return Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy));
    }
    let cause = format!(
        "{name} has no index on seq that can be used{others}: each page reads the whole partition"
    );
    let remedy = format!("run for each: create index concurrently on {name} (seq)");
    Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy))
}

fn bucket_tables(outbox: &Outbox) -> impl Iterator<Item = String> {
    (0..outbox.buckets).map(|bucket| outbox.bucket_table(Bucket(bucket)))
}

fn leaves(outbox: &Outbox) -> Vec<String> {
    let generations = 0..Outbox::GENERATIONS;
    let of_bucket = |bucket| {
        generations
            .clone()
            .map(move |generation| outbox.partition_table(Bucket(bucket), generation))
    };
    (0..outbox.buckets).flat_map(of_bucket).collect()
}

/// Whether the sequence can count on: a writer that gets no number fails.
pub(super) async fn sequence(
    findings: &mut Findings,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<()> {
    let failed = |cause| classify("look how far the outbox's sequence can count", cause);
    let name = &outbox.sequence;
    let row = connection.client().query_one(SEQUENCE, &[name]).await.map_err(failed)?;
    let maximum: i64 = row.get("maximum");
    let remedy = format!("run: alter sequence {name} as bigint no maxvalue no cycle");
    if row.get::<_, bool>("cycles") {
        let found = format!(
            "{name} begins again behind {maximum}: events that wait then are published in the order of their numbers"
        );
        findings.warned("sequence", found, &remedy);
    } else if row.get::<_, bool>("is_at_end") {
        let cause = format!(
            "{name} is at its end, {maximum}: whoever writes an event fails (SQLSTATE 2200H)"
        );
        return Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy));
    } else if maximum < i64::MAX {
        let found =
            format!("{name} ends at {maximum}: whoever writes an event fails from there on");
        findings.warned("sequence", found, &remedy);
    } else {
        findings.passed("sequence", "counts one by one, without an end");
    }
    Ok(())
}

/// How much of the ring is filled.
pub(super) async fn ring(
    findings: &mut Findings,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<()> {
    let failed = |cause| classify("look how much of the outbox is filled", cause);
    let tables: Vec<String> = bucket_tables(outbox).collect();
    let seconds = i64::from(outbox.generation_seconds);
    let generations =
        connection.client().query(RING, &[&tables, &seconds]).await.map_err(failed)?;
    let filled = |row: &tokio_postgres::Row| row.get::<_, i64>("filled") > 0;
    let used = generations.iter().filter(|row| filled(row)).count();
    let bytes: i64 = generations.iter().map(|row| row.get::<_, i64>("size_bytes")).sum();
    let size = show_bytes(u64::try_from(bytes).unwrap_or_default());
    let found = format!("{used} of {} generations hold rows, {size}", generations.len());
    let is_late = generations.first().is_some_and(|row| {
        row.get::<_, i64>("present_since_seconds") > seconds / i64::from(EMPTIED_WITHIN)
    });
    if used < generations.len() || !is_late {
        findings.passed("ring", found);
        return Ok(());
    }
    let generation = show_age(Some(f64::from(outbox.generation_seconds)));
    findings.warned(
        "ring",
        format!(
            "{found}: the one that is written to next was not emptied within a generation ({generation}), or somebody \
             writes the column generation himself"
        ),
        "look in the relay's log for what retention waits for; shorten --replay-window, or end transactions that stay open",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::PayloadType;

    #[test]
    fn every_bucket_has_a_partition_per_generation() {
        let outbox = Outbox {
            schema: "app".into(),
            table: "My Outbox".into(),
            buckets: 2,
            payload: PayloadType::Json,
            generation_seconds: 600,
            sequence: String::new(),
        };
        let leaves = leaves(&outbox);
        assert_eq!(leaves.len(), 6);
        assert_eq!(leaves[0], "\"app\".\"My Outbox_b00_g0\"");
        assert_eq!(leaves[5], "\"app\".\"My Outbox_b01_g2\"");
    }
}
