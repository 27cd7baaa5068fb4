//! `postrider.parked`: events that are set aside, and what people ask for.
//!
//! Promises: what is parked is on disk before anybody learns that it is; a former owner of a bucket
//! neither parks nor takes away. Must not: decide what is parked, or when it is tried again.
//! Fails: [`Fenced`](crate::error::ErrorKind::Fenced) when another instance has taken a bucket; with the connection's error.
//!
//! **Whole.** A row holds the whole event, so the outbox's partition may be truncated behind it.
//!
//! **Owned.** Each write shares a lock on the cursors of its buckets and compares their epochs in the
//! same statement. Whoever takes a bucket waits for that lock and then sees the rows; whoever was too
//! late finds another epoch. So the holds that an owner reads after it took a bucket are all there are.
//!
//! **In order.** A row's `turn` is drawn when it is written first: events are tried again in the order in
//! which they were parked. `src/shard/parking.rs` says why that keeps the order.

pub mod ask;
mod from_log;
mod inside;
mod large;
mod large_row;
mod log_position;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::control::parked::escape::unescaped;
use crate::control::parked::log_position::StoredArrival;
use crate::error::{Error, Result};
use crate::event::{
    Bucket, Event, EventId, LendEvent, LogPosition, OrderingKey, OwnedEvent, SeqSource, Whereabouts,
};
use crate::order::holds::{AggregateKey, HELD_MAX, HeldFrom, Hold, IdHead, Refusal};
use crate::outbox::Outbox;
use crate::postgres::{Connection, Sql, Timestamp, classify};

mod escape;
mod write;
pub use crate::control::lease::Owned;
pub use crate::control::parked::from_log::FromLog;
pub use crate::control::parked::large::{Content, LargeMessage, TakenUp};

static INSERT: Sql = Sql::of(include_str!("../../../sql/queries/parked_insert.sql"));
static ANSWER: Sql = Sql::of(include_str!("../../../sql/queries/parked_answer.sql"));
static HOLDS: Sql = Sql::of(include_str!("../../../sql/queries/parked_holds.sql"));
static HELD: Sql = Sql::of(include_str!("../../../sql/queries/parked_held.sql"));
static TOPICS: Sql = Sql::of(include_str!("../../../sql/queries/parked_topics.sql"));
static HELD_COUNT: Sql = Sql::of(include_str!("../../../sql/queries/parked_held_count.sql"));
static REQUEST_TOPICS: Sql =
    Sql::of(include_str!("../../../sql/queries/parked_request_topics.sql"));
static REQUEST_ONE: Sql = Sql::of(include_str!("../../../sql/queries/parked_request_one.sql"));
static LOOK: Sql = Sql::of(include_str!("../../../sql/queries/parked_look.sql"));
static REQUESTS: Sql = Sql::of(include_str!("../../../sql/queries/parked_requests.sql"));
static PIECE: Sql = Sql::of(include_str!("../../../sql/queries/parked_piece.sql"));
static ROW: Sql = Sql::of(include_str!("../../../sql/queries/parked_row.sql"));
static AGAIN: Sql = Sql::of(include_str!("../../../sql/queries/parked_again.sql"));
static REST: Sql = Sql::of(include_str!("../../../sql/queries/parked_rest.sql"));

/// Requests that are answered by one piece, at most.
const PIECE_REQUESTS: i64 = 500;
/// Events of one piece, at most.
const PIECE_EVENTS: i64 = 2_000;
/// Bytes after which a piece ends, and bytes of names after which no further request is read for it.
const PIECE_BYTES: i64 = 4 * 1024 * 1024;

/// What waits in some buckets.
#[derive(Debug)]
pub struct ParkedWaiting {
    /// The aggregates that are held; none if they are too many for memory.
    pub holds: Option<Vec<Hold>>,
    /// The topics that events wait for.
    pub topics: Vec<String>,
}

