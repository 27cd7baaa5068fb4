//! Servers, sessions, networks and readers that go away, under every way of reading.

use std::time::Duration;

use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres};

use super::{ALL, LOG, Trial, outlets, start_relay};
use crate::faults::network::FAULTS;
use crate::support::servers::{kafka, postgres};
use crate::support::{
    Capture, Fixture, History, Load, Mode, Patience, Proxy, RelayProcess, Traffic, mostly_waits,
    start_kafka, start_postgres,
};

/// Faults and not the processor shall be what counts, where several outboxes are at work.
const LIGHT: Load = Load { writers: 2, pause: Duration::from_millis(5), ..Load::BROKEN };

/// The slot's reader is held on to by a server that does not know that the network is gone.
const WAL_SENDER_TIMEOUT: (&str, &str) = ("wal_sender_timeout", "3s");
/// Where no session may be lost: a machine that is full keeps everybody waiting for some seconds.
const LONG_WAL_SENDER_TIMEOUT: (&str, &str) = ("wal_sender_timeout", "8s");
/// By then a server with the long timeout would have ended a session from which it heard nothing.
const WAL_SENDER_ENDED: Duration = Duration::from_secs(11);

async fn begin_all(outlets: Vec<(Fixture, RelayProcess)>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for outlet in outlets {
        trials.push(Trial::begin(outlet, LIGHT).await);
    }
    trials
}

async fn all_go_on(trials: &[Trial]) {
    for trial in trials {
        trial.go_on().await;
    }
}

async fn finish_all(trials: Vec<Trial>) {
    for trial in trials {
        trial.finish().await;
    }
}

/// What is killed at once.
#[derive(Clone, Copy, Debug)]
enum Victims {
    Postgres,
    Kafka,
    Both,
}

