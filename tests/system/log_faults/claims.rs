//! Rows that say something else of themselves than the log does.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{start_relay, start_relay_with};
use crate::support::{Capture, Consumed, Delivery, Fixture, read_topic};

const TOPIC: &str = "claim";
/// As in `large`.
const MEMORY_KILOBYTES_MAX: u64 = 100 * 1024;

/// Waits until so many different records of the topic are there, and gives all.
async fn wait_for_records(fixture: &Fixture, count: usize) -> Vec<Consumed> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic(TOPIC));
        let mut keys: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
        keys.sort();
        keys.dedup();
        if keys.len() >= count {
            return records;
        }
        assert!(Instant::now() < deadline, "{} of {count} came", keys.len());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// PostgreSQL refuses such rows; a superuser can bring them all the same.
async fn let_them_lie(client: &Client) {
    let lie = "set session_replication_role = replica";
    client.batch_execute(lie).await.expect("the superuser may");
}

async fn write(client: &Client, txid: &str, key: &str) {
    let insert = format!(
        "insert into outbox (txid, aggregatetype, aggregateid, type, payload)
         values ({txid}, '{TOPIC}', '{key}', 'T', '{{}}')"
    );
    client.batch_execute(&insert).await.expect("an insert never fails");
}

/// Waits until what committed so far is saved as published.
async fn wait_saved(client: &Client) {
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await;
    let end: String = row.expect("it answers").get(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        write(client, "default", "filler").await;
        let saved = "select delivered_lsn >= $1::text::pg_lsn from postrider.capture_slot";
        if client.query_one(saved, &[&end]).await.expect("it answers").get(0) {
            return;
        }
        assert!(Instant::now() < deadline, "it is not saved in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The id of a transaction that is open, of one long past, of none that there will ever be: all are
/// published as what they are, nobody else's event vanishes, and nothing is made room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transaction_is_the_logs_and_not_the_columns() {
    let fixture = Fixture::new("log_claims").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let (client, open) = (fixture.client().await, fixture.client().await);
    let_them_lie(&client).await;
    open.batch_execute("begin; savepoint deep").await.expect("the session lives");
    write(&open, "default", "open").await;
    let id = open.query_one("select pg_current_xact_id()::text", &[]).await.expect("it answers");
    let id: String = id.get(0);
    let claims = [
        ("others", format!("'{id}'")),
        ("last", "'9223372036854775807'".to_owned()),
        ("beyond", "'18446744073709551615'".to_owned()),
        ("far", format!("(({id} + 100000000000)::text)::xid8")),
        ("near", format!("(({id} + 1000000)::text)::xid8")),
        ("past", "'3'".to_owned()),
        ("none", "'0'".to_owned()),
    ];
    for (key, txid) in &claims {
        write(&client, txid, key).await;
    }
    // And one that lies in a transaction with an honest one.
    let both = format!(
        "begin; insert into outbox (aggregatetype, aggregateid, type) values ('{TOPIC}', 'honest', 'T');
         insert into outbox (txid, aggregatetype, aggregateid, type) values ('{id}', '{TOPIC}', 'mixed', 'T');
         commit"
    );
    client.batch_execute(&both).await.expect("an insert never fails");
    wait_for_records(&fixture, claims.len() + 2).await;
    wait_saved(&client).await;
    let said = relay.said().matches("another transaction").count();
    let first_peak = relay.peak_memory_kilobytes();
    relay.kill();
    open.batch_execute("commit").await.expect("nothing is in the way");
    let relay =
        start_relay_with(&fixture, Capture::Wal, &["--delivery", Delivery::asked().name()]).await;
    write(&client, "'9223372036854775806'", "after").await;
    let records = wait_for_records(&fixture, claims.len() + 5).await;
    wait_saved(&client).await;
    let peak = first_peak.max(relay.peak_memory_kilobytes());
    relay.stop_well().await;
    let mut keys: Vec<&[u8]> = records.iter().filter_map(|record| record.key.as_deref()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in ["open", "honest", "mixed", "after"].into_iter().chain(claims.map(|(key, _)| key)) {
        assert!(keys.contains(&key.as_bytes()), "{key} is lost");
    }
    assert_eq!(said, 1, "it is worth one warning");
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
}
