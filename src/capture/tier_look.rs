//! What PostgreSQL knows of the tier: instances, buckets, how much waits and is parked; for figures and for people.
//!
//! Promises: bounded work, least of it for buckets of others; what was not looked at makes a count a lower bound. Must
//! not: change anything, or need a right that whoever looks on has not. Fails: with the connection's error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::capture::mode::{CaptureState, Mode, Pause, read_state};
use crate::error::Result;
use crate::metrics::seen::SeenBacklog;
use crate::metrics::sentence;
use crate::metrics::shape::{
    BacklogReport, BucketCondition, BucketReport, ParkedAggregate, ParkedCounts, TIER_SCHEMA,
    TierCapture, TierInstance, TierInstanceCondition, TierPause, TierReport, TierSlot,
};
use crate::order::refusal::fix;
use crate::postgres::{
    Connection, DatabaseConfig, Lsn, Sql, classify, connect, fill, without_head,
};
use crate::schema;

static STATE: Sql = Sql::of(include_str!("../../sql/queries/bucket_state.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../sql/queries/cursor_floor.sql"));
static BACKLOG: Sql = Sql::of(include_str!("../../sql/queries/bucket_backlog.sql"));
static LOOKED_AT: Sql = Sql::of(include_str!("../../sql/queries/bucket_looked_at.sql"));
static PARKED: Sql = Sql::of(include_str!("../../sql/queries/parked_sight.sql"));
static FIRST: Sql = Sql::of(include_str!("../../sql/queries/parked_first.sql"));
static INSTANCES: Sql = Sql::of(include_str!("../../sql/queries/instances.sql"));
static CAPTURE: Sql = Sql::of(include_str!("../../sql/queries/capture_show.sql"));
const SLOT: &str = include_str!("../../sql/queries/slot_watch.sql");
/// The claim's plan serves here too: by the index on seq, without a sort.
const SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

/// Rows that are looked at per own bucket, on either side of the place above which most that wait lie: at most, and by people.
const LOOK_AT: i64 = 5_000;
/// By an instance at first, which has a backlog to read, and where a look takes long: later looks come the sooner.
const LOOK_AT_MIN: i64 = 1_000;
/// How long an instance's look shall take at most: it rests a hundred times as long.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// And per bucket of another instance, which looks for itself: enough for the oldest, and whether few or many wait.
const LOOK_AT_OTHERS: i64 = 500;
/// Parked events that are listed.
pub const LISTED_MAX: i64 = 500;
/// Parked events of one aggregate that are counted for the list.
const FOLLOWERS_MAX: i64 = 1_000;

/// Whose buckets are looked at closely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looker<'a> {
    /// The instance of this name: at its own.
    Instance(&'a str),
    /// People: at all of them.
    People,
}

/// What one look has found.
#[derive(Debug)]
pub struct TierSight {
    /// All instances and buckets.
    pub tier: TierReport,
    /// The first parked events of each aggregate.
    pub parked: Vec<ParkedAggregate>,
    /// What waits in the looker's own buckets.
    pub own: SeenBacklog,
}

/// A session that looks.
#[derive(Debug)]
pub struct TierLook {
    connection: Connection,
    state: Statement,
    /// By bucket: its number is a constant there, so that the view's other arms fold away.
    backlogs: HashMap<u16, Statement>,
    parked: Statement,
    first: Statement,
    instances: Statement,
    /// How many rows an instance looks at next.
    look_at: i64,
}

/// A bucket's row, and where to look for what waits in it.
struct BucketPlace {
    status: BucketReport,
    floor: i64,
    recent_floor: i64,
    rows_max: i64,
}

/// What waits in one bucket.
struct Depth {
    events: u64,
    bytes: u64,
    is_lower_bound: bool,
    oldest_seconds: Option<f64>,
}

/// What is parked in one bucket.
#[derive(Default)]
struct ParkedDepth {
    counts: ParkedCounts,
    /// For which events wait.
    topics: Vec<String>,
}

impl TierLook {
    /// Opens the session, for this purpose.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or refuses the session.
    pub async fn open(database: &DatabaseConfig, purpose: &str) -> Result<Self> {
        let failed = |cause| classify("prepare to look at the tier", cause);
        let connection = connect(database, purpose).await?;
        let client = connection.client();
        client.batch_execute(SESSION).await.map_err(failed)?;
        let state = fill(STATE.text(), &[("{floor}", without_head(FLOOR.text()))]);
        let prepared = tokio::try_join!(
            client.prepare(&state),
            client.prepare(PARKED.text()),
            client.prepare(FIRST.text()),
            client.prepare(INSTANCES.text())
        );
        let (state, parked, first, instances) = prepared.map_err(failed)?;
        Ok(Self {
            connection,
            state,
            backlogs: HashMap::new(),
            parked,
            first,
            instances,
            look_at: LOOK_AT_MIN,
        })
    }

