//! Slots that are lost, advanced, or left behind, and publications that are made again.

use std::time::{Duration, Instant};

use postrider_testkit::audit::Fate;
use postrider_testkit::servers::Postgres;
use tokio_postgres::Client;

use super::{LOG, Trial, outlets, start_relay};
use crate::support::fixture::{NO_PUBLICATION_VERSION, server_version};
use crate::support::servers::kafka;
use crate::support::writer::{Inserted, write_event};
use crate::support::{Capture, Fixture, History, Load, RelayProcess, start_postgres};

const POSTGRES_EXIT_CODE: i32 = 4;
/// One segment of the log.
const KEPT: &[(&str, &str)] = &[("max_slot_wal_keep_size", "16MB"), ("wal_keep_size", "0")];
const PATIENCE: Duration = Duration::from_secs(60);

/// Ten events of one aggregate.
async fn write(client: &Client, capture: Capture, first: u64) -> Vec<Inserted> {
    let mut written = Vec::new();
    for number in first..first + 10 {
        written.push(write_event(client, capture, "aggregate", number).await);
    }
    written
}

/// Fills segments of the log until the server throws away what the slot needs.
async fn lose_slot(postgres: &Postgres, client: &Client) {
    let admin = crate::support::fixture::connect(&postgres.url("postgres")).await;
    let status = "select wal_status from pg_replication_slots where database = current_database()";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.query_one(status, &[]).await.expect("the slot is listed");
        if found.get::<_, Option<&str>>(0) == Some("lost") {
            return;
        }
        assert!(Instant::now() < deadline, "the slot is never lost");
        for _ in 0..2 {
            let fill = "select pg_logical_emit_message(false, 'filler', 'x'), pg_switch_wal()";
            admin.execute(fill, &[]).await.expect("the superuser may");
        }
        admin.batch_execute("checkpoint").await.expect("the superuser may");
    }
}