impl Victims {
    async fn fall_and_rise(self, postgres: &Postgres, kafka: &Kafka) {
        let (kills_postgres, kills_kafka) = match self {
            Self::Postgres => (true, false),
            Self::Kafka => (false, true),
            Self::Both => (true, true),
        };
        if kills_postgres {
            postgres.kill().expect("it is ours to kill");
        }
        if kills_kafka {
            kafka.kill().expect("it is ours to kill");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        if kills_postgres {
            postgres.start_again().expect("it recovers");
        }
        if kills_kafka {
            kafka.start_again().expect("it starts again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_lose_nothing_in_any_way_of_reading() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let postgres = start_postgres(&[WAL_SENDER_TIMEOUT]);
    let trials =
        begin_all(outlets("log_killed", &ALL, &postgres, kafka.brokers(), None).await).await;
    for victims in [Victims::Postgres, Victims::Kafka, Victims::Both] {
        all_go_on(&trials).await;
        victims.fall_and_rise(&postgres, &kafka).await;
        all_go_on(&trials).await;
    }
    finish_all(trials).await;
}

/// PostgreSQL hears from us all the time, whether there is room in flight for what comes or not. What Kafka
/// has not acknowledged comes again to the next reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_does_not_answer_costs_neither_session_nor_event() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions::default());
    let postgres = start_postgres(&[LONG_WAL_SENDER_TIMEOUT]);
    let outlets = outlets("log_unanswered", &LOG, &postgres, kafka.brokers(), None).await;
    let mut trials = begin_all(outlets).await;
    trials[0].restart(&["--max-in-flight-bytes", "16KiB"]).await;
    all_go_on(&trials).await;
    let readers = readers(&trials).await;
    kafka.freeze().expect("it is ours to freeze");
    for trial in &trials {
        trial.traffic.commits_more(200).await;
    }
    tokio::time::sleep(WAL_SENDER_ENDED).await;
    assert_eq!(self::readers(&trials).await, readers, "PostgreSQL has not heard from us");
    for trial in &trials {
        trial.relay.signal("KILL");
    }
    kafka.thaw().expect("it is ours to thaw");
    for trial in &mut trials {
        trial.restart(&[]).await;
    }
    all_go_on(&trials).await;
    finish_all(trials).await;
}

/// The backends that stream.
async fn readers(trials: &[Trial]) -> Vec<i32> {
    let readers = "select active_pid from pg_replication_slots where active order by slot_name";
    let client = trials[0].fixture.client().await;
    let rows = client.query(readers, &[]).await.expect("slots are listed");
    assert_eq!(rows.len(), LOG.len());
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_network_to_the_log() {
    mostly_waits();
    let postgres = start_postgres(&[WAL_SENDER_TIMEOUT]);
    let proxy = Proxy::before(postgres.port());
    let brokers = kafka().brokers();
    let trials =
        begin_all(outlets("log_network", &LOG, &postgres, brokers, Some(&proxy)).await).await;
    for fault in FAULTS {
        println!("the network: {fault:?}");
        fault.pass_over(&proxy).await;
        all_go_on(&trials).await;
    }
    finish_all(trials).await;
}

/// Ends the backends that stream, and nothing else of the relay.
async fn cut_streams(fixture: &Fixture) -> u64 {
    let cut = "select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = current_database() and active";
    fixture.client().await.execute(cut, &[]).await.expect("the superuser may")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_cut_again_and_again_go_on() {
    mostly_waits();
    let postgres = postgres();
    let brokers = kafka().brokers();
    let trials = begin_all(outlets("log_cut", &LOG, postgres, brokers, None).await).await;
    for trial in &trials {
        let (mut cuts, patience) = (0, Patience::until("the stream goes on"));
        while cuts < 6 {
            patience.pause().await;
            cuts += cut_streams(&trial.fixture).await;
            trial.traffic.commits_more(10).await;
        }
    }
    all_go_on(&trials).await;
    finish_all(trials).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_takes_over_the_messages_of_a_killed_one() {
    let fixture = Fixture::new("log_taken_over").await.captured_by(Capture::Message);
    let history = History::default();
    let mut reader = start_relay(&fixture, Capture::Message).await;
    let traffic = Traffic::with(&fixture, &history, LIGHT).await;
    for _ in 0..2 {
        let next = RelayProcess::start(&fixture, &["--capture", "message"]);
        next.wait_until_it_says("standing by").await;
        traffic.commits_more(100).await;
        reader.kill();
        next.wait_until_it_says("reading the log").await;
        reader = next;
    }
    let verdict = traffic.finish([reader], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// A process that is stopped, as on a machine that is paused, keeps its sessions, and with them the slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_reader_is_replaced_and_finds_its_place() {
    tokio::join!(freeze_a_reader(Capture::Wal), freeze_a_reader(Capture::Message));
}

async fn freeze_a_reader(capture: Capture) {
    let fixture = Fixture::new(&format!("log_frozen_{}", capture.name())).await;
    let fixture = fixture.captured_by(capture);
    let frozen = start_relay(&fixture, capture).await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, LIGHT).await;
    let next = RelayProcess::start(&fixture, &["--capture", capture.name()]);
    next.wait_until_it_says("standing by").await;
    frozen.signal("STOP");
    next.wait_until_it_says("reading the log").await;
    // It is no stranger to whoever waits for its lock.
    assert!(!next.said().contains("is no instance"), "{}", next.said());
    fixture.wait_published_upto(fixture.drawn().await).await;
    frozen.signal("CONT");
    frozen.wait_until_it_says("standing by").await;
    traffic.commits_more(100).await;
    let verdict = traffic.finish([next, frozen], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// Nobody hangs up, and it has no lease that could run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_stands_by_without_an_answer_asks_anew() {
    let fixture = Fixture::new("log_half_open").await.captured_by(Capture::Wal);
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    let reader = RelayProcess::start(&fixture, &["--capture", "wal"]);
    reader.wait_until_it_says("reading the log").await;
    let proxy = Proxy::before(postgres().port());
    let waiting = RelayProcess::start(&fixture.through(&proxy), &[]);
    waiting.wait_until_it_says("standing by").await;
    proxy.set(Mode::HalfOpen);
    // It has asked by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.set(Mode::Pass);
    reader.kill();
    waiting.wait_until_it_says("reading the log").await;
    let verdict = traffic.finish([waiting], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}
