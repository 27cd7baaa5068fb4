//! Several outboxes in one database, each with control tables in a schema of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use tokio_postgres::Client;

use crate::support::consumer::{create_topic, list_topics};
use crate::support::fixture::{connect, empty_database};
use crate::support::{Fixture, RelayProcess, read_topic};

/// A name that needs quotes wherever it stands in SQL, and a tag where it may have none.
const ODD: &str = "Billing-2";
const ODD_OUTBOX: &str = "app.\"Outbox\"";
const ODD_TAG: &str = "0billing_2_";

/// The second outbox of a fixture's database.
struct Other<'a> {
    fixture: &'a Fixture,
    schema: &'a str,
}

impl Other<'_> {
    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("POSTRIDER_SCHEMA", self.schema.to_owned()),
            ("POSTRIDER_OUTBOX", ODD_OUTBOX.to_owned()),
            ("POSTRIDER_TOPIC", format!("{}.other.{{aggregatetype}}", self.fixture.name)),
        ]
    }

    fn command(&self) -> Command {
        let mut command = self.fixture.command();
        command.envs(self.environment());
        command
    }

    fn relay(&self, arguments: &[&str]) -> RelayProcess {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        RelayProcess::start_in(self.fixture, arguments, &environment)
    }

    fn ask(&self, arguments: &[&str]) -> String {
        said_well(self.command().args(arguments))
    }
}

/// Runs a command that has to end well; what it answered.
#[track_caller]
fn said_well(command: &mut Command) -> String {
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", command.get_args());
    String::from_utf8(output.stdout).expect("the answer is text")
}

