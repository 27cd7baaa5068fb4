//! What a consumer gets: keys, values, headers and partitions, byte for byte.

use std::str::FromStr;

use uuid::Uuid;

use crate::support::consumer::{add_partitions, create_topic};
use crate::support::fixture::Options;
use crate::support::{Consumed, Fixture, RelayProcess, mostly_waits, read_topic};

async fn relay_all(fixture: &Fixture, arguments: &[&str]) -> Vec<Consumed> {
    let relay = RelayProcess::start(fixture, arguments);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    read_topic(&fixture.brokers, &fixture.topic("thing"))
}

fn only(records: &[Consumed]) -> &Consumed {
    assert_eq!(records.len(), 1, "{records:?}");
    &records[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_the_row() {
    let fixture = Fixture::new("record_form").await;
    let id = Uuid::from_str("018f4e6a-5b1c-7def-8a00-0123456789ab").expect("a uuid");
    let payload = "{\"b\" : 1,\n \"a\":[1.0, \"ü\\u0000\"] }";
    fixture
        .client()
        .await
        .execute(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload, headers) values
             ($1, 'thing', 'schlüssel/1', 'Made', $2::text::json,
              '{\"traceparent\": \"00-ab-cd-01\", \"retries\": 3, \"nothing\": null, \"list\": [1, \"x\"]}')",
            &[&id, &payload],
        )
        .await
        .expect("an insert never fails");
    let before = now_millis();
    let records = relay_all(&fixture, &[]).await;
    let record = only(&records);
    assert_eq!(record.key.as_deref(), Some("schlüssel/1".as_bytes()));
    assert_eq!(record.value.as_deref(), Some(payload.as_bytes()), "json keeps its text");
    assert_eq!(record.header("id"), Some(id.to_string().as_bytes()));
    assert_eq!(record.header("type"), Some(b"Made".as_slice()));
    assert_eq!(record.header("traceparent"), Some(b"00-ab-cd-01".as_slice()));
    assert_eq!(record.header("retries"), Some(b"3".as_slice()));
    assert_eq!(record.header("list"), Some(b"[1, \"x\"]".as_slice()));
    let nothing = record.headers.iter().find(|(name, _)| name == "nothing").expect("it is there");
    assert_eq!(nothing.1, None);
    assert_eq!(record.headers.len(), 6);
    let sent = record.timestamp_millis.expect("records have a time");
    assert!((before - 5_000..=now_millis()).contains(&sent), "the time of sending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_payload_is_a_tombstone() {
    let fixture = Fixture::new("tombstone").await;
    insert(&fixture, "null").await;
    let records = relay_all(&fixture, &[]).await;
    assert_eq!(only(&records).value, None);
    assert_eq!(only(&records).key.as_deref(), Some(b"k".as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_goes_through_untouched() {
    let value = payload_through("text", "text", "E' not json \\n ü \\t'").await;
    assert_eq!(value, " not json \n ü \t".as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytea_goes_through_untouched() {
    let value = payload_through("bytea", "bytea", "decode('00ff10e2820001', 'hex')").await;
    assert_eq!(value, [0x00, 0xff, 0x10, 0xe2, 0x82, 0x00, 0x01]);
    let fixture = Fixture::with("bytea_empty", with_payload("bytea")).await;
    insert(&fixture, "''").await;
    let records = relay_all(&fixture, &[]).await;
    assert_eq!(only(&records).value.as_deref(), Some([].as_slice()), "empty is not null");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jsonb_comes_as_postgresql_writes_it() {
    let value = payload_through("jsonb", "jsonb", "'{\"b\":1,   \"a\":  [true]}'").await;
    assert_eq!(value, br#"{"a": [true], "b": 1}"#);
}

async fn payload_through(name: &str, payload: &'static str, literal: &str) -> Vec<u8> {
    let fixture = Fixture::with(&format!("payload_{name}"), with_payload(payload)).await;
    insert(&fixture, literal).await;
    let records = relay_all(&fixture, &[]).await;
    only(&records).value.clone().expect("it has a value")
}

fn with_payload(payload: &'static str) -> Options {
    Options { payload, ..Options::default() }
}

async fn insert(fixture: &Fixture, literal: &str) {
    let sql = format!(
        "insert into outbox (id, aggregatetype, aggregateid, type, payload)
         values (gen_random_uuid(), 'thing', 'k', 'Made', {literal})"
    );
    fixture.client().await.batch_execute(&sql).await.expect("an insert never fails");
}

/// The vectors come from Java's own client; see the file beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_to_the_partition_of_the_java_client() {
    const PARTITIONS: i32 = 12;
    let fixture = Fixture::new("java_partitions").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), PARTITIONS).await;
    let expected: Vec<(String, i32)> = crate::support::vectors::java_partitions(PARTITIONS);
    assert!(expected.len() > 50, "the vectors have keys for {PARTITIONS} partitions");
    let client = fixture.client().await;
    for (key, _) in &expected {
        client
            .execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload)
                 values ('thing', $1, 'Made', '{}')",
                &[key],
            )
            .await
            .expect("an insert never fails");
    }
    let records = relay_all(&fixture, &[]).await;
    assert_eq!(records.len(), expected.len());
    for (key, partition) in expected {
        let record = records.iter().find(|record| record.key_text() == key).expect("it arrived");
        assert_eq!(record.partition, partition, "key {key:?}");
    }
}

fn now_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Keys move to other partitions then: that is noticed within the minute, and said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_gets_more_partitions_is_noticed() {
    mostly_waits();
    let fixture = Fixture::new("more_partitions").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    insert(&fixture, "'{}'").await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    fixture.wait_published().await;
    add_partitions(&fixture.brokers, &fixture.topic("thing"), 5).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(100);
    while !relay.said().contains("the topic's number of partitions changed") {
        assert!(std::time::Instant::now() < deadline, "it never noticed:\n{}", relay.said());
        insert(&fixture, "'{}'").await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
}
