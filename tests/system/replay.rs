//! Published events that are sent once more: all that were chosen, in the order of each aggregate, marked, whoever is
//! killed meanwhile; no faster than asked for; kept from clean-up; and nothing that was not published.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::fixture::Options;
use crate::support::{Consumed, Fixture, RelayProcess, read_topic};

#[track_caller]
fn ask(fixture: &Fixture, arguments: &[&str], code: i32, words: &[&str]) {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
}

/// Events of some aggregates; each one's type is its number.
async fn write(client: &Client, aggregates: i32, count: i32) {
    let sql = format!(
        "select postrider.emit('order', (n % {aggregates})::text, n::text, '{{}}') from generate_series(1, {count}) n"
    );
    client.batch_execute(&sql).await.expect("events are written");
}

fn listed(fixture: &Fixture, replay: i64) -> serde_json::Value {
    let output = fixture.command().args(["replay", "list", "--json"]).output().expect("it runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let replays = list["replays"].as_array().expect("there are some");
    replays.iter().find(|one| one["replay"] == replay).expect("it is listed").clone()
}

async fn wait_for(fixture: &Fixture, replay: i64, is_so: impl Fn(&serde_json::Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let found = listed(fixture, replay);
        if is_so(&found) {
            return;
        }
        assert!(Instant::now() < deadline, "it stays so: {found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_until_done(fixture: &Fixture, replay: i64) {
    wait_for(fixture, replay, |found| found["state"] == "done").await;
}

fn number(record: &Consumed) -> i32 {
    let text = std::str::from_utf8(record.header("type").expect("it has one")).expect("as text");
    text.parse().expect("it is a number")
}

/// The numbers of the records that bear the mark, as each first appears, in order by aggregate.
fn first_appearances(records: &[Consumed], mark: &str) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for record in records {
        if record.header("postrider.replay") != Some(mark.as_bytes()) {
            continue;
        }
        let numbers = found.entry(record.key_text().to_owned()).or_default();
        let number = number(record);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    found
}

#[track_caller]
fn assert_whole(fixture: &Fixture, topic: &str, mark: &str, expected: impl Iterator<Item = i32>) {
    let found = first_appearances(&read_topic(&fixture.brokers, topic), mark);
    for (key, numbers) in &found {
        assert!(numbers.is_sorted(), "aggregate {key}: {numbers:?}");
    }
    let mut all: Vec<i32> = found.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, expected.collect::<Vec<_>>());
}

/// GIVEN a replay under way by two instances, WHEN one is killed, and then the other, THEN each event of it appears, in
/// order and marked, in a topic of its own, and the topics as before get nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_kills_without_a_gap() {
    let fixture = Fixture::new("replay_kills").await;
    let (own, again) = (fixture.topic("order"), fixture.topic("order.replay"));
    create_topic(&fixture.brokers, &own, 3).await;
    create_topic(&fixture.brokers, &again, 2).await;
    let client = fixture.client().await;
    write(&client, 40, 4_000).await;
    let first = RelayProcess::start(&fixture, &[]);
    let second = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    let replay = ["replay", "--aggregate-type", "order", "--rate", "1500/s"];
    let would = ["4000 events would be sent once more", &again, "nothing was changed"];
    ask(&fixture, &[&replay[..], &["--dry-run"]].concat(), 0, &would);
    ask(&fixture, &replay, 0, &["replay 1: 4000 events will"]);
    // It is about what was committed when it was asked for.
    write(&client, 40, 10).await;
    wait_for(&fixture, 1, |found| found["sent"].as_i64() > Some(300)).await;
    first.kill();
    wait_for(&fixture, 1, |found| found["sent"].as_i64() > Some(1_000)).await;
    second.kill();
    let third = RelayProcess::start(&fixture, &[]);
    wait_until_done(&fixture, 1).await;
    assert_whole(&fixture, &again, "1", 1..=4_000);
    fixture.wait_published().await;
    let before = read_topic(&fixture.brokers, &own);
    assert!(before.iter().all(|record| record.header("postrider.replay").is_none()));
    third.stop_well().await;
}

/// No faster than asked for, and no further than until it is cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_keeps_its_rate_and_ends_when_it_is_cancelled() {
    let fixture = Fixture::new("replay_rate").await;
    let again = fixture.topic("again");
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    create_topic(&fixture.brokers, &again, 1).await;
    let client = fixture.client().await;
    write(&client, 40, 2_000).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    let replay = ["replay", "--seq", "1..1000", "--to-topic", &again, "--rate", "100/s"];
    ask(&fixture, &replay, 0, &["replay 1: 1000 events", &again]);
    wait_for(&fixture, 1, |found| found["sent"].as_i64() > Some(0)).await;
    let (began, before) = (Instant::now(), listed(&fixture, 1)["sent"].as_i64());
    wait_for(&fixture, 1, |found| found["sent"].as_i64() >= before.map(|sent| sent + 200)).await;
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    ask(&fixture, &["replay", "cancel", "1"], 0, &["replay 1 is cancelled"]);
    ask(&fixture, &["replay", "cancel", "1"], 0, &["was cancelled before"]);
    ask(&fixture, &["replay", "cancel", "2"], 3, &["there is no replay 2"]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let sent = read_topic(&fixture.brokers, &again).len();
    assert!((200..900).contains(&sent), "{sent}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read_topic(&fixture.brokers, &again).len(), sent, "nothing more is sent");
    ask(&fixture, &["replay", "list"], 0, &["cancelled", &again]);
    relay.stop_well().await;
}

/// What is parked was not published, and what can be no record is left out; all else goes, also what follows. Here the
/// log is read, and the topic is the one as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_published_is_left_out() {
    let fixture = Fixture::new("replay_parked").await;
    let own = fixture.topic("order");
    create_topic(&fixture.brokers, &own, 2).await;
    let client = fixture.client().await;
    write(&client, 4, 20).await;
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
        values ('order', '1', '21', '{}', '[]'), ('order', '1', '22', '{}', null),
            ('order', 'gone', '23', '{}', '[]'), ('order', 'gone', '24', '{}', null)";
    client.batch_execute(bad).await.expect("it is written");
    // Behind them in their buckets, so that they are in the middle.
    let later = "select postrider.emit('order', 'x' || n, (100 + n)::text, '{}') from generate_series(1, 40) n";
    client.batch_execute(later).await.expect("events are written");
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    ask(
        &fixture,
        &["parked", "discard", "--aggregate", "order/gone", "--reason", "bad-headers"],
        0,
        &["1 event"],
    );
    let follows = "select count(*) from postrider.parked where aggregateid = 'gone'";
    while client.query_one(follows, &[]).await.expect("it answers").get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let since = ["--since", "2026-01-01", "--until", "tomorrow"];
    let replay = [&["replay", "--aggregate-type", "order", "--same-topic"][..], &since].concat();
    ask(&fixture, &replay, 0, &["replay 1: 62 events", &own, "not published: 2 events parked"]);
    wait_until_done(&fixture, 1).await;
    assert_whole(&fixture, &own, "1", (1..=20).chain([24]).chain(101..=140));
    assert_eq!(listed(&fixture, 1)["left_out"], 1, "the one that was discarded");

    // One by its id, one by its aggregate, and by types of events.
    let id = "select id::text from outbox where type = '7'";
    let id: String = client.query_one(id, &[]).await.expect("it is there").get(0);
    ask(&fixture, &["replay", "--event", &id, "--same-topic"], 0, &["replay 2: 1 event"]);
    let types = ["replay", "--aggregate", "order/2", "--type", "2", "--type", "10", "--same-topic"];
    ask(&fixture, &types, 0, &["replay 3: 2 events"]);
    wait_until_done(&fixture, 2).await;
    wait_until_done(&fixture, 3).await;
    assert_whole(&fixture, &own, "2", 7..=7);
    assert_whole(&fixture, &own, "3", [2, 10].into_iter());
    // What is parked is where it was.
    ask(&fixture, &["parked", "list"], 0, &["bad-headers", "follows", "order/1"]);
    for (arguments, words) in [
        (&["--event", "018f4e6a-5b1c-7def-8a00-0123456789ab"][..], "no retained event"),
        (&["--since", "soon"], "--since or --until"),
        (&["--seq", "9..5"], "the lower one first"),
    ] {
        let output = fixture.command().arg("replay").args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    relay.stop_well().await;
    client
        .batch_execute("update postrider.capture set mode = 'message'")
        .await
        .expect("the owner may");
    ask(&fixture, &["replay", "--type", "1"], 3, &["no table retains them"]);
}

/// GIVEN two replays that are slow, WHEN more are asked for, THEN these are sent meanwhile, also one of a type with a slash
/// in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_slow_holds_up_no_other() {
    let fixture = Fixture::new("replay_turns").await;
    let again = fixture.topic("again");
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    create_topic(&fixture.brokers, &again, 1).await;
    let client = fixture.client().await;
    write(&client, 40, 200).await;
    let slashed = "select postrider.emit('shop/order', '7', '201', '{}'), postrider.emit('shop', 'order/7', '202', '{}')";
    client.batch_execute(slashed).await.expect("it is written");
    let relay = RelayProcess::start(&fixture, &["--topic", &fixture.topic("order")]);
    fixture.wait_published().await;
    let slow = ["--seq", "1..200", "--rate", "1/s"];
    for (chosen, said) in [
        (&slow[..], "replay 1: 200 events"),
        (&slow[..], "replay 2: 200 events"),
        (&["--seq", "1..200"][..], "replay 3: 200 events"),
        (&["--aggregate-type", "shop/order", "--aggregate-id", "7"][..], "replay 4: 1 event"),
        (&["--aggregate", "shop/order/7"][..], "replay 5: 1 event"),
    ] {
        let arguments = [&["replay", "--to-topic", &again], chosen].concat();
        ask(&fixture, &arguments, 0, &[said]);
    }
    for done in [3, 4, 5] {
        wait_until_done(&fixture, done).await;
    }
    assert!(listed(&fixture, 1)["sent"].as_i64() < Some(150), "the first one is at it still");
    assert_whole(&fixture, &again, "3", 1..=200);
    assert_whole(&fixture, &again, "4", 201..=201);
    assert_whole(&fixture, &again, "5", 202..=202);
    for cancelled in ["1", "2"] {
        ask(&fixture, &["replay", "cancel", cancelled], 0, &["is cancelled"]);
    }
    let two = ["--aggregate-type", "a", "--aggregate-type", "b", "--aggregate-id", "7"];
    ask(&fixture, &[&["replay"][..], &two].concat(), 3, &["belongs to one --aggregate-type"]);
    ask(&fixture, &["replay", "--aggregate", "shop/x/7"], 0, &["a type with a slash"]);
    relay.stop_well().await;
}

/// Clean-up waits for a replay, and for no other; afterwards what is gone is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_up_waits_for_a_replay() {
    let options = Options { buckets: 2, generation_seconds: 1, ..Options::default() };
    let fixture = Fixture::with("replay_retention", options).await;
    let again = fixture.topic("order.replay");
    create_topic(&fixture.brokers, &fixture.topic("order"), 1).await;
    create_topic(&fixture.brokers, &again, 1).await;
    let client = fixture.client().await;
    write(&client, 6, 60).await;
    let said = ["replay 1: 60 events", "no instance of postrider runs"];
    ask(&fixture, &["replay", "--seq", "1..", "--rate", "8/s"], 0, &said);
    ask(&fixture, &["replay", "list"], 0, &["waits", "no instance of postrider runs"]);
    let relay = RelayProcess::start(&fixture, &["--replay-window", "0s"]);
    wait_until_done(&fixture, 1).await;
    assert_whole(&fixture, &again, "1", 1..=60);
    let retained = "select count(*) from outbox";
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.query_one(retained, &[]).await.expect("it answers").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "its end lets clean-up go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ask(&fixture, &["replay", "--seq", "1.."], 0, &["no retained event", "retains no event"]);
    write(&client, 1, 1).await;
    ask(&fixture, &["replay", "--seq", "1..", "--dry-run"], 0, &["before seq 61", "cleaned up"]);
    relay.stop_well().await;
}

