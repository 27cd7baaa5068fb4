//! Topics that are there, and cannot be written to.

use std::time::{Duration, Instant};

use postrider_testkit::servers::KafkaOptions;

use crate::parking::{
    first_seen, insert, insert_with, numbers, wait_for_the_rest, wait_until_parked,
};
use crate::support::acl::{Access, authorizer, release, restrict};
use crate::support::consumer::{create_topic, create_topic_with};
use crate::support::refuser::{Fault, Refuser, marked};
use crate::support::{Fixture, RelayProcess, mostly_waits, read_topic, start_kafka};

/// What older brokers say of a topic with fewer copies than it asks for.
const NOT_ENOUGH_REPLICAS: i16 = 19;

/// One is not even seen, of the other the refusal comes with the records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_topic_holds_what_goes_there_and_lets_the_others_pass() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions { properties: authorizer(), ..KafkaOptions::default() });
    let mut fixture = Fixture::new("access").await;
    fixture.brokers = kafka.brokers().to_owned();
    let names = ["hidden", "readable", "open"];
    let topics = names.map(|name| fixture.topic(name));
    for topic in &topics {
        create_topic(&fixture.brokers, topic, 2).await;
    }
    let [hidden, readable, open] = &topics;
    restrict(&fixture.brokers, hidden, Access::Nothing);
    restrict(&fixture.brokers, readable, Access::Describe);
    let client = fixture.client().await;
    for number in 1..=3 {
        for name in names {
            insert(&client, (name, "k"), number, 10).await;
        }
    }
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    wait_for_the_rest(&fixture).await;
    let waits = [
        ("1", "topic-unavailable"),
        ("1", "topic-unavailable"),
        ("2", "follows"),
        ("2", "follows"),
        ("3", "follows"),
        ("3", "follows"),
    ];
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, open, "k"), numbers(1..=3));
    relay.wait_until_it_says("Kafka does not let this user write to topic access.hidden").await;
    relay.wait_until_it_says("topic access.readable was refused").await;

    for topic in [hidden, readable] {
        release(&fixture.brokers, topic);
    }
    for name in names {
        insert(&client, (name, "k"), 4, 10).await;
    }
    fixture.wait_published().await;
    for topic in &topics {
        assert_eq!(first_seen(&fixture, topic, "k"), numbers(1..=4), "{topic}");
    }
    relay.stop_well().await;
}

/// Kafka 4.4 takes what goes to a topic with fewer copies than it asks for: nothing is held that it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_too_few_copies_is_used_if_it_takes_records() {
    let fixture = Fixture::new("copies_taken").await;
    let few = fixture.topic("few");
    create_topic_with(&fixture.brokers, &few, &[("min.insync.replicas", "2")]).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    for number in 1..=3 {
        for key in ["k", "l"] {
            insert(&client, ("few", key), number, 10).await;
        }
    }
    fixture.wait_published().await;
    insert(&client, ("few", "k"), 4, 10).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &few, "k"), numbers(1..=4));
    assert_eq!(read_topic(&fixture.brokers, &few).len(), 7, "each once");
    assert!(!relay.said().contains(" WARN "), "{}", relay.said());
    relay.stop_well().await;
}

/// Older ones refuse it, and no number of tries would help: each batch to it would be sent again without an
/// end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_too_few_copies_holds_what_goes_there_and_lets_the_others_pass() {
    let (refuser, kafka) = Refuser::start();
    let mut fixture = Fixture::new("copies").await;
    fixture.brokers = kafka.brokers().to_owned();
    let few = fixture.topic("few");
    create_topic_with(&fixture.brokers, &few, &[("min.insync.replicas", "2")]).await;
    create_topic(&fixture.brokers, &fixture.topic("enough"), 1).await;
    refuser.set(Fault::AnswerAsMarked);
    let client = fixture.client().await;
    let refused = format!("\"{}\"", marked(NOT_ENOUGH_REPLICAS));
    for number in 1..=3 {
        insert_with(&client, ("few", "k"), number, &refused, None).await;
        insert_with(&client, ("few", "l"), number, &refused, None).await;
        insert(&client, ("enough", "k"), number, 10).await;
    }
    let proxied = fixture.with_brokers(refuser.brokers());
    let begin = Instant::now();
    let relay = RelayProcess::start(&proxied, &["--shards", "1", "-X", "compression.type=none"]);
    wait_for_the_rest(&fixture).await;
    assert!(
        begin.elapsed() < Duration::from_secs(25),
        "nobody waits for long: {:?}",
        begin.elapsed()
    );
    let unavailable = "select count(*) from postrider.parked
                       where reason in ('topic-unavailable', 'follows') and aggregatetype = 'few'";
    let parked: i64 = client.query_one(unavailable, &[]).await.expect("it counts").get(0);
    assert_eq!(parked, 6);
    assert_eq!(first_seen(&fixture, &fixture.topic("enough"), "k"), numbers(1..=3));
    relay.wait_until_it_says("copies.few has 1 copy").await;

    refuser.set(Fault::None);
    insert(&client, ("few", "k"), 4, 10).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &few, "k"), numbers(1..=4));
    assert_eq!(first_seen(&fixture, &few, "l"), numbers(1..=3));
    relay.stop_well().await;
}
