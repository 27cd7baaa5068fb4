//! A database that is handed over to another server: nothing is lost, nothing comes twice, and a copy that is not what
//! was recorded is refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use postrider_testkit::servers::{KafkaOptions, Postgres};
use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::fixture::{connect, create_database};
use crate::support::servers::postgres;
use crate::support::{Consumed, Fixture, RelayProcess, read_topic, start_kafka, start_postgres};

#[track_caller]
pub(crate) fn ask(fixture: &Fixture, arguments: &[&str], code: i32, words: &str) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: no {words:?} in {said}");
}

pub(crate) async fn write(client: &Client, numbers: std::ops::RangeInclusive<i32>) {
    let (first, last) = numbers.into_inner();
    let sql = format!(
        "select postrider.emit('order', (n % 7)::text, n::text, '{{}}') from generate_series({first}, {last}) as n"
    );
    client.batch_execute(&sql).await.expect("events are written");
}

/// Kinds are numbers: those of one aggregate, in the order of the topic.
fn numbers(records: &[Consumed]) -> Vec<(String, i32)> {
    let number = |one: &Consumed| {
        let text = std::str::from_utf8(one.header("type").expect("it has one")).expect("as text");
        (one.key_text().to_owned(), text.parse::<i32>().expect("it is a number"))
    };
    records.iter().map(number).collect()
}

/// Each once, and those of an aggregate in their order.
pub(crate) fn assert_exact(fixture: &Fixture, expected: &[i32]) {
    let found = numbers(&read_topic(&fixture.brokers, &fixture.topic("order")));
    let mut sorted: Vec<i32> = found.iter().map(|(_, number)| *number).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    for (key, number) in &found {
        let of_key = found.iter().filter(|(other, _)| other == key).map(|(_, number)| *number);
        assert!(of_key.is_sorted(), "{key}, which has {number}");
    }
}

/// A tool of the server's own version; what Maven serves has the server alone, and then it is the one on PATH.
fn tool_of(server: &Postgres, tool: &str) -> PathBuf {
    let own = server.binary_folder().join(tool);
    if own.is_file() { own } else { PathBuf::from(tool) }
}

pub(crate) fn run_tool(server: &Postgres, tool: &str, arguments: &[&str]) {
    let output = Command::new(tool_of(server, tool))
        .args(arguments)
        .output()
        .expect("pg_dump and pg_restore of the server's version lie beside it, or on PATH");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {said}");
}

/// Dumps the database, and restores it on another server.
async fn copy(fixture: &Fixture, other: &Postgres) -> Fixture {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.dump", fixture.name));
    let file = file.to_str().expect("it is text").to_owned();
    let url = fixture.database_url.as_str();
    run_tool(postgres(), "pg_dump", &["--format=custom", "--file", &file, "--dbname", url]);
    create_database(&other.url("postgres"), &fixture.name).await;
    let url = other.url(&fixture.name);
    run_tool(other, "pg_restore", &["--exit-on-error", "--dbname", &url, &file]);
    Fixture { database_url: url, ..fixture.clone() }
}

/// A transaction that has an id, and has written nothing yet.
async fn begun(fixture: &Fixture) -> Client {
    let client = fixture.client().await;
    client.batch_execute("begin; select pg_current_xact_id()").await.expect("it begins");
    client
}

async fn goes_over(name: &str, capture: &str, other: &Postgres) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    write(&client, 1..=300).await;
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
        values ('order', 'bad', '301', '{}', '[]'), ('order', 'bad', '302', '{}', null)";
    client.batch_execute(bad).await.expect("it is written");
    let relay = RelayProcess::start(&fixture, &["--capture", capture]);
    relay.wait_until_it_says(if capture == "wal" { "reading the log" } else { "relaying" }).await;
    ask(&fixture, &["migrate", "handover"], 0, "302 retained events up to seq 302 are recorded");
    relay.stop_well().await;

    let moved = copy(&fixture, other).await;
    // As between two encodings or orders of bytes, where the same text has another hash.
    let elsewhere = "update postrider.parked set bucket = (bucket + 1) % 8";
    moved.client().await.batch_execute(elsewhere).await.expect("the owner may");
    let early = RelayProcess::start(&moved, &[]);
    assert_eq!(early.wait(std::time::Duration::from_secs(30)).await.code(), Some(4));
    // Writers that have begun before, and write behind it: one that a snapshot lists, and one that it does not.
    let first = begun(&moved).await;
    let new = connect(&moved.database_url).await;
    new.batch_execute("select pg_current_xact_id()").await.expect("it ends");
    let second = begun(&moved).await;
    ask(
        &moved,
        &["migrate", "reanchor", "--handover", "--dry-run"],
        0,
        "302 retained events would",
    );
    ask(&moved, &["migrate", "reanchor", "--handover"], 0, "behind 302 retained events");
    ask(&moved, &["migrate", "reanchor", "--handover"], 4, "a record was used up here before");
    write(&new, 303..=400).await;
    for (client, number) in [(first, 401), (second, 402)] {
        write(&client, number..=number).await;
        client.batch_execute("commit").await.expect("it ends");
    }
    ask(&moved, &["resume"], 0, "goes on");
    let relay = RelayProcess::start(&moved, &[]);
    let bad =
        "insert into outbox (aggregatetype, aggregateid, type) values ('order', 'bad', '403')";
    new.batch_execute(bad).await.expect("it is written");
    ask(&moved, &["wait"], 8, "3 events parked");
    let expected: Vec<i32> = (1..=300).chain(303..=402).collect();
    assert_exact(&moved, &expected);

    // What was parked there is mended here, and goes in its order.
    let mended = "update postrider.parked set headers = null where reason = 'bad-headers'";
    new.batch_execute(mended).await.expect("the owner may");
    ask(&moved, &["parked", "retry", "--aggregate", "order/bad"], 0, "3 events");
    moved.wait_published().await;
    let expected: Vec<i32> = (1..=403).collect();
    assert_exact(&moved, &expected);
    relay.stop_well().await;
}

