//! Tables that are adopted, or get a part that was filled before, while writers take their events away as soon as they
//! are committed: what the stream brings already goes on, whatever has to be copied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use crate::adopt::adopt;
use crate::support::servers::kafka;
use crate::support::{Fixture, Patience, RelayProcess, read_topic, start_postgres};

const WAL: &[&str] = &["--capture", "wal", "--shards", "2"];
const COLUMNS: &str = "n bigint generated always as identity, id uuid default gen_random_uuid(),
    aggregatetype text default 'beside', aggregateid text, type text default 'T', payload jsonb default '{}'";

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// How often each key has come.
fn counts(fixture: &Fixture) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in read_topic(&fixture.brokers, &fixture.topic("beside")) {
        *counts.entry(record.key_text().to_owned()).or_default() += 1;
    }
    counts
}

/// Writes an event into each table on and on, and takes those of [`DELETED`] away again; how many of each until the word
/// to stop.
fn write_and_delete(client: Client, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            say(&client, &insert("second", count)).await;
            for table in DELETED {
                say(&client, &insert(table, count)).await;
                say(&client, &format!("delete from {table} where aggregateid = '{table} {count}'"))
                    .await;
            }
            count += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        count
    })
}

async fn wait_for(fixture: &Fixture, relay: &RelayProcess, keys: &[String]) {
    let patience = Patience::until("all events are published");
    loop {
        let counts = counts(fixture);
        if keys.iter().all(|key| counts.contains_key(key)) {
            return;
        }
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

fn each_once(fixture: &Fixture, keys: &[String]) {
    let counts = counts(fixture);
    for key in keys {
        assert_eq!(counts.get(key), Some(&1), "{key}");
    }
}

/// A relay reads the outbox and a table that was adopted before, of which writers delete all at once.
struct Beside {
    fixture: Fixture,
    client: Client,
    relay: RelayProcess,
    stop: Arc<AtomicBool>,
    writer: tokio::task::JoinHandle<usize>,
}

/// Events of these are deleted as soon as they are committed.
const DELETED: &[&str] = &["outbox", "first"];

fn insert(table: &str, count: usize) -> String {
    format!(
        "insert into {table} (aggregatetype, aggregateid, type, payload)
         values ('beside', '{table} {count}', 'T', '{{}}')"
    )
}

impl Beside {
    async fn begin(name: &str) -> Self {
        Self::on(Fixture::new(name).await).await
    }

    async fn on(fixture: Fixture) -> Self {
        let client = fixture.client().await;
        let tables = format!(
            "create table first ({COLUMNS}); create table second ({COLUMNS});
             create table parts ({COLUMNS}) partition by list (type);"
        );
        say(&client, &tables).await;
        say(
            &client,
            "insert into second (aggregateid) select 'old ' || i from generate_series(1, 50) i",
        )
        .await;
        adopt(&fixture, &["first", "--order-by", "n"]);
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = write_and_delete(fixture.client().await, Arc::clone(&stop));
        Self { fixture, client, relay, stop, writer }
    }

    /// All that was written and deleted until now.
    async fn end_writing(&mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let count = (&mut self.writer).await.expect("the writer ended well");
        let keys = |table: &'static str| (0..count).map(move |number| format!("{table} {number}"));
        DELETED.iter().flat_map(|table| keys(table)).collect()
    }
}

fn old() -> Vec<String> {
    (1..=50).map(|number| format!("old {number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_deleted_at_once_come_while_a_table_is_adopted() {
    // GIVEN a transaction that was open before, for which the snapshot has to wait.
    let mut beside = Beside::begin("adopt_beside").await;
    let open = beside.fixture.client().await;
    say(&open, "begin; insert into outbox (aggregatetype, aggregateid, type) values ('beside', 'open', 'T')")
        .await;
    let other = RelayProcess::start(&beside.fixture, WAL);
    other.wait_until_it_says("standing by").await;
    // WHEN a table is adopted, and rows are written into it before the snapshot and behind it.
    let said = adopt(&beside.fixture, &["second", "--order-by", "n"]);
    assert!(said.contains("rows are pending, by n"), "{said}");
    say(&beside.client, "insert into second (aggregateid) values ('before the snapshot')").await;
    let said = || beside.relay.said() + &other.said();
    let patience = Patience::until("one prepares the copy");
    while !said().contains("preparing the copy") {
        patience.pause().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    say(&open, "commit").await;
    let patience = Patience::until("the table is copied");
    while !said().contains(r#""copied existing rows","table":"public.second""#) {
        patience.pause().await;
    }
    say(&beside.client, "insert into second (aggregateid) values ('behind it')").await;
    let prepared = said().matches("preparing the copy").count();
    assert_eq!(prepared, 1, "who prepares a copy makes it");
    let slots = said().matches("a slot is made").count();
    assert_eq!(slots, 1, "the first: {}", said());
    // THEN all has come, and each once.
    let mut keys = beside.end_writing().await;
    let streamed = keys.len() / DELETED.len();
    keys.extend((0..streamed).map(|number| format!("second {number}")));
    keys.extend(["open", "before the snapshot", "behind it"].map(str::to_owned));
    keys.extend(old());
    wait_for(&beside.fixture, &beside.relay, &keys).await;
    beside.relay.stop_well().await;
    other.stop_well().await;
    each_once(&beside.fixture, &keys);
}

async fn comes_while_a_table_gets_a_part(name: &str, table: &str, attach: &str) {
    let mut beside = Beside::begin(name).await;
    adopt(&beside.fixture, &[table, "--order-by", "n"]);
    let patience = Patience::until("the table is copied");
    while beside.relay.said().matches("copied existing rows").count() < 2 {
        patience.pause().await;
    }
    // WHEN a table with rows becomes a part of one.
    say(&beside.client, &format!("create table filled (like {table} including all)")).await;
    say(
        &beside.client,
        "insert into filled (n, aggregateid) overriding system value values (999, 'filled')",
    )
    .await;
    say(&beside.client, attach).await;
    wait_for(&beside.fixture, &beside.relay, &["filled".to_owned()]).await;
    // THEN nothing else is missing.
    let keys = beside.end_writing().await;
    wait_for(&beside.fixture, &beside.relay, &keys).await;
    let slots = beside.relay.said().matches("a slot is made").count();
    assert_eq!(slots, 1, "the first: {}", beside.relay.said());
    beside.relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_deleted_at_once_come_while_a_table_gets_a_partition_with_rows() {
    let attach = "alter table parts attach partition filled for values in ('T')";
    comes_while_a_table_gets_a_part("adopt_beside_part", "parts", attach).await;
}

/// The publication does not bring what inherits later, and is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_deleted_at_once_come_while_a_table_gets_an_heir_with_rows() {
    let attach = "alter table filled inherit second";
    comes_while_a_table_gets_a_part("adopt_beside_heir", "second", attach).await;
}

/// A table is given back while nobody reads; what waits in the log comes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_in_the_log_come_once_a_table_was_given_back() {
    let mut beside = Beside::begin("adopt_beside_end").await;
    adopt(&beside.fixture, &["second", "--order-by", "n"]);
    wait_for(&beside.fixture, &beside.relay, &old()).await;
    let again = RelayProcess::start(&beside.fixture, WAL);
    std::mem::replace(&mut beside.relay, again).stop_well().await;
    beside.relay.wait_until_it_says("reading the log").await;
    let keys = beside.end_writing().await;
    let Beside { fixture, client, relay, .. } = beside;
    relay.stop_well().await;
    // WHEN events wait in the log alone, and the table is given back.
    say(
        &client,
        "insert into outbox (aggregatetype, aggregateid, type) values ('beside', 'waits', 'T')",
    )
    .await;
    say(&client, "delete from outbox").await;
    adopt(&fixture, &["second", "--end"]);
    let relay = RelayProcess::start(&fixture, WAL);
    let keys: Vec<String> = keys.into_iter().chain(["waits".to_owned()]).collect();
    wait_for(&fixture, &relay, &keys).await;
    relay.stop_well().await;
    each_once(&fixture, &keys);
}

/// Nothing else is given up for a table that cannot be copied yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_deleted_at_once_come_while_there_is_no_room_for_a_copy() {
    let postgres = start_postgres(&[("max_replication_slots", "2")]);
    let (name, admin) = ("adopt_beside_room", postgres.url("postgres"));
    let fixture = Fixture::on(name, &admin, postgres.url(name), kafka().brokers()).await;
    say(&fixture.client().await, "select pg_create_physical_replication_slot('other')").await;
    let mut beside = Beside::on(fixture).await;
    // WHEN a table is adopted, and another slot takes the room that its copy needs.
    let said = adopt(&beside.fixture, &["second", "--order-by", "n"]);
    assert!(said.contains("once there is room for one more"), "{said}");
    let told = r#"all else is published meanwhile"#;
    beside.relay.wait_until_it_says(told).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    say(&beside.client, "select pg_drop_replication_slot('other')").await;
    wait_for(&beside.fixture, &beside.relay, &old()).await;
    // THEN all has come, and each once.
    let mut keys = beside.end_writing().await;
    keys.extend(old());
    wait_for(&beside.fixture, &beside.relay, &keys).await;
    let slots = beside.relay.said().matches("a slot is made").count();
    assert_eq!(slots, 1, "the first: {}", beside.relay.said());
    beside.relay.stop_well().await;
    each_once(&beside.fixture, &keys);
}

/// Whenever the relay dies between the adoption and the end of the copy, the next one prepares it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_between_the_adoption_and_the_copy_lose_nothing() {
    let mut beside = Beside::begin("adopt_beside_kills").await;
    let mut keys = Vec::new();
    for (round, millis) in [300, 700, 1_000, 1_300, 1_700, 2_200].into_iter().enumerate() {
        let table = format!("late{round}");
        let make = format!(
            "create table {table} ({COLUMNS});
             insert into {table} (aggregateid) select '{table} ' || i from generate_series(1, 400) i"
        );
        say(&beside.client, &make).await;
        keys.extend((1..=400).map(|number| format!("{table} {number}")));
        // GIVEN a transaction that was open before, now and then.
        let open = beside.fixture.client().await;
        if round % 2 == 0 {
            let insert =
                format!("begin; insert into {table} (aggregateid) values ('{table} open')");
            say(&open, &insert).await;
            keys.push(format!("{table} open"));
        }
        adopt(&beside.fixture, &[&table, "--order-by", "n"]);
        // WHEN the relay is killed soon after.
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if round % 2 == 0 {
            say(&open, "commit").await;
        }
        let again = RelayProcess::start(&beside.fixture, WAL);
        std::mem::replace(&mut beside.relay, again).kill();
        let row = format!("insert into {table} (aggregateid) values ('{table} behind')");
        say(&beside.client, &row).await;
        keys.push(format!("{table} behind"));
    }
    // THEN nothing is missing.
    wait_for(&beside.fixture, &beside.relay, &keys).await;
    let written = beside.end_writing().await;
    keys.extend((0..written.len() / DELETED.len()).map(|number| format!("outbox {number}")));
    keys.extend((0..written.len() / DELETED.len()).map(|number| format!("first {number}")));
    wait_for(&beside.fixture, &beside.relay, &keys).await;
    beside.relay.stop_well().await;
    let counts = counts(&beside.fixture);
    let twice = counts.iter().filter(|(_, count)| **count > 1).count();
    println!("{} events, {twice} came more than once", counts.len());
}

/// GIVEN a table that is adopted while somebody's transaction is open, WHEN its rows wait for that until they can be read,
/// THEN `wait` does not say that all is published before it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_of_rows_that_are_to_be_copied() {
    let fixture = Fixture::new("adopt_waited_for").await;
    let client = fixture.client().await;
    say(&client, &format!("create table first ({COLUMNS}); create table second ({COLUMNS})")).await;
    adopt(&fixture, &["first", "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    let wait = |seconds: &str| {
        let output = fixture.command().args(["wait", "--timeout", seconds]).output();
        let output = output.expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    say(&client, &insert("first", 1)).await;
    let (code, said) = wait("30s");
    assert_eq!(code, Some(0), "{said}");
    let open = fixture.client().await;
    say(&open, &format!("begin; {}", insert("first", 2))).await;
    say(&client, &insert("second", 1)).await;
    adopt(&fixture, &["second", "--order-by", "n"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    say(&client, &insert("second", 2)).await;
    let (code, said) = wait("3s");
    assert!(code != Some(0) && said.contains("rows of public.second may wait"), "{code:?} {said}");
    say(&open, "commit").await;
    let (code, said) = wait("60s");
    assert_eq!(code, Some(0), "{said}");
    let keys = ["first 1", "first 2", "second 1", "second 2"].map(str::to_owned);
    assert!(keys.iter().all(|key| counts(&fixture).contains_key(key)), "{:?}", counts(&fixture));
    relay.stop_well().await;
}
