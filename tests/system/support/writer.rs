//! Writers that tell the auditor what they wrote.

use std::sync::{Arc, Mutex};

use postrider::audit::{Auditor, Fate, Verdict};
use postrider::event::EventId;
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::Fixture;
use super::consumer::audit_topic;

/// The aggregate type of all events that a [`Writer`] writes.
pub(crate) const AGGREGATE_TYPE: &str = "order";

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

    /// Reads the topic and compares.
    pub(crate) fn audit(&self, fixture: &Fixture) -> Verdict {
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
}

impl Writer {
    pub(crate) async fn new(fixture: &Fixture, history: &History) -> Self {
        Self { client: fixture.client().await, history: history.clone() }
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
        let transaction = self.client.transaction().await.expect("the session lives");
        let events = write_events(&transaction, aggregates).await;
        transaction.commit().await.expect("nothing is in the way of the commit");
        self.history.ended(events, Fate::Committed);
    }

    /// One transaction that comes to nothing.
    pub(crate) async fn roll_back(&mut self, aggregates: &[u32]) {
        let transaction = self.client.transaction().await.expect("the session lives");
        let events = write_events(&transaction, aggregates).await;
        transaction.rollback().await.expect("the session lives");
        self.history.ended(events, Fate::RolledBack);
    }
}

/// Locks each aggregate by raising its version, then inserts its event. Aggregates must rise, or two
/// writers could wait for each other.
pub(crate) async fn write_events(client: &impl GenericClient, aggregates: &[u32]) -> Vec<Inserted> {
    let mut events = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        let name = format!("aggregate-{aggregate}");
        let row = client
            .query_one(
                "update aggregate set version = version + 1 where name = $1 returning version",
                &[&name],
            )
            .await
            .expect("the aggregate exists");
        let version: i64 = row.get(0);
        events.push(insert_event(client, &name, version.cast_unsigned()).await);
    }
    events
}

/// Inserts one event.
pub(crate) async fn insert_event(
    client: &impl GenericClient,
    aggregate: &str,
    number: u64,
) -> Inserted {
    let id = Uuid::new_v4();
    let payload = format!("{{\"aggregate\":\"{aggregate}\",\"version\":{number}}}");
    client
        .execute(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload) \
             values ($1, $2, $3, 'Changed', $4::text::json)",
            &[&id, &AGGREGATE_TYPE, &aggregate, &payload],
        )
        .await
        .expect("an insert never fails");
    Inserted { id, aggregate: aggregate.to_owned(), number }
}
