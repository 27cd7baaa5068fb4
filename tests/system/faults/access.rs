//! Topics that are there, and cannot be written to.

use postrider_testkit::servers::KafkaOptions;

use crate::parking::{first_seen, insert, numbers, wait_for_the_rest, wait_until_parked};
use crate::support::acl::{Access, authorizer, release, restrict};
use crate::support::consumer::{create_topic, create_topic_with, set_topic};
use crate::support::{Fixture, RelayProcess, start_kafka};

/// One is not even seen, of the other the refusal comes with the records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_topic_holds_what_goes_there_and_lets_the_others_pass() {
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

/// No number of answers would help: each batch to it would be tried again without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_too_few_copies_holds_what_goes_there_and_lets_the_others_pass() {
    let fixture = Fixture::new("copies").await;
    let (few, enough) = (fixture.topic("few"), fixture.topic("enough"));
    create_topic_with(&fixture.brokers, &few, &[("min.insync.replicas", "2")]).await;
    let client = fixture.client().await;
    for number in 1..=3 {
        insert(&client, ("few", "k"), number, 10).await;
        insert(&client, ("enough", "k"), number, 10).await;
    }
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    let waits = [("1", "topic-unavailable"), ("2", "follows"), ("3", "follows")];
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, &enough, "k"), numbers(1..=3));
    relay.wait_until_it_says("copies.few has 1 copy").await;

    set_topic(&fixture.brokers, &few, &[("min.insync.replicas", "1")]).await;
    insert(&client, ("few", "k"), 4, 10).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &few, "k"), numbers(1..=4));
    relay.stop_well().await;
}
