//! `postrider status`: how far each bucket is published, and what waits.
//!
//! Promises: bounded work; a count that stopped early says so, and what was not seen is not said to be
//! published. Must not: change anything.
//! Fails: when PostgreSQL cannot be read, or the outbox is not there.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::capture::mode::{Pause, read_state};
use crate::capture::tier_look::{Looker, TierLook};
use crate::cli::adopted_backlog;
use crate::cli::adopted_backlog::AdoptedWaiting;
use crate::cli::backlog;
use crate::cli::backlog::{BucketState, Onlooker};
use crate::cli::capture;
use crate::cli::capture::ShownCapture;
use crate::cli::output;
use crate::cli::output::{count, show_age};
use crate::cli::pause::words;
use crate::cli::waiting::{LookState, Waiting, Waits};
use crate::cli::writers::{OpenTransaction, open_transactions};
use crate::cli::{block_on, for_lookers, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::config::units::show_bytes;
use crate::control::migrate;
use crate::control::unread;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::legible;
use crate::metrics::shape::TierReport;
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Connection, DatabaseConfig, Sql, classify, connect, unless_locked};
use crate::schema;

static PARKED: Sql = Sql::of(include_str!("../../sql/queries/parked_count.sql"));
const SIZE: &str = include_str!("../../sql/queries/outbox_size.sql");
/// Why nothing is known of a bucket.
const OTHER_HISTORY: &str = "the cursors are of another cluster, or of a later state of this one, and say nothing \
                             of its rows; see `postrider check`";
static RUNNING: Sql = Sql::of(include_str!("../../sql/queries/relays_running.sql"));
/// Whether Kafka takes events the database does not know.
const ASK_KAFKA: &str = "the database alone was asked: whether Kafka takes events, `postrider check` says, and \
                         /readyz?verbose of each instance";
/// Events that wait for longer call for a look at Kafka.
const LONG_SECONDS: f64 = 10.0;
static INSTANCES: Sql = Sql::of(include_str!("../../sql/queries/instances.sql"));

/// Shows how far each bucket is published, and what waits.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider status
  postrider status --json | jq .sentence,.oldest_unpublished_age_seconds")]
