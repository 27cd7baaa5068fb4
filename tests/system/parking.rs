//! What cannot be published is set aside in order, and everything else goes on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use postrider_testkit::servers::{KafkaOptions, TopicCreation};
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::consumer::{create_topic, create_topic_with, list_topics, set_topic};
use crate::support::traffic::Load;
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{
    Fixture, History, RelayProcess, Traffic, mostly_waits, read_topic, start_kafka,
};

/// Inserts one event; its type is its number in the test.
pub(crate) async fn insert(
    client: &Client,
    aggregate: (&str, &str),
    number: u32,
    payload_bytes: usize,
) {
    let payload = format!("\"{}\"", "x".repeat(payload_bytes));
    insert_with(client, aggregate, number, &payload, None).await;
}

pub(crate) async fn insert_with(
    client: &Client,
    (aggregate_type, aggregate_id): (&str, &str),
    number: u32,
    payload: &str,
    headers: Option<&str>,
) {
    client
        .execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
             values ($1, $2, $3, $4::text::json, $5::text::jsonb)",
            &[&aggregate_type, &aggregate_id, &number.to_string(), &payload, &headers],
        )
        .await
        .expect("an insert never fails");
}

/// Parked events as type and reason, in the order in which they are tried again.
pub(crate) async fn parked(client: &Client) -> Vec<(String, String)> {
    let sql = "select type, reason from postrider.parked order by turn";
    let rows = client.query(sql, &[]).await.expect("the table answers");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

pub(crate) async fn wait_until_parked(client: &Client, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(kind, reason)| ((*kind).into(), (*reason).into())).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = parked(client).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "parked {found:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until all is published but what is parked.
pub(crate) async fn wait_for_the_rest(fixture: &Fixture) {
    let client = fixture.client().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let sql = "select from postrider.events where not published and not parked limit 1";
    while !client.query(sql, &[]).await.expect("the view answers").is_empty() {
        assert!(Instant::now() < deadline, "{}: not published in time", fixture.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The types of an aggregate's events, each where it is seen first.
pub(crate) fn first_seen(fixture: &Fixture, topic: &str, key: &str) -> Vec<String> {
    let (mut known, mut first) = (HashSet::new(), Vec::new());
    for record in read_topic(&fixture.brokers, topic) {
        let kind = String::from_utf8(record.header("type").expect("it has one").to_vec());
        let kind = kind.expect("it is text");
        if record.key_text() == key && known.insert(kind.clone()) {
            first.push(kind);
        }
    }
    first
}

pub(crate) fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Runs a command to its end; what it answered.
pub(crate) fn ask(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("the answer is text")
}

fn ask_json(fixture: &Fixture, arguments: &[&str]) -> Value {
    serde_json::from_str(&ask(fixture, arguments)).expect("the answer is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_event_holds_its_aggregate_alone_until_the_topic_takes_it() {
    let fixture = Fixture::new("park_large").await;
    let topic = fixture.topic("t");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let client = fixture.client().await;
    for number in 1..=9 {
        insert(&client, ("t", "hot"), number, if number == 4 { 30_000 } else { 100 }).await;
        insert(&client, ("t", "other"), number, 15_000).await;
    }
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    let waits = [("4", "too-large"), ("5", "follows"), ("6", "follows"), ("7", "follows")];
    let waits = [&waits[..], &[("8", "follows"), ("9", "follows")]].concat();
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=3));
    assert_eq!(first_seen(&fixture, &topic, "other"), numbers(1..=9), "nobody else waits");
    assert!(relay.said().contains("an event is parked"), "{}", relay.said());

    // A restart knows what is held.
    assert!(relay.stop().await.success());
    insert(&client, ("t", "hot"), 10, 100).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_until_parked(&client, &[&waits[..], &[("10", "follows")]].concat()).await;

    let listed = ask_json(&fixture, &["parked", "list", "--reason", "too-large", "--json"]);
    assert_eq!(listed["total"], 1, "{listed}");
    let event = &listed["events"][0];
    assert!(event["detail"].as_str().is_some_and(|text| text.contains("takes 20000")), "{event}");
    let shown =
        ask_json(&fixture, &["parked", "show", event["id"].as_str().expect("an id"), "--json"]);
    assert_eq!(shown["payload"].as_str().map(str::len), Some(30_002));
    let status = ask_json(&fixture, &["status", "--json"]);
    assert_eq!(status["parked"]["events"], 7, "{status}");
    assert_eq!(status["unpublished"], 0, "{status}");

    // Nothing has changed: it is parked again, and the attempt counted.
    let retry = ["parked", "retry", "--aggregate", "t/hot"];
    assert!(ask(&fixture, &[&retry[..], &["--dry-run"]].concat()).contains("t/hot: 7 events"));
    assert!(ask(&fixture, &retry).contains("1 aggregate will be tried again"));
    wait_for_attempts(&client, 2).await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=3));

    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    ask(&fixture, &retry);
    fixture.wait_published().await;
    insert(&client, ("t", "hot"), 11, 100).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), numbers(1..=11));
    assert_eq!(ask(&fixture, &["parked", "list"]), "nothing is parked\n");
    let requests = client.query_one("select count(*) from postrider.parked_request", &[]).await;
    assert_eq!(requests.expect("the table answers").get::<_, i64>(0), 0);
    assert!(relay.stop().await.success());
}

