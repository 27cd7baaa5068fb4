//! From one way of reading to another and back in full flight, and out of every gap before a slot.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{Capture, Fixture, History, RelayProcess, Traffic};

/// By the command, which waits until an instance has followed.
fn switch(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = fixture.command().args(["capture", "switch"]).args(arguments).output();
    let output = output.expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn show(fixture: &Fixture) -> String {
    let output = fixture.command().args(["capture", "show"]).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many slots there are; each keeps the log.
async fn slots(client: &Client) -> i64 {
    let count = "select count(*) from pg_replication_slots where database = current_database()";
    client.query_one(count, &[]).await.expect("slots are listed").get(0)
}

/// Waits until the slot is read, or is not there any more. A slot that is being made is in use too.
async fn wait_for_slot(client: &Client, is_read: bool) {
    let looks =
        "select exists (select from pg_replication_slots where database = current_database()
        and slot_name like 'postrider%' and active and confirmed_flush_lsn is not null)";
    for _ in 0..600 {
        if client.query_one(looks, &[]).await.expect("slots are listed").get::<_, bool>(0)
            == is_read
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the slot should be read: {is_read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_in_full_flight_neither_lose_nor_repeat() {
    let fixture = Fixture::new("switches").await;
    let (history, client) = (History::default(), fixture.client().await);
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let relays =
        [RelayProcess::start(&fixture, &["--shards", "2"]), RelayProcess::start(&fixture, &[])];
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let said = switch(&fixture, &["wal"]);
        assert!(said.contains("the log is read, by backend"), "{said}");
        assert!(show(&fixture).contains(": read by backend"), "{}", show(&fixture));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let said = switch(&fixture, &["poll"]);
        assert!(said.contains("the slot is dropped"), "{said}");
        assert!(said.contains("the publication postrider stays"), "{said}");
        assert_eq!(slots(&client).await, 0, "{said}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    traffic.stop().await;
    fixture.wait_published().await;
    for relay in relays {
        relay.stop_well().await;
    }
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_the_middle_of_switches_lose_nothing() {
    let fixture = Fixture::new("switch_kills").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    for round in 0..8_u64 {
        let relay = RelayProcess::start(&fixture, &[]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        switch(&fixture, &[if round % 2 == 0 { "wal" } else { "poll" }, "--no-wait"]);
        tokio::time::sleep(Duration::from_millis(200 * round)).await;
        relay.kill();
    }
    let verdict = traffic.finish([RelayProcess::start(&fixture, &[])], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// Breaks the slot in one way; the reader may hold it. Who makes it is left alone: ended each time, there
/// would be none to break.
async fn break_slot(client: &Client, how: &str) {
    let all = "select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = current_database() and active and confirmed_flush_lsn is not null";
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        client.query(all, &[]).await.expect("the reader's backend can be ended");
        let Err(error) = client.batch_execute(how).await else { return };
        let cause = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        assert!(Instant::now() < deadline, "the slot could not be broken by {how}: {cause}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const DROP: &str = "select pg_drop_replication_slot(slot_name) from postrider.capture_slot";
const MAKE_ANEW: &str = "select pg_drop_replication_slot(slot_name) from postrider.capture_slot;
    select pg_create_logical_replication_slot(slot_name, 'pgoutput') from postrider.capture_slot";
const ADVANCE: &str = "select pg_replication_slot_advance(slot_name, pg_current_wal_lsn())
    from postrider.capture_slot";
const LOSE_PUBLICATION: &str = "drop publication postrider";
const LACK_TABLE: &str = "alter publication postrider drop table outbox";
// In one transaction nobody would ever see that it lacks anything.
const LACK_TABLE_FOR_A_WHILE: &str = "begin;
    alter publication postrider drop table outbox;
    commit;
    select pg_sleep(0.3);
    alter publication postrider add table outbox";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_slot_the_table_brings_what_it_lacks() {
    let fixture = Fixture::new("slot_gaps").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    let client = fixture.client().await;
    wait_for_slot(&client, true).await;
    for how in [DROP, MAKE_ANEW, ADVANCE, LOSE_PUBLICATION, LACK_TABLE, LACK_TABLE_FOR_A_WHILE] {
        break_slot(&client, how).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        wait_for_slot(&client, true).await;
    }
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_waits_for_an_open_transaction_and_polling_goes_on() {
    let fixture = Fixture::new("switch_waits").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let relay = RelayProcess::start(&fixture, &[]);
    let open = fixture.client().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.expect("a transaction opens");
    let mut command = fixture.command();
    command.args(["capture", "switch", "wal"]).stdout(std::process::Stdio::piped());
    let mut switching = command.spawn().expect("the binary runs");
    let said = BufReader::new(switching.stdout.take().expect("it is piped"));
    let waits = tokio::task::spawn_blocking(move || {
        said.lines()
            .map_while(Result::ok)
            .any(|line| line.contains("for older transactions: backend"))
    });
    let waits = tokio::time::timeout(Duration::from_secs(60), waits).await;
    // Killed while it waits: the switch stands.
    switching.kill().expect("the command is ours to kill");
    switching.wait().expect("the command is ours to wait for");
    let waits = waits.expect("the command says something").expect("it reads");
    assert!(waits, "the command never said for whom it waits");
    fixture.wait_published_upto(fixture.drawn().await).await;
    open.batch_execute("commit").await.expect("the transaction ends");
    wait_for_slot(&fixture.client().await, true).await;
    assert!(switch(&fixture, &["wal"]).contains("already"));
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// GIVEN no instance, WHEN the way of reading is changed, THEN nobody is waited for, and the next one reads so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_waits_for_nobody_where_no_instance_runs() {
    let fixture = Fixture::new("switch_alone").await;
    let began = Instant::now();
    assert!(switch(&fixture, &["wal"]).contains("the next one reads the log"));
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_messages_are_not_mixed_up() {
    let fixture = Fixture::new("switch_messages").await;
    let client = fixture.client().await;
    let emit = "select postrider.emit('order', 'a', 'Placed', '{}')";
    client.execute(emit, &[]).await.expect("a row is written");
    let refused = |to: &str| {
        let output = fixture.command().args(["capture", "switch", to, "--dry-run"]).output();
        let output = output.expect("the binary runs");
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("message").contains("rows of the table are not published yet"));
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    switch(&fixture, &["message", "--no-wait"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
    client.execute(emit, &[]).await.expect("a message is written");
    // Neither is an event, and neither stops the others.
    for stray in ["true, 'postrider.outbox', 'garbage'", "false, 'postrider.outbox', 'early'"] {
        let write = format!("select pg_logical_emit_message({stray})");
        client.batch_execute(&write).await.expect("anybody may write it");
    }
    assert!(refused("poll").contains("messages in the log are not published yet"));
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    fixture.clone().captured_by(Capture::Message).wait_published().await;
    relay.stop_well().await;
    switch(&fixture, &["poll"]);
    assert_eq!(slots(&client).await, 0, "nobody reads it any more");
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "poll"]);
    relay.wait_until_it_says("is not read any more was dropped").await;
    relay.stop_well().await;
    assert_eq!(slots(&client).await, 0, "nobody reads it any more");
}
