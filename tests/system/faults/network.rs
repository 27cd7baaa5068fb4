//! Connections that break, stall, crawl and vanish, on either side.

use std::time::Duration;

use crate::support::servers::{kafka, postgres};
use crate::support::writer::insert_event;
use crate::support::{
    Capture, Ending, Fixture, History, Load, Mode, Patience, Proxy, RelayProcess, Traffic,
    mostly_waits,
};

/// Long enough for everything that was on its way to meet the fault.
const FAULT: Duration = Duration::from_secs(2);
const SLOW: Mode = Mode::Slow { pause: Duration::from_millis(5), piece_bytes: 1_000 };

/// Cuts, resets, refuses, stalls, slows and leaves half-open; after each of them everything is published that
/// was written until then.
async fn break_in_every_way(proxy: &Proxy, fixture: &Fixture, traffic: &Traffic) {
    for fault in FAULTS {
        println!("{}: {fault:?}", fixture.name);
        fault.pass_over(proxy).await;
        go_on(fixture, traffic).await;
    }
}

/// What a network does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Cut(Ending),
    While(Mode),
}

pub(crate) const FAULTS: [Fault; 6] = [
    Fault::Cut(Ending::Close),
    Fault::Cut(Ending::Reset),
    Fault::While(Mode::Refuse),
    Fault::While(Mode::Stall),
    Fault::While(SLOW),
    Fault::While(Mode::HalfOpen),
];

impl Fault {
    /// Happens, and is over.
    pub(crate) async fn pass_over(self, proxy: &Proxy) {
        match self {
            Self::Cut(ending) => proxy.cut(ending),
            Self::While(mode) => {
                proxy.set(mode);
                tokio::time::sleep(FAULT).await;
                proxy.set(Mode::Pass);
            }
        }
    }
}

async fn go_on(fixture: &Fixture, traffic: &Traffic) {
    traffic.commits_more(50).await;
    fixture.wait_published_upto(fixture.drawn().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_network_to_postgresql() {
    mostly_waits();
    let fixture = Fixture::new("network_postgresql").await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    let proxy = Proxy::before(postgres().port());
    let relay = RelayProcess::start(&fixture.through(&proxy), &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    break_in_every_way(&proxy, &fixture, &traffic).await;
    relay.wait_until_it_says("the session ended").await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_network_to_kafka() {
    mostly_waits();
    let fixture = Fixture::new("network_kafka").await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    let proxied = fixture.with_brokers(kafka().proxied_brokers());
    let relay = RelayProcess::start(&proxied, &["--shards", "2", "-X", "socket.timeout.ms=5000"]);
    relay.wait_until_it_says("relaying").await;
    // Whether librdkafka speaks of an interruption this short depends on when it meets it;
    // `crash::kafka_killed_and_started_again` makes sure that an outage is said.
    break_in_every_way(&kafka().proxy, &fixture, &traffic).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// A connection is made, and the network is gone before the first answers: nobody hangs up, and there is no
/// lease yet that could run out. Each of these tables is read while a session is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_gets_no_answer_while_it_is_opened_is_given_up() {
    let mut proxied = Vec::new();
    for (capture, table) in [
        (Capture::Poll, "capture"),
        (Capture::Poll, "parked"),
        (Capture::Poll, "instance"),
        (Capture::Wal, "adopted"),
    ] {
        let fixture = Fixture::new(&format!("network_{table}")).await.captured_by(capture);
        let proxy = Proxy::before(postgres().port());
        let mut relayed = fixture.through(&proxy);
        relayed.database_url += "?connect_timeout=3";
        let relay = RelayProcess::start(&relayed, &["--capture", capture.name()]);
        relay.wait_until_it_says(capture.words()).await;
        proxied.push((fixture, proxy, relay, table));
    }
    let trials = proxied.into_iter().map(|(fixture, proxy, relay, table)| {
        tokio::spawn(
            async move { lose_the_network_while_opening(&fixture, &proxy, relay, table).await },
        )
    });
    for trial in trials.collect::<Vec<_>>() {
        trial.await.expect("the session is given up");
    }
}

async fn lose_the_network_while_opening(
    fixture: &Fixture,
    proxy: &Proxy,
    relay: RelayProcess,
    table: &str,
) {
    proxy.set(Mode::Refuse);
    // The proxy's connections look at what holds now: what held for a moment they may not see.
    relay.wait_until_it_says("connection lost").await;
    // Whatever the next session asks for waits for the table.
    let mut client = fixture.client().await;
    let lock = client.transaction().await.expect("a transaction begins");
    let locked = lock.batch_execute(&format!("lock table postrider.{table}")).await;
    locked.expect("the superuser may");
    proxy.set(Mode::Pass);
    let waits = "select from pg_locks join pg_stat_activity using (pid)
        where not granted and relation = $1::text::regclass and backend_start > now()";
    let name = format!("postrider.{table}");
    let patience = Patience::until("the relay waits for the table");
    while lock.query(waits, &[&name]).await.expect("locks are listed").is_empty() {
        patience.pause().await;
        // A transaction sees the same activity again, unless told otherwise.
        lock.query("select pg_stat_clear_snapshot()", &[]).await.expect("the session lives");
    }
    proxy.set(Mode::HalfOpen);
    lock.rollback().await.expect("the session lives");
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.set(Mode::Pass);
    relay.wait_until_it_says("no answer").await;
    insert_event(&client, "aggregate", 1).await;
    fixture.wait_published().await;
    relay.stop_well().await;
}

/// Whoever waits for the lock to begin with messages says nothing in between: it would fail as the attempt does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_while_a_lock_is_waited_for() {
    let fixture = Fixture::new("network_slow_lock").await;
    let proxy = Proxy::before(postgres().port());
    let client = fixture.client().await;
    let lock = "begin; lock table postrider.log_reader in exclusive mode";
    client.batch_execute(lock).await.expect("the lock is free");
    let mut relay = RelayProcess::start(&fixture.through(&proxy), &["--capture", "message"]);
    // It has said nothing by then, as it waits.
    tokio::time::sleep(Duration::from_secs(5)).await;
    proxy.set(Mode::Slow { pause: Duration::from_millis(80), piece_bytes: 16 * 1024 });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(relay.ended(), None, "{}", relay.said());
    proxy.set(Mode::Pass);
    client.batch_execute("commit").await.expect("it ends");
    relay.wait_until_it_says("capture mode changed").await;
    relay.stop_well().await;
}