/// Whether there is something to do about some buckets.
#[derive(Clone, Copy, Debug)]
pub struct SeenRequests {
    /// Somebody may ask for it.
    pub is_any_parked: bool,
    /// Somebody does.
    pub is_requested: bool,
}

/// The next events to be tried again.
#[derive(Debug, Default)]
pub struct RetryPage {
    /// Each request's number, and which aggregate it asks for; an aggregate may be there twice.
    pub requests: Vec<(i64, AggregateKey)>,
    /// The first events of these aggregates, in the order in which they were parked.
    pub events: Vec<ParkedEvent>,
    /// The aggregates that have more events behind the piece, and from where on these hold them.
    pub rest: Vec<Hold>,
    /// Requests for aggregates whose names are too long to be read: so are all their events.
    pub untried: Vec<i64>,
}

/// An event as it was parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedEvent {
    /// Its own key: its place among all that is parked.
    pub turn: i64,
    /// Why it is not here whole, but for its aggregate.
    pub flaw: Option<Refusal>,
    /// The event.
    pub event: OwnedEvent,
    /// Where the log brought it; none for one that was read from a table.
    pub log_position: Option<LogPosition>,
    /// What gave it its `seq`.
    pub seq_source: SeqSource,
}

impl LendEvent for ParkedEvent {
    fn event(&self) -> Event<'_> {
        self.event.event()
    }

    fn ordering_key(&self) -> OrderingKey {
        OrderingKey::Waiting(self.log_position)
    }

    fn seq_source(&self) -> SeqSource {
        self.seq_source
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts::Parked(self.turn)
    }

    fn flaw(&self) -> Option<&Refusal> {
        self.flaw.as_ref()
    }
}

/// How often events were parked and asked for by somebody else than a shard: shards look for them then.
#[derive(Clone, Debug, Default)]
pub struct Asks(Arc<AtomicU64>);

impl Asks {
    /// Once more.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How often until now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// One session on `postrider.parked`.
#[derive(Debug)]
pub struct Parked {
    connection: Connection,
    outbox: String,
    buckets: i32,
    event_bytes_max: i64,
    table: Outbox,
    statements: ParkedStatements,
    asks: Asks,
}

#[derive(Debug)]
struct ParkedStatements {
    insert: Statement,
    row: Statement,
    again: Statement,
    answer: Statement,
    look: Statement,
    held: Statement,
}

impl Parked {
    /// Prepares the session. Events of more than `event_bytes_max` are not read.
    ///
    /// # Errors
    /// When the role lacks a right on `postrider.parked`, or the connection fails.
    pub async fn open(
        connection: Connection,
        outbox: &Outbox,
        event_bytes_max: u64,
    ) -> Result<Self> {
        let client = connection.client();
        let prepared = tokio::try_join!(
            client.prepare(INSERT.text()),
            client.prepare(ROW.text()),
            client.prepare(AGAIN.text()),
            client.prepare(ANSWER.text()),
            client.prepare(LOOK.text()),
            client.prepare(HELD.text()),
        );
        let (insert, row, again, answer, look, held) =
            prepared.map_err(|cause| classify("look at parked events", cause))?;
        Ok(Self {
            connection,
            outbox: outbox.name().quoted(),
            buckets: outbox.buckets.into(),
            event_bytes_max: i64::try_from(event_bytes_max).unwrap_or(i64::MAX),
            statements: ParkedStatements { insert, row, again, answer, look, held },
            table: outbox.clone(),
            asks: Asks::default(),
        })
    }

    /// How often somebody else than a shard has parked and asked for events.
    pub fn asks(&self) -> &Asks {
        &self.asks
    }

    /// Events of more bytes are not read.
    pub fn event_bytes_max(&self) -> usize {
        usize::try_from(self.event_bytes_max).unwrap_or(usize::MAX)
    }

