//! Poison in the traffic of a schedule: kept in order while it is parked, then set right.

use std::time::{Duration, Instant};

use postrider::audit::Fate;
use tokio_postgres::Client;

use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::writer::{AGGREGATE_TYPE, Form, Style, try_insert};
use crate::support::{Fixture, History};

/// Large events of the traffic do not fit into it.
const NARROW: &str = "20000";
const WIDE: &str = "400000";
const PATIENCE: Duration = Duration::from_secs(90);

/// How a schedule's events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    Poll,
    Wal,
    Message,
}

impl Capture {
    pub(super) const ALL: [Self; 3] = [Self::Poll, Self::Wal, Self::Message];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Wal => "wal",
            Self::Message => "message",
        }
    }

    pub(super) fn form(self) -> Form {
        if self == Self::Message { Form::Message } else { Form::Row }
    }

    /// What an instance says when it is at work.
    pub(super) fn at_work(self) -> &'static str {
        if self == Self::Poll { "relaying" } else { "reading the log" }
    }
}

/// What is to come of all that was written.
pub(super) struct Poison<'a> {
    pub(super) fixture: &'a Fixture,
    pub(super) history: &'a History,
    pub(super) capture: Capture,
}

impl Poison<'_> {
    /// The topic, which large events do not fit into.
    pub(super) async fn make_topic(&self) {
        let topic = self.fixture.topic(AGGREGATE_TYPE);
        create_topic_with(&self.fixture.brokers, &topic, &[("max.message.bytes", NARROW)]).await;
    }

    /// Waits until all that was written until now is published or parked.
    pub(super) async fn settle(&self, step: u64) {
        let client = self.fixture.client().await;
        let waits = match self.capture {
            Capture::Poll | Capture::Wal => {
                let drawn = self.fixture.drawn().await;
                format!(
                    "select from postrider.events
                     where not published and not parked and seq <= {drawn} limit 1"
                )
            }
            Capture::Message => {
                let place = "select pg_current_wal_insert_lsn()::text";
                let place: String = one(&client, place).await;
                self.write_mark(&client, step).await;
                format!("select from postrider.capture_slot where delivered_lsn <= '{place}'")
            }
        };
        self.wait_while(&client, &waits).await;
    }

    /// An event behind all others: the place behind it is delivered when theirs is.
    async fn write_mark(&self, client: &Client, step: u64) {
        let style = Style { form: self.capture.form(), ..Style::default() };
        let mark = try_insert(client, "mark", step, style).await.expect("no fault is there");
        self.history.ended(vec![mark], Fate::Committed);
    }

    /// Throws away what can never be published, and sends the rest of what is parked now.
    pub(super) async fn mend(&self) {
        let client = self.fixture.client().await;
        let topic = self.fixture.topic(AGGREGATE_TYPE);
        let count = "select count(*) from postrider.parked";
        println!("{} events are parked", one::<i64>(&client, count).await);
        let last: i64 = one(&client, "select coalesce(max(seq), 0) from postrider.parked").await;
        set_topic(&self.fixture.brokers, &topic, &[("max.message.bytes", WIDE)]).await;
        let waits = format!("select from postrider.parked where seq <= {last} limit 1");
        let deadline = Instant::now() + PATIENCE;
        while client.query_opt(&waits, &[]).await.expect("it answers").is_some() {
            assert!(Instant::now() < deadline, "{}: events stay parked", self.fixture.name);
            self.ask("discard", "bad-headers");
            self.ask("retry", "too-large");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        set_topic(&self.fixture.brokers, &topic, &[("max.message.bytes", NARROW)]).await;
    }

    fn ask(&self, what: &str, reason: &str) {
        let output = self.fixture.command().args(["parked", what, "--reason", reason]).output();
        let output = output.expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "parked {what}: {said}");
    }

    async fn wait_while(&self, client: &Client, waits: &str) {
        let deadline = Instant::now() + PATIENCE;
        while client.query_opt(waits, &[]).await.expect("it answers").is_some() {
            assert!(Instant::now() < deadline, "{}: {waits}", self.fixture.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn one<T>(client: &Client, query: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(query, &[]).await.expect("it answers").get(0)
}
