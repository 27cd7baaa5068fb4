//! `postrider.replay`: published events that are sent once more, on demand.
//!
//! Promises: what is asked for is counted first, in the snapshot that decides which events it is; nothing of it is
//! truncated until it was sent or cancelled. Must not: send. Fails: with the connection's error.
//!
//! **Which events.** Those that match and were committed when it was asked for. A bucket's owner begins once its cursor
//! covers that snapshot: then all of them are published or parked, and none appears first by a replay. Parked ones
//! are left out. The set stays the same, whoever reads it, so that each owner goes on where the last one was.
//!
//! **How far.** In each bucket events are read by rising `seq`, and the lowest that is not acknowledged is saved. After a
//! crash some are sent again, in their order; none is passed over.

pub mod reader;

use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::order::snapshot::Snapshot;
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Connection, PgSnapshot, Sql, Timestamp, classify, without_head};

const FILTER: &str = include_str!("../../../sql/queries/replay_filter.sql");
const ARM: &str = include_str!("../../../sql/queries/claim_arm.sql");
static FOUND: Sql = Sql::of(include_str!("../../../sql/queries/replay_found.sql"));
static KINDS: Sql = Sql::of(include_str!("../../../sql/queries/replay_kinds.sql"));
const OLDEST: &str = include_str!("../../../sql/queries/replay_oldest.sql");
const TIMES: &str = include_str!("../../../sql/queries/replay_times.sql");
static ASK: Sql = Sql::of(include_str!("../../../sql/queries/replay_ask.sql"));
static LOOK: Sql = Sql::of(include_str!("../../../sql/queries/replay_look.sql"));
static OPEN: Sql = Sql::of(include_str!("../../../sql/queries/replay_open.sql"));
static SAVE: Sql = Sql::of(include_str!("../../../sql/queries/replay_save.sql"));

/// So many are sent side by side by an instance: each takes a session and a producer.
pub const TURNS_MAX: usize = 4;

/// Which events are meant; all conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Types of aggregates, each with an id, or none for all of the type. Empty for any.
    pub aggregates: Vec<(String, Option<String>)>,
    /// Types of events. Empty for any.
    pub types: Vec<String>,
    /// Ids of events. Empty for any.
    pub ids: Vec<Uuid>,
    /// The lowest and the highest `seq`.
    pub seqs: (i64, i64),
    /// When they were written, and not before.
    pub since: Option<Timestamp>,
    /// They were written before this.
    pub until: Option<Timestamp>,
}

/// The filter as a statement takes it.
#[derive(Debug)]
pub struct FilterColumns {
    aggregate_types: Option<Vec<String>>,
    aggregate_ids: Option<Vec<Option<String>>>,
    types: Option<Vec<String>>,
    ids: Option<Vec<Uuid>>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

fn some_of<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

impl From<&ReplayFilter> for FilterColumns {
    fn from(filter: &ReplayFilter) -> Self {
        let (aggregate_types, aggregate_ids): (Vec<String>, Vec<Option<String>>) =
            filter.aggregates.iter().cloned().unzip();
        Self {
            aggregate_types: some_of(aggregate_types),
            aggregate_ids: some_of(aggregate_ids),
            types: some_of(filter.types.clone()),
            ids: some_of(filter.ids.clone()),
            since: filter.since,
            until: filter.until,
        }
    }
}

impl FilterColumns {
    /// The first eight parameters of a statement that has the filter, between these `seq`.
    pub fn parameters<'a>(
        &'a self,
        (first, last): (&'a i64, &'a i64),
    ) -> [&'a (dyn ToSql + Sync); 8] {
        let Self { aggregate_types, aggregate_ids, types, ids, since, until } = self;
        [aggregate_types, aggregate_ids, types, ids, first, last, since, until]
    }
}

/// A statement about events of these buckets, with the filter in its place.
pub fn filtered(statement: &str, outbox: &Outbox, buckets: &[Bucket]) -> String {
    let arm = |bucket: &Bucket| {
        let arm = without_head(ARM).replace("{bucket_table}", &outbox.bucket_table(*bucket));
        arm.replace("{bucket}", &bucket.to_string())
    };
    let arms: Vec<String> = buckets.iter().map(arm).collect();
    without_head(statement)
        .replace("{bucket_arms}", &arms.join("union all\n"))
        .replace("{filter}", without_head(FILTER))
}

/// What of a bucket is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundPart {
    /// Which bucket.
    pub bucket: i16,
    /// How many events.
    pub events: i64,
    /// The lowest and the highest `seq` among them.
    pub seqs: (i64, i64),
}

/// What a replay would send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundEvents {
    /// Buckets in which there is anything.
    pub parts: Vec<FoundPart>,
    /// Events that match and are parked: they are left out.
    pub parked: i64,
    /// Types of aggregates and of events, for the names of topics.
    pub kinds: Vec<(String, String)>,
    /// The oldest that is retained at all.
    pub oldest: Option<OldestEvent>,
}

