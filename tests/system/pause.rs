//! `postrider pause`, `resume` and `wait`: nothing is sent in a pause, nothing is lost or repeated by one, and who
//! waits is told the truth.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::admin::{address, get, wait_for};
use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

/// What a command ends with, and all that it says.
fn run(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn assert_ends(fixture: &Fixture, arguments: &[&str], code: i32, words: &[&str]) {
    let (ended, said) = run(fixture, arguments);
    assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
}

async fn write(client: &Client, count: i64) {
    let sql = format!(
        "select postrider.emit('order', (n % 20)::text, 'Placed', '{{}}') from generate_series(1, {count}) as n"
    );
    client.batch_execute(&sql).await.expect("events are written");
}

fn records(fixture: &Fixture) -> usize {
    read_topic(&fixture.brokers, &fixture.topic("order")).len()
}

/// GIVEN a relay in one of the ways of reading, WHEN publishing is paused in mid-traffic, THEN nothing more is sent,
/// also by an instance that starts meanwhile, and after the end of the pause everything comes once.
async fn pauses_and_goes_on(name: &str, capture: &str) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    let first = RelayProcess::start(&fixture, &["--capture", capture]);
    first.wait_until_it_says(if capture == "poll" { "relaying" } else { "reading the log" }).await;
    write(&client, 500).await;
    assert_ends(&fixture, &["wait"], 0, &["everything that was committed before is published"]);
    assert_eq!(records(&fixture), 500);
    if capture != "message" {
        // Nothing comes any more, but for what the relay itself writes into the log.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_ends(&fixture, &["wait"], 0, &["everything that was committed before is published"]);
    }

    write(&client, 2_000).await;
    assert_ends(
        &fixture,
        &["pause", "--reason", "the brokers move"],
        0,
        &["is paused until `postrider resume`", "acknowledged and saved"],
    );
    let second = RelayProcess::start(&fixture, &[]);
    second.wait_until_it_says("publishing is paused").await;
    let sent = records(&fixture);
    write(&client, 300).await;
    let short = ["wait", "--timeout", "300ms"];
    assert_ends(&fixture, &short, 7, &["not published in time", "paused for", "the brokers move"]);
    let (_, status) = run(&fixture, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!(status["paused"]["reason"], "the brokers move");
    assert_eq!(status["without_lease"], 2, "both are there");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(records(&fixture), sent, "nothing is sent in a pause");

    assert_ends(&fixture, &["resume"], 0, &["publishing goes on"]);
    assert_ends(&fixture, &["wait"], 0, &["is published"]);
    assert_eq!(records(&fixture), 2_800, "each comes once");
    assert_ends(&fixture, &["resume"], 0, &["was not paused"]);
    first.stop_well().await;
    second.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_while_the_table_is_polled_loses_and_repeats_nothing() {
    pauses_and_goes_on("pause_poll", "poll").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_while_the_log_is_read_loses_and_repeats_nothing() {
    pauses_and_goes_on("pause_wal", "wal").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_while_messages_are_read_loses_and_repeats_nothing() {
    pauses_and_goes_on("pause_message", "message").await;
}

/// A pause outlives the process, a new reason takes the place of the old one, and its end comes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_ends_by_itself() {
    let fixture = Fixture::new("pause_end").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    let client = fixture.client().await;
    for reason in ["", "  "] {
        assert_ends(&fixture, &["pause", "--reason", reason], 3, &["give --reason between 1"]);
    }
    assert_ends(&fixture, &["pause", "--reason", "for ever"], 0, &["is paused"]);
    let relay = RelayProcess::start(&fixture, &["--admin-listen", "127.0.0.1:0"]);
    relay.wait_until_it_says("publishing is paused").await;
    // It is well, and says why nothing is published.
    let admin = address(&relay).await;
    wait_for(&admin, "/readyz?verbose", "[+]postgres ok, publishing is paused: for ever\n").await;
    assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200"), "a pause is no trouble");
    assert!(get(&admin, "/livez").starts_with("HTTP/1.1 200"), "nor a death");
    write(&client, 5).await;
    let began = Instant::now();
    assert_ends(&fixture, &["pause", "--reason", "not for long", "--for", "4s"], 0, &["for 4.0s"]);
    relay.wait_until_it_says("not for long").await;
    // Who waits is told of the pause, and waits for its end.
    let told = ["waiting until it goes on", "not for long", "is published"];
    assert_ends(&fixture, &["wait"], 0, &told);
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    relay.wait_until_it_says("publishing goes on").await;
    assert_eq!(records(&fixture), 5);
    relay.stop_well().await;
}

/// Who waits is told that nothing is published in time, and what is parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_what_is_not_published() {
    let fixture = Fixture::new("wait").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    let client = fixture.client().await;
    let late = ["not published in time", "bucket", "no instance of postrider runs"];
    assert_ends(&fixture, &["wait", "--timeout", "300ms"], 7, &late);
    let relay = RelayProcess::start(&fixture, &[]);
    assert_ends(&fixture, &["wait"], 0, &["is published"]);
    // A transaction that is open when the wait begins is not waited for.
    client
        .batch_execute("begin; select postrider.emit('order', 'open', 'Placed', '{}')")
        .await
        .expect("it is open");
    assert_ends(&fixture, &["wait"], 0, &["is published"]);
    client.batch_execute("commit").await.expect("it ends");
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
        values ('order', 'bad', 'Placed', '{}', '[1]')";
    client.batch_execute(bad).await.expect("it is written");
    assert_ends(&fixture, &["wait"], 8, &["1 event parked", "bad-headers", "order/bad"]);
    assert_eq!(records(&fixture), 1, "the one of the open transaction");
    relay.stop_well().await;
}
