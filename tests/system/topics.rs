//! Topics by the thousand: those that are there, and those that are not.

use std::time::{Duration, Instant};

use postrider_testkit::servers::{KafkaOptions, TopicCreation};
use tokio_postgres::Client;

use crate::holds::{UNPUBLISHED, wait_for_count};
use crate::parking::{first_seen, insert};
use crate::support::consumer::{
    create_topic, create_topic_with, create_topics, list_topics, make_anew,
};
use crate::support::{Fixture, Mode, RelayProcess, mostly_waits, start_kafka, start_proxied_kafka};

fn without_creation() -> KafkaOptions {
    KafkaOptions { topic_creation: TopicCreation::Explicit, ..KafkaOptions::default() }
}

/// One event for each of so many topics.
async fn write_to_each(client: &Client, topics: usize, kind: &str) {
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'topic-' || n, 'k', '{kind}', '{{}}' from generate_series(1, {topics}) n"
    );
    client.batch_execute(&sql).await.expect("an insert never fails");
}

async fn wait_until_seen(fixture: &Fixture, topic: &str, kinds: &[&str], patience: Duration) {
    let deadline = Instant::now() + patience;
    while first_seen(fixture, topic, "k") != kinds {
        assert!(Instant::now() < deadline, "{:?}", first_seen(fixture, topic, "k"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_are_missing_stop_nobody() {
    const TOPICS: usize = 10_000;
    let kafka = start_kafka(without_creation());
    let mut fixture = Fixture::new("topics_missing").await;
    fixture.brokers = kafka.brokers().to_owned();
    let good = fixture.topic("good");
    create_topics(&fixture.brokers, std::slice::from_ref(&good)).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    insert(&client, ("good", "k"), 1, 10).await;
    wait_until_seen(&fixture, &good, &["1"], Duration::from_secs(60)).await;

    write_to_each(&client, TOPICS, "1").await;
    insert(&client, ("good", "k"), 2, 10).await;
    wait_until_seen(&fixture, &good, &["1", "2"], Duration::from_secs(60)).await;
    wait_for_count(&client, "select count(*) from postrider.parked", TOPICS as i64).await;
    let said = relay.said().matches(" WARN ").count();
    assert!(said < 60, "{said} warnings:\n{}", relay.said());
    relay.stop_well().await;

    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    insert(&client, ("good", "k"), 3, 10).await;
    wait_until_seen(&fixture, &good, &["1", "2", "3"], Duration::from_secs(60)).await;
    write_to_each(&client, 20, "2").await;
    wait_for_count(&client, "select count(*) from postrider.parked", TOPICS as i64 + 20).await;

    let made: Vec<String> = (1..=9).map(|n| fixture.topic(&format!("topic-{n}"))).collect();
    create_topics(&fixture.brokers, &made).await;
    for topic in &made {
        wait_until_seen(&fixture, topic, &["1", "2"], Duration::from_secs(120)).await;
    }
    let ours = list_topics(&fixture.brokers);
    let ours = ours.iter().filter(|topic| topic.starts_with(&fixture.name));
    assert_eq!(ours.count(), 10, "and none was made by asking");
    relay.stop_well().await;
}

/// Where a broker makes topics, very many new ones are made in their turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_not_flooded_with_new_topics() {
    const TOPICS: usize = 400;
    mostly_waits();
    let kafka = start_kafka(KafkaOptions { partitions: 1, ..KafkaOptions::default() });
    let mut fixture = Fixture::new("topics_new").await;
    fixture.brokers = kafka.brokers().to_owned();
    let client = fixture.client().await;
    write_to_each(&client, TOPICS, "1").await;
    insert(&client, ("good", "k"), 1, 10).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_count(&client, UNPUBLISHED, 0).await;
    assert!(list_topics(&fixture.brokers).len() < TOPICS, "the others wait");
    write_to_each(&client, TOPICS, "2").await;
    wait_for_count(&client, "select count(*) from postrider.parked", 0).await;
    wait_for_count(&client, UNPUBLISHED, 0).await;
    for topic in [1, TOPICS / 2, TOPICS].map(|n| fixture.topic(&format!("topic-{n}"))) {
        assert_eq!(first_seen(&fixture, &topic, "k"), ["1", "2"], "{topic}");
    }
    relay.stop_well().await;
}

/// Each way to Kafka takes 20 ms: asked one by one, 300 topics would take some 25 s, each minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_cost_no_more_than_a_few_round_trips() {
    const TOPICS: usize = 300;
    const AFAR: Mode = Mode::Slow { pause: Duration::from_millis(20), piece_bytes: 1_000_000 };
    let (kafka, proxy) = start_proxied_kafka(without_creation());
    let mut fixture = Fixture::new("topics_afar").await;
    fixture.brokers = kafka.brokers().to_owned();
    let names: Vec<String> = (1..=TOPICS).map(|n| fixture.topic(&format!("topic-{n}"))).collect();
    create_topics(&fixture.brokers, &names).await;
    proxy.set(AFAR);
    let relay = RelayProcess::start(
        &fixture.with_brokers(format!("127.0.0.1:{}", proxy.port())),
        &["--shards", "1"],
    );
    relay.wait_until_it_says("relaying").await;
    let client = fixture.client().await;
    let mut took = Vec::new();
    // The third and the fourth come when what is known of the topics is more than a minute old.
    for (kind, pause) in [("1", 0), ("2", 2), ("3", 61), ("4", 3)] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let begin = Instant::now();
        write_to_each(&client, TOPICS, kind).await;
        wait_for_count(&client, UNPUBLISHED, 0).await;
        took.push(begin.elapsed());
    }
    assert!(took.iter().all(|took| *took < Duration::from_secs(10)), "{took:?}");
    println!("{took:?}");
    assert!(!relay.said().contains(" WARN "), "{}", relay.said());
    for topic in [&names[0], &names[TOPICS - 1]] {
        assert_eq!(first_seen(&fixture, topic, "k"), ["1", "2", "3", "4"]);
    }
    relay.stop_well().await;
}

/// What is known of a topic is older than the topic: where it goes is looked up with how much it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_made_anew_with_fewer_partitions_gets_what_follows() {
    let fixture = Fixture::new("topics_anew").await;
    let topic = fixture.topic("t");
    create_topic(&fixture.brokers, &topic, 8).await;
    let client = fixture.client().await;
    let large = [("max.message.bytes", "3000000")];
    create_topic_with(&fixture.brokers, &fixture.topic("large"), &large).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    // From here on the producer itself takes that much.
    insert(&client, ("large", "k"), 1, 1_500_000).await;
    fixture.wait_published().await;
    for key in 1..=8_u32 {
        insert(&client, ("t", &key.to_string()), key, 10).await;
    }
    fixture.wait_published().await;
    make_anew(&fixture.brokers, &topic, 1, "3000000").await;
    // Older than what is trusted of a limit.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for key in 1..=8_u32 {
        insert(&client, ("t", &key.to_string()), 10 + key, 1_500_000).await;
    }
    fixture.wait_published().await;
    for key in 1..=8_u32 {
        assert_eq!(first_seen(&fixture, &topic, &key.to_string()), [(10 + key).to_string()]);
    }
    relay.stop_well().await;
}
