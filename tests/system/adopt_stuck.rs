//! What the server cannot hand on in the stream: the table of the outbox is read in its place by itself; for adopted
//! tables people decide, who are told how.

use tokio_postgres::Client;

use crate::adopt::adopt;
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

/// Its values can be written and not be printed: the stream ends at each.
const UNPRINTABLE: &str = "
    create type unprintable;
    create function unprintable_in(cstring) returns unprintable language internal immutable strict as 'int4in';
    create function unprintable_out(unprintable) returns cstring language internal immutable strict as 'trigger_out';
    create type unprintable (input = unprintable_in, output = unprintable_out, internallength = 4, passedbyvalue,
        alignment = int4);";
const SAYS: &str = "the server cannot hand on what comes next in the log";

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn wait_arrived(fixture: &Fixture, relay: &RelayProcess, keys: &[&str]) {
    let patience = Patience::until("all records have come");
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic("t"));
        if keys.iter().all(|key| records.iter().any(|record| record.key_text() == *key)) {
            return;
        }
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_is_polled_past_it() {
    let fixture = Fixture::new("stuck_outbox").await;
    let client = fixture.client().await;
    say(&client, UNPRINTABLE).await;
    say(&client, "alter table outbox add column odd unprintable").await;
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload, odd) values";
    say(&client, &format!("{insert} ('t', 'before', 'T', '{{}}', null)")).await;
    wait_arrived(&fixture, &relay, &["before"]).await;
    say(&client, &format!("{insert} ('t', 'odd', 'T', '{{}}', '1')")).await;
    say(&client, &format!("{insert} ('t', 'behind', 'T', '{{}}', null)")).await;
    relay.wait_until_it_says(SAYS).await;
    wait_arrived(&fixture, &relay, &["odd", "behind"]).await;
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_table_is_read_in_its_place_when_people_say_so() {
    let fixture = Fixture::new("stuck_adopted").await;
    let client = fixture.client().await;
    say(&client, UNPRINTABLE).await;
    let table = "create table legacy (n bigint generated always as identity, id uuid default gen_random_uuid(),
        aggregatetype text default 't', aggregateid text, type text default 'T', payload text, odd unprintable)";
    say(&client, table).await;
    adopt(&fixture, &["legacy", "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let insert = "insert into legacy (aggregateid, odd) values";
    say(&client, &format!("{insert} ('before', null)")).await;
    wait_arrived(&fixture, &relay, &["before"]).await;
    say(&client, &format!("{insert} ('odd', '1')")).await;
    say(&client, &format!("{insert} ('behind', null)")).await;
    relay.wait_until_it_says(SAYS).await;
    let slot = "select slot_name::text from postrider.capture_slot";
    let slot: String = client.query_one(slot, &[]).await.expect("it answers").get(0);
    let drop = format!("select pg_drop_replication_slot('{slot}')");
    assert!(relay.said().contains(&drop), "{}", relay.said());
    let patience = Patience::until("nobody reads the slot");
    while client.batch_execute(&drop).await.is_err() {
        patience.pause().await;
    }
    wait_arrived(&fixture, &relay, &["odd", "behind"]).await;
    relay.stop_well().await;
}
