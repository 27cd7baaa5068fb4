//! Rows of adopted tables that were written inside savepoints: a snapshot does not list the ids that they
//! bear, and while their transaction goes on they count as published nowhere.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::adopt::{ADOPT, END, adopt, legacy_outbox, wait_published};
use crate::support::{Consumed, Fixture, Patience, RelayProcess, read_topic};

fn row(name: &str) -> String {
    format!(
        "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
         values (gen_random_uuid(), 'order', '{name}', 'T');"
    )
}

/// Each way to write under another id than that of the transaction.
fn ways() -> [(&'static str, String); 4] {
    [
        ("savepoint", format!("savepoint s; {}", row("savepoint"))),
        (
            "exception",
            format!("do $$ begin {} exception when others then raise; end $$;", row("exception")),
        ),
        (
            "nested",
            format!(
                "savepoint a; {} rollback to a; savepoint b; savepoint c; {}",
                row("taken back"),
                row("nested")
            ),
        ),
        ("released", format!("{} savepoint s; {} release s;", row("top"), row("released"))),
    ]
}

/// What is there in the end of all these ways.
const WRITTEN: [&str; 5] = ["exception", "nested", "released", "savepoint", "top"];

/// A transaction of each way that is not ended.
async fn open_all(fixture: &Fixture) -> Vec<Client> {
    let mut open = Vec::new();
    for (name, sql) in ways() {
        let client = fixture.client().await;
        client.batch_execute(&format!("begin; {sql}")).await.expect(name);
        open.push(client);
    }
    open
}

async fn commit_all(open: Vec<Client>) {
    for client in open {
        client.batch_execute("commit").await.expect("it ends");
    }
}

fn keys(fixture: &Fixture) -> BTreeSet<String> {
    let records = read_topic(&fixture.brokers, &fixture.topic("order"));
    records.iter().map(|record: &Consumed| record.key_text().to_owned()).collect()
}

/// Waits until all of them have come.
async fn wait_for(fixture: &Fixture, relay: &RelayProcess, wanted: &[&str]) {
    let patience = Patience::until("all rows are published");
    while !wanted.iter().all(|key| keys(fixture).contains(*key)) {
        assert!(!relay.said().contains("panicked"), "{}", relay.said());
        patience.pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_does_not_take_rows_of_savepoints_for_published() {
    let fixture = Fixture::new("adopt_points_since").await;
    let client = legacy_outbox(&fixture).await;
    let open = open_all(&fixture).await;
    client.batch_execute(&row("before")).await.expect("a row is written");
    let snapshot = "select pg_current_snapshot()::text";
    let snapshot: String = client.query_one(snapshot, &[]).await.expect("it answers").get(0);
    let gone = fixture.client().await;
    gone.batch_execute(&format!("begin; {} rollback", row("gone"))).await.expect("it ends");
    commit_all(open).await;
    let arguments = ["legacy.outbox", "--since", &snapshot, "--order-by", "n"];
    let said = adopt(&fixture, &arguments);
    // What was written above an open transaction of another database may come again: no fewer than five.
    let fewer = (0..5).map(|count| format!("; {count} rows are pending"));
    assert!(!fewer.into_iter().any(|few| said.contains(&few)), "{said} {snapshot}");
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_for(&fixture, &relay, &WRITTEN).await;
    relay.stop_well().await;
    let written = keys(&fixture);
    assert!(!written.contains("taken back") && !written.contains("gone"), "{written:?}");
}

/// Published rows are told from others exactly, also above a transaction that is still open: the stream has
/// brought them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_savepoints_are_not_marked_before_they_are_sent() {
    let fixture = Fixture::new("adopt_points_end").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let open = open_all(&fixture).await;
    for _ in 0..20 {
        client.batch_execute(&row("streamed")).await.expect("a row is written");
    }
    wait_for(&fixture, &relay, &["streamed"]).await;
    wait_published(&client).await;
    relay.stop_well().await;
    commit_all(open).await;
    adopt(&fixture, END);
    let left = "select string_agg(aggregateid, ' ' order by aggregateid) from legacy.outbox where not published";
    let left: String = client.query_one(left, &[]).await.expect("it answers").get(0);
    assert_eq!(left, WRITTEN.join(" "), "what was not sent, and nothing else");
    assert!(!keys(&fixture).contains("savepoint"));
}

const DROP_SLOT: &str = "select pg_terminate_backend(active_pid), pg_sleep(0.05)
    from pg_replication_slots where database = current_database() and active;
    select pg_drop_replication_slot(slot_name) from postrider.capture_slot";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_slot_loses_no_row_of_a_savepoint() {
    let fixture = Fixture::new("adopt_points_heal").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let open = open_all(&fixture).await;
    client.batch_execute(&row("streamed")).await.expect("a row is written");
    wait_for(&fixture, &relay, &["streamed"]).await;
    wait_published(&client).await;
    relay.stop_well().await;
    commit_all(open).await;
    let patience = Patience::until("the slot can be dropped");
    while client.batch_execute(DROP_SLOT).await.is_err() {
        patience.pause().await;
    }
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_for(&fixture, &relay, &WRITTEN).await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("order"));
    let count = |key: &str| records.iter().filter(|record| record.key_text() == key).count();
    assert_eq!(count("streamed"), 1, "it is known to be published");
    assert_eq!(count("taken back"), 0);
}

/// A transaction that is prepared goes on without a session, and its savepoints with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_prepared_transaction_with_a_savepoint_are_pending() {
    let fixture = Fixture::new("adopt_points_prepared").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let prepare = format!("begin; savepoint s; {} prepare transaction 'points'", row("prepared"));
    client.batch_execute(&prepare).await.expect("it is prepared");
    client.batch_execute(&row("streamed")).await.expect("a row is written");
    wait_for(&fixture, &relay, &["streamed"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    relay.stop_well().await;
    client.batch_execute("commit prepared 'points'").await.expect("it ends");
    adopt(&fixture, END);
    let left = "select string_agg(aggregateid, ' ') from legacy.outbox where not published";
    let left: String = client.query_one(left, &[]).await.expect("it answers").get(0);
    assert_eq!(left, "prepared");
}
