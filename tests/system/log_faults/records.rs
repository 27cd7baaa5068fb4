//! The same rows through polling and through the log: the records are the same, byte for byte.

use std::collections::BTreeMap;

use super::start_relay;
use crate::support::consumer::create_topic;
use crate::support::fixture::Options;
use crate::support::{Capture, Consumed, Fixture, RelayProcess, read_topic};

const PARTITIONS: i32 = 6;
const AGGREGATES: u32 = 12;

/// Payloads of each type, as SQL; the last is null.
const PAYLOADS: [(&str, &[&str]); 4] = [
    (
        "json",
        &[
            r#"'{"b" : 1,  "a":[1.0, "\u00fc\ud83d\ude00"]}'"#,
            "to_json(repeat('x', 90000))",
            "'null'",
            "null",
        ],
    ),
    (
        "jsonb",
        &[r#"'{"b":1,   "a":  [true, 1.50]}'"#, "to_jsonb(md5(random()::text))", "'\"\"'", "null"],
    ),
    ("text", &["E' not json \\n \u{fc} \\t'", "repeat('\u{20ac}x', 50000)", "''", "null"]),
    (
        "bytea",
        &[
            "decode('00ff10e2820001', 'hex')",
            "decode(repeat('c0de00', 40000), 'hex')",
            "''",
            "null",
        ],
    ),
];

const HEADERS: [&str; 4] = [
    "null",
    "'{}'",
    r#"'{"traceparent": "00-ab-cd-01", "retries": 3, "nothing": null, "list": [1, "x"]}'"#,
    "'{\"\u{fc}\": \"\u{1f600}\"}'",
];

/// The same rows in each database: all payloads with all headers, for aggregates of two types. Ids and
/// times are made from numbers; nothing is random but what is copied.
fn rows(payloads: &[&str]) -> String {
    let mut sql = String::new();
    let mut number = 0;
    for round in 0..3 {
        for payload in payloads {
            for headers in HEADERS {
                number += 1;
                let aggregate = number % AGGREGATES;
                let payload = payload.replace("random()", &format!("{number}"));
                sql.push_str(&format!(
                    "insert into outbox (id, aggregatetype, aggregateid, type, payload, headers, created_at)
                     values (('00000000-0000-4000-8000-' || lpad('{number}', 12, '0'))::uuid,
                         'type{round}', 'schl\u{fc}ssel/{aggregate}', 'Made {number}', {payload}, {headers},
                         timestamptz '2026-01-01 00:00:00.123456+00' + {number} * interval '1 hour');\n"
                ));
            }
        }
    }
    sql
}

/// The records of each key, in their order, with their partition and time.
fn by_key(fixture: &Fixture, topic: &str) -> BTreeMap<Vec<u8>, Vec<Consumed>> {
    let mut records: BTreeMap<Vec<u8>, Vec<Consumed>> = BTreeMap::new();
    for record in read_topic(&fixture.brokers, topic) {
        records.entry(record.key.clone().expect("each has one")).or_default().push(record);
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_and_the_log_give_the_same_records() {
    for (payload, payloads) in PAYLOADS {
        let rows = rows(payloads);
        let (polled, streamed) = tokio::join!(
            publish(Capture::Poll, payload, &rows),
            publish(Capture::Wal, payload, &rows)
        );
        for round in 0..3 {
            let topic = |fixture: &Fixture| fixture.topic(&format!("type{round}"));
            let (one, other) =
                (by_key(&polled, &topic(&polled)), by_key(&streamed, &topic(&streamed)));
            assert_eq!(one.values().map(Vec::len).sum::<usize>(), payloads.len() * HEADERS.len());
            assert_eq!(one, other, "{payload}");
        }
    }
}

async fn publish(capture: Capture, payload: &'static str, rows: &str) -> Fixture {
    let options = Options { payload, ..Options::default() };
    let name = format!("log_records_{payload}_{}", capture.name());
    let fixture = Fixture::with(&name, options).await.captured_by(capture);
    for round in 0..3 {
        create_topic(&fixture.brokers, &fixture.topic(&format!("type{round}")), PARTITIONS).await;
    }
    // First the slot: what is there before it comes from the table in either way.
    start_relay(&fixture, capture).await.stop_well().await;
    fixture.client().await.batch_execute(rows).await.expect("an insert never fails");
    let arguments = ["--record-timestamp", "created", "--add-headers", "created_at"];
    let relay = RelayProcess::start(&fixture, &arguments);
    relay.wait_until_it_says(capture.words()).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    fixture
}

/// Nobody ever sees it in the table; the log has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_its_own_transaction_deletes_is_published_by_the_log_alone() {
    for (capture, expected) in [(Capture::Poll, 1), (Capture::Wal, 2)] {
        let name = format!("log_deleted_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        let relay = start_relay(&fixture, capture).await;
        let insert = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('t', 'k', 'T', '{}')";
        let rows = format!("begin; {insert}; delete from outbox; commit; {insert}");
        fixture.client().await.batch_execute(&rows).await.expect("an insert never fails");
        fixture.wait_published().await;
        relay.stop_well().await;
        let records = read_topic(&fixture.brokers, &fixture.topic("t"));
        assert_eq!(records.len(), expected, "{}", capture.name());
    }
}
