//! A large backlog: everything arrives, in bounded memory, also with another shard count half-way.

use std::time::Duration;

use postrider::audit::Fate;
use uuid::Uuid;

use crate::support::writer::{AGGREGATE_TYPE, Inserted};
use crate::support::{Fixture, History, RelayProcess};

const EVENTS: i64 = 1_000_000;
const AGGREGATES: i64 = 5_000;
/// The relay of a debug build with librdkafka's queue; the release build is measured by `load`.
const MEMORY_KILOBYTES_MAX: u64 = 150 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_rows_in_bounded_memory() {
    let fixture = Fixture::new("backlog").await;
    let history = History::default();
    fill(&fixture, &history).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let observer = fixture.client().await;
    let halfway = "select from postrider.cursor having sum(\"position\") > $1::bigint";
    let some = EVENTS * 2;
    while observer.query_opt(halfway, &[&some]).await.expect("it answers").is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
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

/// Many transactions of 1,000 rows; a row's number rises with its seq.
async fn fill(fixture: &Fixture, history: &History) {
    const ROWS: i64 = 1_000;
    let client = fixture.client().await;
    let insert = client
        .prepare(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload)
             select id, $1, 'aggregate-' || (n % $2), 'Changed',
                 json_build_object('n', n, 'pad', repeat('x', 150))
             from unnest($3::uuid[], $4::bigint[]) as given (id, n)",
        )
        .await
        .expect("the table is there");
    for first in (0..EVENTS).step_by(ROWS as usize) {
        let numbers: Vec<i64> = (first..first + ROWS).collect();
        let ids: Vec<Uuid> = numbers.iter().map(|_| Uuid::new_v4()).collect();
        client
            .execute(&insert, &[&AGGREGATE_TYPE, &AGGREGATES, &ids, &numbers])
            .await
            .expect("an insert never fails");
        let written = numbers.iter().zip(&ids).map(|(n, id)| Inserted {
            id: *id,
            aggregate: format!("aggregate-{}", n % AGGREGATES),
            number: n.cast_unsigned(),
        });
        history.ended(written.collect(), Fate::Committed);
    }
}