/// The client's own limit follows the topic's, and an operator's limit counts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_takes_more_than_others_gets_more() {
    let fixture = Fixture::new("park_more").await;
    let topic = fixture.topic("big");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "3000000")]).await;
    let client = fixture.client().await;
    for number in 1..=3 {
        insert(&client, ("big", "k"), number, if number == 2 { 2_500_000 } else { 10 }).await;
    }
    insert(&client, ("plain", "k"), 4, 1_100_000).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    wait_until_parked(&client, &[("4", "too-large")]).await;
    assert_eq!(first_seen(&fixture, &topic, "k"), numbers(1..=3));
    relay.stop_well().await;
    let relay = RelayProcess::start(&fixture, &["-X", "message.max.bytes=2000000"]);
    insert(&client, ("big", "k"), 5, 2_500_000).await;
    wait_until_parked(&client, &[("4", "too-large"), ("5", "too-large")]).await;
    relay.stop_well().await;
}

pub(crate) async fn wait_for_attempts(client: &Client, attempts: i32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let sql = "select from postrider.parked where attempts = $1";
    while client.query(sql, &[&attempts]).await.expect("the table answers").is_empty() {
        assert!(Instant::now() < deadline, "there were no {attempts} attempts");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_headers_and_illegal_topics_are_parked_and_discarded() {
    let fixture = Fixture::new("park_bad").await;
    let client = fixture.client().await;
    let bad = ("t", "bad");
    insert_with(&client, bad, 1, "{}", None).await;
    insert_with(&client, bad, 2, "{}", Some("[1]")).await;
    insert_with(&client, bad, 3, "{}", None).await;
    insert_with(&client, bad, 4, "{}", Some(r#"{"": 1}"#)).await;
    insert_with(&client, bad, 5, "{}", None).await;
    insert_with(&client, ("no topic!", "k"), 6, "{}", None).await;
    insert_with(&client, ("t", "good"), 7, "{}", None).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    let waits = [
        ("2", "bad-headers"),
        ("3", "follows"),
        ("4", "follows"),
        ("5", "follows"),
        ("6", "illegal-topic"),
    ];
    wait_until_parked(&client, &waits).await;

    let discard = ["parked", "discard", "--reason", "bad-headers"];
    let said = ask(&fixture, &[&discard[..], &["--dry-run"]].concat());
    assert!(said.contains("t/bad") && said.contains("1 event would be discarded"), "{said}");
    assert_eq!(parked(&client).await.len(), 5, "a dry run changes nothing");
    ask(&fixture, &discard);
    // The next goes on by itself, up to the next that cannot.
    wait_until_parked(&client, &[("4", "bad-headers"), ("5", "follows"), ("6", "illegal-topic")])
        .await;
    ask(&fixture, &["parked", "discard", "--all"]);
    wait_until_parked(&client, &[]).await;
    insert_with(&client, bad, 8, "{}", None).await;
    insert_with(&client, bad, 9, "{}", None).await;
    fixture.wait_published().await;
    let expected: Vec<String> = ["1", "3", "8", "9"].map(str::to_owned).to_vec();
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "bad"), expected);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["7"]);
    assert!(relay.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_say_why_and_their_aggregate_goes_on() {
    let fixture = Fixture::new("park_letter").await;
    let letters = fixture.topic("letters");
    create_topic_with(&fixture.brokers, &letters, &[("max.message.bytes", "200000")]).await;
    let client = fixture.client().await;
    insert_with(&client, ("t", "k"), 1, "{}", None).await;
    insert_with(&client, ("t", "k"), 2, r#"{"a":1}"#, Some("7")).await;
    insert_with(&client, ("t", "k"), 3, "{}", None).await;
    // Too large for both.
    insert(&client, ("t", "k"), 4, 1_200_000).await;
    insert_with(&client, ("t", "k"), 5, "{}", None).await;
    let flags = ["--on-poison", "dead-letter", "--dead-letter-topic", &letters];
    let relay = RelayProcess::start(&fixture, &flags);
    wait_for_the_rest(&fixture).await;
    wait_until_parked(&client, &[("4", "too-large"), ("5", "follows")]).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "k"), ["1", "3"]);
    let records = read_topic(&fixture.brokers, &letters);
    assert_eq!(first_seen(&fixture, &letters, "k"), ["2"]);
    let letter = &records[0];
    assert_eq!(letter.value.as_deref(), Some(br#"{"a":1}"#.as_slice()));
    let header = |name: &str| {
        let value = letter.header(name).unwrap_or_else(|| panic!("no header {name}"));
        String::from_utf8_lossy(value).into_owned()
    };
    assert_eq!(header("postrider.reason"), "bad-headers");
    assert!(header("postrider.detail").contains("must be a JSON object"));
    assert_eq!(header("postrider.aggregatetype"), "t");
    assert_eq!(header("postrider.seq"), "2");
    let detail: String = client
        .query_one("select detail from postrider.parked where type = '4'", &[])
        .await
        .expect("it is parked")
        .get(0);
    assert!(detail.contains("nor as a dead letter"), "{detail}");
    assert!(relay.stop().await.success());
}

/// Kafka removes by a record's time, and refuses one that lies ahead: a letter with the row's would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_bear_the_time_of_sending_whatever_the_rows_say() {
    let fixture = Fixture::new("park_time").await;
    let letters = fixture.topic("letters");
    let client = fixture.client().await;
    let write =
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers, created_at)
                 values ('t', 'k', $1, '{}', $2::text::jsonb, $3::text::timestamptz)";
    let rows = [
        ("1", None, "-infinity"),
        ("2", None, "4713-01-01 BC"),
        ("3", None, "infinity"),
        ("4", None, "294276-12-31"),
        ("5", Some("7"), "1999-01-01 00:00:00+00"),
        ("6", None, "now"),
    ];
    for (kind, headers, at) in rows {
        client.execute(write, &[&kind, &headers, &at]).await.expect("an insert never fails");
    }
    let flags = ["--on-poison", "dead-letter", "--dead-letter-topic", &letters];
    let times = ["--record-timestamp", "created", "--add-headers", "created_at"];
    let relay = RelayProcess::start(&fixture, &[flags.as_slice(), &times].concat());
    fixture.wait_published().await;
    relay.stop_well().await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "k"), ["6"]);
    assert_eq!(first_seen(&fixture, &letters, "k"), ["1", "2", "3", "4", "5"]);
    let records = read_topic(&fixture.brokers, &letters);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("it is after 1970").as_millis()).expect("it fits");
    for letter in &records {
        let at = letter.timestamp_millis.expect("records have a time");
        assert!((now - 600_000..=now).contains(&at), "{at}, and it is {now}");
    }
    let header = |letter: usize, name: &str| {
        let value = records[letter].header(name).unwrap_or_else(|| panic!("no header {name}"));
        String::from_utf8_lossy(value).into_owned()
    };
    assert_eq!(header(0, "postrider.created_at"), "-infinity");
    assert_eq!(header(4, "postrider.created_at"), "1999-01-01T00:00:00.000000Z");
    let detail = header(3, "postrider.detail");
    assert!(detail.contains("after 294247-01-10"), "{detail}");
}

