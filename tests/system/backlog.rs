//! A large backlog: everything arrives, in bounded memory, also with another shard count half-way.

use crate::parking::wait_for_the_rest;
use crate::support::{Bulk, Fixture, History, Patience, RelayProcess};

const EVENTS: i64 = 1_000_000;
const AGGREGATES: i64 = 5_000;
/// The relay of a debug build with librdkafka's queue; the release build is measured by `load`.
pub(crate) const MEMORY_KILOBYTES_MAX: u64 = 150 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_rows_in_bounded_memory() {
    let fixture = Fixture::new("backlog").await;
    let history = History::default();
    let bulk = Bulk { name: "aggregate-", events: EVENTS, aggregates: AGGREGATES };
    bulk.write(&fixture, &history).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let observer = fixture.client().await;
    let halfway = "select from postrider.cursor having sum(\"position\") > $1::bigint";
    let some = EVENTS * 2;
    let patience = Patience::until("half of the backlog is published");
    while observer.query(halfway, &[&some]).await.expect("it answers").is_empty() {
        patience.pause().await;
    }
    let first_peak = relay.peak_memory_kilobytes();
    assert!(relay.stop().await.success());
    let relay = RelayProcess::start(&fixture, &["--shards", "5"]);
    fixture.wait_published().await;
    let peak = relay.peak_memory_kilobytes().max(first_peak);
    assert!(relay.stop().await.success());
    println!("peak memory of the relay: {} MB", peak / 1024);
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
    assert_eq!(verdict.committed, EVENTS.cast_unsigned());
}

/// Each shard has a few such rows on their way, to Kafka or to `postrider.parked`, however many wait: more bytes
/// wait here than memory may be taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_the_largest_rows_takes_bounded_memory() {
    const LARGE_ROWS_KILOBYTES_MAX: u64 = 192 * 1024;
    let fixture = Fixture::new("backlog_large").await;
    let client = fixture.client().await;
    let write = "insert into outbox (aggregatetype, aggregateid, type, payload)
                 select 't', 'm' || n, 'T', to_json(repeat('x', 8000000)) from generate_series(1, 16) n
                 union all
                 select 't', n || repeat('w', 7000000), 'T', '1' from generate_series(1, 16) n";
    client.execute(write, &[]).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    wait_for_the_rest(&fixture).await;
    let peak = relay.peak_memory_kilobytes();
    relay.stop_well().await;
    println!("peak memory of the relay: {} MB", peak / 1024);
    let parked = client.query_one("select count(*) from postrider.parked", &[]).await;
    assert_eq!(parked.expect("the table answers").get::<_, i64>(0), 32);
    assert!(peak < LARGE_ROWS_KILOBYTES_MAX, "{peak} kB");
}
