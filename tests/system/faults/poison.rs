//! Poison in the traffic of a schedule: kept in order while it is parked, then set right.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{Capture, Fixture};

/// Large events of the traffic do not fit into it.
const NARROW: &str = "20000";
const WIDE: &str = "400000";
const PATIENCE: Duration = Duration::from_secs(90);

/// What is to come of all that was written.
pub(super) struct Poison<'a>(pub(super) &'a Fixture);

impl Poison<'_> {
    /// The topic, which large events do not fit into.
    pub(super) async fn make_topic(&self) {
        let topic = self.0.topic(AGGREGATE_TYPE);
        create_topic_with(&self.0.brokers, &topic, &[("max.message.bytes", NARROW)]).await;
    }

    /// Waits until all that was written until now is published or parked.
    pub(super) async fn settle(&self) {
        let drawn = self.0.drawn().await;
        if self.0.capture == Capture::Message {
            self.0.wait_published_upto(drawn).await;
            return;
        }
        let waits = format!(
            "select from postrider.events
             where not published and not parked and seq <= {drawn} limit 1"
        );
        let client = self.0.client().await;
        let deadline = Instant::now() + PATIENCE;
        while !client.query(&waits, &[]).await.expect("it answers").is_empty() {
            assert!(Instant::now() < deadline, "{}: neither published nor parked", self.0.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Throws away what can never be published, and sends the rest of what is parked now.
    pub(super) async fn mend(&self) {
        let client = self.0.client().await;
        let topic = self.0.topic(AGGREGATE_TYPE);
        let count = "select count(*) from postrider.parked";
        println!("{} events are parked", one::<i64>(&client, count).await);
        let last: i64 = one(&client, "select coalesce(max(seq), 0) from postrider.parked").await;
        set_topic(&self.0.brokers, &topic, &[("max.message.bytes", WIDE)]).await;
        let waits = format!("select from postrider.parked where seq <= {last} limit 1");
        let deadline = Instant::now() + PATIENCE;
        while !client.query(&waits, &[]).await.expect("it answers").is_empty() {
            assert!(Instant::now() < deadline, "{}: events stay parked", self.0.name);
            self.ask("discard", "bad-headers");
            self.ask("retry", "too-large");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        set_topic(&self.0.brokers, &topic, &[("max.message.bytes", NARROW)]).await;
    }

    fn ask(&self, what: &str, reason: &str) {
        let output = self.0.command().args(["parked", what, "--reason", reason]).output();
        let output = output.expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "parked {what}: {said}");
    }
}

async fn one<T>(client: &Client, query: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(query, &[]).await.expect("it answers").get(0)
}