/// Without a header, too: the broker would take them, and remove them at once, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_kafka_does_not_have_is_no_records_time() {
    let fixture = Fixture::new("park_timestamp").await;
    let topic = fixture.topic("t");
    let any_time = [("message.timestamp.after.max.ms", "9223372036854775807")];
    create_topic_with(&fixture.brokers, &topic, &any_time).await;
    let client = fixture.client().await;
    let write = "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
                 values ('t', $1, $1, '{}', $2::text::timestamptz)";
    let rows = [
        ("1", "-infinity"),
        ("2", "infinity"),
        ("3", "4713-01-01 BC"),
        ("4", "1969-12-31 23:59:59+00"),
        ("5", "1970-01-01 00:00:00+00"),
        ("6", "294276-12-31"),
        ("7", "1970-01-01 00:00:00.001+00"),
        ("8", "9999-12-31 00:00:00+00"),
    ];
    for (kind, at) in rows {
        client.execute(write, &[&kind, &at]).await.expect("an insert never fails");
    }
    let relay = RelayProcess::start(&fixture, &["--record-timestamp", "created"]);
    wait_for_the_rest(&fixture).await;
    relay.stop_well().await;
    let mut found = parked(&client).await;
    found.sort();
    let expected = ["1", "2", "3", "4", "5", "6"].map(|kind| (kind.into(), "bad-time".into()));
    assert_eq!(found, expected);
    let mut times: Vec<Option<i64>> =
        read_topic(&fixture.brokers, &topic).iter().map(|record| record.timestamp_millis).collect();
    times.sort();
    assert_eq!(times, [Some(1), Some(253_402_214_400_000)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_to_stop_names_the_event() {
    let fixture = Fixture::new("park_stop").await;
    let client = fixture.client().await;
    insert_with(&client, ("t", "k"), 1, "{}", Some("[]")).await;
    let relay = RelayProcess::start(&fixture, &["--on-poison", "stop"]);
    let id: uuid::Uuid =
        client.query_one("select id from outbox", &[]).await.expect("it is there").get(0);
    relay.wait_until_it_says(&id.to_string()).await;
    let status = relay.wait(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(parked(&client).await, []);
}

/// A topic that is missing holds what goes there; it is used by itself as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_holds_its_aggregates_and_lets_the_others_pass() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions {
        topic_creation: TopicCreation::Explicit,
        ..KafkaOptions::default()
    });
    let mut fixture = Fixture::new("park_topic").await;
    fixture.brokers = kafka.brokers().to_owned();
    let (missing, there) = (fixture.topic("missing"), fixture.topic("there"));
    create_topic(&fixture.brokers, &there, 2).await;
    let client = fixture.client().await;
    for number in 1..=3 {
        insert(&client, ("missing", "a"), number, 10).await;
        insert(&client, ("there", "a"), number, 10).await;
    }
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    let waits = [("1", "topic-unavailable"), ("2", "follows"), ("3", "follows")];
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, &there, "a"), numbers(1..=3));

    // A relay that knows of the topic only by what is parked finds it, too.
    relay.kill();
    let relay = RelayProcess::start(&fixture, &[]);
    insert(&client, ("missing", "a"), 4, 10).await;
    insert(&client, ("missing", "b"), 5, 10).await;
    wait_for_the_rest(&fixture).await;
    assert_eq!(list_topics(&fixture.brokers).iter().filter(|name| **name == missing).count(), 0);
    create_topic(&fixture.brokers, &missing, 3).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &missing, "a"), numbers(1..=4));
    assert_eq!(first_seen(&fixture, &missing, "b"), ["5"]);
    assert_eq!(first_seen(&fixture, &there, "a"), numbers(1..=3));
    assert!(relay.stop().await.success());
}