fn switch(fixture: &Fixture, arguments: &[&str]) -> String {
    let command = fixture.command().args(["capture", "switch"]).args(arguments).output();
    let output = command.expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The relay must refuse to go on, and say what is lost and what to do.
async fn refuses(fixture: &Fixture, why: &str) {
    let relay = RelayProcess::start(fixture, &["--capture", "message"]);
    relay.wait_until_it_says("messages since the last one that was published are lost").await;
    let said = relay.said();
    assert!(said.contains(why), "{why} in {said}");
    assert!(said.contains("postrider capture switch message --accept-loss"), "{said}");
    assert_eq!(relay.wait(PATIENCE).await.code(), Some(POSTGRES_EXIT_CODE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_brings_what_a_lost_slot_had_kept() {
    let postgres = start_postgres(KEPT);
    let mut outlets =
        outlets("log_lost", &[Capture::Wal], &postgres, kafka().brokers(), None).await;
    let (fixture, relay) = outlets.remove(0);
    let (client, history) = (fixture.client().await, History::default());
    history.ended(write(&client, fixture.capture, 1).await, Fate::Committed);
    fixture.wait_published().await;
    relay.kill();
    history.ended(write(&client, fixture.capture, 11).await, Fate::Committed);
    lose_slot(&postgres, &client).await;
    history.ended(write(&client, fixture.capture, 21).await, Fate::Committed);
    let relay = start_relay(&fixture, fixture.capture).await;
    assert!(relay.said().contains("the server has thrown away what the slot needs"));
    history.ended(write(&client, fixture.capture, 31).await, Fate::Committed);
    fixture.wait_published().await;
    // Once more, while it is read: its backend is ended by the server.
    relay.signal("STOP");
    lose_slot(&postgres, &client).await;
    history.ended(write(&client, fixture.capture, 41).await, Fate::Committed);
    relay.signal("CONT");
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.committed, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_lost_slot_are_said_to_be_lost() {
    let postgres = start_postgres(KEPT);
    let brokers = kafka().brokers();
    let captures = [Capture::Message];
    let mut outlets = outlets("log_lost", &captures, &postgres, brokers, None).await;
    let (fixture, relay) = outlets.remove(0);
    let (client, history) = (fixture.client().await, History::default());
    history.ended(write(&client, fixture.capture, 1).await, Fate::Committed);
    fixture.wait_published().await;
    relay.kill();
    let lost = write(&client, fixture.capture, 11).await.len() as u64;
    lose_slot(&postgres, &client).await;
    refuses(&fixture, "the server has thrown away what the slot needs").await;
    let mut switched = fixture.command();
    let switched = switched.args(["capture", "switch", "message"]).output().expect("it runs");
    assert_eq!(switched.status.code(), Some(POSTGRES_EXIT_CODE), "nothing is lost by mistake");
    refuses(&fixture, "the server has thrown away what the slot needs").await;
    assert!(switch(&fixture, &["message", "--accept-loss"]).contains("is given up"));
    let relay = start_relay(&fixture, fixture.capture).await;
    history.ended(write(&client, fixture.capture, 11 + lost).await, Fate::Committed);
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.committed, 20, "{lost} are lost");
}

const ADVANCE: &str = "select pg_replication_slot_advance(slot_name, pg_current_wal_lsn())
    from postrider.capture_slot";
const REMAKE_PUBLICATION: &str = "drop publication postrider;
    create publication postrider for table outbox with (publish = 'insert')";
const REMAKE_MESSAGES: &str = "drop publication postrider_messages;
    create publication postrider_messages with (publish = 'insert')";

/// Nobody reads while it happens.
async fn stop_and_break(history: &History, fixture: &Fixture, first: u64, how: &str) {
    let relay = start_relay(fixture, fixture.capture).await;
    let client = fixture.client().await;
    history.ended(write(&client, fixture.capture, first).await, Fate::Committed);
    fixture.wait_published().await;
    relay.stop_well().await;
    history.ended(write(&client, fixture.capture, first + 10).await, Fate::Committed);
    client.batch_execute(how).await.expect(how);
    history.ended(write(&client, fixture.capture, first + 20).await, Fate::Committed);
}

async fn go_on_and_audit(history: &History, fixture: &Fixture) {
    let relay = start_relay(fixture, fixture.capture).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_moved_while_nobody_read_is_healed() {
    let fixture = Fixture::new("log_moved").await.captured_by(Capture::Wal);
    let history = History::default();
    stop_and_break(&history, &fixture, 1, ADVANCE).await;
    stop_and_break(&history, &fixture, 101, REMAKE_PUBLICATION).await;
    stop_and_break(&history, &fixture, 201, "drop publication postrider").await;
    go_on_and_audit(&history, &fixture).await;
}

/// The server ends the stream when it comes to a row for which there was no publication.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_dropped_under_the_stream_is_made_anew() {
    let fixture = Fixture::new("log_publication_dropped").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, fixture.capture).await;
    let trial = Trial::begin((fixture, relay), Load { writers: 2, ..Load::FULL }).await;
    let client = trial.fixture.client().await;
    for _ in 0..4 {
        trial.go_on().await;
        client.batch_execute("drop publication postrider").await.expect("the superuser may");
        trial.go_on().await;
        wait_until_read(&client).await;
    }
    trial.finish().await;
}

async fn wait_until_read(client: &Client) {
    let read = "select from pg_replication_slots
        where database = current_database() and active and exists (select from pg_publication)";
    let deadline = Instant::now() + PATIENCE;
    while client.query(read, &[]).await.expect("slots are listed").is_empty() {
        assert!(Instant::now() < deadline, "the slot is not read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_do_not_depend_on_their_publication() {
    let fixture = Fixture::new("log_publication").await.captured_by(Capture::Message);
    let history = History::default();
    stop_and_break(&history, &fixture, 1, REMAKE_MESSAGES).await;
    stop_and_break(&history, &fixture, 101, "drop publication postrider_messages").await;
    let relay = start_relay(&fixture, fixture.capture).await;
    let client = fixture.client().await;
    client.batch_execute(REMAKE_MESSAGES).await.expect("the superuser may");
    history.ended(write(&client, fixture.capture, 201).await, Fate::Committed);
    fixture.wait_published().await;
    relay.stop_well().await;
    go_on_and_audit(&history, &fixture).await;
    // A slot that was moved has skipped some.
    client.batch_execute(ADVANCE).await.expect("the superuser may");
    refuses(&fixture, "the slot is ahead of what was published").await;
}

/// A change of any table, and the server cannot decode past the moment without a publication, but from
/// PostgreSQL 18 on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_behind_a_moment_without_publication_are_said_to_be_lost() {
    let fixture = Fixture::new("log_undecodable").await.captured_by(Capture::Message);
    let history = History::default();
    let change = "drop publication postrider_messages; create table t (n int)";
    stop_and_break(&history, &fixture, 1, change).await;
    let client = fixture.client().await;
    client.batch_execute("insert into t values (1)").await.expect("the table is there");
    client.batch_execute("create publication postrider_messages").await.expect("it is dropped");
    if server_version(&client).await >= NO_PUBLICATION_VERSION {
        return go_on_and_audit(&history, &fixture).await;
    }
    refuses(&fixture, "the publication is missing or was changed").await;
    assert!(switch(&fixture, &["message", "--accept-loss"]).contains("is given up"));
    let relay = start_relay(&fixture, fixture.capture).await;
    history.ended(write(&client, fixture.capture, 101).await, Fate::Committed);
    fixture.wait_published().await;
    relay.stop_well().await;
    // Those that were written while nobody read, and no others.
    let verdict = history.audit(&fixture);
    assert_eq!((verdict.committed, verdict.out_of_order, verdict.invented), (40, 0, 0));
    assert!(verdict.missing <= 20, "{verdict}");
}

/// The log goes on by other tables; the slot keeps little of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_outbox_in_a_busy_database_keeps_no_log_back() {
    const KEPT_BYTES_MAX: i64 = 4 * 1024 * 1024;
    const PIECES: u32 = 12;
    let postgres = start_postgres(&[]);
    let brokers = kafka().brokers();
    let outlets = outlets("log_idle", &LOG, &postgres, brokers, None).await;
    let histories: Vec<History> = outlets.iter().map(|_| History::default()).collect();
    for ((fixture, _), history) in outlets.iter().zip(&histories) {
        let client = fixture.client().await;
        history.ended(write(&client, fixture.capture, 1).await, Fate::Committed);
        client.batch_execute("create table busy (n bigint, pad text)").await.expect("it is new");
    }
    let clients = [outlets[0].0.client().await, outlets[1].0.client().await];
    for _ in 0..PIECES {
        for client in &clients {
            fill(client, 2_000).await;
        }
        for client in &clients {
            wait_until_kept(client, KEPT_BYTES_MAX).await;
        }
    }
    for ((fixture, relay), history) in outlets.into_iter().zip(histories) {
        let client = fixture.client().await;
        history.ended(write(&client, fixture.capture, 11).await, Fate::Committed);
        fixture.wait_published().await;
        relay.kill();
        // What was confirmed while nothing came takes nothing away.
        history.ended(write(&client, fixture.capture, 21).await, Fate::Committed);
        go_on_and_audit_with_repeats(&history, &fixture).await;
    }
}

/// Writes about a kilobyte of the log for each row. The server notes now and then from where on a slot could
/// begin.
async fn fill(client: &Client, rows: i64) {
    let fill = "insert into busy select n, repeat('x', 900) from generate_series(1, $1::bigint) n";
    client.execute(fill, &[&rows]).await.expect("an insert never fails");
    client.batch_execute("checkpoint").await.expect("the superuser may");
}

async fn go_on_and_audit_with_repeats(history: &History, fixture: &Fixture) {
    let relay = start_relay(fixture, fixture.capture).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(fixture);
    assert!(verdict.holds(), "{verdict}");
}

/// Waits until so little is unconfirmed, and so little retained.
async fn wait_until_kept(client: &Client, bytes: i64) {
    let kept = "select greatest(pg_current_wal_lsn() - confirmed_flush_lsn,
            pg_current_wal_lsn() - restart_lsn)::bigint
        from pg_replication_slots where database = current_database()";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found: i64 = client.query_one(kept, &[]).await.expect("the slot is listed").get(0);
        if found < bytes {
            return;
        }
        assert!(Instant::now() < deadline, "{found} bytes of the log are kept");
        // A place that is not worth a step is confirmed with what is written next.
        fill(client, 100).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