    /// Looks.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&mut self, looker: Looker<'_>) -> Result<TierSight> {
        let began = Instant::now();
        let capture = read_state(&self.connection).await?;
        let instances = self.instances().await?;
        let parked = self.parked().await?;
        let (mut own, mut held) = (SeenBacklog::default(), BTreeSet::new());
        let mut buckets = Vec::new();
        for place in self.places(looker, &parked).await? {
            let is_own = match looker {
                Looker::Instance(name) => place.status.owner.as_deref() == Some(name),
                Looker::People => false,
            };
            let depth = self.depth(&place, capture.mode).await?;
            if is_own {
                let parked = parked.get(&place.status.bucket);
                note_own(&mut own, &mut held, place.status.bucket, depth.as_ref(), parked);
            }
            let status = with_depth(place.status, depth.as_ref());
            let state = bucket_state(&status, &instances, &capture);
            buckets.push(BucketReport { state, ..status });
        }
        let mut backlog = sum(&buckets);
        if capture.adopted > 0 {
            // Rows of adopted tables are seen by their reader alone.
            own.is_lower_bound = true;
            backlog.is_lower_bound = true;
        }
        let mut tier = TierReport {
            schema: TIER_SCHEMA.to_owned(),
            control_schema: schema::chosen().unusual().map(str::to_owned),
            seen_seconds_ago: 0.0,
            sentence: String::new(),
            backlog,
            parked: all_parked(&parked),
            capture: self.capture(&capture).await?,
            paused: capture.pause.map(shown_pause),
            instances,
            buckets,
        };
        tier.sentence = sentence::of_tier(&tier);
        let first = if tier.parked.events > 0 { self.first().await? } else { Vec::new() };
        self.look_at = next_look_at(self.look_at, began.elapsed());
        Ok(TierSight { tier, parked: first, own })
    }

    async fn instances(&self) -> Result<Vec<TierInstance>> {
        let rows = self.connection.client().query(&self.instances, &[]).await;
        let rows = rows.map_err(|cause| classify("look at the relay tier", cause))?;
        let instance = |row: &Row| {
            let lease_left_seconds: f64 = row.get("lease_left_seconds");
            TierInstance {
                name: row.get("name"),
                shards: row.get::<_, i16>("shards").unsigned_abs(),
                buckets: row.get::<_, i64>("buckets").unsigned_abs(),
                age_seconds: row.get("age_seconds"),
                lease_left_seconds,
                state: if lease_left_seconds > 0.0 {
                    TierInstanceCondition::Alive
                } else {
                    TierInstanceCondition::Dead
                },
            }
        };
        Ok(rows.iter().map(instance).collect())
    }

    async fn places(
        &self,
        looker: Looker<'_>,
        parked: &BTreeMap<u16, ParkedDepth>,
    ) -> Result<Vec<BucketPlace>> {
        let rows = self.connection.client().query(&self.state, &[]).await;
        let rows = rows.map_err(|cause| classify("read the cursors", cause))?;
        let near = match looker {
            Looker::Instance(_) => self.look_at,
            Looker::People => LOOK_AT,
        };
        let place = |row: &Row| {
            let bucket = row.get::<_, i16>("bucket").unsigned_abs();
            let owner: Option<String> = row.get("owner");
            let is_near = match looker {
                Looker::Instance(name) => owner.as_deref() == Some(name),
                Looker::People => true,
            };
            BucketPlace {
                floor: row.get("floor"),
                recent_floor: row.get("recent_floor"),
                rows_max: if is_near { near } else { LOOK_AT_OTHERS },
                status: BucketReport {
                    bucket,
                    epoch: row.get("epoch"),
                    owner,
                    position: row.get("position"),
                    saved_age_seconds: row.get("saved_age_seconds"),
                    unpublished: None,
                    unpublished_is_lower_bound: true,
                    oldest_seconds: None,
                    parked: parked.get(&bucket).map_or(0, |parked| parked.counts.events),
                    state: if row.get("is_of_this_history") {
                        BucketCondition::Owned
                    } else {
                        BucketCondition::Strange
                    },
                },
            }
        };
        Ok(rows.iter().map(place).collect())
    }

    /// What waits in a bucket; none where that cannot be seen.
    async fn depth(&mut self, place: &BucketPlace, mode: Mode) -> Result<Option<Depth>> {
        if mode == Mode::Message || place.status.state == BucketCondition::Strange {
            return Ok(None);
        }
        let BucketPlace { floor, recent_floor, rows_max, .. } = place;
        let statement = self.backlog(place.status.bucket).await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [floor, recent_floor, rows_max];
        let row = self.connection.client().query_one(&statement, &parameters).await;
        let row = row.map_err(|cause| classify("count the events that wait", cause))?;
        let is_cut = |side| row.get::<_, i64>(side) == *rows_max;
        Ok(Some(Depth {
            events: row.get::<_, i64>("unpublished").unsigned_abs(),
            bytes: row.get::<_, i64>("bytes").unsigned_abs(),
            is_lower_bound: is_cut("older_looked_at") || is_cut("recent_looked_at"),
            oldest_seconds: row.get("oldest_age_seconds"),
        }))
    }

    async fn backlog(&mut self, bucket: u16) -> Result<Statement> {
        if let Some(statement) = self.backlogs.get(&bucket) {
            return Ok(statement.clone());
        }
        let sql = BACKLOG.text().replace("{looked_at}", without_head(LOOKED_AT.text()));
        let sql = sql.replace("{bucket}", &bucket.to_string());
        let prepared = self.connection.client().prepare(&sql).await;
        let statement =
            prepared.map_err(|cause| classify("prepare to count the events that wait", cause))?;
        self.backlogs.insert(bucket, statement.clone());
        Ok(statement)
    }

    async fn parked(&self) -> Result<BTreeMap<u16, ParkedDepth>> {
        let rows = self.connection.client().query(&self.parked, &[]).await;
        let rows = rows.map_err(|cause| classify("count the parked events", cause))?;
        let mut parked: BTreeMap<u16, ParkedDepth> = BTreeMap::new();
        for row in rows {
            let bucket = row.get::<_, i16>("bucket").unsigned_abs();
            let ParkedDepth { counts, topics } = parked.entry(bucket).or_default();
            let events = row.get::<_, i64>("events").unsigned_abs();
            match row.get::<_, Option<String>>("reason") {
                Some(reason) => {
                    counts.by_reason.insert(reason, events);
                }
                None => {
                    counts.events = events;
                    counts.aggregates = row.get::<_, i64>("aggregates").unsigned_abs();
                    counts.oldest_seconds = row.get("oldest_age_seconds");
                    *topics = row.get::<_, Option<_>>("topics").unwrap_or_default();
                }
            }
        }
        Ok(parked)
    }

    async fn first(&self) -> Result<Vec<ParkedAggregate>> {
        let rows =
            self.connection.client().query(&self.first, &[&LISTED_MAX, &FOLLOWERS_MAX]).await;
        let rows = rows.map_err(|cause| classify("list parked events", cause))?;
        let first = |row: &Row| {
            let (reason, events): (String, i64) = (row.get("reason"), row.get("events"));
            ParkedAggregate {
                bucket: row.get::<_, i16>("bucket").unsigned_abs(),
                aggregatetype: row.get("aggregatetype"),
                aggregateid: row.get("aggregateid"),
                event: row.get::<_, Uuid>("id").to_string(),
                r#type: row.get("type"),
                detail: row.get("detail"),
                topic: row.get("topic"),
                attempts: row.get::<_, i32>("attempts").unsigned_abs(),
                events: events.unsigned_abs(),
                events_is_lower_bound: events == FOLLOWERS_MAX,
                since_seconds: row.get("since_seconds"),
                is_requested: row.get("is_requested"),
                fix: fix(&reason).replace("postrider.parked", &schema::chosen().of("parked")),
                reason,
            }
        };
        Ok(rows.iter().map(first).collect())
    }

    async fn capture(&self, state: &CaptureState) -> Result<TierCapture> {
        let failed = |cause| classify("read how events are captured", cause);
        let client = self.connection.client();
        let row = client.query_one(CAPTURE.text(), &[]).await.map_err(failed)?;
        let slot = match &state.slot_name {
            None => None,
            Some(name) => {
                let sight = client.query_opt(SLOT, &[name]).await.map_err(failed)?;
                Some(slot(name, state.delivered, sight.as_ref()))
            }
        };
        Ok(TierCapture {
            mode: state.mode.name().to_owned(),
            changed_at: row.get("changed_at"),
            changed_by: row.get("changed_by"),
            slot,
        })
    }
}

