//! The topic of cursors under instances that run: one that was made anew is not the one that was written to.

use std::time::Duration;

use postrider_testkit::servers::KafkaOptions;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_postgres::Client;

use crate::exactly::{cursor_topic, delete_topic};
use crate::parking::ask;
use crate::support::acl::{Access, authorizer, release, restrict};
use crate::support::consumer::{create_topic, set_topic};
use crate::support::{Capture, Fixture, RelayProcess, mostly_waits, read_topic, start_kafka};

const BUCKETS: i32 = 8;
/// Until an instance has looked at the topic, which it does every 5 s.
const LOOKED: Duration = Duration::from_secs(7);

async fn make_anew(fixture: &Fixture, topic: &str) {
    delete_topic(fixture, topic).await;
    create_topic(&fixture.brokers, topic, BUCKETS).await;
}

const WRITE: &str = "select postrider.emit('t', 'a', 'Happened', '{}')";

/// An owner that has committed a cursor, and the topic to which it did.
async fn begin(fixture: &Fixture) -> (Client, RelayProcess, String) {
    fixture.deliver_exactly_once();
    let client = fixture.client().await;
    client.batch_execute(WRITE).await.expect("an event can be written");
    let capture = fixture.capture.name();
    let relay = RelayProcess::start(fixture, &["--capture", capture, "--shards", "1"]);
    fixture.wait_published().await;
    let topic = cursor_topic(fixture).await;
    (client, relay, topic)
}

/// GIVEN an owner that has committed a cursor WHEN the topic is made anew with as many partitions THEN its next
/// transaction is not committed, and the process ends as where the topic is gone; one that has nothing to commit finds
/// it out, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_cursors_that_is_made_anew_ends_whoever_wrote_to_the_old_one() {
    mostly_waits();
    let fixture = Fixture::new("exactly_anew").await;
    let (client, relay, topic) = begin(&fixture).await;
    make_anew(&fixture, &topic).await;
    client.batch_execute(WRITE).await.expect("another one");
    relay.wait_until_it_says("is gone, and the cursors with it").await;
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(5), "{ended}");
    let seen = || read_topic(&fixture.brokers, &fixture.topic("t")).len();
    assert_eq!(seen(), 1, "the other one is not committed");
    ask(&fixture, &["migrate", "reanchor", "--cursor-from", "postgres"]);
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    fixture.wait_published().await;
    assert_eq!(seen(), 2, "all was saved");
    tokio::time::sleep(LOOKED).await;
    make_anew(&fixture, &topic).await;
    relay.wait_until_it_says("was made anew").await;
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(5), "{ended}");
}

/// GIVEN owners that have committed cursors WHEN the topic takes no record of that size any more THEN `check` says so, and
/// the processes end; with the setting set back everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_cursors_that_takes_no_cursor_is_refused() {
    mostly_waits();
    for capture in [Capture::Poll, Capture::Wal] {
        let name = format!("exactly_small_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        let (client, relay, topic) = begin(&fixture).await;
        let compact = ("cleanup.policy", "compact");
        set_topic(&fixture.brokers, &topic, &[compact, ("max.message.bytes", "200")]).await;
        client.batch_execute(WRITE).await.expect("another one");
        let checked = fixture.command().arg("check").output().expect("the binary runs");
        let told = String::from_utf8_lossy(&checked.stdout).into_owned()
            + &String::from_utf8_lossy(&checked.stderr);
        assert!(!checked.status.success() && told.contains("takes 200 bytes at once"), "{told}");
        relay.wait_until_it_says("takes 200 bytes at once").await;
        let ended = relay.wait(Duration::from_secs(60)).await;
        assert_eq!(ended.code(), Some(5), "{ended}");
        let seen = || read_topic(&fixture.brokers, &fixture.topic("t")).len();
        assert_eq!(seen(), 1, "the other one is not committed");
        set_topic(&fixture.brokers, &topic, &[compact]).await;
        let relay = RelayProcess::start(&fixture, &["--capture", capture.name(), "--shards", "1"]);
        fixture.wait_published().await;
        assert_eq!(seen(), 2);
        relay.stop_well().await;
    }
}

/// GIVEN an owner that has committed a cursor WHEN the right to see the topic is taken away THEN nobody takes it for gone:
/// the instance says which right is missing, as does one that starts, and both go on when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_cursors_that_may_not_be_seen_is_not_taken_for_gone() {
    const HIDDEN: &str = "Kafka does not let this user see topic postrider-";
    mostly_waits();
    let kafka = start_kafka(KafkaOptions { properties: authorizer(), ..KafkaOptions::default() });
    let fixture = Fixture::new("exactly_hidden").await.with_brokers(kafka.brokers().to_owned());
    let (client, relay, topic) = begin(&fixture).await;
    restrict(&fixture.brokers, &topic, Access::Nothing);
    client.batch_execute(WRITE).await.expect("another one");
    relay.wait_until_it_says(HIDDEN).await;
    // Two looks would have ended it.
    tokio::time::sleep(2 * LOOKED).await;
    assert!(!relay.said().contains("is gone"), "{}", relay.said());
    let other = RelayProcess::start(&fixture, &["--shards", "1"]);
    relay.kill();
    other.wait_until_it_says(HIDDEN).await;
    release(&fixture.brokers, &topic);
    restrict(&fixture.brokers, &topic, Access::Describe);
    other.wait_until_it_says("Kafka does not let this user read topic postrider-").await;
    release(&fixture.brokers, &topic);
    fixture.wait_published().await;
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("t")).len(), 2, "each once");
    other.stop_well().await;
}

/// GIVEN a partition of cursors in which a transaction is undecided, as right after the death of a broker, WHEN an instance
/// starts THEN it begins with no cursor before that is decided: a later one may be behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_read_when_nothing_is_undecided() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let fixture = Fixture::new("exactly_undecided").await;
    let (client, relay, topic) = begin(&fixture).await;
    relay.stop_well().await;
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &fixture.brokers)
        .set("transactional.id", &topic)
        .create()
        .expect("a producer can be made");
    other.init_transactions(PATIENCE).expect("the broker answers");
    other.begin_transaction().expect("it was initialised");
    let record = BaseRecord::<str, str>::to(&topic).partition(0).key("0").payload("{}");
    other.send(record).expect("there is room");
    other.flush(PATIENCE).expect("it is taken");
    client.batch_execute(WRITE).await.expect("another one");
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    relay.wait_until_it_says("relaying").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = || read_topic(&fixture.brokers, &fixture.topic("t")).len();
    assert_eq!(seen(), 1, "nobody knows where it begins");
    other.abort_transaction(PATIENCE).expect("it is open");
    fixture.wait_published().await;
    assert_eq!(seen(), 2);
    relay.stop_well().await;
}
