//! Exactly once: what a consumer that reads committed records sees, whatever dies.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use postrider_testkit::servers::KafkaOptions;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::bad_rows::wait_until;
use crate::handover::{assert_exact, write};
use crate::parking::{ask, numbers, wait_for_the_rest};
use crate::support::consumer::{
    create_topic, create_topic_unless_made, create_topic_with, list_topics, set_topic,
};
use crate::support::refuser::{Fault, Refuser};
use crate::support::{
    Capture, Consumed, Fixture, History, Patience, RelayProcess, Traffic, mostly_waits, read_topic,
    start_kafka,
};

/// What a broker says of a producer's epoch that is not the latest.
const OLD_EPOCHS: [i16; 2] = [47, 90];

/// Where the cursors of this outbox are.
pub(crate) async fn cursor_topic(fixture: &Fixture) -> String {
    let database = "select oid::bigint from pg_database where datname = current_database()";
    let row = fixture.client().await.query_one(database, &[]).await;
    let ending = format!("-{}-cursors", row.expect("it answers").get::<_, i64>(0));
    let topics = list_topics(&fixture.brokers);
    topics.into_iter().find(|topic| topic.ends_with(&ending)).expect("it was made")
}

pub(crate) async fn delete_topic(fixture: &Fixture, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &fixture.brokers)
        .create()
        .expect("a client can be made");
    let gone = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    let gone = gone.expect("Kafka answers");
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
}

/// The flag insists, and changes nothing; the switch waits until each bucket has a cursor in Kafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_says_how_events_are_delivered() {
    let fixture = Fixture::new("exactly_says").await;
    let refused = |asked: &str, now: &str| {
        let ended = fixture.command().args(["run", "--delivery", asked]).output();
        let ended = ended.expect("the binary runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{said}");
        for words in [format!("the database says {now}"), format!("delivery switch {asked}")] {
            assert!(said.contains(&words), "{said}");
        }
    };
    refused("exactly-once", "at-least-once");
    let relay = RelayProcess::start(&fixture, &["--delivery", "at-least-once"]);
    relay.wait_until_it_says("relaying").await;
    assert!(ask(&fixture, &["delivery", "show"]).contains("at least once"));
    let other = RelayProcess::start(&fixture, &[]);
    other.wait_until_it_says("relaying").await;
    let told = ask(&fixture, &["delivery", "switch", "exactly-once"]);
    assert!(told.contains("events are delivered exactly once"), "{told}");
    let told = ask(&fixture, &["check"]);
    assert!(told.contains("take a transactional id"), "{told}");
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(3), "it insists on another way: {ended}");
    other.stop_well().await;
    refused("at-least-once", "exactly-once");
    let relay = RelayProcess::start(&fixture, &["--delivery", "exactly-once"]);
    relay.wait_until_it_says("relaying").await;
    relay.stop_well().await;
}

/// A transaction of PostgreSQL's that takes longer than one of Kafka's may is committed part by part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_transaction_is_published_in_parts_and_once() {
    const EVENTS: usize = 120_000;
    let fixture = Fixture::new("exactly_giant").await.captured_by(Capture::Message);
    fixture.deliver_exactly_once();
    let arguments = ["--capture", "message", "--max-in-flight-bytes", "256KiB"];
    let relay = RelayProcess::start(&fixture, &arguments);
    relay.wait_until_it_says("reading the log").await;
    let write = "select count(postrider.emit('t', n::text, 'Happened', null))
                 from generate_series(1, $1::bigint) n";
    let count = i64::try_from(EVENTS).expect("it is small");
    fixture.client().await.execute(write, &[&count]).await.expect("they can be written");
    let topic = fixture.topic("t");
    let patience = Patience::until("a part is committed");
    while read_topic(&fixture.brokers, &topic).is_empty() {
        patience.pause().await;
    }
    relay.kill();
    let seen = read_topic(&fixture.brokers, &topic).len();
    let relay = RelayProcess::start(&fixture, &arguments);
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &topic);
    let keys: HashSet<&str> = records.iter().map(Consumed::key_text).collect();
    println!("{seen} of {EVENTS} before the kill");
    assert_eq!((keys.len(), records.len()), (EVENTS, EVENTS));
}

/// What was tried again is committed before it is taken away, and what follows comes behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_events_are_published_once_and_in_order() {
    for capture in [Capture::Poll, Capture::Wal] {
        let name = format!("exactly_parked_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        fixture.deliver_exactly_once();
        let topic = fixture.topic("t");
        create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
        let client = fixture.client().await;
        let emit = "select postrider.emit('t', 'hot', $1, to_json(repeat('x', $2)))";
        for number in 1..=6 {
            let length = if number == 3 { 30_000 } else { 100 };
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                [&number.to_string(), &length];
            client.execute(emit, &parameters).await.expect("an event can be written");
        }
        let arguments = ["--capture", capture.name(), "--shards", "2"];
        let relay = RelayProcess::start(&fixture, &arguments);
        wait_for_the_rest(&fixture).await;
        set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "60000")]).await;
        relay.kill();
        ask(&fixture, &["parked", "retry", "--all"]);
        let relay = RelayProcess::start(&fixture, &arguments);
        fixture.wait_published().await;
        relay.stop_well().await;
        let records = read_topic(&fixture.brokers, &topic);
        let kind = |record: &Consumed| {
            String::from_utf8_lossy(record.header("type").expect("it has one")).into_owned()
        };
        assert_eq!(records.iter().map(kind).collect::<Vec<_>>(), numbers(1..=6), "{name}");
    }
}

