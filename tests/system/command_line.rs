//! The commands that look at a database from outside, and how `run` ends.
//!
//! Every function takes the URL of an empty database, as a superuser, and where it needs one a broker
//! that creates topics.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use postrider::postgres::{Connection, DatabaseConfig, connect};
use serde_json::Value;

use crate::support::consumer::{create_topic, list_topics};
use crate::support::fixture::empty_database;
use crate::support::servers::kafka;

/// So many rows of a bucket are counted at most.
const LOOK_AT_MAX: i64 = 20_000;

fn postrider(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(arguments).env("POSTRIDER_DATABASE_URL", url).stdin(Stdio::null());
    command
}

fn answer(url: &str, arguments: &[&str]) -> Output {
    postrider(url, arguments).output().unwrap()
}

fn migrate(url: &str) {
    let output = answer(url, &["migrate", "up", "--buckets", "4"]);
    assert!(output.status.success(), "{output:?}");
}

async fn session(url: &str) -> Connection {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

async fn execute(connection: &Connection, sql: &str) {
    connection.client().batch_execute(sql).await.unwrap();
}

/// Writes events of one aggregate.
async fn write(connection: &Connection, aggregate_type: &str, count: i64) {
    let sql = format!(
        "insert into public.outbox (aggregatetype, aggregateid, type, payload)
         select '{aggregate_type}', 'one', 'Placed', '{{}}' from generate_series(1, {count})"
    );
    execute(connection, &sql).await;
}

fn status(url: &str) -> Value {
    let output = answer(url, &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks the exit code and that the answer says all of this.
#[track_caller]
fn assert_check(url: &str, brokers: &str, code: i32, words: &[&str]) {
    let output = answer(url, &["check", "--brokers", brokers]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
}

fn start_relay(url: &str, brokers: &str) -> Child {
    postrider(url, &["run", "--brokers", brokers, "--log-level", "error"]).spawn().unwrap()
}

/// Sends a signal and waits for the end: its exit code.
fn stop(mut relay: Child, signal: &str) -> Option<i32> {
    let sent = Command::new("kill").args([signal, &relay.id().to_string()]).status().unwrap();
    assert!(sent.success());
    relay.wait().unwrap().code()
}

async fn wait_until_published(url: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while status(url)["unpublished"] != 0 {
        assert!(Instant::now() < deadline, "{}", status(url));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Committed rows are counted, those of open transactions are not, and nothing is there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_counts_what_waits() {
    let url = &empty_database("status_counts_what_waits").await;
    let output = answer(url, &["status"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("postrider migrate up"), "{output:?}");
    migrate(url);
    let empty = status(url);
    assert_eq!(empty["unpublished"], 0);
    assert!(empty["oldest_unpublished_age_seconds"].is_null(), "{empty}");
    assert!(empty["buckets"][0]["saved_age_seconds"].is_null(), "never taken: {empty}");
    let (writer, open) = (session(url).await, session(url).await);
    write(&writer, "order", 30).await;
    execute(&open, "begin").await;
    write(&open, "order", 5).await;
    let found = status(url);
    assert_eq!(found["unpublished"], 30, "{found}");
    assert_eq!(found["unpublished_is_lower_bound"], false, "{found}");
    assert_eq!((&found["partitions"], found["buckets"].as_array().unwrap().len()), (&12.into(), 4));
    assert!(found["oldest_unpublished_age_seconds"].as_f64().unwrap() >= 0.0, "{found}");
    assert!(found["size_bytes"].as_i64().unwrap() > 0, "{found}");
}

/// A long backlog is not counted to its end, and the answer says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_stops_counting_early() {
    let url = &empty_database("status_stops_counting_early").await;
    migrate(url);
    write(&session(url).await, "order", LOOK_AT_MAX + 1).await;
    let found = status(url);
    assert_eq!(found["unpublished"], LOOK_AT_MAX, "{found}");
    assert_eq!(found["unpublished_is_lower_bound"], true, "{found}");
    let output = answer(url, &["status"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\u{2265}20000"), "{said}");
}

/// A transaction that is open for long, of whatever database, hides nothing that waits, neither while it is
/// open nor when it has ended; and what is too far back to be looked at is not said to be published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_sees_behind_a_long_transaction() {
    // GIVEN cursors at rest, and a transaction that has been open since before what they have passed.
    let url = &empty_database("status_sees_behind_a_long_transaction").await;
    migrate(url);
    let (writer, long) = (session(url).await, session(url).await);
    execute(&long, "begin").await;
    let own = "select pg_current_xact_id()::text";
    let id: String = long.client().query_one(own, &[]).await.unwrap().get(0);
    write(&writer, "order", LOOK_AT_MAX + 2_000).await;
    write(&long, "late", 1).await;
    write(&writer, "order", 3_000).await;
    // The relay's cursors at rest, with the long transaction among what was open at their tick.
    let at_rest = format!(
        "update postrider.cursor
         set from_snapshot = seen, upto_snapshot = seen, upto_next = pg_snapshot_xmax(seen),
             upto_floor = drawn, upto_ceiling = drawn, \"position\" = drawn,
             upto_sequence = pg_relation_filenode('public.outbox_seq_seq'),
             carry = array[{id}, {id}, 0]
         from (select pg_current_snapshot() as seen, pg_sequence_last_value('public.outbox_seq_seq') as drawn) as now"
    );
    execute(&writer, &at_rest).await;
    // THEN nothing waits.
    let found = status(url);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"no".into(), &0.into()), "{found}");
    // WHEN rows are written behind it, THEN they are counted with their age.
    write(&writer, "waiting", 1_000).await;
    let older = "update public.outbox set created_at = now() - interval '3 hours' where aggregatetype = 'waiting'";
    execute(&writer, older).await;
    let found = status(url);
    assert_eq!(found["unpublished"], 1_000, "{found}");
    assert_eq!(found["unpublished_is_lower_bound"], false, "{found}");
    let age = found["oldest_unpublished_age_seconds"].as_f64().unwrap();
    assert!((10_790.0..12_000.0).contains(&age), "{found}");
    // WHEN it commits, THEN its row waits, though the age may be larger.
    execute(&long, "commit").await;
    let found = status(url);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &1_000.into()), "{found}");
    assert_eq!(found["oldest_unpublished_age_is_lower_bound"], true, "{found}");
    // WHEN of what waits only the late row is left, behind more rows than are looked at first, THEN it is seen.
    execute(&writer, "delete from public.outbox where aggregatetype = 'waiting'").await;
    let found = status(url);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &1.into()), "{found}");
    // An age that cannot be told is no reason to say nothing, nor to fail.
    execute(
        &writer,
        "update public.outbox set created_at = '-infinity' where aggregatetype = 'late'",
    )
    .await;
    let found = status(url);
    assert_eq!((&found["waits"], &found["unpublished"]), (&"yes".into(), &1.into()), "{found}");
    assert!(found["oldest_unpublished_age_seconds"].is_null(), "{found}");
    // Of another cluster's cursors nobody knows what they mean here.
    execute(
        &writer,
        "update postrider.cursor set system_identifier = 1, timeline = 1, lsn = '0/1'",
    )
    .await;
    let found = status(url);
    assert_eq!((&found["waits"], found["unpublished"].is_null()), (&"unknown".into(), true));
    let output = answer(url, &["status"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("another cluster") && said.contains("not known"), "{said}");
    assert!(!said.contains("nothing waits"), "{said}");
}

/// A row with a low `seq` that is committed after later ones were published is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_sees_a_late_commit() {
    let (url, brokers) = (&empty_database("status_sees_a_late_commit").await, kafka().brokers());
    migrate(url);
    let (late, writer) = (session(url).await, session(url).await);
    execute(&late, "begin").await;
    write(&late, "order", 1).await;
    write(&writer, "order", 50).await;
    let relay = start_relay(url, brokers);
    wait_until_published(url).await;
    // More ticks come, so that the saved cursor moves on while the transaction is open.
    write(&writer, "order", 50).await;
    wait_until_published(url).await;
    assert_eq!(stop(relay, "-TERM"), Some(0));
    assert_eq!(status(url)["unpublished"], 0);
    execute(&late, "commit").await;
    assert_eq!(status(url)["unpublished"], 1, "{}", status(url));
    let relay = start_relay(url, brokers);
    wait_until_published(url).await;
    assert_eq!(stop(relay, "-INT"), Some(0));
}

/// Either signal ends `run` with 0, when everything is acknowledged and saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_ends_well_by_either_signal() {
    let (url, brokers) =
        (&empty_database("run_ends_well_by_either_signal").await, kafka().brokers());
    migrate(url);
    let writer = session(url).await;
    for signal in ["-TERM", "-INT"] {
        write(&writer, "order", 1_000).await;
        let relay = start_relay(url, brokers);
        wait_until_published(url).await;
        assert_eq!(stop(relay, signal), Some(0), "{signal}");
        assert_eq!(status(url)["unpublished"], 0);
    }
    assert!(status(url)["buckets"][0]["owner"].is_null(), "who stops lets its buckets go");
}