fn slot(name: &str, delivered: Option<Lsn>, sight: Option<&Row>) -> TierSlot {
    let bytes = |column| {
        let bytes: Option<i64> = sight.and_then(|row| row.get::<_, Option<i64>>(column));
        bytes.map(|bytes| bytes.max(0).unsigned_abs())
    };
    let confirmed = sight.and_then(|row| row.get::<_, Option<Lsn>>("confirmed_flush_lsn"));
    TierSlot {
        name: name.to_owned(),
        retained_bytes: bytes("retained_bytes"),
        safe_bytes: bytes("safe_bytes"),
        behind_bytes: bytes("behind_bytes"),
        inactive_seconds: sight.and_then(|row| row.get("inactive_seconds")),
        confirmed_lsn: confirmed.map(|lsn| lsn.to_string()),
        delivered_lsn: delivered.map(|lsn| lsn.to_string()),
    }
}

fn shown_pause(pause: Pause) -> TierPause {
    let Pause { reason, by, for_seconds, left_seconds } = pause;
    TierPause { reason, by, for_seconds, left_seconds }
}

/// How many rows the next look is at, by how long one took.
fn next_look_at(look_at: i64, took: Duration) -> i64 {
    let next = if took > LOOK_TIME { look_at / 2 } else { look_at * 2 };
    next.clamp(LOOK_AT_MIN, LOOK_AT)
}

