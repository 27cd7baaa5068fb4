//! What cannot be published, read from the log: parked in order, through kills, retries and discards.

use serde_json::json;
use tokio_postgres::Client;

use super::start_relay;
use crate::parking::{
    ask, first_seen, numbers, wait_for_attempts, wait_for_the_rest, wait_until_parked,
};
use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::{Capture, Fixture, RelayProcess};

const SMALL_BYTES: usize = 100;
const LARGE_BYTES: usize = 30_000;

/// One event of an aggregate; its type is its number in the test.
async fn write(client: &Client, capture: Capture, aggregate: &str, number: u32, bytes: usize) {
    let sql = match capture {
        Capture::Poll | Capture::Wal => {
            "insert into outbox (aggregatetype, aggregateid, type, payload)
             values ('t', $1, $2, $3::text::json)"
        }
        Capture::Message => "select postrider.emit('t', $1, $2, $3::text::json)",
    };
    let payload = json!("x".repeat(bytes)).to_string();
    let parameters = [&aggregate as _, &number.to_string() as _, &payload as _];
    client.execute(sql, &parameters).await.expect("an insert never fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_of_a_hot_aggregate_is_parked_with_its_followers() {
    tokio::join!(park(Capture::Wal), park(Capture::Message));
}

async fn park(capture: Capture) {
    // GIVEN a topic that takes less than one event of nine has.
    let fixture = Fixture::new(&format!("log_park_{}", capture.name())).await;
    let fixture = fixture.captured_by(capture);
    let topic = fixture.topic("t");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let relay = start_relay(&fixture, capture).await;
    let client = fixture.client().await;
    for number in 1..=9 {
        let bytes = if number == 4 { LARGE_BYTES } else { SMALL_BYTES };
        write(&client, capture, "hot", number, bytes).await;
        write(&client, capture, "other", number, 15_000).await;
    }
    // THEN that one and its followers are parked, also those that come after a kill, and nobody else waits.
    let mut waits = vec![("4", "too-large")];
    waits.extend(["5", "6", "7", "8", "9"].map(|number| (number, "follows")));
    wait_until_parked(&client, &waits).await;
    relay.kill();
    write(&client, capture, "hot", 10, SMALL_BYTES).await;
    let relay = start_relay(&fixture, capture).await;
    waits.push(("10", "follows"));
    wait_until_parked(&client, &waits).await;
    match capture {
        Capture::Poll | Capture::Wal => wait_for_the_rest(&fixture).await,
        Capture::Message => fixture.wait_published().await,
    }
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=3));
    assert_eq!(first_seen(&fixture, &topic, "other"), numbers(1..=9), "nobody else waits");

    // WHEN it is tried though nothing has changed, THEN it is parked again, and the attempt counted.
    let retry = ["parked", "retry", "--aggregate", "t/hot"];
    ask(&fixture, &retry);
    wait_for_attempts(&client, 2).await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=3));

    // WHEN the relay is killed in the middle of a retry that can succeed, THEN all come in order.
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    ask(&fixture, &retry);
    write(&client, capture, "hot", 11, SMALL_BYTES).await;
    relay.kill();
    let relay = start_relay(&fixture, capture).await;
    write(&client, capture, "hot", 12, SMALL_BYTES).await;
    wait_until_parked(&client, &[]).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=12));

    // WHEN one is too large again and is discarded, THEN its followers are sent without it.
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    relay.stop_well().await;
    let relay = start_relay(&fixture, capture).await;
    write(&client, capture, "hot", 13, LARGE_BYTES).await;
    write(&client, capture, "hot", 14, SMALL_BYTES).await;
    wait_until_parked(&client, &[("13", "too-large"), ("14", "follows")]).await;
    ask(&fixture, &["parked", "discard", "--reason", "too-large"]);
    wait_until_parked(&client, &[]).await;
    write(&client, capture, "hot", 15, SMALL_BYTES).await;
    fixture.wait_published().await;
    let expected: Vec<String> = [numbers(1..=12), numbers(14..=15)].concat();
    assert_eq!(first_seen(&fixture, &topic, "hot"), expected);
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_later_waits_although_it_was_written_earlier() {
    tokio::join!(cross(Capture::Wal), cross(Capture::Message));
}

async fn cross(capture: Capture) {
    let fixture = Fixture::new(&format!("log_cross_{}", capture.name())).await;
    let fixture = fixture.captured_by(capture);
    let topic = fixture.topic("t");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let relay = start_relay(&fixture, capture).await;
    let (early, late) = (fixture.client().await, fixture.client().await);
    early.batch_execute("begin").await.expect("the session lives");
    write(&early, capture, "hot", 2, SMALL_BYTES).await;
    write(&late, capture, "hot", 1, LARGE_BYTES).await;
    let mut waits = vec![("1", "too-large")];
    wait_until_parked(&late, &waits).await;
    early.batch_execute("commit").await.expect("the session lives");
    waits.push(("2", "follows"));
    wait_until_parked(&late, &waits).await;

    // Another reader begins at a saved place before them or behind them, and knows as much.
    relay.kill();
    write(&late, capture, "hot", 3, SMALL_BYTES).await;
    let relay = start_relay(&fixture, capture).await;
    waits.push(("3", "follows"));
    wait_until_parked(&late, &waits).await;
    let retry = ["parked", "retry", "--aggregate", "t/hot"];
    ask(&fixture, &retry);
    wait_for_attempts(&late, 2).await;
    wait_until_parked(&late, &waits).await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), [""; 0]);

    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    ask(&fixture, &retry);
    wait_until_parked(&late, &[]).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=3));
    relay.stop_well().await;
}

/// What polling parks has no place in the log. The order in which events were parked is that of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_is_held_stays_in_order_when_the_way_of_reading_changes() {
    let fixture = Fixture::new("log_park_switch").await;
    let topic = fixture.topic("t");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let relay = RelayProcess::start(&fixture, &[]);
    let (early, late) = (fixture.client().await, fixture.client().await);
    write(&late, Capture::Poll, "hot", 1, LARGE_BYTES).await;
    write(&late, Capture::Poll, "hot", 2, SMALL_BYTES).await;
    let mut waits = vec![("1", "too-large"), ("2", "follows")];
    wait_until_parked(&late, &waits).await;

    ask(&fixture, &["capture", "switch", "wal"]);
    early.batch_execute("begin").await.expect("the session lives");
    write(&early, Capture::Wal, "hot", 4, SMALL_BYTES).await;
    write(&late, Capture::Wal, "hot", 3, SMALL_BYTES).await;
    waits.push(("3", "follows"));
    wait_until_parked(&late, &waits).await;
    early.batch_execute("commit").await.expect("the session lives");
    waits.push(("4", "follows"));
    wait_until_parked(&late, &waits).await;

    ask(&fixture, &["capture", "switch", "poll"]);
    write(&late, Capture::Poll, "hot", 5, SMALL_BYTES).await;
    waits.push(("5", "follows"));
    wait_until_parked(&late, &waits).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until_parked(&late, &[]).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=5));
    relay.stop_well().await;
}