    /// What waits in these buckets.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn waiting(&self, buckets: &[Bucket]) -> Result<ParkedWaiting> {
        let failed = |cause| classify("read which aggregates are held", cause);
        let (buckets, client) = (numbers(buckets), self.connection.client());
        let one_more = i64::try_from(HELD_MAX + 1).expect("it is a small number");
        let holds = client.query(HOLDS.text(), &[&buckets, &one_more]).await.map_err(failed)?;
        let topics = client.query(TOPICS.text(), &[&buckets]).await.map_err(failed)?;
        Ok(ParkedWaiting {
            holds: (holds.len() <= HELD_MAX).then(|| holds.iter().map(hold).collect()),
            topics: topics.iter().map(|row| row.get("topic")).collect(),
        })
    }

    /// Which of some aggregates are held.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn held(&self, among: &HashSet<AggregateKey>) -> Result<Vec<Hold>> {
        let keys: Vec<&[u8]> = among.iter().map(AggregateKey::as_bytes).collect();
        let held = self.connection.client().query(&self.statements.held, &[&keys]).await;
        let held = held.map_err(|cause| classify("look which aggregates are held", cause))?;
        Ok(held.iter().map(hold).collect())
    }

    /// How many aggregates of these buckets are held.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn count_held(&self, buckets: &[Bucket]) -> Result<u64> {
        let row = self.connection.client().query_one(HELD_COUNT.text(), &[&numbers(buckets)]).await;
        let row = row.map_err(|cause| classify("count the aggregates that are held", cause))?;
        Ok(row.get::<_, i64>("held").unsigned_abs())
    }

    /// Takes away what was published, and the requests that were answered.
    ///
    /// # Errors
    /// [`Fenced`](crate::error::ErrorKind::Fenced) when a bucket is not owned any more; the connection's error.
    pub async fn answer(&self, owned: &[Owned], turns: &[i64], requests: &[i64]) -> Result<()> {
        let (buckets, epochs) = columns(owned);
        let client = self.connection.client();
        let parameters: [&(dyn ToSql + Sync); 4] = [&buckets, &epochs, &turns, &requests];
        let answered = client.query_one(&self.statements.answer, &parameters).await;
        let answered = answered.map_err(|cause| classify("take away what was published", cause))?;
        owned_all(&answered)
    }

    /// Whether anything of these buckets is parked, or asked for.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&self, buckets: &[Bucket]) -> Result<SeenRequests> {
        let client = self.connection.client();
        let row = client.query_one(&self.statements.look, &[&numbers(buckets)]).await;
        let row = row.map_err(|cause| classify("look for parked events", cause))?;
        Ok(SeenRequests {
            is_any_parked: row.get("is_any_parked"),
            is_requested: row.get("is_requested"),
        })
    }

    /// Asks for everything in these buckets that waits for one of the topics.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn request_topics(&self, buckets: &[Bucket], topics: &[String]) -> Result<()> {
        let client = self.connection.client();
        let asked = client.execute(REQUEST_TOPICS.text(), &[&numbers(buckets), &topics]).await;
        asked.map(|_| ()).map_err(|cause| classify("ask for parked events", cause))
    }

    /// Asks for one aggregate in these buckets for each of the topics, any that waits for it: the topics, each
    /// with its request.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn request_one(
        &self,
        buckets: &[Bucket],
        topics: &[String],
    ) -> Result<Vec<(String, i64)>> {
        let client = self.connection.client();
        let asked = client.query(REQUEST_ONE.text(), &[&numbers(buckets), &topics]).await;
        let asked = asked.map_err(|cause| classify("ask for one parked aggregate", cause))?;
        Ok(asked.iter().map(|row| (row.get("topic"), row.get("request"))).collect())
    }

    /// The next piece of what was asked for in these buckets, with so many bytes at most, or one event.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn piece(&self, buckets: &[Bucket], bytes_max: usize) -> Result<RetryPage> {
        let piece_bytes =
            i64::try_from(bytes_max).map_or(PIECE_BYTES, |most| most.min(PIECE_BYTES));
        let failed = |cause| classify("read parked events", cause);
        let client = self.connection.client();
        let limits: [&(dyn ToSql + Sync); 4] =
            [&numbers(buckets), &PIECE_REQUESTS, &self.event_bytes_max, &piece_bytes];
        let asked = client.query(REQUESTS.text(), &limits).await.map_err(failed)?;
        let mut piece = RetryPage::default();
        for row in &asked {
            match known_key(row) {
                Some(key) => piece.requests.push((row.get("request"), key)),
                None => piece.untried.push(row.get("request")),
            }
        }
        let requests: Vec<i64> = piece.requests.iter().map(|(request, _)| *request).collect();
        let limits: [&(dyn ToSql + Sync); 4] =
            [&requests, &PIECE_EVENTS, &piece_bytes, &self.event_bytes_max];
        let rows = client.query(PIECE.text(), &limits).await.map_err(failed)?;
        let last: i64 = rows.last().map_or(i64::MIN, |row| row.get("turn"));
        let rest = client.query(REST.text(), &[&requests, &last]).await.map_err(failed)?;
        piece.events = rows.iter().map(|row| self.event(row)).collect();
        piece.rest = rest.iter().map(hold).collect();
        Ok(piece)
    }

    fn event(&self, row: &Row) -> ParkedEvent {
        let fault: Option<&str> = row.get("fault");
        let event_bytes: i64 = row.get("event_bytes");
        let flaw = match fault {
            Some(fault) => Some(Refusal::unreadable(fault)),
            None if event_bytes > self.event_bytes_max => {
                Some(Refusal::not_read(event_bytes, self.event_bytes_max))
            }
            None => None,
        };
        let (event, stored) = (event(row), StoredArrival::read(row));
        let seq_source = stored.seq_source(event.seq);
        ParkedEvent {
            turn: row.get("turn"),
            flaw,
            event,
            log_position: stored.log_position(),
            seq_source,
        }
    }
}