/// Whoever reads next begins where the last transaction ended, in whatever way it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_ways_of_reading_repeat_nothing() {
    let fixture = Fixture::new("exactly_ways").await;
    fixture.deliver_exactly_once();
    let history = History::default();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    let traffic = Traffic::start(&fixture, &history, 2).await;
    for way in ["wal", "poll", "wal"] {
        traffic.commits_more(100).await;
        ask(&fixture, &["capture", "switch", way]);
    }
    traffic.commits_more(100).await;
    relay.kill();
    ask(&fixture, &["capture", "switch", "poll", "--no-wait"]);
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    traffic.commits_more(100).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// It wakes when another one has fenced it, and when it has lost its lease before it could begin again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stands_still_and_wakes_repeats_nothing() {
    let fixture = Fixture::new("exactly_stopped").await;
    fixture.deliver_exactly_once();
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let one = RelayProcess::start(&fixture, &["--shards", "2"]);
    one.wait_until_it_says("relaying").await;
    traffic.commits_more(100).await;
    one.signal("STOP");
    let other = RelayProcess::start(&fixture, &["--shards", "2"]);
    other.wait_until_it_says("relaying").await;
    traffic.commits_more(100).await;
    one.signal("CONT");
    traffic.commits_more(200).await;
    other.signal("STOP");
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    other.signal("CONT");
    traffic.commits_more(100).await;
    let verdict = traffic.finish([one, other], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_die_with_transactions_open_repeat_nothing() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let mut fixture = Fixture::new("exactly_broker").await;
    fixture.brokers = kafka.brokers().to_owned();
    fixture.deliver_exactly_once();
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    for _ in 0..2 {
        traffic.commits_more(200).await;
        kafka.kill().expect("it is ours to kill");
        tokio::time::sleep(Duration::from_secs(1)).await;
        kafka.start_again().expect("it starts again");
    }
    traffic.commits_more(200).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_topic_that_is_gone_is_refused() {
    mostly_waits();
    let fixture = Fixture::new("exactly_gone").await;
    fixture.deliver_exactly_once();
    let client = fixture.client().await;
    let write = "select postrider.emit('t', 'a', 'Happened', '{}')";
    client.batch_execute(write).await.expect("an event can be written");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    let topic = &cursor_topic(&fixture).await;
    let delete = async || delete_topic(&fixture, topic).await;
    delete().await;
    client.batch_execute(write).await.expect("another one");
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("though one was committed").await;
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(5), "{ended}");
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("t")).len(), 1, "nothing was sent");
    ask(&fixture, &["migrate", "reanchor", "--cursor-from", "postgres"]);
    let relay = RelayProcess::start(&fixture, &["--delivery", "exactly-once"]);
    fixture.wait_published().await;
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("t")).len(), 2, "all was saved");
    // It has been looked at once before it goes.
    tokio::time::sleep(Duration::from_secs(7)).await;
    delete().await;
    // Whoever makes it anew makes it otherwise.
    create_topic_unless_made(&fixture.brokers, topic, 1).await;
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(5), "{ended}");
    delete().await;
    ask(&fixture, &["migrate", "reanchor", "--cursor-from", "postgres"]);
    client.batch_execute(write).await.expect("another one");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
}

/// What librdkafka does by itself: it asks for the end again, and says that all is well. Then the next
/// transaction is torn, where nobody drops the producer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_word_ends_the_next_transaction_of_a_producer_that_is_kept() {
    let (refuser, kafka) = Refuser::start();
    create_topic(kafka.brokers(), "torn", 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", refuser.brokers())
        .set("transactional.id", "kept")
        .set("retry.backoff.ms", "250")
        .create()
        .expect("a producer can be made");
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).expect("the broker answers");
    let send = |value: &str| {
        let record = BaseRecord::<str, str>::to("torn").key("a").payload(value);
        producer.send(record).expect("there is room");
        producer.flush(patience)
    };
    let seen = || read_topic(kafka.brokers(), "torn").len();
    producer.begin_transaction().expect("it was initialised");
    send("1").expect("it is taken");
    refuser.set(Fault::KeepEnd);
    let began = Instant::now();
    producer.commit_transaction(patience).expect("it says that all is well");
    assert!(began.elapsed() >= Duration::from_millis(200), "it was asked for twice");
    assert!(refuser.has_kept());
    // The coordinator answers before the end is written to each partition.
    let until_seen = async |count: usize| {
        let patience = Patience::until("the end is written to the partition");
        while seen() < count {
            patience.pause().await;
        }
    };
    until_seen(1).await;
    producer.begin_transaction().expect("the one before has ended");
    send("2").expect("it is taken");
    assert_eq!(seen(), 1, "it is open");
    let code = refuser.deliver_kept();
    until_seen(2).await;
    let torn = seen();
    let rest = send("3").is_ok();
    let ended = producer.commit_transaction(patience);
    println!(
        "late word: code {code}; seen {torn}; went on {rest}; its own end {ended:?}; seen {}",
        seen()
    );
    assert_eq!((code, torn), (0, 2), "half of the next transaction is there for all to see");
}