/// One event that is no text keeps none of the others from being looked at and sent once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_text_is_left_out() {
    let fixture = Fixture::encoded("replay_ascii", "SQL_ASCII", Options::default()).await;
    let client = fixture.client().await;
    write(&client, 2, 6).await;
    let rows = "insert into outbox (aggregatetype, aggregateid, type, payload) values
        (E'k\\xfc', 'b', '7', '{}'), ('order', E'c\\xff', '8', '{}'), ('order', 'd', E'\\xfd', '{}')";
    client.batch_execute(rows).await.expect("an insert never fails");
    let looked = fixture.command().arg("check").output().expect("the binary runs");
    let looked = String::from_utf8_lossy(&[looked.stdout, looked.stderr].concat()).into_owned();
    assert!(!looked.contains("invalid byte sequence"), "{looked}");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let deadline = Instant::now() + Duration::from_secs(90);
    let parked = "select count(*) from postrider.parked where reason = 'unreadable'";
    while client.query_one(parked, &[]).await.expect("it answers").get::<_, i64>(0) < 3 {
        assert!(Instant::now() < deadline, "{}", relay.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fixture.wait_published_upto(6).await;
    ask(&fixture, &["parked", "discard", "--reason", "unreadable"], 0, &[]);
    ask(&fixture, &["replay", "--since", "2020-01-01", "--same-topic"], 0, &["replay 1"]);
    wait_until_done(&fixture, 1).await;
    relay.stop_well().await;
    assert_whole(&fixture, &fixture.topic("order"), "1", 1..=6);
}