/// Whether all rows that were named lie in buckets of ours.
fn owned_all(answer: &Row) -> Result<()> {
    if answer.get::<_, i64>("foreign_rows") > 0 { Err(Error::fenced()) } else { Ok(()) }
}

/// None where the name is too long to be read.
fn known_key(row: &Row) -> Option<AggregateKey> {
    let (aggregate_type, aggregate_id): (Option<String>, Option<String>) =
        (row.get("aggregatetype"), row.get("aggregateid"));
    Some(AggregateKey::named(&unescaped(aggregate_type?), &unescaped(aggregate_id?)))
}

fn hold(row: &Row) -> Hold {
    let from = HeldFrom {
        seq: row.get("seq"),
        written: row.get("written"),
        committed: StoredArrival::read(row).log_position(),
    };
    let key = AggregateKey::from_bytes(row.get("aggregate")).expect("the table computes it");
    Hold { key, head: IdHead::of(&unescaped(row.get("head"))), from }
}

fn event(row: &Row) -> OwnedEvent {
    let id: Uuid = row.get("id");
    let created_at: Timestamp = row.get("created_at");
    OwnedEvent {
        seq: row.get("seq"),
        id: EventId(id.into_bytes()),
        aggregate_type: unescaped(row.get("aggregatetype")),
        aggregate_id: unescaped(row.get("aggregateid")),
        kind: unescaped(row.get("type")),
        payload: row.get("payload"),
        headers: row.get::<_, Option<String>>("headers").map(unescaped),
        created_at_micros: created_at.0,
    }
}

fn number(bucket: Bucket) -> i16 {
    i16::try_from(bucket.0).expect("there are at most 64 buckets")
}

fn numbers(buckets: &[Bucket]) -> Vec<i16> {
    buckets.iter().copied().map(number).collect()
}

fn columns(owned: &[Owned]) -> (Vec<i16>, Vec<i64>) {
    owned.iter().map(|(bucket, epoch)| (number(*bucket), *epoch)).unzip()
}
