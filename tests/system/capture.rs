//! `postrider capture` where something is in its way: what it refuses, and in which words.

use std::time::{Duration, Instant};

use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

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
