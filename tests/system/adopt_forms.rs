//! Adopted tables that were others for a moment, while rows were written. Only the log is sure to have their rows: people
//! decide whether the tables are read in its place, and are told how.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::adopt::adopt;
use crate::support::{Consumed, Fixture, Patience, RelayProcess, read_topic};

const WAL: &[&str] = &["--capture", "wal"];
const TABLE: &str =
    "create table legacy (n bigint generated always as identity, id uuid default gen_random_uuid(),
    aggregatetype text default 't', aggregateid text, type text default 'T', payload jsonb)";
const SAYS: &str = "postrider cannot read what comes next in the log";
const CAUSE: &str =
    "in a form that their table has no more: the column payload of the adopted table public.legacy";

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn check(fixture: &Fixture) -> String {
    let output = fixture.command().arg("check").output().expect("the binary runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits for all of these keys, and for no other.
async fn wait_arrived(fixture: &Fixture, relay: &RelayProcess, expected: &[&str]) {
    let patience = Patience::until("all records have come");
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic("t"));
        let keys: BTreeSet<&str> = records.iter().map(Consumed::key_text).collect();
        if keys == expected {
            return;
        }
        assert!(keys.is_subset(&expected), "{keys:?}");
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

async fn begun(name: &str) -> (Fixture, Client, RelayProcess) {
    let fixture = Fixture::new(name).await;
    let client = fixture.client().await;
    say(&client, TABLE).await;
    adopt(&fixture, &["legacy", "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    (fixture, client, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_was_another_for_a_moment_is_told_with_the_way_out() {
    let (fixture, client, relay) = begun("adopt_forms").await;
    let change = "begin; alter table legacy rename column payload to body;
        insert into legacy (aggregateid, body) values ('between', '1');
        alter table legacy rename column body to payload; commit";
    say(&client, "insert into legacy (aggregateid, payload) values ('before', '1')").await;
    say(&client, change).await;
    say(&client, "insert into legacy (aggregateid, payload) values ('behind', '1')").await;
    relay.wait_until_it_says(SAYS).await;
    let slot = "select slot_name::text from postrider.capture_slot";
    let slot: String = client.query_one(slot, &[]).await.expect("it answers").get(0);
    let drop = format!("select pg_drop_replication_slot('{slot}')");
    let said = relay.said();
    assert!(said.contains(CAUSE) && said.contains(&drop), "{said}");
    let patience = Patience::until("check sees it, too");
    while !check(&fixture).contains(&drop) {
        patience.pause().await;
    }
    // It does not end, and begins as it was.
    relay.stop_well().await;
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says(SAYS).await;
    let patience = Patience::until("nobody reads the slot");
    while client.batch_execute(&drop).await.is_err() {
        patience.pause().await;
    }
    wait_arrived(&fixture, &relay, &["before", "between", "behind"]).await;
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
    let checked = check(&fixture);
    assert!(!checked.contains(&drop), "{checked}");
}

/// While it is another one it is told as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_another_ends_the_relay() {
    let (_fixture, client, relay) = begun("adopt_forms_apart").await;
    say(&client, "alter table legacy rename column payload to body").await;
    say(&client, "insert into legacy (aggregateid, body) values ('between', '1')").await;
    assert_eq!(relay.wait(Duration::from_secs(60)).await.code(), Some(6));
}

/// Its rows come under the name that it has at that place of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_called_otherwise_for_a_moment_is_the_same_table() {
    let (fixture, client, relay) = begun("adopt_forms_name").await;
    let change = "begin; alter table legacy rename to former;
        insert into former (aggregateid, payload) values ('between', '1');
        alter table former rename to legacy; commit";
    say(&client, change).await;
    say(&client, "insert into legacy (aggregateid, payload) values ('behind', '1')").await;
    wait_arrived(&fixture, &relay, &["between", "behind"]).await;
    relay.stop_well().await;
}

/// Only the server can print a number of any size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_was_another_for_a_moment_is_read() {
    let (fixture, client, relay) = begun("adopt_forms_type").await;
    let change = "begin; alter table legacy alter column aggregateid type numeric using aggregateid::numeric;
        insert into legacy (aggregateid, payload) values (12.5, '1');
        alter table legacy alter column aggregateid type text; commit";
    say(&client, change).await;
    say(&client, "insert into legacy (aggregateid, payload) values ('13', '1')").await;
    wait_arrived(&fixture, &relay, &["12.5", "13"]).await;
    relay.stop_well().await;
}
