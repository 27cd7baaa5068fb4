//! `postrider.parked`: events that are set aside, and what people ask for.
//!
//! Promises: what is parked is on disk before anybody learns that it is; a former owner of a bucket
//! neither parks nor takes away. Must not: decide what is parked, or when it is tried again.
//! Fails: [`Fenced`](crate::error::ErrorKind::Fenced) when another instance has taken a bucket; with the connection's error.
//!
//! **Whole.** A row holds the whole event, so the outbox's leaf may be truncated behind it.
//!
//! **Owned.** Each write shares a lock on the cursors of its buckets and compares their epochs in the
//! same statement. Whoever takes a bucket waits for that lock and then sees the rows; whoever was too
//! late finds another epoch. So the holds that an owner reads after it took a bucket are all there are.
//!
//! **In order.** A row's `turn` is drawn when it is written first: events are tried again in the order in
//! which they were parked. `src/shard/parking.rs` says why that keeps the order.

use hashbrown::HashSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::event::{Arrival, Bucket, Event, EventId, LendEvent, OwnedEvent, Standing};
use crate::hold::{AggregateKey, HELD_MAX, HeldFrom, Hold, IdHead, Reason, Refusal, SetAside};
use crate::outbox::Outbox;
use crate::postgres::{Connection, Lsn, Timestamp, classify};

const INSERT: &str = include_str!("../../sql/queries/parked_insert.sql");
const ANSWER: &str = include_str!("../../sql/queries/parked_answer.sql");
const HOLDS: &str = include_str!("../../sql/queries/parked_holds.sql");
const HELD: &str = include_str!("../../sql/queries/parked_held.sql");
const TOPICS: &str = include_str!("../../sql/queries/parked_topics.sql");
const REQUEST_TOPICS: &str = include_str!("../../sql/queries/parked_request_topics.sql");
const LOOK: &str = include_str!("../../sql/queries/parked_look.sql");
const REQUESTS: &str = include_str!("../../sql/queries/parked_requests.sql");
const PIECE: &str = include_str!("../../sql/queries/parked_piece.sql");
const REST: &str = include_str!("../../sql/queries/parked_rest.sql");

/// Requests that are answered by one piece, at most.
const PIECE_REQUESTS: i64 = 500;
/// Events of one piece, at most.
const PIECE_EVENTS: i64 = 2_000;
/// Bytes of payload after which a piece ends.
const PIECE_BYTES: i64 = 4 * 1024 * 1024;

/// A bucket and the epoch under which it is owned.
pub type Owned = (Bucket, i64);

/// What waits in some buckets.
#[derive(Debug)]
pub struct Waiting {
    /// The aggregates that are held; none if they are too many for memory.
    pub holds: Option<Vec<Hold>>,
    /// The topics that events wait for.
    pub topics: Vec<String>,
}

/// Whether there is something to do about some buckets.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Somebody may ask for it.
    pub is_any_parked: bool,
    /// Somebody does.
    pub is_requested: bool,
}

/// The next events to be tried again.
#[derive(Debug, Default)]
pub struct Piece {
    /// Each request's number, and which aggregate it asks for; an aggregate may be there twice.
    pub requests: Vec<(i64, AggregateKey)>,
    /// The first events of these aggregates, in the order in which they were parked.
    pub events: Vec<ParkedEvent>,
    /// The aggregates that have more events behind the piece, and from where on these hold them.
    pub rest: Vec<Hold>,
}

/// An event as it was parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedEvent {
    /// The event.
    pub event: OwnedEvent,
    /// Where the log brought it; none for one that was read from a table.
    pub arrival: Option<Arrival>,
}

impl LendEvent for ParkedEvent {
    fn event(&self) -> Event<'_> {
        self.event.event()
    }

    fn standing(&self) -> Standing {
        Standing::Waiting(self.arrival)
    }
}

/// One session on `postrider.parked`.
#[derive(Debug)]
pub struct Parked {
    connection: Connection,
    outbox: String,
    buckets: i32,
    statements: Statements,
}

#[derive(Debug)]
struct Statements {
    insert: Statement,
    answer: Statement,
    look: Statement,
    held: Statement,
}