/// The oldest event that is retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestEvent {
    /// Its number.
    pub seq: i64,
    /// When it was written, in words.
    pub written: String,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Where a replay goes, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWay {
    /// A name or a template of topics; none for those to which the events went before.
    pub to_topic: Option<String>,
    /// Events per second, at most.
    pub events_per_second: Option<i32>,
}

/// Times as people write them.
///
/// # Errors
/// What PostgreSQL says of a text that is no time; the connection's error.
pub async fn times(
    connection: &Connection,
    since: Option<String>,
    until: Option<String>,
) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
    let read = connection.client().query_one(TIMES, &[&since, &until]).await;
    read.map(|row| (row.get("since"), row.get("until"))).map_err(|cause| {
        if cause.code().is_some_and(|state| state.code().starts_with("22")) {
            let text = cause
                .as_db_error()
                .map_or_else(|| cause.to_string(), |told| told.message().to_owned());
            return Error::new(ErrorKind::Config, format!("--since or --until: {text}"))
                .with_remedy("write a time like '2026-11-30 06:00' or 2026-11-30T06:00:00+01:00");
        }
        classify("read the times of a replay", cause)
    })
}

/// Counts what a replay would send. The transaction is that in which it is asked for.
///
/// # Errors
/// When the connection fails.
pub async fn find(
    client: &impl GenericClient,
    outbox: &Outbox,
    filter: &FilterColumns,
    (first, last): (i64, i64),
) -> Result<FoundEvents> {
    let failed = |cause| classify("look for the events of a replay", cause);
    let buckets: Vec<Bucket> = (0..outbox.buckets).map(Bucket).collect();
    let parameters = filter.parameters((&first, &last));
    let found = client.query(&filtered(FOUND.text(), outbox, &buckets), &parameters).await;
    let found = found.map_err(failed)?;
    let kinds = client.query(&filtered(KINDS.text(), outbox, &buckets), &parameters).await;
    // Before the next statement: what that says of a transaction that has failed is no cause.
    let kinds = kinds.map_err(failed)?;
    let name = OutboxName { schema: outbox.schema.clone(), table: outbox.table.clone() }.quoted();
    let oldest = client.query_opt(&OLDEST.replace("{outbox}", &name), &[]).await.map_err(failed)?;
    let part = |row: &Row| {
        Some(FoundPart {
            bucket: row.get("bucket"),
            events: row.get("found"),
            seqs: row.get::<_, Option<i64>>("first_seq").zip(row.get("last_seq"))?,
        })
    };
    Ok(FoundEvents {
        parts: found.iter().filter_map(part).collect(),
        parked: found.iter().map(|row| row.get::<_, i64>("parked")).sum(),
        kinds: kinds.iter().map(|row| (row.get(0), row.get(1))).collect(),
        oldest: oldest.map(|row| OldestEvent {
            seq: row.get("seq"),
            written: row.get("written"),
            created_at: row.get("created_at"),
        }),
    })
}

/// Asks for a replay of what was found, in the same transaction; its number.
///
/// # Errors
/// When the connection fails, or rights are missing.
pub async fn ask(
    client: &impl GenericClient,
    filter: &FilterColumns,
    way: &ReplayWay,
    parts: &[FoundPart],
) -> Result<i64> {
    let FilterColumns { aggregate_types, aggregate_ids, types, ids, since, until, .. } = filter;
    let ReplayWay { to_topic, events_per_second } = way;
    let buckets: Vec<i16> = parts.iter().map(|part| part.bucket).collect();
    let (first, last): (Vec<i64>, Vec<i64>) = parts.iter().map(|part| part.seqs).unzip();
    let events: Vec<i64> = parts.iter().map(|part| part.events).collect();
    let parameters: [&(dyn ToSql + Sync); 12] = [
        aggregate_types,
        aggregate_ids,
        types,
        ids,
        to_topic,
        events_per_second,
        since,
        until,
        &buckets,
        &first,
        &last,
        &events,
    ];
    let asked = client.query(ASK.text(), &parameters).await;
    let asked = asked.map_err(|cause| classify("ask for a replay", cause))?;
    asked.first().map(|row| row.get("replay")).ok_or_else(|| {
        Error::new(ErrorKind::Internal, "a replay was asked for of which there is no event")
    })
}

/// A replay, as far as it is ours to send.
#[derive(Debug)]
pub struct OpenReplay {
    /// Its number.
    pub replay: i64,
    /// Where it goes, and how fast.
    pub way: ReplayWay,
    /// Which events.
    pub filter: FilterColumns,
    /// What was committed when it was asked for.
    pub asked_snapshot: Snapshot,
    /// How many buckets have not ended, whoever owns them.
    pub parts_open: i64,
    /// Our buckets.
    pub parts: Vec<OpenPart>,
}

