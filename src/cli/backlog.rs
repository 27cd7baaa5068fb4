//! What waits in the outbox, seen from outside the relay.
//!
//! Promises: bounded work, however much waits; what was not looked at is not taken for published.
//! Must not: change anything. Fails: as the connection.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::types::ToSql;

use crate::capture::mode::{Mode, read_state};
use crate::cli::output::count;
use crate::cli::waiting::{LookState, Waiting, Waits};
use crate::control::moved;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId};
use crate::outbox::Outbox;
use crate::postgres::{Connection, Sql, classify, fill, without_head};
use crate::record::topic::TopicTemplate;

static STATE: Sql = Sql::of(include_str!("../../sql/queries/bucket_state.sql"));
static BACKLOG: Sql = Sql::of(include_str!("../../sql/queries/bucket_backlog.sql"));
static LOOKED_AT: Sql = Sql::of(include_str!("../../sql/queries/bucket_looked_at.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../sql/queries/cursor_floor.sql"));
static WAITING: Sql = Sql::of(include_str!("../../sql/queries/bucket_waiting.sql"));
/// The claim's plan serves here too: by the index on seq, without a sort.
const SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

/// Rows that are looked at per bucket, on either side of the place above which most that wait lie.
const LOOK_AT: i64 = 20_000;
/// And where none of these waits, though there are more.
const LOOK_AT_MAX: i64 = 1_000_000;
/// Waiting events whose topics are looked at, per bucket.
const WAITING_MAX: i64 = 1_000;

/// How long it is looked for rows that came from other buckets.
const MOVED_PATIENCE: Duration = Duration::from_secs(2);

/// One bucket's row in `postrider.cursor`.
#[derive(Clone, Debug)]
pub(super) struct BucketState {
    pub(super) bucket: i16,
    pub(super) epoch: i64,
    pub(super) owner: Option<String>,
    pub(super) position: i64,
    /// None before an instance first took the bucket.
    pub(super) saved_age_seconds: Option<f64>,
    /// No unpublished row has a `seq` at or below it.
    floor: i64,
    /// Most unpublished rows have a `seq` above it.
    recent_floor: i64,
    /// Whether the cursor says anything about the rows that are there.
    pub(super) is_of_this_history: bool,
}

/// By what an event's topic is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventKind {
    pub(super) aggregate_type: String,
    pub(super) kind: String,
}

impl EventKind {
    /// Where such an event goes.
    pub(super) fn topic(&self, template: &TopicTemplate) -> Result<String> {
        let event = Event {
            seq: 0,
            id: EventId([0; 16]),
            aggregate_type: &self.aggregate_type,
            aggregate_id: "",
            kind: &self.kind,
            payload: None,
            headers: None,
            created_at_micros: 0,
        };
        let mut buffer = String::new();
        template.render(&event, &mut buffer).map(str::to_owned).map_err(|cause| {
            let cause =
                format!("an event that waits, or was written lately, cannot be published: {cause}");
            Error::new(ErrorKind::Unpublishable, cause)
                .with_remedy("change --topic, or what writes such an aggregatetype or type")
        })
    }
}

/// The kinds of events that were seen to wait.
#[derive(Debug, Default)]
pub(super) struct WaitingKinds {
    pub(super) kinds: BTreeSet<EventKind>,
    /// Topics for which events are parked until they can be used.
    pub(super) parked_topics: BTreeSet<String>,
    /// Whether events of any kind may wait that could not be seen.
    pub(super) may_be_more: bool,
}

/// A session that looks at the outbox.
#[derive(Debug)]
pub(super) struct Onlooker<'a>(&'a Connection);

impl<'a> Onlooker<'a> {
    /// Prepares the session for looking.
    pub(super) async fn new(connection: &'a Connection) -> Result<Self> {
        let failed = |cause| classify("prepare the session", cause);
        connection.client().batch_execute(SESSION).await.map_err(failed)?;
        Ok(Self(connection))
    }

