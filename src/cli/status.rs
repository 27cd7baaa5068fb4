//! `postrider status`: how far each bucket is published, and what waits.
//!
//! Promises: bounded work; a count that stopped early says so. Must not: change anything.
//! Fails: when PostgreSQL cannot be read, or the outbox is not there.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::backlog::{Backlog, BucketState, LOOK_AT_MAX, Onlooker};
use super::{block_on, output, prepare};
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::units::show_bytes;
use crate::config::{self};
use crate::error::Result;
use crate::event::Bucket;
use crate::migrate;
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Connection, DatabaseConfig, classify, connect};

const PARKED: &str = include_str!("../../sql/queries/parked_count.sql");
const SIZE: &str = include_str!("../../sql/queries/outbox_size.sql");

/// Shows how far each bucket is published, and what waits.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider status
  postrider status --json | jq .oldest_unpublished_age_seconds")]
pub(super) struct StatusArguments {
    #[command(flatten)]
    common: CommonSettings,

    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    outbox: String,
    database: String,
    partitions: i64,
    size_bytes: i64,
    unpublished: i64,
    /// Whether the counts stopped early.
    unpublished_is_lower_bound: bool,
    oldest_unpublished_age_seconds: Option<f64>,
    parked: ParkedStatus,
    buckets: Vec<BucketStatus>,
}

