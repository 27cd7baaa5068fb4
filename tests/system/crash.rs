//! Crashes and cuts in full flight: nothing lost, nothing invented, order kept after dropping repeats.

use std::time::Duration;

use postrider_testkit::audit::Fate;
use postrider_testkit::servers::{KafkaOptions, StopMode};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use uuid::Uuid;

use crate::support::servers::kafka;
use crate::support::writer::{AGGREGATE_TYPE, Inserted, insert_event};
use crate::support::{
    Fixture, History, Patience, RelayProcess, Traffic, mostly_waits, start_kafka, start_postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_in_full_flight_and_other_shard_counts() {
    let fixture = Fixture::new("kills").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    for shards in ["1", "3", "8", "2", "5"] {
        let relay = RelayProcess::start(&fixture, &["--shards", shards]);
        relay.wait_until_it_says("relaying").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        relay.kill();
    }
    let relay = RelayProcess::start(&fixture, &["--shards", "4"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_full_flight_repeats_nothing() {
    let fixture = Fixture::new("stops").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    for shards in ["2", "8", "1"] {
        let relay = RelayProcess::start(&fixture, &["--shards", shards]);
        relay.wait_until_it_says("relaying").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(relay.stop().await.success());
    }
    traffic.stop().await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// Whatever it is at: here the file with its settings cannot be read yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_it_begins_is_a_stop() {
    let fixture = Fixture::new("stop_early").await;
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("stop_early.toml");
    if let Err(cause) = std::fs::remove_file(&file) {
        assert_eq!(cause.kind(), std::io::ErrorKind::NotFound, "{cause}");
    }
    let made = std::process::Command::new("mkfifo").arg(&file).status().expect("mkfifo runs");
    assert!(made.success());
    let path = file.to_str().expect("a path of letters");
    let relay = RelayProcess::start(&fixture, &["--config", path]);
    // It has opened the file when this has.
    let writer = tokio::task::spawn_blocking(move || std::fs::File::create(file));
    let mut writer = writer.await.expect("nobody panicked").expect("it can be written to");
    relay.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::io::Write::write_all(&mut writer, b"shards = 1\n").expect("the relay reads it");
    drop(writer);
    relay.stopped_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_sessions_are_made_again() {
    let fixture = Fixture::new("cut_sessions").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "3"]);
    relay.wait_until_it_says("relaying").await;
    let admin = fixture.client().await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'postrider%'";
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        // It may be between two sessions.
        let patience = Patience::until("sessions that carry the relay's name");
        while admin.execute(cut, &[]).await.expect("the superuser may") == 0 {
            patience.pause().await;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_killed_and_started_again() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let mut fixture = Fixture::new("kafka_restart").await;
    fixture.brokers = kafka.brokers().to_owned();
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    traffic.commits_more(50).await;
    kafka.kill().expect("it is ours to kill");
    relay.wait_until_it_says("trouble with Kafka").await;
    traffic.commits_more(50).await;
    kafka.start_again().expect("it starts again");
    traffic.commits_more(50).await;
    traffic.stop().await;
    fixture.wait_published().await;
    let said = relay.said();
    assert!(said.contains("trouble with Kafka"), "the outage is visible:\n{said}");
    assert!(said.lines().count() < 40, "and does not flood the log:\n{said}");
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_of_postgresql_is_said_once() {
    mostly_waits();
    let postgres = start_postgres(&[]);
    let fixture =
        Fixture::on("outage", &postgres.url("postgres"), postgres.url("outage"), kafka().brokers())
            .await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    postgres.stop(StopMode::Immediate).expect("it stops");
    relay.wait_until_it_says("connection refused").await;
    // Time for some attempts, the pauses between which grow from a tenth of a second to five.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let said = relay.said();
    assert_eq!(said.matches("connection refused").count(), 1, "{said}");
    postgres.start_again().expect("it starts again");
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload)
        values ('thing', 'k', 'Made', '{}')";
    fixture.client().await.batch_execute(insert).await.expect("an insert never fails");
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    Slow,
    Fast,
}

/// Commits that do not wait for the disk.
async fn write_without_waiting(fixture: &Fixture, crash: usize, pace: Pace) -> Vec<Inserted> {
    let client = fixture.client().await;
    client.batch_execute("set synchronous_commit = off").await.expect("the session lives");
    let (events, pause) = match pace {
        Pace::Slow => (150, Duration::from_millis(4)),
        Pace::Fast => (400, Duration::ZERO),
    };
    let mut written = Vec::new();
    for round in 0..events {
        let aggregate = format!("aggregate-{crash}-{}", round % 10);
        written.push(insert_event(&client, &aggregate, round).await);
        tokio::time::sleep(pause).await;
    }
    written
}

/// Without the tick's WAL record this finds dozens of phantoms: events that were visible, published, and
/// then taken back by the crash, because their commits did not wait for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_published_that_a_crash_of_postgresql_takes_back() {
    let postgres = start_postgres(&[("wal_writer_delay", "10s"), ("checkpoint_timeout", "1h")]);
    let fixture = Fixture::on(
        "phantoms",
        &postgres.url("postgres"),
        postgres.url("phantoms"),
        kafka().brokers(),
    )
    .await;
    let mut written: Vec<Inserted> = Vec::new();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    // Slow writers leave a relay time to publish what is not on disk yet; fast ones leave something
    // that is not on disk, whatever the relay does.
    for (crash, pace) in [Pace::Slow, Pace::Fast, Pace::Slow, Pace::Fast].into_iter().enumerate() {
        written.extend(write_without_waiting(&fixture, crash, pace).await);
        postgres.stop(StopMode::Immediate).expect("it stops");
        postgres.start_again().expect("it recovers");
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let history = History::default();
    let client = fixture.client().await;
    let kept = client.query("select id from outbox", &[]).await.expect("the table is there");
    let kept: Vec<Uuid> = kept.iter().map(|row| row.get(0)).collect();
    println!("the crashes took back {} of {} commits", written.len() - kept.len(), written.len());
    for event in written {
        let fate = if kept.contains(&event.id) { Fate::Committed } else { Fate::RolledBack };
        history.ended(vec![event], fate);
    }
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

/// A relay whose buckets were taken by a higher epoch must not move their cursors any more; here
/// nobody else works, so that it steps down and takes them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_epoch_is_noticed() {
    let fixture = Fixture::new("higher_epoch").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    let other = fixture.client().await;
    let taken = "update postrider.cursor set epoch = epoch + 1 returning saved_at";
    other.query(taken, &[]).await.expect("the cursors are there");
    relay.wait_until_it_says("another instance has taken buckets").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// A page that cannot go on must not hold its snapshot in PostgreSQL: vacuum would stand still for as
/// long as Kafka is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_kafka_bounds_memory_and_holds_no_snapshot() {
    const EVENTS: u64 = 30_000;
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let mut fixture = Fixture::new("frozen_kafka").await;
    fixture.brokers = kafka.brokers().to_owned();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    kafka.freeze().expect("it is ours to freeze");
    let client = fixture.client().await;
    let fill = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 'order', 'aggregate-' || (n % 50), 'Changed', to_json(repeat('x', 2000))
        from generate_series(1, $1::bigint) n";
    client.execute(fill, &[&EVENTS.cast_signed()]).await.expect("an insert never fails");
    tokio::time::sleep(Duration::from_secs(7)).await;
    let held = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name like 'postrider%' and clock_timestamp() - xact_start > interval '4 s'";
    let held: i64 = client.query_one(held, &[]).await.expect("the view answers").get(0);
    assert_eq!(held, 0, "sessions of the relay hold a snapshot");
    let peak = relay.peak_memory_kilobytes();
    assert!(peak < 150 * 1024, "{peak} kB");
    kafka.thaw().expect("it is ours to thaw");
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let records = crate::support::read_topic(&fixture.brokers, &fixture.topic("order"));
    let mut ids: Vec<_> = records.iter().map(crate::support::Consumed::id).collect();
    ids.sort_unstable_by_key(|id| id.0);
    ids.dedup();
    assert_eq!(ids.len() as u64, EVENTS, "{} records", records.len());
}

/// A broker that refuses a batch for good. A real one does so only for faults of the record itself; the
/// mock stands in for one that does it to any. Without the gapless producer the next batches would
/// pass, and without the saved cursors the refused ones would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_replaces_the_producer() {
    let mut fixture = Fixture::new("refused_batch").await;
    let mock = MockCluster::new(1).expect("a mock can be made");
    mock.create_topic(&fixture.topic(AGGREGATE_TYPE), 4, 1).expect("the topic is new");
    fixture.brokers = mock.bootstrap_servers();
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD; 2];
        mock.request_errors(RDKafkaApiKey::Produce, &refused);
    }
    relay.wait_until_it_says("the producer is replaced").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}
