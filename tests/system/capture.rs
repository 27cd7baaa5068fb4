//! `postrider capture` where something is in its way: what it refuses, and in which words.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::servers::kafka;
use crate::support::{Fixture, Patience, RelayProcess, read_topic, start_postgres};

/// What the command ends with, and all that it says.
fn capture(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().arg("capture").args(arguments).output();
    let output = output.expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Checks how a command ends, and that it says all of this.
#[track_caller]
fn assert_says(fixture: &Fixture, arguments: &[&str], code: i32, words: &[&str]) {
    let (ended, said) = capture(fixture, arguments);
    assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
}

/// How many slots the server has for this database.
async fn slots(client: &Client) -> i64 {
    let count = "select count(*) from pg_replication_slots where database = current_database()";
    client.query_one(count, &[]).await.expect("slots are listed").get(0)
}

async fn wait_for_slots(client: &Client, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while slots(client).await != count {
        assert!(Instant::now() < deadline, "{} slots, not {count}", slots(client).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Waits until so many orders are in their topic.
async fn wait_for_records(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = read_topic(&fixture.brokers, &fixture.topic("order")).len();
        if found >= count {
            return assert_eq!(found, count);
        }
        assert!(Instant::now() < deadline, "{found} records of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One who writes a message that is no event writes many: they are said now and then, with their count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_no_events_do_not_flood_the_log() {
    let fixture = Fixture::new("capture_early").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    let write = "select pg_logical_emit_message(false, 'postrider.outbox', 'early')
        from generate_series(1, 9)";
    client.batch_execute(write).await.expect("anybody may write it");
    client
        .batch_execute("select postrider.emit('order', 'a', 'Placed', '{}')")
        .await
        .expect("one more");
    relay.wait_until_it_says("\"count\":8").await;
    // What comes behind the ninth is published: the ninth has been read.
    wait_for_records(&fixture, 1).await;
    let said = relay.said();
    assert_eq!(said.matches("a message that is not transactional").count(), 4, "{said}");
    relay.stop_well().await;
}

/// Nobody reads a slot for messages in the other modes: it is shown, and dropped, not kept for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_messages_does_not_stay_behind() {
    let fixture = Fixture::new("capture_left").await;
    let client = fixture.client().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    assert_says(&fixture, &["switch", "poll", "--no-wait"], 0, &["from message to poll"]);
    assert_says(&fixture, &["show"], 0, &["capture     poll", "postrider_", "waiting"]);
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("the slot that is not read any more was dropped").await;
    assert_eq!(slots(&client).await, 0);
    relay.stop_well().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    assert_says(&fixture, &["switch", "poll"], 0, &["the slot is dropped"]);
    assert_eq!(slots(&client).await, 0);
}

/// A slot whose maker was killed while it waited is dropped as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_whose_maker_was_killed_does_not_stay_behind() {
    let fixture = Fixture::new("capture_killed").await;
    let (client, open) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;

    execute(&open, "begin; select pg_current_xact_id()").await;
    let mut command = fixture.command();
    let mut maker = command.args(["capture", "switch", "message"]).spawn().expect("it runs");
    wait_for_slots(&client, 1).await;
    maker.kill().expect("it is ours to kill");
    maker.wait().expect("it is ours to wait for");
    execute(&open, "commit").await;
    wait_for_slots(&client, 0).await;

    execute(&open, "begin; select pg_current_xact_id()").await;
    assert_says(&fixture, &["switch", "wal", "--no-wait"], 0, &["from poll to wal"]);
    wait_for_slots(&client, 1).await;
    relay.kill();
    assert_says(&fixture, &["switch", "poll", "--no-wait"], 0, &["from wal to poll"]);
    execute(&open, "commit").await;
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;
    wait_for_slots(&client, 0).await;
    relay.stop_well().await;
}

const EMIT: &str = "select postrider.emit('order', 'a', 'Placed', '{}')";
const DROP: &str = "select pg_drop_replication_slot(slot_name) from postrider.capture_slot";

/// What `run` ends with, and what it says.
fn run(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().arg("run").args(arguments).output().expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// To accept a loss gives up what a lost slot had kept. Where nothing is lost, nothing is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_a_loss_gives_up_nothing_that_is_there() {
    let fixture = Fixture::new("capture_accept").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    execute(&client, EMIT).await;
    let rows = &["rows of the table are not published yet", "--capture poll"];
    assert_says(&fixture, &["switch", "message", "--accept-loss"], 3, rows);
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;

    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    execute(&client, EMIT).await;
    assert_says(&fixture, &["switch", "message", "--accept-loss"], 0, &["nothing is lost"]);
    let messages = &["messages in the log are not published yet", "--capture message"];
    assert_says(&fixture, &["switch", "poll", "--accept-loss"], 3, messages);
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_records(&fixture, 2).await;
    // Nobody else can look into a slot that is read.
    let read = &["reads the messages", "stop writers and relays"];
    assert_says(&fixture, &["switch", "poll"], 3, read);
    relay.stop_well().await;
}

/// What a slot had kept is lost with it: no change of any kind passes over that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_lost_are_told_of() {
    let fixture = Fixture::new("capture_lost").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    execute(&client, EMIT).await;
    execute(&client, DROP).await;
    let lost = "messages since the last one that was published are lost: the slot is gone";
    for (to, way) in [("poll", ""), ("poll", "--dry-run"), ("wal", ""), ("message", "")] {
        let remedy = format!("capture switch {to} --accept-loss");
        let arguments: Vec<&str> =
            ["switch", to, way].into_iter().filter(|part| !part.is_empty()).collect();
        assert_says(&fixture, &arguments, 4, &[lost, &remedy]);
    }
    for way in ["poll", "message"] {
        let (ended, said) = run(&fixture, &["--capture", way]);
        assert_eq!(ended, Some(4), "{said}");
        assert!(said.contains(lost) && said.contains("--accept-loss"), "{said}");
    }
    let anew = &["a new slot is there"];
    assert_says(&fixture, &["switch", "message", "--accept-loss"], 0, anew);
    // Nobody reads yet, and what is written is kept.
    execute(&client, EMIT).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_records(&fixture, 1).await;
    relay.stop_well().await;
    execute(&client, DROP).await;
    assert_says(&fixture, &["switch", "poll", "--accept-loss"], 0, &["the slot is dropped"]);
}

/// In the words of a lost slot, and not in those of PostgreSQL, which cannot look into one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_whose_slot_was_invalidated_are_told_of() {
    let postgres = start_postgres(&[("max_slot_wal_keep_size", "1MB")]);
    let (admin, url) = (postgres.url("postgres"), postgres.url("capture_invalid"));
    let brokers = kafka().brokers();
    let fixture = Fixture::on("capture_invalid", &admin, url, brokers).await;
    let client = fixture.client().await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    execute(&client, EMIT).await;
    for _ in 0..3 {
        execute(
            &client,
            "create table if not exists filler (a int); insert into filler values (1)",
        )
        .await;
        execute(&client, "select pg_switch_wal()").await;
        execute(&client, "checkpoint").await;
    }
    let lost = "are lost: the server has thrown away what the slot needs";
    assert_says(&fixture, &["switch", "poll"], 4, &[lost, "switch poll --accept-loss"]);
    assert_says(&fixture, &["show"], 0, &[": lost"]);
    assert_says(&fixture, &["switch", "poll", "--accept-loss"], 0, &["the slot is dropped"]);
    assert_eq!(slots(&client).await, 0);
}

/// Of two commands at once one makes the slot; the other leaves it alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_begin_with_messages_one_does() {
    let fixture = Fixture::new("capture_two").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let (client, open) = (fixture.client().await, fixture.client().await);
    execute(&open, "begin; select pg_current_xact_id()").await;
    let relays = [
        RelayProcess::start(&fixture, &["--capture", "message"]),
        RelayProcess::start(&fixture, &["--capture", "message"]),
    ];
    wait_for_slots(&client, 1).await;
    let busy = &["the slot is read or made by another session"];
    assert_says(&fixture, &["switch", "message"], 3, busy);
    execute(&open, "commit").await;
    let mode = "select from postrider.capture where mode = 'message'";
    let patience = Patience::until("messages are read");
    while client.query(mode, &[]).await.expect("the mode is there").is_empty() {
        patience.pause().await;
    }
    execute(&client, EMIT).await;
    wait_for_records(&fixture, 1).await;
    for relay in relays {
        relay.stop_well().await;
    }
}