/// A bucket of a replay that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPart {
    /// Which.
    pub bucket: Bucket,
    /// No event below it is still to be sent.
    pub next_seq: i64,
    /// None above it.
    pub last_seq: i64,
}

/// How far a bucket has come since the last save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayStep {
    /// No event below it is still to be sent.
    pub next_seq: i64,
    /// How many were sent.
    pub sent: i64,
    /// How many can never be.
    pub left_out: i64,
    /// What it waits for.
    pub trouble: Option<String>,
    /// Whether nothing is left.
    pub is_end: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedWork {
    /// There is something to send once more.
    pub is_any_open: bool,
    /// Somebody waits until what was committed before is published.
    pub is_waited: bool,
}

/// What is asked for in these buckets.
///
/// # Errors
/// When the connection fails, or the role may not look.
pub async fn look(connection: &Connection, buckets: &[Bucket]) -> Result<AskedWork> {
    let looked = connection.client().query_one(LOOK.text(), &[&numbers(buckets)]).await;
    looked
        .map(|row| AskedWork {
            is_any_open: row.get("is_any_open"),
            is_waited: row.get("is_waited"),
        })
        .map_err(|cause| classify("look whether a replay is asked for", cause))
}

/// What is to be sent once more in these buckets, the oldest replay first.
///
/// # Errors
/// When the connection fails.
pub async fn open(connection: &Connection, buckets: &[Bucket]) -> Result<Vec<OpenReplay>> {
    let rows = connection.client().query(OPEN.text(), &[&numbers(buckets)]).await;
    let rows = rows.map_err(|cause| classify("read which replays are asked for", cause))?;
    let mut replays: Vec<OpenReplay> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for row in &rows {
        let place = *places.entry(row.get("replay")).or_insert_with(|| {
            replays.push(open_replay(row));
            replays.len() - 1
        });
        let bucket: i16 = row.get("bucket");
        replays[place].parts.push(OpenPart {
            bucket: Bucket(u16::try_from(bucket).expect("a bucket is not negative")),
            next_seq: row.get("next_seq"),
            last_seq: row.get("last_seq"),
        });
    }
    Ok(replays)
}

fn open_replay(row: &Row) -> OpenReplay {
    OpenReplay {
        replay: row.get("replay"),
        way: ReplayWay {
            to_topic: row.get("to_topic"),
            events_per_second: row.get("events_per_second"),
        },
        filter: FilterColumns {
            aggregate_types: row.get("aggregatetypes"),
            aggregate_ids: row.get("aggregateids"),
            types: row.get("types"),
            ids: row.get("ids"),
            since: row.get("since"),
            until: row.get("until"),
        },
        asked_snapshot: row.get::<_, PgSnapshot>("asked_snapshot").0,
        parts_open: row.get("parts_open"),
        parts: Vec::new(),
    }
}

/// Saves how far a bucket has come; false when the replay was cancelled meanwhile.
///
/// # Errors
/// When the connection fails.
pub async fn save(
    connection: &Connection,
    replay: i64,
    bucket: Bucket,
    step: &ReplayStep,
) -> Result<bool> {
    let ReplayStep { next_seq, sent, left_out, trouble, is_end } = step;
    let bucket = number(bucket);
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&replay, &bucket, next_seq, sent, left_out, trouble, is_end];
    let saved = connection.client().execute(SAVE.text(), &parameters).await;
    saved.map(|rows| rows > 0).map_err(|cause| classify("save how far a replay is", cause))
}

fn number(bucket: Bucket) -> i16 {
    i16::try_from(bucket.0).expect("there are at most 64 buckets")
}

fn numbers(buckets: &[Bucket]) -> Vec<i16> {
    buckets.iter().copied().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_no_condition() {
        let filter = ReplayFilter { seqs: (3, 9), ..ReplayFilter::default() };
        let columns = FilterColumns::from(&filter);
        assert_eq!((columns.types, columns.ids, columns.aggregate_types), (None, None, None));
        let aggregates =
            vec![("order".to_owned(), None), ("order".to_owned(), Some("7".to_owned()))];
        let columns = FilterColumns::from(&ReplayFilter { aggregates, ..filter });
        assert_eq!(columns.aggregate_types, Some(vec!["order".to_owned(), "order".to_owned()]));
        assert_eq!(columns.aggregate_ids, Some(vec![None, Some("7".to_owned())]));
    }

    #[test]
    fn statements_are_complete() {
        let outbox = Outbox {
            schema: "public".to_owned(),
            table: "outbox".to_owned(),
            buckets: 2,
            payload: crate::outbox::PayloadType::Json,
            generation_seconds: 600,
            sequence: String::new(),
        };
        for statement in [FOUND.text(), KINDS.text()] {
            let sql = filtered(statement, &outbox, &[Bucket(0), Bucket(1)]);
            assert!(!sql.contains('{') && sql.contains("union all"), "{sql}");
        }
    }
}