/// Runs a command that has to end with this code, and to say all of this.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{:?}: {said}", command.get_args());
    for word in words {
        assert!(said.contains(word), "{:?}: no {word:?} in {said}", command.get_args());
    }
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn texts(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// A database with both.
async fn two(name: &str) -> Fixture {
    let fixture = Fixture::new(name).await;
    execute(&fixture.client().await, "create schema app").await;
    for topic in ["order", "other.order"] {
        create_topic(&fixture.brokers, &fixture.topic(topic), 3).await;
    }
    Other { fixture: &fixture, schema: ODD }.ask(&["migrate", "up", "--buckets", "3"]);
    fixture
}

/// So many events for each of the two, in common transactions: `first` writes into the one, `second` into the other.
async fn write(client: &Client, [first, second]: [&str; 2], round: &str, count: usize) {
    for number in 0..count {
        let (key, kind) = (number % 7, format!("{round}{number}"));
        execute(
            client,
            &format!(
                "begin; select {first}('order', '{key}', 'first {kind}', '{{}}');
                 select {second}('order', '{key}', 'second {kind}', '{{}}'); commit"
            ),
        )
        .await;
    }
}

/// Waits until a topic has so many records, and checks that each is one of these, came once, and in order.
async fn expect(fixture: &Fixture, topic: &str, which: &str, rounds: &[(&str, usize)]) {
    let count: usize = rounds.iter().map(|(_, count)| count).sum();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut found = read_topic(&fixture.brokers, &fixture.topic(topic));
    while found.len() < count {
        assert!(Instant::now() < deadline, "{topic}: {} records of {count}", found.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = read_topic(&fixture.brokers, &fixture.topic(topic));
    }
    let kinds = |key: usize| {
        let of_round = move |(round, count): &(&str, usize)| {
            let round = (*round).to_owned();
            (0..*count)
                .filter(move |number| number % 7 == key)
                .map(move |number| format!("{which} {round}{number}"))
        };
        rounds.iter().flat_map(of_round).collect::<Vec<_>>()
    };
    for key in 0..7 {
        let of_key = found.iter().filter(|record| record.key_text() == key.to_string());
        let seen: Vec<_> = of_key
            .map(|record| {
                String::from_utf8_lossy(record.header("type").expect("it has one")).into_owned()
            })
            .collect();
        assert_eq!(seen, kinds(key), "{topic}, aggregate {key}");
    }
    assert_eq!(found.len(), count, "{topic}");
}

/// One is polled, the other read from the log and delivered exactly once; then both are read from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_outboxes_of_a_database_do_not_meet() {
    let fixture = two("schemas_two").await;
    let (client, other) = (fixture.client().await, Other { fixture: &fixture, schema: ODD });
    other.ask(&["delivery", "switch", "exactly-once", "--no-wait"]);
    let emits = ["postrider.emit", "\"Billing-2\".emit"];
    let first = RelayProcess::start(&fixture, &[]);
    let second = other.relay(&["--capture", "wal"]);
    second.wait_until_it_says("reading the log").await;
    write(&client, emits, "a", 60).await;
    expect(&fixture, "order", "first", &[("a", 60)]).await;
    expect(&fixture, "other.order", "second", &[("a", 60)]).await;
    first.stop_well().await;
    let first = RelayProcess::start(&fixture, &["--capture", "wal"]);
    first.wait_until_it_says("reading the log").await;
    write(&client, emits, "b", 60).await;
    expect(&fixture, "order", "first", &[("a", 60), ("b", 60)]).await;
    expect(&fixture, "other.order", "second", &[("a", 60), ("b", 60)]).await;
    let slots = texts(
        &client,
        "select replace(slot_name::text, (select oid from pg_database where datname = current_database())::text, 'N')
         from pg_replication_slots where database = current_database() order by 1",
    )
    .await;
    assert_eq!(slots.len(), 2, "{slots:?}");
    assert!(
        slots[0] == "postrider_N" && slots[1].starts_with(&format!("postrider_N_{ODD_TAG}")),
        "{slots:?}"
    );
    let publications = texts(&client, "select pubname::text from pg_publication order by 1").await;
    assert_eq!(
        (publications.len(), publications[0].as_str()),
        (2, "postrider"),
        "{publications:?}"
    );
    assert!(publications[1].starts_with(&format!("postrider_table_{ODD_TAG}")), "{publications:?}");
    let sessions = texts(
        &client,
        "select distinct split_part(application_name, ' ', 1) from pg_stat_activity
         where datname = current_database() and application_name like 'postrider%' order by 1",
    )
    .await;
    assert!(
        sessions.len() == 2 && sessions[1].starts_with(&format!("postrider/{ODD_TAG}")),
        "{sessions:?}"
    );
    let topics = list_topics(&fixture.brokers);
    let cursors = topics
        .iter()
        .filter(|topic| topic.contains(&format!(".{ODD_TAG}")) && topic.ends_with("-cursors"));
    assert_eq!(cursors.count(), 1, "{topics:?}");
    for (status, is_said) in
        [(other.ask(&["status"]), true), (said_well(fixture.command().arg("status")), false)]
    {
        assert_eq!(status.contains(", schema Billing-2: "), is_said, "{status}");
        assert!(status.contains("unpublished: 0") && status.contains("1 shard"), "{status}");
    }
    for relay in [first, second] {
        // Each stays with the stream with which it has begun.
        let said = relay.said();
        assert!(
            !said.contains("cannot start the stream") && !said.contains("cannot hand on"),
            "{said}"
        );
        relay.stop_well().await;
    }
}

/// A message says by its prefix whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_two_outboxes_do_not_meet() {
    let fixture = two("schemas_messages").await;
    let (client, other) = (fixture.client().await, Other { fixture: &fixture, schema: ODD });
    let first = RelayProcess::start(&fixture, &["--capture", "message"]);
    let second = other.relay(&["--capture", "message"]);
    for relay in [&first, &second] {
        relay.wait_until_it_says("reading the log").await;
    }
    write(&client, ["postrider.emit", "\"Billing-2\".emit"], "a", 40).await;
    let raw = "select pg_logical_emit_message(true, 'Billing-2.outbox',
        \"Billing-2\".event_message('order', 'raw', 'second raw', '{}'::bytea))";
    execute(&client, raw).await;
    expect(&fixture, "order", "first", &[("a", 40)]).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let read = || read_topic(&fixture.brokers, &fixture.topic("other.order"));
    while read().len() < 41 {
        assert!(Instant::now() < deadline, "{} records", read().len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let kinds: HashSet<Vec<u8>> =
        read().iter().map(|record| record.header("type").expect("it has one").to_vec()).collect();
    assert_eq!(kinds.len(), 41);
    assert!(kinds.iter().all(|kind| kind.starts_with(b"second")), "{kinds:?}");
    assert!(!second.said().contains("the session ended"), "{}", second.said());
    second.stop_well().await;
    assert!(
        other.ask(&["capture", "switch", "poll", "--no-wait"]).contains("from message to poll")
    );
    first.stop_well().await;
}

/// What is asked for is no schema of ours, or is not there, or belongs to somebody: each with what helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_cannot_be_used_is_refused_with_a_remedy() {
    let fixture = two("schemas_refused").await;
    let (client, other) = (fixture.client().await, Other { fixture: &fixture, schema: ODD });
    let long = "x".repeat(64);
    for name in ["", &long, "pg_mine", "information_schema", "public", "it's", "a\"b"] {
        refused(fixture.command().args(["status", "--schema", name]), 3, &["--schema"]);
        refused(
            fixture.command().args(["migrate", "print"]).env("POSTRIDER_SCHEMA", name),
            3,
            &["--schema"],
        );
    }
    let run = ["run", "--schema", "nowhere"];
    refused(fixture.command().args(run), 6, &["schema nowhere", "migrate up --schema 'nowhere'"]);
    let up = |schema: &str, outbox: &str| {
        let mut command = fixture.command();
        command.args(["migrate", "up", "--schema", schema, "--outbox", outbox]);
        command
    };
    refused(&mut up("third", "public.outbox"), 6, &["the outbox of schema postrider", "--outbox"]);
    refused(&mut up("third", ODD_OUTBOX), 6, &["the outbox of schema Billing-2", "--outbox"]);
    refused(&mut up("postrider", ODD_OUTBOX), 6, &["the outbox's table is public.outbox"]);
    refused(&mut up("third", "third.outbox"), 3, &["in the schema of its control tables"]);
    assert!(
        texts(&client, "select nspname::text from pg_namespace where nspname = 'third'")
            .await
            .is_empty()
    );
    execute(&client, "create schema shop; create table shop.customer (id bigint primary key)")
        .await;
    refused(&mut up("shop", "app.shop"), 6, &["shop holds customer", "--schema"]);
    execute(&client, "create table shop.migration (version text)").await;
    refused(&mut up("shop", "app.shop"), 6, &["\"shop\".migration is no list", "--schema"]);
    refused(fixture.command().args(["run", "--schema", "shop"]), 6, &["migration is no list"]);
    // An adopted table is one outbox's, too.
    execute(
        &client,
        "create table app.legacy (id bigint primary key, aggregatetype text, aggregateid text, type text, payload jsonb)",
    )
    .await;
    said_well(fixture.command().args(["adopt", "app.legacy"]));
    refused(other.command().args(["adopt", "app.legacy"]), 3, &["postrider_adopted", "--end"]);
    refused(
        other.command().args(["adopt", "public.outbox"]),
        3,
        &["the outbox of schema postrider"],
    );
    said_well(fixture.command().args(["adopt", "app.legacy", "--end"]));
    other.ask(&["adopt", "app.legacy"]);
    refused(fixture.command().args(["adopt", "app.legacy"]), 3, &["postrider_adopted_", "--end"]);
}

/// The printed SQL makes what `up` makes, and every command works there, by the rights of the printed roles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_in_a_schema_with_a_long_name() {
    let mut fixture = Fixture::new("schemas_long").await;
    fixture.database_url = empty_database("schemas_long_alone").await;
    let long = format!("{}-{}", "x".repeat(30), "\u{fc}".repeat(16));
    assert_eq!(long.len(), 63);
    let client = connect(&fixture.database_url).await;
    execute(&client, "create schema app").await;
    let other = Other { fixture: &fixture, schema: &long };
    execute(&client, &other.ask(&["migrate", "print", "--buckets", "2"])).await;
    assert!(other.ask(&["migrate", "up", "--buckets", "2"]).contains("nothing to do"));
    assert!(
        texts(&client, "select nspname::text from pg_namespace where nspname = 'postrider'")
            .await
            .is_empty()
    );
    let roles = format!(
        "set postrider.writer = 'schemas_long_writer'; set postrider.relay = 'schemas_long_relay'; {};
         create role schemas_long_login login password 'secret' in role schemas_long_relay",
        other.ask(&["migrate", "roles"])
    );
    execute(&client, &roles).await;
    let mut relay_side = fixture.clone();
    let place = fixture.database_url.rsplit('@').next().expect("the host is named");
    relay_side.database_url = format!("postgresql://schemas_long_login:secret@{place}");
    let relayed = Other { fixture: &relay_side, schema: &long };
    create_topic(&fixture.brokers, &fixture.topic("other.order"), 1).await;
    execute(
        &client,
        &format!(
            "select \"{long}\".emit('order', n::text, 'T', '{{}}') from generate_series(1, 9) n"
        ),
    )
    .await;
    let address = "127.0.0.1:0";
    assert!(relayed.ask(&["check", "--admin-listen", address]).contains("rights"));
    let relay = relayed.relay(&[]);
    assert!(relayed.ask(&["wait", "--timeout", "60s"]).contains("published"));
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("other.order")).len(), 9);
    other.ask(&["pause", "--reason", "a test"]);
    other.ask(&["resume"]);
    let answered = other.ask(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&answered).expect("it is JSON");
    assert_eq!(status["control_schema"], long.as_str());
    let topic = fixture.topic("other.order");
    other.ask(&["replay", "--type", "T", "--to-topic", &topic]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while read_topic(&fixture.brokers, &fixture.topic("other.order")).len() < 18 {
        assert!(Instant::now() < deadline, "{}", other.ask(&["replay", "list"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for command in [
        &["parked", "list"][..],
        &["capture", "show"],
        &["delivery", "show"],
        &["replay", "list"],
        &["topics", "plan"],
        &["migrate", "status"],
        &["migrate", "reanchor", "--dry-run"],
        &["config", "show"],
    ] {
        other.ask(command);
    }
    relay.stop_well().await;
    assert!(other.ask(&["migrate", "handover"]).contains('9'));
}
