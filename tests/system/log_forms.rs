//! Tables whose columns were others for a moment, while rows were written: the log brings these rows in a form that is
//! no table's any more, however often it is asked.

use std::time::Duration;

use postrider_testkit::audit::Fate;
use tokio_postgres::Client;

use crate::support::writer::{AGGREGATE_TYPE, Inserted, insert_event};
use crate::support::{Fixture, History, RelayProcess};

const WAL: &[&str] = &["--capture", "wal", "--shards", "1"];
const AGGREGATES: u64 = 6;

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Writes one more event of each aggregate, as things are.
async fn write(client: &Client, history: &History, round: u64) {
    let mut events = Vec::new();
    for number in 0..AGGREGATES {
        events.push(insert_event(client, &format!("a-{number}"), round).await);
    }
    history.ended(events, Fate::Committed);
}

/// The same with the value of a column, into a table.
async fn write_with(client: &Client, history: &History, round: u64, column: &str, value: &str) {
    let mut events = Vec::new();
    for number in 0..AGGREGATES {
        let (id, aggregate) = (uuid::Uuid::new_v4(), format!("a-{number}"));
        let insert = format!(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload, {column})
             values ('{id}', '{AGGREGATE_TYPE}', '{aggregate}', 'T',
                '{{\"aggregate\":\"{aggregate}\",\"version\":{round}}}', {value})"
        );
        say(client, &insert).await;
        events.push(Inserted { id, aggregate, number: round });
    }
    history.ended(events, Fate::Committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_under_another_column_is_read_from_the_table() {
    let fixture = Fixture::new("log_forms").await;
    let (client, history) = (fixture.client().await, History::default());
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    let mut round = 0;
    for (change, column, value, undo) in [
        (
            "alter table outbox rename column headers to former",
            "former",
            "'{\"a\": \"b\"}'",
            "alter table outbox rename column former to headers",
        ),
        (
            "alter table outbox rename column created_at to former",
            "former",
            "now()",
            "alter table outbox rename column former to created_at",
        ),
        (
            "alter table outbox alter column created_at drop not null",
            "created_at",
            "null",
            "update outbox set created_at = now() where created_at is null;
             alter table outbox alter column created_at set not null",
        ),
        // The table's name stands in no row of the log.
        (
            "alter table outbox rename to former",
            "created_at",
            "now()",
            "alter table former rename to outbox",
        ),
    ] {
        write(&client, &history, round + 1).await;
        say(&client, &format!("begin; {change}")).await;
        if undo.contains("rename to outbox") {
            say(&client, "create temporary view outbox as select * from former").await;
        }
        write_with(&client, &history, round + 2, column, value).await;
        if undo.contains("rename to outbox") {
            say(&client, "drop view outbox").await;
        }
        say(&client, &format!("{undo}; commit")).await;
        write(&client, &history, round + 3).await;
        fixture.wait_published().await;
        let verdict = history.audit(&fixture);
        assert!(verdict.holds(), "{change}: {verdict} {}", relay.said());
        relay.wait_until_it_says("reading the log").await;
        round += 3;
    }
    relay.stop_well().await;
}

/// In statements of their own: the relay refuses the table while it is wrong, and reads it when it is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_another_is_refused_until_it_is_back() {
    let fixture = Fixture::new("log_forms_apart").await;
    let (client, history) = (fixture.client().await, History::default());
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    write(&client, &history, 1).await;
    fixture.wait_published().await;
    say(&client, "alter table outbox rename column headers to former").await;
    write_with(&client, &history, 2, "former", "null").await;
    assert_eq!(relay.wait(Duration::from_secs(60)).await.code(), Some(6));
    say(&client, "alter table outbox rename column former to headers").await;
    let relay = RelayProcess::start(&fixture, WAL);
    write(&client, &history, 3).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}