impl Parked {
    /// Prepares the session.
    ///
    /// # Errors
    /// When the role lacks a right on `postrider.parked`, or the connection fails.
    pub async fn open(connection: Connection, outbox: &Outbox) -> Result<Self> {
        let client = connection.client();
        let prepared = tokio::try_join!(
            client.prepare(INSERT),
            client.prepare(ANSWER),
            client.prepare(LOOK),
            client.prepare(HELD)
        );
        let (insert, answer, look, held) =
            prepared.map_err(|cause| classify("look at parked events", cause))?;
        Ok(Self {
            connection,
            outbox: outbox.name().quoted(),
            buckets: outbox.buckets.into(),
            statements: Statements { insert, answer, look, held },
        })
    }

    /// What waits in these buckets.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn waiting(&self, buckets: &[Bucket]) -> Result<Waiting> {
        let failed = |cause| classify("read which aggregates are held", cause);
        let (buckets, client) = (numbers(buckets), self.connection.client());
        let one_more = i64::try_from(HELD_MAX + 1).expect("it is a small number");
        let holds = client.query(HOLDS, &[&buckets, &one_more]).await.map_err(failed)?;
        let topics = client.query(TOPICS, &[&buckets]).await.map_err(failed)?;
        Ok(Waiting {
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

    /// Parks events. When it returns, they are on disk.
    ///
    /// # Errors
    /// [`Fenced`](crate::error::ErrorKind::Fenced) when a bucket is not owned any more; the connection's error.
    pub async fn park<R: LendEvent>(&self, owned: &[Owned], events: &[SetAside<R>]) -> Result<()> {
        let lent: Vec<(Event<'_>, &SetAside<R>)> =
            events.iter().map(|event| (event.row.event(), event)).collect();
        let (buckets, epochs) = columns(owned);
        let seqs = column(&lent, |event, _| event.seq);
        let ids = column(&lent, |event, _| Uuid::from_bytes(event.id.0));
        let types = column(&lent, |event, _| event.aggregate_type);
        let aggregates = column(&lent, |event, _| event.aggregate_id);
        let kinds = column(&lent, |event, _| event.kind);
        let payloads = column(&lent, |event, _| event.payload);
        let headers = column(&lent, |event, _| event.headers);
        let times = column(&lent, |event, _| Timestamp(event.created_at_micros));
        let reasons = column(&lent, |_, refusal| refusal.reason.name());
        let details = column(&lent, |_, refusal| refusal.detail.as_str());
        let topics = column(&lent, |_, refusal| refusal.topic.as_deref());
        let attempts = column(&lent, |_, refusal| i32::from(refusal.reason != Reason::Follows));
        let arrivals: Vec<Option<Arrival>> = events.iter().map(arrival_of).collect();
        let commits: Vec<Option<Lsn>> =
            arrivals.iter().map(|arrival| arrival.map(|at| Lsn(at.commit_lsn))).collect();
        let indexes: Vec<Option<i64>> =
            arrivals.iter().map(|arrival| arrival.map(|at| at.index.into())).collect();
        let parameters: [&(dyn ToSql + Sync); 18] = [
            &buckets,
            &epochs,
            &self.outbox,
            &self.buckets,
            &seqs,
            &ids,
            &types,
            &aggregates,
            &kinds,
            &payloads,
            &headers,
            &times,
            &reasons,
            &details,
            &topics,
            &attempts,
            &commits,
            &indexes,
        ];
        let parked = self.connection.client().query(&self.statements.insert, &parameters).await;
        let parked = parked.map_err(|cause| classify("park events", cause))?;
        if parked.len() == events.len() {
            return Ok(());
        }
        Err(Error::fenced())
    }

    /// Takes away what was published, and the requests that were answered.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn answer(&self, owned: &[Owned], seqs: &[i64], requests: &[i64]) -> Result<()> {
        let (buckets, epochs) = columns(owned);
        let client = self.connection.client();
        let answered =
            client.execute(&self.statements.answer, &[&buckets, &epochs, &seqs, &requests]).await;
        answered.map(|_| ()).map_err(|cause| classify("take away what was published", cause))
    }

    /// Whether anything of these buckets is parked, or asked for.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&self, buckets: &[Bucket]) -> Result<Seen> {
        let client = self.connection.client();
        let row = client.query_one(&self.statements.look, &[&numbers(buckets)]).await;
        let row = row.map_err(|cause| classify("look for parked events", cause))?;
        Ok(Seen { is_any_parked: row.get("is_any_parked"), is_requested: row.get("is_requested") })
    }

    /// Asks for everything in these buckets that waits for one of the topics.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn request_topics(&self, buckets: &[Bucket], topics: &[String]) -> Result<()> {
        let client = self.connection.client();
        let asked = client.execute(REQUEST_TOPICS, &[&numbers(buckets), &topics]).await;
        asked.map(|_| ()).map_err(|cause| classify("ask for parked events", cause))
    }