/// The same, where the producer is dropped after an end that was not sure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_words_change_nothing_where_the_producer_was_dropped() {
    mostly_waits();
    let (refuser, _kafka) = Refuser::start();
    let fixture = Fixture::new("exactly_late").await.with_brokers(refuser.brokers());
    fixture.deliver_exactly_once();
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    relay.wait_until_it_says("relaying").await;
    for _ in 0..3 {
        traffic.commits_more(100).await;
        refuser.set(Fault::KeepEnd);
        let patience = Patience::until("a transaction ends");
        while !refuser.has_kept() {
            patience.pause().await;
        }
        traffic.commits_more(300).await;
        // The next transactions of the same id are on their way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let code = refuser.deliver_kept();
        assert!(OLD_EPOCHS.contains(&code), "the broker says {code}");
    }
    assert!(relay.said().contains("may have been sent twice"), "{}", relay.said());
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// In a busy database the log goes on past what is in a transaction that is open in Kafka; that transaction is then
/// aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_not_passed_while_a_transaction_is_open() {
    mostly_waits();
    for capture in [Capture::Wal, Capture::Message] {
        let kafka = start_kafka(KafkaOptions::default());
        let name = format!("exactly_busy_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        let fixture = fixture.with_brokers(kafka.brokers().to_owned());
        fixture.deliver_exactly_once();
        create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
        let arguments = ["--capture", capture.name()];
        let mut relay = RelayProcess::start(&fixture, &arguments);
        relay.wait_until_it_says(capture.words()).await;
        let others = write_for_nobody(&fixture).await;
        let client = fixture.client().await;
        for number in 1..=6 {
            wait_for_count(&fixture, number - 1).await;
            write(&client, number..=number).await;
            tokio::time::sleep(Duration::from_millis(60 + 10 * number as u64)).await;
            kafka.freeze().expect("it is ours to freeze");
            // Some feedback to the server, and its save.
            tokio::time::sleep(Duration::from_millis(1_600)).await;
            relay.kill();
            kafka.thaw().expect("it is ours to thaw");
            relay = RelayProcess::start(&fixture, &arguments);
            relay.wait_until_it_says(capture.words()).await;
        }
        wait_for_count(&fixture, 6).await;
        others.abort();
        assert_exact(&fixture, &(1..=6).collect::<Vec<_>>());
        relay.stop_well().await;
    }
}

/// So many events are committed.
async fn wait_for_count(fixture: &Fixture, events: i32) {
    let patience = Patience::until("all are published");
    while (read_topic(&fixture.brokers, &fixture.topic("order")).len() as i32) < events {
        patience.pause().await;
    }
}

/// Others write ten megabytes of log a second that concern no event.
async fn write_for_nobody(fixture: &Fixture) -> tokio::task::JoinHandle<()> {
    let client = fixture.client().await;
    tokio::spawn(async move {
        let write = "select pg_logical_emit_message(false, 'other', repeat('x', 500000))";
        while client.batch_execute(write).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// A retry waits for a moment in which nothing is open, and such a moment is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_events_are_tried_again_while_events_never_pause() {
    for capture in [Capture::Wal, Capture::Message, Capture::Poll] {
        let name = format!("exactly_retry_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        fixture.deliver_exactly_once();
        let client = fixture.client().await;
        let relay = RelayProcess::start(&fixture, &["--capture", capture.name(), "--shards", "1"]);
        relay.wait_until_it_says(capture.words()).await;
        let history = History::default();
        let traffic = Traffic::start(&fixture, &history, 4).await;
        let emit =
            "select postrider.emit('no topic!', 'k' || n, 'T', '{}') from generate_series(1, 3) n";
        client.batch_execute(emit).await.expect("events can be written");
        wait_until(&client, "select count(*) from postrider.parked", 3).await;
        let mend = "update postrider.parked set aggregatetype = 'mended'";
        client.batch_execute(mend).await.expect("the table is ours");
        ask(&fixture, &["parked", "retry", "--all"]);
        wait_until(&client, "select count(*) from postrider.parked", 0).await;
        traffic.stop().await;
        fixture.wait_published().await;
        relay.stop_well().await;
        let verdict = history.audit(&fixture);
        assert!(verdict.holds_without_repeats(), "{}: {verdict}", capture.name());
        assert_eq!(read_topic(&fixture.brokers, &fixture.topic("mended")).len(), 3);
    }
}