    /// All buckets, by rising number.
    pub(super) async fn buckets(&self) -> Result<Vec<BucketState>> {
        let failed = |cause| classify("read the cursors", cause);
        let sql = fill(STATE.text(), &[("{floor}", without_head(FLOOR.text()))]);
        let rows = self.0.client().query(&sql, &[]).await.map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| BucketState {
                bucket: row.get("bucket"),
                epoch: row.get("epoch"),
                owner: row.get("owner"),
                position: row.get("position"),
                saved_age_seconds: row.get("saved_age_seconds"),
                floor: row.get("floor"),
                recent_floor: row.get("recent_floor"),
                is_of_this_history: row.get("is_of_this_history"),
            })
            .collect())
    }

    /// What waits in a bucket. Where the first rows are all published the look goes on, but not without end.
    pub(super) async fn waiting(&self, state: &BucketState) -> Result<Waiting> {
        if !state.is_of_this_history {
            return Ok(Waiting::unknown());
        }
        let waiting = self.look(state, LOOK_AT).await?;
        if waiting.waits == Waits::Unknown {
            self.look(state, LOOK_AT_MAX).await
        } else {
            Ok(waiting)
        }
    }

    async fn look(&self, state: &BucketState, rows_max: i64) -> Result<Waiting> {
        let failed = |cause| classify("count the events that wait", cause);
        let sql = of_bucket(BACKLOG.text(), state);
        let parameters: [&(dyn ToSql + Sync); 3] = [&state.floor, &state.recent_floor, &rows_max];
        let row = self.0.client().query_one(&sql, &parameters).await.map_err(failed)?;
        let is_cut = |side| row.get::<_, i64>(side) == rows_max;
        let look = match (is_cut("older_looked_at"), is_cut("recent_looked_at")) {
            (true, _) => LookState::CutBefore,
            (false, true) => LookState::CutBehind,
            (false, false) => LookState::Whole,
        };
        Ok(Waiting::seen(row.get("unpublished"), row.get("oldest_age_seconds"), look))
    }

    /// The kinds of events that wait in any bucket.
    pub(super) async fn kinds(&self) -> Result<WaitingKinds> {
        let failed = |cause| classify("look at the events that wait", cause);
        let mut found = WaitingKinds::default();
        for state in self.buckets().await? {
            match self.waiting(&state).await?.waits {
                Waits::No => continue,
                Waits::Unknown => found.may_be_more = true,
                Waits::Yes => {}
            }
            let sql = of_bucket(WAITING.text(), &state);
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&state.floor, &state.recent_floor, &LOOK_AT_MAX, &WAITING_MAX];
            let rows = self.0.client().query(&sql, &parameters).await.map_err(failed)?;
            found.kinds.extend(rows.iter().map(|row| EventKind {
                aggregate_type: row.get("aggregatetype"),
                kind: row.get("type"),
            }));
        }
        Ok(found)
    }
}

/// The bucket is a constant in the text, so that the view's other arms fold away.
fn of_bucket(sql: &str, state: &BucketState) -> String {
    sql.replace("{looked_at}", without_head(LOOKED_AT.text()))
        .replace("{bucket}", &state.bucket.to_string())
}

/// What came into other buckets after it was written counts as published, and may not be.
pub(super) async fn moved(connection: &mut Connection, outbox: &Outbox) -> Result<Option<String>> {
    if read_state(connection).await?.mode != Mode::Poll {
        return Ok(None);
    }
    match moved::look(connection, outbox, MOVED_PATIENCE).await {
        Ok(found) if found.at_least == 0 => Ok(None),
        Ok(found) => Ok(Some(format!(
            "the aggregateid of up to {} was changed after they were written, and whether they are published cannot \
             be told; see `postrider check`",
            count(found.at_most, "row")
        ))),
        Err(error) if error.kind() == ErrorKind::PostgresRefused => {
            Ok(Some(error.message().to_owned()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
impl BucketState {
    pub(super) fn sample(bucket: i16) -> Self {
        Self {
            bucket,
            epoch: 1,
            owner: None,
            position: 0,
            saved_age_seconds: Some(0.1),
            floor: 0,
            recent_floor: 0,
            is_of_this_history: true,
        }
    }
}
