//! Servers that are killed, one by one and both at once, while the relay works.

use std::time::Duration;

use postrider::embedded::KafkaOptions;

use crate::support::writer::{AGGREGATE_TYPE, Inserted};
use crate::support::{Fixture, History, Load, RelayProcess, Traffic, start_kafka, start_postgres};
use postrider::audit::Fate;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_and_kafka_killed_in_turn_and_together() {
    let kafka = start_kafka(KafkaOptions::default());
    let postgres = start_postgres(&[]);
    let url = postgres.url("both_killed");
    let fixture = Fixture::on("both_killed", &postgres.url("postgres"), url, kafka.brokers()).await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    // What Kafka has not answered for is not published, though its relay ends. The producers know all
    // partitions by then: a new one would wait for its first answer.
    traffic.commits_more(200).await;
    fixture.wait_published_upto(fixture.drawn().await).await;
    kafka.freeze().expect("it is ours to freeze");
    traffic.commits_more(100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    relay.kill();
    kafka.thaw().expect("it is ours to thaw");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    for (kills_postgres, kills_kafka) in [(true, false), (true, true), (true, true)] {
        traffic.commits_more(100).await;
        if kills_postgres {
            postgres.kill().expect("it is ours to kill");
        }
        if kills_kafka {
            kafka.kill().expect("it is ours to kill");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if kills_postgres {
            postgres.start_again().expect("it recovers");
        }
        if kills_kafka {
            kafka.start_again().expect("it starts again");
        }
        traffic.commits_more(100).await;
        fixture.wait_published_upto(fixture.drawn().await).await;
    }
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// One aggregate gets an event with every transaction, a hundred thousand get one event each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_aggregate_hot_and_a_hundred_thousand_cold() {
    const COLD: u64 = 100_000;
    const ROWS: u64 = 5_000;
    let fixture = Fixture::new("hot_and_cold").await;
    let history = History::default();
    let hot = Load { writers: 2, aggregates: 1, ..Load::FULL };
    let traffic = Traffic::with(&fixture, &history, hot).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "3", "--page-rows", "1000"]);
    relay.wait_until_it_says("relaying").await;
    let client = fixture.client().await;
    let insert = "insert into outbox (id, aggregatetype, aggregateid, type, payload)
        select id, $1, 'cold-' || n, 'Made', json_build_object('n', n)
        from unnest($2::uuid[], $3::bigint[]) as given (id, n)";
    for first in (0..COLD).step_by(ROWS as usize) {
        let ids: Vec<Uuid> = (0..ROWS).map(|_| Uuid::new_v4()).collect();
        let numbers: Vec<i64> = (first..first + ROWS).map(u64::cast_signed).collect();
        let rows = [&AGGREGATE_TYPE as _, &ids as _, &numbers as _];
        client.execute(insert, &rows).await.expect("an insert never fails");
        let event = |(id, n): (&Uuid, &i64)| Inserted {
            id: *id,
            aggregate: format!("cold-{n}"),
            number: 1,
        };
        history.ended(ids.iter().zip(&numbers).map(event).collect(), Fate::Committed);
    }
    relay.kill();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
    assert!(verdict.committed > COLD, "{verdict}");
}