fn with_depth(status: BucketReport, depth: Option<&Depth>) -> BucketReport {
    let Some(depth) = depth else { return status };
    // Where the look was cut short, nothing seen is not nothing there.
    let is_unknown = depth.events == 0 && depth.is_lower_bound;
    BucketReport {
        unpublished: (!is_unknown).then_some(depth.events),
        unpublished_is_lower_bound: depth.is_lower_bound,
        oldest_seconds: depth.oldest_seconds,
        ..status
    }
}

fn bucket_state(
    status: &BucketReport,
    instances: &[TierInstance],
    capture: &CaptureState,
) -> BucketCondition {
    let owner = status.owner.as_ref().map(|owner| {
        let found = instances.iter().find(|instance| &instance.name == owner);
        found.map_or(TierInstanceCondition::Dead, |instance| instance.state)
    });
    match (status.state, owner, status.unpublished) {
        (BucketCondition::Strange, ..) => BucketCondition::Strange,
        _ if capture.pause.is_some() => BucketCondition::Paused,
        (_, None, _) => BucketCondition::Free,
        (_, Some(TierInstanceCondition::Dead), _) => BucketCondition::Orphaned,
        (_, Some(TierInstanceCondition::Alive), None) => BucketCondition::Owned,
        (_, Some(TierInstanceCondition::Alive), Some(0)) => BucketCondition::Idle,
        (_, Some(TierInstanceCondition::Alive), Some(_)) => BucketCondition::Publishing,
    }
}

fn note_own<'a>(
    own: &mut SeenBacklog,
    held: &mut BTreeSet<&'a str>,
    bucket: u16,
    depth: Option<&Depth>,
    parked: Option<&'a ParkedDepth>,
) {
    if let Some(depth) = depth {
        own.is_lower_bound |= depth.is_lower_bound;
        own.backlog_events += depth.events;
        own.backlog_bytes += depth.bytes;
        own.oldest_age_seconds.insert(bucket, depth.oldest_seconds.unwrap_or_default());
    }
    let Some(ParkedDepth { counts, topics }) = parked else { return };
    for (reason, events) in &counts.by_reason {
        *own.parked.entry(reason.clone()).or_default() += events;
    }
    own.parked_aggregates += counts.aggregates;
    // Several buckets may wait for one topic.
    held.extend(topics.iter().map(String::as_str));
    own.topics_held = held.len() as u64;
    own.parked_oldest_age_seconds =
        own.parked_oldest_age_seconds.max(counts.oldest_seconds.unwrap_or_default());
}

/// What waits in all of them.
fn sum(buckets: &[BucketReport]) -> BacklogReport {
    let seen: Vec<u64> = buckets.iter().filter_map(|bucket| bucket.unpublished).collect();
    BacklogReport {
        events: (!seen.is_empty()).then(|| seen.iter().sum()),
        is_lower_bound: buckets.iter().any(|bucket| bucket.unpublished_is_lower_bound),
        oldest_seconds: buckets.iter().filter_map(|one| one.oldest_seconds).reduce(f64::max),
        seen_seconds_ago: Some(0.0),
        ..BacklogReport::default()
    }
}

fn all_parked(parked: &BTreeMap<u16, ParkedDepth>) -> ParkedCounts {
    let mut all = ParkedCounts::default();
    for ParkedDepth { counts, .. } in parked.values() {
        all.events += counts.events;
        all.aggregates += counts.aggregates;
        all.oldest_seconds =
            all.oldest_seconds.into_iter().chain(counts.oldest_seconds).reduce(f64::max);
        for (reason, events) in &counts.by_reason {
            *all.by_reason.entry(reason.clone()).or_default() += events;
        }
    }
    all
}

#[cfg(test)]
#[path = "tier_look_tests.rs"]
mod tests;