/// More than one piece is parked, and the aggregate's writer does not rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_retry_keeps_what_comes_meanwhile_behind() {
    const PARKED: u32 = 7_000;
    let fixture = Fixture::new("park_long").await;
    let client = fixture.client().await;
    let write = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
         select 't', 'k', n, '{{}}', case n when 1 then '[]'::jsonb end
         from generate_series(1, {PARKED}) n"
    );
    client.batch_execute(&write).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    assert_eq!(parked(&client).await.len(), PARKED as usize);
    let mend = "update postrider.parked set headers = null where headers = '[]'";
    client.batch_execute(mend).await.expect("the table is ours");
    ask(&fixture, &["parked", "retry", "--all"]);
    let mut last = PARKED;
    while !parked(&client).await.is_empty() {
        last += 1;
        insert(&client, ("t", "k"), last, 1).await;
    }
    assert!(last > PARKED + 5, "the writer was at work meanwhile");
    fixture.wait_published().await;
    let seen = first_seen(&fixture, &fixture.topic("t"), "k");
    assert!(seen == numbers(1..=last), "{seen:?}");
    relay.stop_well().await;
}

/// Poison all over the traffic, kills while it is parked, kills while it is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_parking_and_while_trying_again() {
    let fixture = Fixture::new("park_kills").await;
    let topic = fixture.topic(AGGREGATE_TYPE);
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "5000")]).await;
    let client = fixture.client().await;
    let swell = "create function swell() returns trigger language plpgsql as $$
        begin
            if random() < 0.03 then
                new.payload = to_json(repeat('x', 6000));
            end if;
            return new;
        end $$;
        create trigger swell before insert on outbox for each row execute function swell()";
    client.batch_execute(swell).await.expect("the table is ours");
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    for shards in ["2", "1", "3"] {
        let relay = RelayProcess::start(&fixture, &["--shards", shards]);
        relay.wait_until_it_says("an event is parked").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        relay.kill();
    }
    // Some retries meet the same limit again, some the next large event, the last ones none.
    for limit in ["5000", "9000", "9000", "9000"] {
        set_topic(&fixture.brokers, &topic, &[("max.message.bytes", limit)]).await;
        let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
        relay.wait_until_it_says("relaying").await;
        ask(&fixture, &["parked", "retry", "--all"]);
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        relay.kill();
    }
    let relays = [RelayProcess::start(&fixture, &[]), RelayProcess::start(&fixture, &[])];
    ask(&fixture, &["parked", "retry", "--all"]);
    let verdict = traffic.finish(relays, &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(parked(&client).await, []);
}