pub(super) struct StatusArguments {
    #[command(flatten)]
    common: CommonSettings,

    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct ShownStatus {
    outbox: String,
    /// Of the control tables, where it is another than `postrider`.
    #[serde(skip_serializing_if = "Option::is_none")]
    control_schema: Option<String>,
    database: String,
    partitions: i64,
    size_bytes: i64,
    /// Of rows of the outbox and of adopted tables.
    #[serde(flatten)]
    waiting: Waiting,
    /// What could not be seen, and why.
    unseen: Vec<String>,
    generations: Vec<GenerationStatus>,
    instances: Vec<InstanceStatus>,
    /// Relays that have a session and no lease: they stand by, wait for the end of a pause, or are changing over.
    without_lease: i64,
    parked: ParkedStatus,
    capture: ShownCapture,
    /// None while publishing goes on.
    paused: Option<Pause>,
    adopted: Vec<AdoptedWaiting>,
    /// Such that have written, and hold back what they wrote.
    open_transactions: Vec<String>,
    buckets: Vec<BucketStatus>,
}

/// One list partition of every bucket.
#[derive(Debug, Serialize)]
struct GenerationStatus {
    generation: i32,
    /// Whether writers fill it now.
    is_current: bool,
    leaves: i64,
    /// Leaves that hold rows, published or not.
    filled_leaves: i64,
    size_bytes: i64,
}

#[derive(Debug, Serialize)]
struct InstanceStatus {
    name: String,
    shards: i16,
    buckets: i64,
    age_seconds: f64,
    /// Below zero when the lease has run out.
    lease_left_seconds: f64,
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
    #[serde(flatten)]
    waiting: Waiting,
}

pub(super) fn run(arguments: StatusArguments) -> Result<ExitCode> {
    let (common, ..) = prepare(arguments.common, RelaySettings::default(), "warn")?;
    let (database, outbox) = (config::database(&common)?, config::outbox(&common)?);
    let looking = unless_locked(&database, "read the status", async {
        let status = Box::pin(look(&database, &outbox)).await?;
        let tier = match arguments.json {
            true => {
                Some(TierLook::open(&database, "status").await?.look(Looker::People).await?.tier)
            }
            false => None,
        };
        Ok((status, tier))
    });
    let (status, tier) = block_on(looking).map_err(for_onlookers)?;
    match tier {
        Some(tier) => output::answer_json(&with_names_of_tier(&status, &tier)?)?,
        None => output::answer(&status.table())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The status, and beside it under the names of `/api/v1/tier` what it does not have itself.
fn with_names_of_tier(status: &ShownStatus, tier: &TierReport) -> Result<Value> {
    let unwritable = |cause| {
        Error::new(ErrorKind::Internal, format!("the status cannot be written as JSON: {cause}"))
    };
    let mut both = serde_json::to_value(status).map_err(unwritable)?;
    add_members(&mut both, serde_json::to_value(tier).map_err(unwritable)?);
    Ok(both)
}

/// Adds what is not there. Buckets come in the same order on both sides, and so do instances, unless one came or went
/// between the two looks: then they are told apart by their names.
fn add_members(known: &mut Value, added: Value) {
    match (known, added) {
        (Value::Object(known), Value::Object(added)) => {
            for (name, value) in added {
                match known.get_mut(&name) {
                    Some(known) => add_members(known, value),
                    None => {
                        known.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(known), Value::Array(added)) => {
            for value in added {
                let is_same = |one: &&mut Value| {
                    ["bucket", "name"]
                        .iter()
                        .any(|key| one.get(key).is_some() && one.get(key) == value.get(key))
                };
                if let Some(known) = known.iter_mut().find(is_same) {
                    add_members(known, value);
                }
            }
        }
        _ => {}
    }
}

/// Whoever looks on may not be the relay, and needs no right to work as one.
fn for_onlookers(error: Error) -> Error {
    let remedy = "look as a role that may read the tables of postrider and the outbox: the relay's, or their owner";
    for_lookers(error, remedy)
}

async fn look(database: &DatabaseConfig, name: &OutboxName) -> Result<ShownStatus> {
    let mut connection = connect(database, "status").await?;
    let outbox = migrate::load(connection.client(), name).await?;
    let generations = generations(&connection, &outbox).await?;
    let instances = instances(&connection).await?;
    let leased = instances.iter().filter(|one| one.lease_left_seconds > 0.0).count() as i64;
    let without_lease = (running(&connection).await? - leased).max(0);
    let parked = parked(&connection).await?;
    let adopted = adopted_backlog::look(&mut connection).await?;
    let capture = capture::shown(database, name).await?;
    let paused = read_state(&connection).await?.pause;
    let open = open_transactions(&connection).await?;
    let observer = Onlooker::new(&connection).await?;
    let (mut buckets, mut unseen) = (Vec::new(), Vec::new());
    for state in observer.buckets().await? {
        if !state.is_of_this_history && unseen.is_empty() {
            unseen.push(OTHER_HISTORY.to_owned());
        }
        let waiting = observer.waiting(&state).await?;
        buckets.push(BucketStatus::new(state, waiting));
    }
    let parts = buckets.iter().map(|bucket| bucket.waiting);
    let mut waiting = parts
        .chain(adopted.iter().map(|table| table.waiting))
        .fold(Waiting::default(), Waiting::and);
    if waiting.waits == Waits::No
        && let Some(why) = backlog::moved(&mut connection, &outbox).await?
    {
        waiting = waiting.and(Waiting::unknown());
        unseen.push(why);
    }
    if waiting.waits == Waits::No {
        waiting = waiting.and(unread(&connection, &mut unseen).await?);
    }
    if let Some(why) = capture.unseen() {
        waiting = waiting.and(Waiting::unknown());
        unseen.push(why);
    }
    if waiting.unpublished_is_lower_bound {
        unseen.push("not all rows were looked at".to_owned());
    }
    Ok(ShownStatus {
        outbox: name.to_string(),
        control_schema: schema::chosen().unusual().map(str::to_owned),
        database: database.display_name(),
        partitions: generations.iter().map(|generation| generation.leaves).sum(),
        size_bytes: generations.iter().map(|generation| generation.size_bytes).sum(),
        waiting,
        unseen,
        generations,
        instances,
        without_lease,
        parked,
        capture,
        paused,
        adopted,
        open_transactions: open.oldest.iter().map(OpenTransaction::words).collect(),
        buckets,
    })
}

async fn running(connection: &Connection) -> Result<i64> {
    let row = connection.client().query_one(RUNNING.text(), &[]).await;
    Ok(row.map_err(|cause| classify("look which relays run", cause))?.get("relays"))
}

/// Rows that the cursors have passed and nobody has read; looked for where nothing else is said to wait.
async fn unread(connection: &Connection, unseen: &mut Vec<String>) -> Result<Waiting> {
    match unread::look(connection, Instant::now() + unread::PATIENCE).await {
        Ok(found) => {
            let look = if found.is_whole { LookState::Whole } else { LookState::CutBehind };
            Ok(Waiting::seen(found.rows.len() as i64, None, look))
        }
        Err(error) if error.kind() == ErrorKind::PostgresRefused => {
            unseen.push(error.message().to_owned());
            Ok(Waiting::unknown())
        }
        Err(error) => Err(error),
    }
}

async fn parked(connection: &Connection) -> Result<ParkedStatus> {
    let row = connection.client().query_one(PARKED.text(), &[]).await;
    let row = row.map_err(|cause| classify("count the parked events", cause))?;
    Ok(ParkedStatus {
        events: row.get("events"),
        aggregates: row.get("aggregates"),
        oldest_age_seconds: row.get("oldest_age_seconds"),
    })
}

async fn generations(connection: &Connection, outbox: &Outbox) -> Result<Vec<GenerationStatus>> {
    let tables: Vec<String> =
        (0..outbox.buckets).map(|bucket| outbox.bucket_table(Bucket(bucket))).collect();
    let seconds = i32::try_from(outbox.generation_seconds).expect("a week at most");
    let rows = connection.client().query(SIZE, &[&tables, &seconds]).await;
    let rows = rows.map_err(|cause| classify("measure the outbox", cause))?;
    Ok(rows
        .iter()
        .map(|row| GenerationStatus {
            generation: row.get("generation"),
            is_current: row.get("is_current"),
            leaves: row.get("leaves"),
            filled_leaves: row.get("filled_leaves"),
            size_bytes: row.get("bytes"),
        })
        .collect())
}

async fn instances(connection: &Connection) -> Result<Vec<InstanceStatus>> {
    let rows = connection.client().query(INSTANCES.text(), &[]).await;
    let rows = rows.map_err(|cause| classify("look at the relay tier", cause))?;
    Ok(rows
        .iter()
        .map(|row| InstanceStatus {
            name: row.get("name"),
            shards: row.get("shards"),
            buckets: row.get("buckets"),
            age_seconds: row.get("age_seconds"),
            lease_left_seconds: row.get("lease_left_seconds"),
        })
        .collect())
}

impl GenerationStatus {
    fn line(&self) -> String {
        format!(
            "generation {}: {:>10} in {} of {} partitions{}\n",
            self.generation,
            show_bytes(self.size_bytes.unsigned_abs()),
            self.filled_leaves,
            self.leaves,
            if self.is_current { ", being filled" } else { "" },
        )
    }
}

impl InstanceStatus {
    fn line(&self) -> String {
        let lease = if self.lease_left_seconds > 0.0 {
            format!("lease for {}", show_age(Some(self.lease_left_seconds)))
        } else {
            let since = show_age(Some(-self.lease_left_seconds));
            format!("dead or hanging: its lease ran out {since} ago")
        };
        format!(
            "instance {}: {}, {}, up {}, {lease}\n",
            legible::name(&self.name),
            count(self.buckets, "bucket"),
            count(self.shards.into(), "shard"),
            show_age(Some(self.age_seconds)),
        )
    }
}

impl BucketStatus {
    fn new(state: BucketState, waiting: Waiting) -> Self {
        Self {
            bucket: state.bucket,
            epoch: state.epoch,
            owner: state.owner,
            position: state.position,
            saved_age_seconds: state.saved_age_seconds,
            waiting,
        }
    }

    fn line(&self) -> String {
        format!(
            "{:>6}  {:>6}  {:>12}  {:>10}  {:>12}  {:>10}  {}\n",
            self.bucket,
            self.epoch,
            self.position,
            show_age(self.saved_age_seconds),
            self.waiting.count(),
            self.waiting.age(),
            self.owner.as_deref().map_or_else(|| "-".to_owned(), legible::name),
        )
    }
}

impl ShownStatus {
    /// Of relays that own nothing.
    fn without_lease(&self) -> String {
        let relays = count(self.without_lease, "relay");
        match (self.without_lease, self.instances.is_empty(), &self.paused) {
            (0, true, None) => "no instance runs\n".to_owned(),
            (0, true, Some(_)) => {
                "no instance has a lease; those that run wait for the end of the pause\n".to_owned()
            }
            (0, false, _) => String::new(),
            (_, _, Some(_)) => {
                format!("{relays} without a lease: waiting for the end of the pause\n")
            }
            (_, _, None) => format!("{relays} without a lease: standing by, or changing over\n"),
        }
    }

    fn table(&self) -> String {
        let size = show_bytes(self.size_bytes.unsigned_abs());
        let schema = self.control_schema.as_ref();
        let schema = schema.map(|name| format!(", schema {}", legible::name(name)));
        let mut text = format!(
            "outbox {} at {}{}: {} buckets, {} partitions, {size}\n",
            legible::name(&self.outbox),
            legible::name(&self.database),
            schema.unwrap_or_default(),
            self.buckets.len(),
            self.partitions,
        );
        text.extend(self.generations.iter().map(GenerationStatus::line));
        text.push_str(&self.without_lease());
        text.extend(self.instances.iter().map(InstanceStatus::line));
        writeln!(text, "{}", self.capture.text()).expect("text takes text");
        if let Some(pause) = &self.paused {
            writeln!(text, "{}", words(pause)).expect("text takes text");
        }
        text.push('\n');
        let heads = ["bucket", "epoch", "position", "saved", "unpublished", "oldest"];
        let [bucket, epoch, position, saved, unpublished, oldest] = heads;
        writeln!(
            text,
            "{bucket:>6}  {epoch:>6}  {position:>12}  {saved:>10}  {unpublished:>12}  {oldest:>10}  owner"
        )
        .expect("text takes text");
        text.extend(self.buckets.iter().map(BucketStatus::line));
        text.push('\n');
        text.extend(self.adopted.iter().map(AdoptedWaiting::line));
        let parked = if self.parked.events > 0 { " but what is parked" } else { "" };
        let sentence = self.waiting.sentence();
        let but = if self.waiting.waits == Waits::No { parked } else { "" };
        writeln!(text, "unpublished: {sentence}{but}").expect("text takes text");
        for open in &self.open_transactions {
            writeln!(text, "open: {open}").expect("text takes text");
        }
        let oldest = self.waiting.oldest_unpublished_age_seconds;
        if !self.instances.is_empty() && oldest.is_some_and(|seconds| seconds > LONG_SECONDS) {
            writeln!(text, "({ASK_KAFKA})").expect("text takes text");
        }
        for why in &self.unseen {
            writeln!(text, "({why})").expect("text takes text");
        }
        if self.parked.events > 0 {
            let ParkedStatus { events, aggregates, oldest_age_seconds } = self.parked;
            let (events, aggregates) = (count(events, "event"), count(aggregates, "aggregate"));
            let age = show_age(oldest_age_seconds);
            writeln!(
                text,
                "parked: {events} of {aggregates}, the oldest for {age}; see `postrider parked list`"
            )
            .expect("text takes text");
        }
        text
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