/// Where the fixture's database is for a role whose password is known.
fn as_role(fixture: &Fixture, role: &str) -> String {
    let (head, tail) = fixture.database_url.split_once("//").expect("it is a URL");
    let (_, server) = tail.split_once('@').expect("the user is named");
    format!("{head}//{role}:known@{server}")
}

/// The fixture as a role sees it that may do what a relay has to, but has no attribute of its own.
async fn as_relay(fixture: &Fixture) -> Fixture {
    let client = fixture.client().await;
    execute(&client, include_str!("../../sql/roles.sql")).await;
    let role = format!("{}_relay", fixture.name);
    execute(
        &client,
        &format!("create role {role} login password 'known'; grant postrider_relay to {role}"),
    )
    .await;
    let database_url = as_role(fixture, &role);
    Fixture { database_url, ..fixture.clone() }
}

const WRITE: &str = "insert into outbox (aggregatetype, aggregateid, type, payload)
    values ('order', 'a', 'Placed', '{}')";

/// A role without the attribute is known before anything is changed, and no instance meets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_read_the_log_is_told_before() {
    let fixture = Fixture::new("capture_role").await;
    let relays = as_relay(&fixture).await;
    let client = fixture.client().await;
    let lacks = &["not by capture_role_relay", "alter role capture_role_relay replication"][..];
    let check = |arguments: &[&str], code: i32| {
        let output = relays.command().arg("check").args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    let said = check(&[], 0);
    assert!(said.contains("\u{2714} capture       poll: the table is read\n"), "{said}");
    for way in ["wal", "message"] {
        let (ended, said) = run(&relays, &["--capture", way]);
        assert_eq!(ended, Some(4), "{said}");
        assert!(lacks.iter().all(|words| said.contains(words)), "{said}");
        let said = check(&["--capture", way], 4);
        assert!(lacks.iter().all(|words| said.contains(words)), "{said}");
    }
    let relay = RelayProcess::start(&relays, &[]);
    relay.wait_until_it_says("relaying").await;
    for to in ["wal", "message"] {
        assert_says(&fixture, &["switch", to, "--dry-run"], 4, lacks);
        assert_says(&fixture, &["switch", to], 4, lacks);
    }
    // Whoever makes the slot for messages needs the attribute, too.
    execute(&client, "create role capture_role_owner login password 'known'").await;
    execute(&client, "grant postrider_relay to capture_role_owner").await;
    execute(&client, "alter role capture_role_relay replication").await;
    let database_url = as_role(&fixture, "capture_role_owner");
    let other = Fixture { database_url, ..fixture.clone() };
    for arguments in [&["switch", "wal", "--dry-run"][..], &["switch", "wal"]] {
        assert_says(&other, arguments, 4, &["does not own", "as the owner of the outbox"]);
    }
    assert_says(&other, &["switch", "message", "--dry-run"], 4, &["not by capture_role_owner"]);
    let nothing = "select from postrider.capture, postrider.capture_slot
        where mode = 'poll' and slot_name is null and not exists (select from pg_publication)";
    assert!(client.query_opt(nothing, &[]).await.expect("it answers").is_some());
    execute(&client, WRITE).await;
    fixture.wait_published().await;
    // The owner, who may not read the log, switches there and back: the instance makes the slot, and drops it.
    execute(&client, "alter table outbox owner to capture_role_owner").await;
    let lacks = &["may not create in the database", "grant create on database"][..];
    assert_says(&other, &["switch", "wal", "--dry-run"], 4, lacks);
    let create = format!("grant create on database {} to capture_role_owner", fixture.name);
    execute(&client, &create).await;
    assert_says(&other, &["switch", "wal", "--dry-run"], 0, &["can be switched"]);
    assert_says(&other, &["switch", "wal"], 0, &["the log is read"]);
    assert_says(&other, &["switch", "poll"], 0, &["the slot is dropped"]);
    relay.stop_well().await;
}