/// GIVEN a polled outbox and one that is read by its log, WHEN they are dumped after a hand-over and restored on a server
/// that knows none of their transactions, THEN each event before and after comes once, and in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_goes_to_another_server_with_no_loss_and_no_repeat() {
    let other = start_postgres(&[("wal_level", "logical")]);
    goes_over("handover_poll", "poll", &other).await;
    goes_over("handover_wal", "wal", &other).await;
}

/// Writers that were not stopped are met, and a copy that holds other events than were recorded is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_after_the_record_is_refused() {
    let fixture = Fixture::new("handover_refused").await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    let client = fixture.client().await;
    let reanchor = ["migrate", "reanchor", "--handover"];
    ask(&fixture, &reanchor, 4, "or none was made");
    write(&client, 1..=5).await;
    ask(&fixture, &["migrate", "handover", "--timeout", "300ms"], 7, "not published in time");
    let relay = RelayProcess::start(&fixture, &[]);
    let open = begun(&fixture).await;
    write(&open, 6..=6).await;
    ask(&fixture, &["migrate", "handover"], 4, "a transaction that has written events is open");
    open.batch_execute("commit").await.expect("it ends");
    // It was nobody's pause but its own: publishing goes on.
    ask(&fixture, &["wait"], 0, "is published");

    ask(&fixture, &["migrate", "handover"], 0, "6 retained events up to seq 6");
    write(&client, 7..=7).await;
    ask(&fixture, &reanchor, 4, "1 retained events were written after");
    client.batch_execute("delete from outbox where seq = 7").await.expect("the owner may");
    let forged = "insert into outbox (seq, aggregatetype, aggregateid, type, payload)
        overriding system value values (0, 'order', '1', '0', '{}')";
    client.batch_execute(forged).await.expect("the owner may");
    ask(&fixture, &reanchor, 4, "retains 7 events here");
    client.batch_execute("delete from outbox where seq = 0").await.expect("the owner may");
    // As many events with the same sum of numbers, and still others.
    let other = "create temp table kept as select seq, id from outbox;
        update outbox set id = gen_random_uuid() where seq = 2";
    client.batch_execute(other).await.expect("the owner may");
    ask(&fixture, &reanchor, 4, "6 events here, and others than");
    let back = "update outbox set id = kept.id from kept where kept.seq = outbox.seq";
    client.batch_execute(back).await.expect("the owner may");
    ask(&fixture, &reanchor, 0, "behind 6 retained events");
    write(&client, 8..=9).await;
    ask(&fixture, &["resume"], 0, "goes on");
    ask(&fixture, &["wait"], 0, "is published");
    assert_exact(&fixture, &[1, 2, 3, 4, 5, 6, 8, 9]);
    relay.stop_well().await;

    let messages = "update postrider.capture set mode = 'message'";
    client.batch_execute(messages).await.expect("the owner may");
    ask(&fixture, &["migrate", "handover"], 4, "capture switch poll");
}

/// GIVEN a relay in mid-traffic, WHEN publishing is paused, the instances are started anew with the brokers of another
/// cluster, and publishing goes on, THEN each event is in one of the two, once, and those of an aggregate in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_on_in_another_kafka_cluster() {
    let (former, kafka) =
        (Fixture::new("handover_kafka").await, start_kafka(KafkaOptions::default()));
    let new = former.with_brokers(kafka.brokers().to_owned());
    for fixture in [&former, &new] {
        create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    }
    let client = former.client().await;
    let relays = [RelayProcess::start(&former, &[]), RelayProcess::start(&former, &[])];
    relays[0].wait_until_it_says("relaying").await;
    write(&client, 1..=3_000).await;
    ask(&former, &["pause", "--reason", "new brokers"], 0, "is acknowledged and saved");
    write(&client, 3_001..=3_200).await;
    for relay in relays {
        relay.stop_well().await;
    }
    let relays = [RelayProcess::start(&new, &[]), RelayProcess::start(&new, &[])];
    for relay in &relays {
        relay.wait_until_it_says("publishing is paused").await;
    }
    ask(&new, &["resume"], 0, "goes on");
    ask(&new, &["wait"], 0, "is published");
    let topic = former.topic("order");
    let mut found = numbers(&read_topic(&former.brokers, &topic));
    let in_former = found.len();
    found.extend(numbers(&read_topic(&new.brokers, &topic)));
    assert!(found.len() > in_former, "the new cluster has the rest");
    for key in 0..7 {
        let of_key = found.iter().filter(|(other, _)| *other == key.to_string());
        assert!(of_key.map(|(_, number)| *number).is_sorted(), "aggregate {key}");
    }
    let mut sorted: Vec<i32> = found.into_iter().map(|(_, number)| number).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=3_200).collect::<Vec<_>>());
    for relay in relays {
        relay.stop_well().await;
    }
}
