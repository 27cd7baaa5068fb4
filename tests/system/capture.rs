//! `postrider capture` where something is in its way: what it refuses, and in which words.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

/// What the command ends with, and all that it says.
fn capture(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().arg("capture").args(arguments).output();
    let output = output.expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Checks how a command ends, and that it says all of this.
#[track_caller]
fn assert_says(fixture: &Fixture, arguments: &[&str], code: i32, words: &[&str]) {
    let (ended, said) = capture(fixture, arguments);
    assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
}

/// How many slots the server has for this database.
async fn slots(client: &Client) -> i64 {
    let count = "select count(*) from pg_replication_slots where database = current_database()";
    client.query_one(count, &[]).await.expect("slots are listed").get(0)
}

async fn wait_for_slots(client: &Client, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while slots(client).await != count {
        assert!(Instant::now() < deadline, "{} slots, not {count}", slots(client).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Waits until so many orders are in their topic.
async fn wait_for_records(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = read_topic(&fixture.brokers, &fixture.topic("order")).len();
        if found >= count {
            return assert_eq!(found, count);
        }
        assert!(Instant::now() < deadline, "{found} records of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One who writes a message that is no event writes many: they are said now and then, with their count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_no_events_do_not_flood_the_log() {
    let fixture = Fixture::new("capture_early").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    let write = "select pg_logical_emit_message(false, 'postrider.outbox', 'early')
        from generate_series(1, 9)";
    client.batch_execute(write).await.expect("anybody may write it");
    client
        .batch_execute("select postrider.emit('order', 'a', 'Placed', '{}')")
        .await
        .expect("one more");
    relay.wait_until_it_says("\"count\":8").await;
    // What comes behind the ninth is published: the ninth has been read.
    wait_for_records(&fixture, 1).await;
    let said = relay.said();
    assert_eq!(said.matches("a message that is not transactional").count(), 4, "{said}");
    relay.stop_well().await;
}

/// Nobody reads a slot for messages in the other modes: it is shown, and dropped, not kept for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_messages_does_not_stay_behind() {
    let fixture = Fixture::new("capture_left").await;
    let client = fixture.client().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    assert_says(&fixture, &["switch", "poll", "--no-wait"], 0, &["from message to poll"]);
    assert_says(&fixture, &["show"], 0, &["capture     poll", "postrider_", "waiting"]);
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("the slot that is not read any more was dropped").await;
    assert_eq!(slots(&client).await, 0);
    relay.stop_well().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    assert_says(&fixture, &["switch", "poll"], 0, &["the slot is dropped"]);
    assert_eq!(slots(&client).await, 0);
}

/// A slot whose maker was killed while it waited is dropped as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_whose_maker_was_killed_does_not_stay_behind() {
    let fixture = Fixture::new("capture_killed").await;
    let (client, open) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;

    execute(&open, "begin; select pg_current_xact_id()").await;
    let mut command = fixture.command();
    let mut maker = command.args(["capture", "switch", "message"]).spawn().expect("it runs");
    wait_for_slots(&client, 1).await;
    maker.kill().expect("it is ours to kill");
    maker.wait().expect("it is ours to wait for");
    execute(&open, "commit").await;
    wait_for_slots(&client, 0).await;

    execute(&open, "begin; select pg_current_xact_id()").await;
    assert_says(&fixture, &["switch", "wal", "--no-wait"], 0, &["from poll to wal"]);
    wait_for_slots(&client, 1).await;
    relay.kill();
    assert_says(&fixture, &["switch", "poll", "--no-wait"], 0, &["from wal to poll"]);
    execute(&open, "commit").await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_slots(&client, 0).await;
    relay.stop_well().await;
}
