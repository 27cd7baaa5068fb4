//! Reading the log: everything once, switches in full flight, and a slot that is lost is healed.

use std::time::Duration;

use crate::support::{Fixture, History, RelayProcess, Traffic};

const WAL: &[&str] = &["--capture", "wal", "--shards", "3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_the_stream_repeats_nothing() {
    let fixture = Fixture::new("log_stops").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    for _ in 0..3 {
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(relay.stop().await.success());
    }
    traffic.stop().await;
    let relay = RelayProcess::start(&fixture, WAL);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// Instances that poll already tick, too, before the reader knows that it is to stop. Its place can be
/// saved at its own ticks only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_the_stream_waits_for_a_tick_of_its_own() {
    let fixture = Fixture::new("log_ticks").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let client = fixture.client().await;
    let others = tokio::spawn(async move {
        let tick = "select pg_logical_emit_message(true, 'postrider.tick', '')";
        while client.batch_execute(tick).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    for _ in 0..3 {
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        traffic.commits_more(200).await;
        relay.stop_well().await;
    }
    others.abort();
    let relay = RelayProcess::start(&fixture, WAL);
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_reader_lose_nothing_and_the_others_take_over() {
    let fixture = Fixture::new("log_kills").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let mut reader = RelayProcess::start(&fixture, WAL);
    reader.wait_until_it_says("reading the log").await;
    for _ in 0..3 {
        let next = RelayProcess::start(&fixture, WAL);
        next.wait_until_it_says("standing by").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        reader.kill();
        next.wait_until_it_says("reading the log").await;
        reader = next;
    }
    let verdict = traffic.finish([reader], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}