/// What cannot be published.
#[derive(Debug, Default, Serialize)]
struct ParkedStatus {
    events: i64,
    aggregates: i64,
    oldest_age_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct BucketStatus {
    bucket: i16,
    epoch: i64,
    owner: Option<String>,
    position: i64,
    /// None before an instance first took the bucket.
    saved_age_seconds: Option<f64>,
    unpublished: i64,
    unpublished_is_lower_bound: bool,
    oldest_unpublished_age_seconds: Option<f64>,
}

pub(super) fn run(arguments: StatusArguments) -> Result<ExitCode> {
    let (common, ..) = prepare(arguments.common, RelaySettings::default(), "warn")?;
    let (database, outbox) = (config::database(&common)?, config::outbox(&common)?);
    let status = block_on(look(&database, &outbox))?;
    if arguments.json {
        output::answer_json(&status)?;
    } else {
        output::answer(&status.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(database: &DatabaseConfig, name: &OutboxName) -> Result<Status> {
    let connection = connect(database, "status").await?;
    let outbox = migrate::load(connection.client(), name).await?;
    let (partitions, size_bytes) = size(&connection, &outbox).await?;
    let parked = parked(&connection).await?;
    let onlooker = Onlooker::new(&connection).await?;
    let mut buckets = Vec::new();
    for state in onlooker.buckets().await? {
        let backlog = onlooker.backlog(&state).await?;
        buckets.push(BucketStatus::new(state, backlog));
    }
    Ok(Status {
        outbox: name.to_string(),
        database: database.display_name(),
        partitions,
        size_bytes,
        unpublished: buckets.iter().map(|bucket| bucket.unpublished).sum(),
        unpublished_is_lower_bound: buckets.iter().any(|bucket| bucket.unpublished_is_lower_bound),
        oldest_unpublished_age_seconds: buckets
            .iter()
            .filter_map(|bucket| bucket.oldest_unpublished_age_seconds)
            .reduce(f64::max),
        parked,
        buckets,
    })
}

async fn parked(connection: &Connection) -> Result<ParkedStatus> {
    let row = connection.client().query_one(PARKED, &[]).await;
    let row = row.map_err(|cause| classify("count the parked events", cause))?;
    Ok(ParkedStatus {
        events: row.get("events"),
        aggregates: row.get("aggregates"),
        oldest_age_seconds: row.get("oldest_age_seconds"),
    })
}

async fn size(connection: &Connection, outbox: &Outbox) -> Result<(i64, i64)> {
    let tables: Vec<String> =
        (0..outbox.buckets).map(|bucket| outbox.bucket_table(Bucket(bucket))).collect();
    let row = connection
        .client()
        .query_one(SIZE, &[&tables])
        .await
        .map_err(|cause| classify("measure the outbox", cause))?;
    Ok((row.get("leaves"), row.get("bytes")))
}

impl BucketStatus {
    fn new(state: BucketState, backlog: Backlog) -> Self {
        Self {
            bucket: state.bucket,
            epoch: state.epoch,
            owner: state.owner,
            position: state.position,
            saved_age_seconds: state.saved_age_seconds,
            unpublished: backlog.unpublished,
            unpublished_is_lower_bound: backlog.is_lower_bound,
            oldest_unpublished_age_seconds: backlog.oldest_age_seconds,
        }
    }

    fn line(&self) -> String {
        format!(
            "{:>6}  {:>6}  {:>12}  {:>10}  {:>12}  {:>10}  {}\n",
            self.bucket,
            self.epoch,
            self.position,
            show_age(self.saved_age_seconds),
            show_count(self.unpublished, self.unpublished_is_lower_bound),
            show_age(self.oldest_unpublished_age_seconds),
            self.owner.as_deref().unwrap_or("-"),
        )
    }
}

impl Status {
    fn table(&self) -> String {
        let size = show_bytes(self.size_bytes.unsigned_abs());
        let mut text = format!(
            "outbox {} at {}: {} buckets, {} partitions, {size}\n\n",
            self.outbox,
            self.database,
            self.buckets.len(),
            self.partitions,
        );
        let heads = ["bucket", "epoch", "position", "saved", "unpublished", "oldest"];
        let [bucket, epoch, position, saved, unpublished, oldest] = heads;
        writeln!(
            text,
            "{bucket:>6}  {epoch:>6}  {position:>12}  {saved:>10}  {unpublished:>12}  {oldest:>10}  owner"
        )
        .expect("text takes text");
        text.extend(self.buckets.iter().map(BucketStatus::line));
        let count = show_count(self.unpublished, self.unpublished_is_lower_bound);
        let age = match self.oldest_unpublished_age_seconds {
            None => "nothing waits".to_owned(),
            age => format!("the oldest has waited for {}", show_age(age)),
        };
        writeln!(text, "\nunpublished: {count}; {age}").expect("text takes text");
        if self.parked.events > 0 {
            let ParkedStatus { events, aggregates, oldest_age_seconds } = self.parked;
            let age = show_age(oldest_age_seconds);
            writeln!(
                text,
                "parked: {events} of {aggregates} aggregates, the oldest for {age}; see `postrider parked list`"
            )
            .expect("text takes text");
        }
        if self.unpublished_is_lower_bound {
            writeln!(
                text,
                "(\u{2265}: only the first {LOOK_AT_MAX} rows of a bucket were looked at)"
            )
            .expect("text takes text");
        }
        text
    }
}

fn show_count(count: i64, is_lower_bound: bool) -> String {
    if is_lower_bound { format!("\u{2265}{count}") } else { count.to_string() }
}

/// An age as people read it; a clock that was set back makes none below zero.
pub(super) fn show_age(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds.max(0.0)) {
        None => "-".to_owned(),
        Some(seconds) if seconds < 60.0 => format!("{seconds:.1}s"),
        Some(seconds) if seconds < 3_600.0 => format!("{:.1}min", seconds / 60.0),
        Some(seconds) if seconds < 172_800.0 => format!("{:.1}h", seconds / 3_600.0),
        Some(seconds) => format!("{:.1}d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_readable() {
        assert_eq!(show_age(None), "-");
        assert_eq!(show_age(Some(-0.5)), "0.0s");
        assert_eq!(show_age(Some(59.9)), "59.9s");
        assert_eq!(show_age(Some(90.0)), "1.5min");
        assert_eq!(show_age(Some(7_200.0)), "2.0h");
        assert_eq!(show_age(Some(864_000.0)), "10.0d");
    }

    #[test]
    fn a_lower_bound_says_so() {
        let state = BucketState::sample(3);
        let backlog =
            Backlog { unpublished: 17, is_lower_bound: true, oldest_age_seconds: Some(2.0) };
        let status = Status {
            outbox: "public.outbox".to_owned(),
            database: "h:1/d".to_owned(),
            partitions: 3,
            size_bytes: 2_048,
            unpublished: 17,
            unpublished_is_lower_bound: true,
            oldest_unpublished_age_seconds: Some(2.0),
            parked: ParkedStatus { events: 3, aggregates: 2, oldest_age_seconds: Some(90.0) },
            buckets: vec![BucketStatus::new(state, backlog)],
        };
        let table = status.table();
        assert!(table.contains("\u{2265}17"), "{table}");
        assert!(table.contains("2.0 KiB"), "{table}");
        assert!(table.contains("waited for 2.0s"), "{table}");
        assert!(table.contains("parked: 3 of 2 aggregates, the oldest for 1.5min"), "{table}");
    }
}