/// Instances that may not read the log poll the table until they may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_may_not_read_the_log_publishes_on() {
    let fixture = Fixture::new("capture_tier").await;
    let relays = as_relay(&fixture).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&relays, &[]);
    relay.wait_until_it_says("relaying").await;
    execute(&client, "update postrider.capture set mode = 'wal'").await;
    relay.wait_until_it_says("the table is polled until it can").await;
    execute(&client, WRITE).await;
    fixture.wait_published().await;
    execute(&client, "alter role capture_tier_relay replication").await;
    // The publication is the owner's to make.
    relay.wait_until_it_says("capture switch wal` as the owner").await;
    assert_says(&fixture, &["switch", "wal"], 0, &["by wal already"]);
    relay.wait_until_it_says("reading the log").await;
    execute(&client, WRITE).await;
    fixture.wait_published().await;

    execute(&client, "alter role capture_tier_relay noreplication").await;
    execute(
        &client,
        "select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = current_database()",
    )
    .await;
    relay.wait_until_it_says("alter role").await;
    execute(&client, WRITE).await;
    fixture.wait_published().await;
    execute(&client, "alter role capture_tier_relay replication").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while relay.said().matches("reading the log").count() < 2 {
        assert!(Instant::now() < deadline, "{}", relay.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    relay.stop_well().await;
}

/// A slot of ours that is there already takes the place that it needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_room_for_a_slot_is_told_before() {
    let full = [("max_replication_slots", "1"), ("max_wal_senders", "1")];
    let postgres = start_postgres(&full);
    let (admin, url) = (postgres.url("postgres"), postgres.url("capture_full"));
    let fixture = Fixture::on("capture_full", &admin, url, kafka().brokers()).await;
    let client = fixture.client().await;
    execute(&client, "select pg_create_physical_replication_slot('other')").await;
    let foreign = "select pg_create_physical_replication_slot('postrider_' || oid)
        from pg_database where datname = current_database()";
    let no_room =
        &["all 1 replication slots of the server are in use", "raise max_replication_slots"];
    for to in ["wal", "message"] {
        assert_says(&fixture, &["switch", to], 4, no_room);
    }
    let (ended, said) = run(&fixture, &["--capture", "wal"]);
    assert_eq!(ended, Some(4), "{said}");
    assert!(no_room.iter().all(|words| said.contains(words)), "{said}");
    execute(&client, "select pg_drop_replication_slot('other')").await;
    // One that has the name of ours is shown, and named before anything is changed.
    execute(&client, foreign).await;
    execute(&client, "update postrider.capture set mode = 'wal'").await;
    let shown = &[": foreign", "fix: drop it: select pg_drop_replication_slot('postrider_"];
    assert_says(&fixture, &["show"], 0, shown);
    execute(&client, "update postrider.capture set mode = 'poll'").await;
    assert_says(&fixture, &["switch", "wal"], 4, &["belongs to something else", "drop it"]);
    execute(&client, "select pg_drop_replication_slot(slot_name) from pg_replication_slots").await;
    assert_says(&fixture, &["switch", "message", "--no-wait"], 0, &["the slot is there"]);
    assert_says(&fixture, &["switch", "wal", "--dry-run"], 0, &["can be switched"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_write_what_the_log_needs_is_told_before() {
    let postgres = start_postgres(&[("wal_level", "replica")]);
    let (admin, url) = (postgres.url("postgres"), postgres.url("capture_level"));
    let fixture = Fixture::on("capture_level", &admin, url, kafka().brokers()).await;
    let needs = &["needs wal_level = logical; the server has replica", "restart the server"];
    assert_says(&fixture, &["switch", "wal"], 4, needs);
    let (ended, said) = run(&fixture, &["--capture", "wal"]);
    assert_eq!(ended, Some(4), "{said}");
    assert!(needs.iter().all(|words| said.contains(words)), "{said}");
    // By hand all the same: the table is polled.
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;
    execute(&client, "update postrider.capture set mode = 'wal'").await;
    relay.wait_until_it_says("the table is polled until it can").await;
    execute(&client, WRITE).await;
    fixture.wait_published().await;
    assert_says(&fixture, &["show"], 0, &["capture     wal", "missing"]);
    relay.stop_well().await;
}

/// One slot serves one way of reading: the reader of rows gives it up first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_rows_in_the_log_to_messages_nothing_is_lost_or_sent_twice() {
    let fixture = Fixture::new("capture_reader").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    wait_until_read(&fixture);
    execute(&client, EMIT).await;
    fixture.wait_published().await;
    assert_says(&fixture, &["switch", "message", "--dry-run"], 0, &["from wal to message"]);
    let kept = ["capture     wal", ": read by backend", "of the log for it", "behind"];
    assert_says(&fixture, &["show"], 0, &kept);
    let status = fixture.command().arg("status").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && kept.iter().all(|words| said.contains(words)), "{said}");

    // A flag counts at the start alone: the relay follows, and does not take the way back by itself.
    let sessions = |relay: &RelayProcess| relay.said().matches("\"relaying\"").count();
    let before = sessions(&relay);
    assert_says(&fixture, &["switch", "poll"], 0, &["the slot is dropped"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while sessions(&relay) == before {
        assert!(Instant::now() < deadline, "{}", relay.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_says(&fixture, &["show"], 0, &["capture     poll"]);
    assert_says(&fixture, &["switch", "wal"], 0, &["the log is read"]);

    // Killed anywhere, a switch leaves a way of reading that the relay follows.
    let mut written = 1;
    for delay_ms in [0, 250, 700, 1_100] {
        let mut command = fixture.command();
        let mut killed = command.args(["capture", "switch", "message"]).spawn().expect("it runs");
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        killed.kill().expect("it is ours to kill");
        killed.wait().expect("it is ours to wait for");
        execute(&client, EMIT).await;
        written += 1;
        wait_for_records(&fixture, written).await;
        if capture(&fixture, &["show"]).1.contains("capture     message") {
            break;
        }
        assert_says(&fixture, &["switch", "wal"], 0, &[]);
        wait_until_read(&fixture);
    }
    assert_says(&fixture, &["switch", "message"], 0, &[]);
    execute(&client, EMIT).await;
    wait_for_records(&fixture, written + 1).await;
    assert_says(&fixture, &["show"], 0, &["capture     message"]);
    relay.stop_well().await;
    wait_for_records(&fixture, written + 1).await;
}

fn wait_until_read(fixture: &Fixture) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !capture(fixture, &["show"]).1.contains(": read by backend") {
        assert!(Instant::now() < deadline, "{}", capture(fixture, &["show"]).1);
    }
}
