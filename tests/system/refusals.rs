//! What cannot work is refused at the start: the cause, what to do, the documented exit code.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use postrider_testkit::servers::{KafkaOptions, Postgres, PostgresOptions, TopicCreation};

use crate::support::fixture::connect;
use crate::support::servers::{kafka, postgres};
use crate::support::{Fixture, Patience, RelayProcess, mostly_waits, start_kafka, start_postgres};

const CONFIG: i32 = 3;
const POSTGRES: i32 = 4;
const KAFKA: i32 = 5;
const SCHEMA: i32 = 6;

/// Runs until it gives up, which it must do by itself.
async fn run(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = fixture.command();
    command.arg("run").args(arguments).args(["--log-level", "error"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut in_time = true;
    while in_time && child.try_wait().expect("it is ours to wait for").is_none() {
        in_time = Instant::now() < deadline;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !in_time {
        child.kill().expect("it is ours to kill");
    }
    let output = child.wait_with_output().expect("it is ours to wait for");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(in_time, "it does not give up; it said:\n{said}");
    output
}

/// One or two lines on standard error: the cause with these words in it, and no backtrace.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in:\n{said}");
    }
    assert!(said.lines().count() <= 3, "{said}");
    assert!(!said.contains("stack backtrace") && !said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database() {
    let mut fixture = Fixture::new("refuse_unreachable").await;
    fixture.database_url = "postgresql://postgres@127.0.0.1:1/nowhere".to_owned();
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["127.0.0.1:1", "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password() {
    let mut fixture = Fixture::new("refuse_password").await;
    let postgres = postgres();
    fixture.database_url = format!(
        "postgresql://postgres:wrong@{}:{}/{}",
        postgres.host(),
        postgres.port(),
        fixture.name
    );
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["password"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_database() {
    let mut fixture = Fixture::new("refuse_database").await;
    fixture.database_url = postgres().url("no_such_database");
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["no_such_database"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table() {
    let fixture = Fixture::new("refuse_table").await;
    fixture.client().await.batch_execute("drop table outbox cascade").await.expect("it is there");
    assert_refused(&run(&fixture, &[]).await, SCHEMA, &["outbox"]);
    let client = fixture.client().await;
    client.batch_execute("drop schema postrider cascade").await.expect("it is there");
    assert_refused(&run(&fixture, &[]).await, SCHEMA, &["postrider migrate up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_from_another_version() {
    let fixture = Fixture::new("refuse_version").await;
    let newer = "insert into postrider.migration
        select 9999, 'from the future', checksum, applied_at, applied_by
        from postrider.migration where version = 1";
    fixture.client().await.batch_execute(newer).await.expect("the registry is there");
    assert_refused(&run(&fixture, &[]).await, SCHEMA, &["9999"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_rights() {
    let mut fixture = Fixture::new("refuse_rights").await;
    let role = "create role refuse_rights login password 'known'";
    fixture.client().await.batch_execute(role).await.expect("the role is new");
    let postgres = postgres();
    fixture.database_url = format!(
        "postgresql://refuse_rights:known@{}:{}/{}",
        postgres.host(),
        postgres.port(),
        fixture.name
    );
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["permission denied", "grant"]);
}

/// From PostgreSQL 18 on the sequence's value is null to such a role, and no error: null is not 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_read_the_sequence() {
    let fixture = Fixture::new("refuse_sequence").await;
    let client = fixture.client().await;
    client.batch_execute(include_str!("../../sql/roles.sql")).await.expect("the outbox is there");
    let sql = "create role refuse_sequence login password 'known' in role postrider_relay;
        insert into outbox (aggregatetype, aggregateid, type, payload) values ('thing', 'k', 'Made', '{}')";
    client.batch_execute(sql).await.expect("the role is new");
    let postgres = postgres();
    let (host, port) = (postgres.host(), postgres.port());
    let database_url = format!("postgresql://refuse_sequence:known@{host}:{port}/{}", fixture.name);
    let limited = Fixture { database_url, ..fixture.clone() };
    let relay = RelayProcess::start(&limited, &[]);
    fixture.wait_published().await;
    let revoke = "revoke select on sequence outbox_seq_seq from postrider_relay";
    client.batch_execute(revoke).await.expect("it was granted");
    let words = ["sequence", "rant select"];
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(POSTGRES), "a right that is taken away");
    assert_refused(&run(&limited, &[]).await, POSTGRES, &words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_under_row_security() {
    let mut fixture = Fixture::new("refuse_row_security").await;
    let client = fixture.client().await;
    let sql = "create role refuse_row_security login password 'known';
        grant usage on schema postrider to refuse_row_security;
        grant select on all tables in schema public, postrider to refuse_row_security;
        grant select on all sequences in schema public to refuse_row_security;
        grant update on postrider.cursor to refuse_row_security;
        grant insert, update, delete on postrider.instance to refuse_row_security;
        insert into outbox (aggregatetype, aggregateid, type, payload) values ('thing', 'k', 'Made', '{}')";
    client.batch_execute(sql).await.expect("the role is new");
    for row in client
        .query("select inhrelid::regclass::text from pg_inherits", &[])
        .await
        .expect("the catalogue answers")
    {
        let table: String = row.get(0);
        if table.contains("_b") && !table.contains("idx") && !table.contains("seq") {
            let secure = format!("alter table {table} enable row level security");
            client.batch_execute(&secure).await.expect("it is a table");
        }
    }
    let postgres = postgres();
    fixture.database_url = format!(
        "postgresql://refuse_row_security:known@{}:{}/{}",
        postgres.host(),
        postgres.port(),
        fixture.name
    );
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["row", "security"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_brokers() {
    let mut fixture = Fixture::new("refuse_brokers").await;
    fixture.brokers = "127.0.0.1:1".to_owned();
    assert_refused(&run(&fixture, &[]).await, KAFKA, &["127.0.0.1:1", "--brokers"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_property_that_breaks_a_promise() {
    let fixture = Fixture::new("refuse_property").await;
    assert_refused(&run(&fixture, &["-X", "acks=1"]).await, CONFIG, &["acks", "lost"]);
    let unknown = run(&fixture, &["-X", "no.such.property=1"]).await;
    assert_refused(&unknown, CONFIG, &["no.such.property"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_shards_than_buckets() {
    let fixture = Fixture::new("refuse_shards").await;
    assert_refused(&run(&fixture, &["--shards", "9"]).await, CONFIG, &["9 shards", "8 buckets"]);
}

/// A topic that is the same for all events is missed at the start; one that an event names is missed
/// while running: said in the log, held, and used as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_where_the_broker_makes_none() {
    mostly_waits();
    let kafka = start_kafka(KafkaOptions {
        topic_creation: TopicCreation::Explicit,
        ..KafkaOptions::default()
    });
    let mut fixture = Fixture::new("refuse_topic").await;
    fixture.brokers = kafka.brokers().to_owned();
    let output = run(&fixture, &["--topic", "fixed.topic"]).await;
    assert_refused(&output, KAFKA, &["fixed.topic", "does not exist", "create"]);
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload)
        values ('thing', 'k', 'Made', '{}')";
    fixture.client().await.batch_execute(insert).await.expect("an insert never fails");
    let begin = Instant::now();
    let output = fixture.command().arg("check").output().expect("the binary runs");
    assert!(begin.elapsed() < Duration::from_secs(8), "a missing topic is not waited for");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(KAFKA), "{said}");
    assert!(said.contains("\u{2718} topics        not there: refuse_topic.thing\n"), "{said}");
    let letters = ["check", "--on-poison", "dead-letter", "--dead-letter-topic", "refuse.letters"];
    let output = fixture.command().args(letters).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("not there: refuse.letters, refuse_topic.thing\n"), "{said}");
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("refuse_topic.thing").await;
    relay.wait_until_it_says("does not exist").await;
    crate::support::consumer::create_topic(&fixture.brokers, &fixture.topic("thing"), 3).await;
    fixture.wait_published().await;
    replay_to_a_missing_topic(&fixture, &relay).await;
    assert!(relay.stop().await.success());
    assert_eq!(crate::support::read_topic(&fixture.brokers, &fixture.topic("thing")).len(), 1);
}

/// The log says that the replay waits, and for what; nothing of it is parked, and it is sent when the topic is there.
async fn replay_to_a_missing_topic(fixture: &Fixture, relay: &RelayProcess) {
    const WAITS: &str = "a replay waits until its topic can be used";
    let missing = fixture.topic("again");
    let parked = "what goes to this topic is parked";
    let said_of_parked = relay.said().matches(parked).count();
    let replay = ["replay", "--seq", "1..", "--to-topic", &missing];
    let output = fixture.command().args(replay).output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    relay.wait_until_it_says(WAITS).await;
    let said = relay.said();
    let waits = said.lines().find(|line| line.contains(WAITS)).expect("it said so");
    assert!(waits.contains(&format!("topic {missing} does not exist")), "{waits}");
    assert!(waits.contains("\"replay\":1,"), "{waits}");
    assert_eq!(said.matches(parked).count(), said_of_parked, "{said}");
    crate::support::consumer::create_topic(&fixture.brokers, &missing, 1).await;
    let patience = Patience::until("the replay is sent");
    while crate::support::read_topic(&fixture.brokers, &missing).is_empty() {
        patience.pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_and_then_the_timeline_of_its_promotion() {
    let primary = start_postgres(&[]);
    let mut fixture = Fixture::on(
        "refuse_standby",
        &primary.url("postgres"),
        primary.url("refuse_standby"),
        kafka().brokers(),
    )
    .await;
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;
    assert!(relay.stop().await.success());
    let standby =
        Postgres::standby_of(&primary, PostgresOptions::default(), &|line| println!("{line}"))
            .unwrap_or_else(|error| panic!("{error}"));
    fixture.database_url = standby.url("refuse_standby");
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["standby", "primary"]);
    standby.promote().expect("it can be promoted");
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["timeline 1 and not 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_another_cluster_or_a_later_state() {
    let fixture = Fixture::new("refuse_cluster").await;
    let relay = RelayProcess::start(&fixture, &[]);
    relay.wait_until_it_says("relaying").await;
    assert!(relay.stop().await.success());
    let client = connect(&fixture.database_url).await;
    let other =
        "update postrider.cursor set system_identifier = system_identifier + 1 where bucket = 2";
    client.batch_execute(other).await.expect("the cursor is there");
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["bucket 2", "cluster"]);
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload)
        values ('thing', 'k', 'Made', '{}')";
    client.batch_execute(insert).await.expect("an insert never fails");
    for (arguments, said) in [
        (&["migrate", "reanchor", "--dry-run"][..], "would be"),
        (&["migrate", "reanchor"], "are published"),
    ] {
        let output = fixture.command().args(arguments).output().expect("the binary runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 retained events") && text.contains(said), "{text}");
    }
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let later = "update postrider.cursor
        set lsn = 'FFFF/0'";
    client.batch_execute(later).await.expect("the cursor is there");
    assert_refused(&run(&fixture, &[]).await, POSTGRES, &["later state"]);
}