/// With everything in place `check` finds no problem; with an event that names no topic it does. It
/// makes no topic, even where the broker would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_looks_at_waiting_events() {
    let (url, brokers) =
        (&empty_database("check_looks_at_waiting_events").await, kafka().brokers());
    let words = ["\u{2718} tables", "postrider migrate up", "\u{2714} kafka"];
    assert_check(url, brokers, 6, &words);
    migrate(url);
    let words = ["\u{2714} tables", "\u{2714} rights", "\u{2714} kafka", "no event waits"];
    assert_check(url, brokers, 0, &words);
    let writer = session(url).await;
    write(&writer, "checked", 3).await;
    let topic = "outbox.event.checked";
    for _ in 0..2 {
        let words = ["\u{26a0} topics", topic, "creates topics by itself", "1 warning"];
        assert_check(url, brokers, 0, &words);
        assert!(!list_topics(brokers).iter().any(|found| found == topic));
    }
    create_topic(brokers, topic, 1).await;
    assert_check(url, brokers, 0, &["\u{2714} topics", "1 of 1", "no problems"]);
    write(&writer, "no topic", 1).await;
    assert_check(url, brokers, 1, &["\u{2718} topics", "outbox.event.no topic", "1 problem"]);
}

/// A right that is missing and a policy that hides rows are named, each with its remedy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_a_role_lacks() {
    let (url, brokers) =
        (&empty_database("check_names_what_a_role_lacks").await, kafka().brokers());
    migrate(url);
    let admin = session(url).await;
    // Roles belong to the server, so this one is named after the database.
    let role: String = admin
        .client()
        .query_one("select 'check_' || current_database()", &[])
        .await
        .unwrap()
        .get(0);
    let grants = format!(
        "create role \"{role}\" login password 'secret';
         grant usage on schema postrider to \"{role}\";
         grant select on all tables in schema postrider, public to \"{role}\";
         grant select on all sequences in schema public to \"{role}\""
    );
    execute(&admin, &grants).await;
    let limited = as_role(url, &role);
    let remedy = "grant update on postrider.cursor";
    assert_check(&limited, brokers, 4, &["may not update postrider.cursor", remedy]);
    execute(&admin, &format!("grant update on postrider.cursor to \"{role}\"")).await;
    let remedy = "grant insert on postrider.instance";
    assert_check(&limited, brokers, 4, &["may not insert postrider.instance", remedy]);
    let rights = "insert, update, delete on postrider.instance";
    execute(&admin, &format!("grant {rights} to \"{role}\"")).await;
    let remedy = "grant insert on postrider.parked";
    assert_check(&limited, brokers, 4, &["may not insert postrider.parked", remedy]);
    let rights = "insert, update, delete on postrider.parked, postrider.parked_request, postrider.large_part";
    execute(&admin, &format!("grant {rights} to \"{role}\"")).await;
    let remedy = "grant update on postrider.replay_bucket";
    assert_check(&limited, brokers, 4, &["may not update postrider.replay_bucket", remedy]);
    execute(&admin, &format!("grant update on postrider.replay_bucket to \"{role}\"")).await;
    let remedy = "grant update on postrider.capture";
    assert_check(&limited, brokers, 4, &["may not update postrider.capture", remedy]);
    let rights = "update on postrider.capture, postrider.capture_slot, postrider.adopted";
    execute(&admin, &format!("grant {rights} to \"{role}\"")).await;
    execute(&admin, &format!("revoke select on sequence public.outbox_seq_seq from \"{role}\""))
        .await;
    let remedy = "grant select on sequence public.outbox_seq_seq";
    assert_check(&limited, brokers, 4, &["may not select sequence", remedy]);
    execute(&admin, &format!("grant select on sequence public.outbox_seq_seq to \"{role}\"")).await;
    let remedy = "grant update on postrider.log_reader";
    assert_check(&limited, brokers, 4, &["may not update postrider.log_reader", remedy]);
    let rights = "grant update on postrider.log_reader to \"{role}\"; grant delete on postrider.emitting to \"{role}\"";
    execute(&admin, &rights.replace("{role}", &role)).await;
    assert_check(&limited, brokers, 0, &["\u{2714} rights", "\u{2714} row-security"]);
    execute(&admin, "alter table public.outbox_b02 enable row level security").await;
    let words = ["\u{2718} row-security", "public.outbox_b02", "disable row level security"];
    assert_check(&limited, brokers, 4, &words);
    execute(&admin, &format!("drop owned by \"{role}\"; drop role \"{role}\"")).await;
}

/// The same database as another role.
fn as_role(url: &str, role: &str) -> String {
    let (_, place) = url.rsplit_once('@').unwrap();
    format!("postgres://{role}:secret@{place}")
}