    /// The next piece of what was asked for in these buckets.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn piece(&self, buckets: &[Bucket]) -> Result<Piece> {
        let failed = |cause| classify("read parked events", cause);
        let client = self.connection.client();
        let requests = client.query(REQUESTS, &[&numbers(buckets), &PIECE_REQUESTS]).await;
        let requests = requests.map_err(failed)?;
        let (buckets, types, ids) = wanted(&requests);
        let limits: [&(dyn ToSql + Sync); 5] =
            [&buckets, &types, &ids, &PIECE_EVENTS, &PIECE_BYTES];
        let rows = client.query(PIECE, &limits).await.map_err(failed)?;
        let last: i64 = rows.last().map_or(i64::MIN, |row| row.get("turn"));
        let rest = client.query(REST, &[&buckets, &types, &ids, &last]).await.map_err(failed)?;
        Ok(Piece {
            requests: requests.iter().map(|row| (row.get("request"), key(row))).collect(),
            events: rows.iter().map(event).collect(),
            rest: rest.iter().map(hold).collect(),
        })
    }
}

/// Bucket, type and id of each aggregate that is asked for; one that was asked for twice is there once.
fn wanted(requests: &[Row]) -> (Vec<i16>, Vec<String>, Vec<String>) {
    let mut known = HashSet::new();
    let (mut buckets, mut types, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for row in requests.iter().filter(|row| known.insert(key(row))) {
        buckets.push(row.get("bucket"));
        types.push(row.get("aggregatetype"));
        ids.push(row.get("aggregateid"));
    }
    (buckets, types, ids)
}

fn column<'a, R, T>(
    events: &[(Event<'a>, &'a SetAside<R>)],
    value: impl Fn(Event<'a>, &'a Refusal) -> T,
) -> Vec<T> {
    events.iter().map(|(event, set_aside)| value(*event, &set_aside.refusal)).collect()
}

fn key(row: &Row) -> AggregateKey {
    AggregateKey::named(row.get("aggregatetype"), row.get("aggregateid"))
}

fn arrival_of<R: LendEvent>(event: &SetAside<R>) -> Option<Arrival> {
    match event.row.standing() {
        Standing::Written => None,
        Standing::Committed(arrival) => Some(arrival),
        Standing::Waiting(arrival) => arrival,
    }
}

fn arrival(row: &Row) -> Option<Arrival> {
    let (commit, index): (Option<Lsn>, Option<i64>) =
        (row.get("commit_lsn"), row.get("commit_index"));
    let index = u32::try_from(index?).expect("the table checks it");
    Some(Arrival { commit_lsn: commit?.0, index })
}

fn hold(row: &Row) -> Hold {
    let from =
        HeldFrom { seq: row.get("seq"), written: row.get("written"), committed: arrival(row) };
    let key = AggregateKey::from_bytes(row.get("aggregate")).expect("the table computes it");
    Hold { key, head: IdHead::of(row.get("head")), from }
}

fn event(row: &Row) -> ParkedEvent {
    let id: Uuid = row.get("id");
    let created_at: Timestamp = row.get("created_at");
    let event = OwnedEvent {
        seq: row.get("seq"),
        id: EventId(id.into_bytes()),
        aggregate_type: row.get("aggregatetype"),
        aggregate_id: row.get("aggregateid"),
        kind: row.get("type"),
        payload: row.get("payload"),
        headers: row.get("headers"),
        created_at_micros: created_at.0,
    };
    ParkedEvent { event, arrival: arrival(row) }
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
