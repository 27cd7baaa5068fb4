//! Writers that tell the auditor what they wrote.

use std::sync::{Arc, Mutex};

use postrider::event::EventId;
use postrider_testkit::audit::{Auditor, Fate, Verdict};
use tokio_postgres::{Client, Error, GenericClient};
use uuid::Uuid;

use super::consumer::audit_topic;
use super::fixture::try_connect;
use super::{Capture, Delivery, Fixture};

/// The aggregate type of all events that a [`Writer`] writes.
pub(crate) const AGGREGATE_TYPE: &str = "order";

/// Larger than most topics of the tests take.
const LARGE_BYTES: usize = 40_000;

/// Why an event cannot be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It can.
    #[default]
    None,
    /// Its headers are no object: it must never arrive.
    Headers,
    /// It is larger than its topic takes, perhaps not for ever.
    Size,
}

/// An event that was inserted, in a transaction that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Inserted {
    pub(crate) id: Uuid,
    pub(crate) aggregate: String,
    pub(crate) number: u64,
}

/// What all writers of a test did.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<(Inserted, Fate)>>>);

impl History {
    /// Takes note of how the transaction of these events ended.
    pub(crate) fn ended(&self, events: Vec<Inserted>, fate: Fate) {
        let mut history = self.0.lock().expect("no writer panicked");
        history.extend(events.into_iter().map(|event| (event, fate)));
    }

    /// Reads the topic and compares. In a run in which all is delivered exactly once nothing may have come twice.
    pub(crate) fn audit(&self, fixture: &Fixture) -> Verdict {
        let verdict = self.audit_of_repeats(fixture);
        let bears_repeats = Delivery::asked() == Delivery::AtLeastOnce;
        assert!(bears_repeats || verdict.repeats == 0, "{}: {verdict}", fixture.name);
        verdict
    }

    /// The same where events come twice in every way of delivery: somebody has set the cursors back, or the database
    /// has forgotten what was published.
    pub(crate) fn audit_of_repeats(&self, fixture: &Fixture) -> Verdict {
        let mut auditor = Auditor::new();
        for (event, fate) in self.0.lock().expect("no writer panicked").iter() {
            auditor.wrote(EventId(event.id.into_bytes()), &event.aggregate, event.number, *fate);
        }
        audit_topic(&mut auditor, &fixture.brokers, &fixture.topic(AGGREGATE_TYPE));
        auditor.verdict()
    }
}

/// One session that writes business rows and events as an application does: it locks the aggregate
/// first, so that its version is the order of commit.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) history: History,
    capture: Capture,
}

impl Writer {
    pub(crate) async fn new(fixture: &Fixture, history: &History) -> Self {
        Self::open(fixture, history).await.expect("PostgreSQL answers")
    }

    /// # Errors
    /// When PostgreSQL does not answer.
    pub(crate) async fn open(fixture: &Fixture, history: &History) -> Result<Self, Error> {
        let client = try_connect(&fixture.database_url).await?;
        Ok(Self { client, history: history.clone(), capture: fixture.capture })
    }

    /// The business table; once per test.
    pub(crate) async fn create_aggregates(fixture: &Fixture, count: u32) {
        let sql = format!(
            "create table aggregate (name text primary key, version bigint not null default 0);
             insert into aggregate select 'aggregate-' || n from generate_series(1, {count}) n"
        );
        fixture.client().await.batch_execute(&sql).await.expect("the table is new");
    }

    /// One transaction: a version and an event for each aggregate, then commit.
    pub(crate) async fn commit(&mut self, aggregates: &[u32]) {
        self.try_commit(aggregates, Flaw::None).await.expect("nothing is in the way of the commit");
    }

    /// One transaction that comes to nothing.
    pub(crate) async fn roll_back(&mut self, aggregates: &[u32]) {
        self.try_roll_back(aggregates, Flaw::None).await.expect("the session lives");
    }

