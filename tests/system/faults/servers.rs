//! Servers that are killed, one by one and both at once, while the relay works.

use std::time::{Duration, Instant};

use postrider_testkit::servers::KafkaOptions;

use crate::admin;
use crate::admin::{get, wait_for};
use crate::backlog::MEMORY_KILOBYTES_MAX;
use crate::support::{
    Bulk, Fixture, History, Load, RelayProcess, Traffic, mostly_waits, read_topic, start_kafka,
    start_postgres,
};

/// Writers, and a relay that works.
async fn begin(fixture: &Fixture, shards: &str) -> (History, Traffic, RelayProcess) {
    let history = History::default();
    let traffic = Traffic::with(fixture, &history, Load::BROKEN).await;
    let relay =
        RelayProcess::start(fixture, &["--shards", shards, "--admin-listen", "127.0.0.1:0"]);
    relay.wait_until_it_says("relaying").await;
    (history, traffic, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_and_kafka_killed_in_turn_and_together() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let postgres = start_postgres(&[]);
    let url = postgres.url("both_killed");
    let fixture = Fixture::on("both_killed", &postgres.url("postgres"), url, kafka.brokers()).await;
    let (history, traffic, relay) = begin(&fixture, "2").await;
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

/// An event for a topic that nobody has asked for yet waits for the first answer, like all others: what is in
/// flight is not sent again for its sake. (Once Kafka is back, a producer that does not find it may be replaced.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_while_kafka_is_frozen_ends_no_producer() {
    const NEW: &str = "insert into outbox (aggregatetype, aggregateid, type, payload)
        values ('new', 'first', 'Made', '{}')";
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let fixture = Fixture::new("new_and_frozen").await.with_brokers(kafka.brokers().to_owned());
    let (history, traffic, relay) = begin(&fixture, "2").await;
    traffic.commits_more(200).await;
    fixture.wait_published_upto(fixture.drawn().await).await;
    kafka.freeze().expect("it is ours to freeze");
    traffic.commits_more(100).await;
    fixture.client().await.execute(NEW, &[]).await.expect("the table is there");
    let frozen = Instant::now();
    let address = admin::address(&relay).await;
    relay.wait_until_it_says("Kafka acknowledges nothing of what is in flight").await;
    let told = frozen.elapsed();
    assert!(told < Duration::from_secs(14), "it was told after {told:?}");
    wait_for(&address, "/readyz?exclude=shards", "[-]kafka nothing acknowledged for 1").await;
    wait_for(&address, "/readyz?exclude=kafka", "HTTP/1.1 200").await;
    assert!(get(&address, "/livez").contains("HTTP/1.1 200"), "to start it again helps nothing");
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(frozen.elapsed())).await;
    let said = relay.said();
    assert!(!said.contains("goes back to its saved cursors"), "{said}");
    kafka.thaw().expect("it is ours to thaw");
    relay.wait_until_it_says("Kafka acknowledges again").await;
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    fixture.wait_published_upto(fixture.drawn().await).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("new")).len(), 1);
}

/// A broker whose session has ended is fenced until it is heard again. Metadata asked for in that moment
/// names no broker, and librdkafka then knows none any more: whether that happens is a matter of
/// milliseconds, so there are several attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_broker_fenced_for_a_moment() {
    const REPLACED: &str = "nothing is acknowledged, though the brokers answer others";
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let fixture = Fixture::new("fenced").await.with_brokers(kafka.brokers().to_owned());
    let (history, traffic, relay) = begin(&fixture, "4").await;
    for attempt in 0..8 {
        traffic.commits_more(100).await;
        kafka.freeze().expect("it is ours to freeze");
        tokio::time::sleep(Duration::from_millis(3_100 + 100 * attempt)).await;
        kafka.thaw().expect("it is ours to thaw");
        traffic.commits_more(100).await;
        fixture.wait_published_upto(fixture.drawn().await).await;
        if relay.said().contains(REPLACED) {
            break;
        }
    }
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// One aggregate gets an event with every transaction, a million get one event each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_aggregate_hot_and_a_million_cold() {
    const COLD: i64 = 1_000_000;
    let fixture = Fixture::new("hot_and_cold").await;
    let history = History::default();
    let hot = Load { writers: 2, aggregates: 1, ..Load::FULL };
    let traffic = Traffic::with(&fixture, &history, hot).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "3", "--page-rows", "1000"]);
    relay.wait_until_it_says("relaying").await;
    let (half, rest) = (COLD / 2, COLD - COLD / 2);
    let bulk = Bulk { name: "cold-", events: half, aggregates: half };
    bulk.write(&fixture, &history).await;
    let peak = relay.peak_memory_kilobytes();
    relay.kill();
    Bulk { name: "colder-", events: rest, aggregates: rest }.write(&fixture, &history).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    traffic.stop().await;
    fixture.wait_published().await;
    let peak = relay.peak_memory_kilobytes().max(peak);
    println!("peak memory of the relay: {} MB", peak / 1024);
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
    assert!(verdict.committed > COLD.cast_unsigned(), "{verdict}");
}