    /// The first event has the flaw.
    ///
    /// # Errors
    /// When the session breaks. What has no answer to its commit may have been committed; before it
    /// nothing can have been.
    pub(crate) async fn try_commit(&mut self, aggregates: &[u32], flaw: Flaw) -> Result<(), Error> {
        let transaction = self.client.transaction().await?;
        let mut events = Vec::with_capacity(aggregates.len());
        if let Err(error) =
            try_write_events(&transaction, (self.capture, flaw), aggregates, &mut events).await
        {
            self.history.ended(events, Fate::RolledBack);
            return Err(error);
        }
        let committed = transaction.commit().await;
        if flaw == Flaw::Headers {
            self.history.ended(vec![events.remove(0)], Fate::RolledBack);
        }
        let fate = if committed.is_ok() { Fate::Committed } else { Fate::Unknown };
        self.history.ended(events, fate);
        committed
    }

    /// # Errors
    /// When the session breaks.
    pub(crate) async fn try_roll_back(
        &mut self,
        aggregates: &[u32],
        flaw: Flaw,
    ) -> Result<(), Error> {
        let transaction = self.client.transaction().await?;
        let mut events = Vec::with_capacity(aggregates.len());
        let written =
            try_write_events(&transaction, (self.capture, flaw), aggregates, &mut events).await;
        self.history.ended(events, Fate::RolledBack);
        written?;
        transaction.rollback().await
    }
}

/// Locks each aggregate by raising its version, then inserts its event. Aggregates must rise, or two
/// writers could wait for each other.
pub(crate) async fn write_events(client: &impl GenericClient, aggregates: &[u32]) -> Vec<Inserted> {
    let mut events = Vec::with_capacity(aggregates.len());
    let style = (Capture::Poll, Flaw::None);
    let written = try_write_events(client, style, aggregates, &mut events).await;
    written.expect("an insert never fails");
    events
}

/// The same where the session may break; `events` has what was tried.
async fn try_write_events(
    client: &impl GenericClient,
    (capture, flaw): (Capture, Flaw),
    aggregates: &[u32],
    events: &mut Vec<Inserted>,
) -> Result<(), Error> {
    for aggregate in aggregates {
        let name = format!("aggregate-{aggregate}");
        let raise = "update aggregate set version = version + 1 where name = $1 returning version";
        let version: i64 = client.query_one(raise, &[&name]).await?.get(0);
        let event =
            Inserted { id: Uuid::new_v4(), aggregate: name, number: version.cast_unsigned() };
        let flaw = if events.is_empty() { flaw } else { Flaw::None };
        events.push(event.clone());
        insert(client, capture, &event, flaw).await?;
    }
    Ok(())
}

/// Inserts one event.
pub(crate) async fn insert_event(
    client: &impl GenericClient,
    aggregate: &str,
    number: u64,
) -> Inserted {
    write_event(client, Capture::Poll, aggregate, number).await
}

/// Writes one event, as a row or as a message.
pub(crate) async fn write_event(
    client: &impl GenericClient,
    capture: Capture,
    aggregate: &str,
    number: u64,
) -> Inserted {
    let event = Inserted { id: Uuid::new_v4(), aggregate: aggregate.to_owned(), number };
    insert(client, capture, &event, Flaw::None).await.expect("an insert never fails");
    event
}

async fn insert(
    client: &impl GenericClient,
    capture: Capture,
    event: &Inserted,
    flaw: Flaw,
) -> Result<(), Error> {
    let Inserted { id, aggregate, number } = event;
    let filling = if flaw == Flaw::Size { filling(LARGE_BYTES) } else { String::new() };
    let payload = format!("{{\"aggregate\":\"{aggregate}{filling}\",\"version\":{number}}}");
    let headers = (flaw == Flaw::Headers).then_some("[1]");
    let sql = match capture {
        Capture::Poll | Capture::Wal => {
            "insert into outbox (id, aggregatetype, aggregateid, type, payload, headers)
             values ($1, $2, $3, 'Changed', $4::text::json, $5::text::jsonb)"
        }
        Capture::Message => {
            "select postrider.emit($2, $3, 'Changed', $4::text::json, $5::text::jsonb, $1::uuid)"
        }
    };
    client.execute(sql, &[id, &AGGREGATE_TYPE, aggregate, &payload, &headers]).await.map(|_| ())
}

/// Text that compression makes hardly shorter.
fn filling(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 32);
    while text.len() < bytes {
        text.push_str(&Uuid::new_v4().simple().to_string());
    }
    text
}
