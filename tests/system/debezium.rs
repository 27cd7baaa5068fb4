//! A consumer of Debezium's sees no difference: the same rows through its outbox event router and
//! through postrider, compared record by record: topic, partition, key, headers and value.
//!
//! The router is the released one, run by Kafka Connect in standalone mode: router, connector and
//! converters are the classes that Debezium Server runs, too; they need Java 17 as Kafka does, and
//! 39 MB, where Debezium Server needs Java 21 and 780 MB. Each payload type has a database of its own,
//! with a table as Debezium's documentation has it beside postrider's; one statement writes both.
//! Where the router can be set up so that it differs, the difference is asserted as it is: these are
//! the lines of the table in docs/migrate-from-debezium.md.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use postrider_testkit::servers::{Connect, ConnectOptions, Connector, Postgres};
use uuid::Uuid;

use crate::support::consumer::{create_topic, list_topics};
use crate::support::fixture::Options;
use crate::support::servers::{kafka, start_postgres};
use crate::support::vectors::java_partitions;
use crate::support::{Consumed, Fixture, RelayProcess, read_topic};

/// Aggregate types, and how many partitions their topics have.
const TYPES: [(&str, i32); 3] = [("order", 12), ("customer", 3), ("Line.item_2-x", 1)];

/// Rows of each payload type.
const ROWS: usize = 240;

/// A payload type of the outbox: its name, what casts a text to it, and payloads to try.
struct Payload {
    name: &'static str,
    cast: &'static str,
    samples: &'static [Option<&'static str>],
}

const JSON: Payload = Payload {
    name: "json",
    cast: "$5::text::json",
    samples: &[
        Some("{\"b\" : 1,\n \"a\":[1.0, \"ü\\u0000\"] }"),
        None,
        Some("{}"),
        Some("\"a text\""),
        Some(" [ 1e3, null ] "),
        Some("null"),
    ],
};
/// No array at the top: with an expanded payload that ends the router's task.
const JSONB: Payload = Payload {
    name: "jsonb",
    cast: "$5::text::jsonb",
    samples: &[
        Some("{\"b\":1.5, \"a\":[1,2], \"n\":null, \"o\":{}}"),
        Some("{\"mixed\":[1, \"ü\"]}"),
        None,
        Some("{}"),
        Some("\"a text\""),
        Some("12345678901234567890"),
    ],
};
const TEXT: Payload = Payload {
    name: "text",
    cast: "$5::text",
    samples: &[
        Some("plain ü 🚚"),
        None,
        Some(""),
        Some(" "),
        Some("\"quoted\"\n"),
        Some("{\"a\":1}"),
    ],
};
/// As hexadecimal digits.
const BYTEA: Payload = Payload {
    name: "bytea",
    cast: "decode($5::text, 'hex')",
    samples: &[Some("00ff10e2820001"), None, Some(""), Some("7b7d")],
};

/// A way to set up the router: what it reads, and its properties.
struct Router {
    name: &'static str,
    payload: &'static str,
    properties: &'static [(&'static str, &'static str)],
}

const BINARY_CONVERTER: &str = "io.debezium.converters.BinaryDataConverter";
const JSON_CONVERTER: &str = "org.apache.kafka.connect.json.JsonConverter";

const ROUTERS: [Router; 7] = [
    Router { name: "json", payload: "json", properties: &[] },
    Router { name: "jsonb", payload: "jsonb", properties: &[] },
    Router { name: "text", payload: "text", properties: &[] },
    Router {
        name: "bytea",
        payload: "bytea",
        // The delegate is for heartbeats.
        properties: &[
            ("value.converter", BINARY_CONVERTER),
            ("value.converter.delegate.converter.type", JSON_CONVERTER),
        ],
    },
    Router {
        name: "quoted",
        payload: "text",
        properties: &[
            ("key.converter", JSON_CONVERTER),
            ("key.converter.schemas.enable", "false"),
            ("value.converter", JSON_CONVERTER),
            ("value.converter.schemas.enable", "false"),
        ],
    },
    Router {
        name: "expanded",
        payload: "jsonb",
        properties: &[
            ("transforms.outbox.table.expand.json.payload", "true"),
            ("value.converter", JSON_CONVERTER),
            ("value.converter.schemas.enable", "false"),
        ],
    },
    Router {
        name: "emptied",
        payload: "text",
        properties: &[
            ("transforms.outbox.route.tombstone.on.empty.payload", "true"),
            ("message.prefix.exclude.list", "nothing"),
        ],
    },
];

/// Bytes that a failed comparison shows as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.escape_ascii())
    }
}

/// What a consumer can tell apart, but for the time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    partition: i32,
    headers: Vec<(String, Option<Bytes>)>,
    value: Option<Bytes>,
}

/// By topic (without its beginning) and key: the records in their order.
type Stream = BTreeMap<(String, Bytes), Vec<Seen>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_debeziums_sees_no_difference() {
    let postgres = start_postgres(&[("max_replication_slots", "20"), ("max_wal_senders", "20")]);
    let mut fixtures = BTreeMap::new();
    for payload in [JSON, JSONB, TEXT, BYTEA] {
        let fixture = prepare(&postgres, &payload).await;
        write_rows(&fixture, &payload).await;
        fixtures.insert(payload.name, fixture);
    }
    for router in &ROUTERS {
        create_topics(&fixtures[router.payload], &topic_beginning(router)).await;
    }
    let connectors = ROUTERS.iter().map(|router| connector(&postgres, router)).collect();
    let brokers = kafka().brokers();
    let options = ConnectOptions::new(brokers, connectors);
    let connect = Connect::start(&options, &|line| println!("{line}"))
        .unwrap_or_else(|missing| panic!("{missing}"));
    let mut ours = BTreeMap::new();
    for (payload, fixture) in &fixtures {
        ours.insert(*payload, relay(fixture).await);
    }
    // With the row that was deleted at once.
    let theirs = |name: &str| wait_for(&connect, brokers, router_named(name), ROWS + 1);
    for payload in ["json", "jsonb", "text", "bytea"] {
        assert_same(&ours[payload], &taken_down(theirs(payload)), payload);
    }
    assert_quoted(&ours["text"], &taken_down(theirs("quoted")));
    assert_expanded(&ours["jsonb"], &taken_down(theirs("expanded")));
    assert_emptied(&ours["text"], &taken_down(theirs("emptied")));
    wait_for_topic(brokers, &format!("{}.message", topic_beginning(router_named("emptied"))));
    for router in &ROUTERS {
        wait_until_done(&fixtures[router.payload], &topic_beginning(router)).await;
    }
    connect.stop().expect("Kafka Connect stops");
}

fn router_named(name: &str) -> &'static Router {
    ROUTERS.iter().find(|router| router.name == name).expect("it is in the list")
}

/// What the names of its topics begin with.
fn topic_beginning(router: &Router) -> String {
    format!("debezium_router_{}", router.name)
}

/// Both tables, and for each router a slot that sees all that comes.
async fn prepare(postgres: &Postgres, payload: &Payload) -> Fixture {
    let name = format!("debezium_{}", payload.name);
    let admin = postgres.url("postgres");
    let options = Options { payload: payload.name, ..Options::default() };
    let brokers = kafka().brokers();
    let fixture = Fixture::made(&name, &admin, postgres.url(&name), brokers, &options).await;
    create_topics(&fixture, &name).await;
    let client = fixture.client().await;
    let table = format!(
        "create table outboxevent (
             id uuid primary key, aggregatetype varchar(255) not null, aggregateid text not null,
             type varchar(255) not null, payload {}, urgent boolean, attempt integer, traceparent text
         );
         create publication router for table outboxevent with (publish = 'insert')",
        payload.name
    );
    client.batch_execute(&table).await.expect("the database is new");
    for router in ROUTERS.iter().filter(|router| router.payload == payload.name) {
        let slot = "select pg_create_logical_replication_slot($1::text, 'pgoutput')::text";
        client.query(slot, &[&topic_beginning(router)]).await.expect("the log is logical");
    }
    fixture
}

async fn create_topics(fixture: &Fixture, beginning: &str) {
    for (kind, partitions) in TYPES {
        create_topic(&fixture.brokers, &format!("{beginning}.{kind}"), partitions).await;
    }
}

/// Writes the same rows into both tables, some in one transaction; then one that is deleted at once.
async fn write_rows(fixture: &Fixture, payload: &Payload) {
    let sql = format!(
        "with event as (
             insert into outboxevent
                 (id, aggregatetype, aggregateid, type, payload, urgent, attempt, traceparent)
             values ($1, $2, $3, $4, {}, $6, $7, $8) returning *
         )
         insert into outbox (id, aggregatetype, aggregateid, type, payload, headers)
         select id, aggregatetype, aggregateid, type, payload, jsonb_build_object(
             'urgent', urgent, 'attempt', attempt, 'traceparent', traceparent)
         from event",
        payload.cast
    );
    let keys: Vec<String> = java_partitions(12).into_iter().map(|(key, _)| key).collect();
    let mut client = fixture.client().await;
    let insert = client.prepare(&sql).await.expect("both tables take the row");
    let mut number = 0;
    while number <= ROWS {
        let transaction = client.transaction().await.expect("the session lives");
        for _ in 0..=number % 5 {
            if number > ROWS {
                break;
            }
            // Each key comes with each payload and with each type sooner or later.
            let key = &keys[(number * 7) % keys.len().min(60)];
            let (kind, _) = TYPES[number % TYPES.len()];
            let event = if number == ROWS { DELETED } else { "Changed ü" };
            let body = payload.samples[(number / 2) % payload.samples.len()];
            let urgent = (number % 3 != 0).then_some(number.is_multiple_of(2));
            let attempt = i32::try_from(number).expect("a small number");
            let trace = format!("00-\"{number}\"-ü-01");
            transaction
                .execute(
                    &insert,
                    &[&Uuid::new_v4(), &kind, key, &event, &body, &urgent, &attempt, &trace],
                )
                .await
                .expect("an insert never fails");
            number += 1;
        }
        let delete = format!(
            "delete from outboxevent where type = '{DELETED}';
             delete from outbox where type = '{DELETED}'"
        );
        transaction.batch_execute(&delete).await.expect("the rows are ours");
        transaction.commit().await.expect("nothing is in the way");
    }
}

/// The type of the event whose row is deleted in the transaction that wrote it.
const DELETED: &str = "DeletedAtOnce";

fn connector(postgres: &Postgres, router: &Router) -> Connector {
    let beginning = topic_beginning(router);
    let port = postgres.port().to_string();
    let database = format!("debezium_{}", router.payload);
    let replacement = format!("{beginning}.${{routedByValue}}");
    let common = [
        ("tasks.max", "1"),
        ("database.hostname", postgres.host()),
        ("database.port", &port),
        ("database.user", postgres.superuser()),
        ("database.password", postgres.password()),
        ("database.dbname", &database),
        ("topic.prefix", &beginning),
        ("table.include.list", "public.outboxevent"),
        ("plugin.name", "pgoutput"),
        ("slot.name", &beginning),
        ("publication.name", "router"),
        ("publication.autocreate.mode", "disabled"),
        ("snapshot.mode", "no_data"),
        ("poll.interval.ms", "50"),
        ("heartbeat.interval.ms", "500"),
        ("message.prefix.exclude.list", "postrider.*"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
        ("transforms.outbox.route.topic.replacement", &replacement),
        (
            "transforms.outbox.table.fields.additional.placement",
            "type:header,urgent:header,attempt:header,traceparent:header",
        ),
    ];
    let properties = common.iter().chain(router.properties);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Connector { name: router.name.to_owned(), properties: properties.map(owned).collect() }
}

/// What postrider makes of the rows.
async fn relay(fixture: &Fixture) -> Stream {
    let relay = RelayProcess::start(fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    let stream = read_stream(&fixture.brokers, &fixture.name);
    assert_eq!(count(&stream), ROWS, "{}", fixture.name);
    stream
}

/// What the router makes of them, as soon as it is complete.
fn wait_for(connect: &Connect, brokers: &str, router: &Router, wanted: usize) -> Stream {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stream = read_stream(brokers, &topic_beginning(router));
        let found = count(&stream);
        if found == wanted {
            return stream;
        }
        let log = std::fs::read_to_string(connect.log_file()).expect("the log is readable");
        let name = router.name;
        assert!(
            found < wanted && Instant::now() < deadline,
            "{name}: {found} of {wanted} records; Kafka Connect said:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// postrider's ticks are messages in the log; a connector that is not told otherwise publishes them.
fn wait_for_topic(brokers: &str, topic: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !list_topics(brokers).iter().any(|found| found == topic) {
        assert!(Instant::now() < deadline, "{topic} does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// On the way to postrider one sees in this way that the connector is done: its slot has passed the
/// place at which the last writer committed. It does only when something comes after that, so a small
/// message is written; heartbeats then let the connector acknowledge.
async fn wait_until_done(fixture: &Fixture, slot: &str) {
    let client = fixture.client().await;
    let now = client.query_one("select pg_current_wal_lsn()::text", &[]).await;
    let place: String = now.expect("PostgreSQL answers").get(0);
    let done = "select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots
        where slot_name = $1";
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let message = "select pg_logical_emit_message(true, 'postrider.switch', '')::text";
        client.query_one(message, &[]).await.expect("PostgreSQL answers");
        let row = client.query_one(done, &[&slot, &place]).await.expect("the slot is there");
        if row.get(0) {
            return;
        }
        assert!(Instant::now() < deadline, "{slot} does not reach {place}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn read_stream(brokers: &str, beginning: &str) -> Stream {
    let mut stream = Stream::new();
    for (kind, _) in TYPES {
        for record in read_topic(brokers, &format!("{beginning}.{kind}")) {
            assert!(record.timestamp_millis.is_some_and(is_recent), "the time of relaying");
            let Consumed { partition, key, headers, value, .. } = record;
            let headers = headers.into_iter().map(|(name, value)| (name, value.map(Bytes)));
            let seen = Seen { partition, headers: headers.collect(), value: value.map(Bytes) };
            let key = (kind.to_owned(), Bytes(key.expect("it has a key")));
            stream.entry(key).or_default().push(seen);
        }
    }
    stream
}

fn is_recent(millis: i64) -> bool {
    let age = jiff::Timestamp::now().as_millisecond() - millis;
    (-5_000..600_000).contains(&age)
}

fn count(stream: &Stream) -> usize {
    stream.values().map(Vec::len).sum()
}

/// What the router's records have more than postrider's, taken away: the row that was deleted in its
/// own transaction, which is in the log and in no snapshot; and headers about the connector.
fn taken_down(mut stream: Stream) -> Stream {
    let before = count(&stream);
    let mark = ("type".to_owned(), Some(Bytes(DELETED.into())));
    for records in stream.values_mut() {
        records.retain(|seen| !seen.headers.contains(&mark));
        for seen in records {
            let own = seen.headers.drain(..CONNECTOR_HEADERS.len()).map(|(name, _)| name);
            assert_eq!(own.collect::<Vec<_>>(), CONNECTOR_HEADERS);
        }
    }
    stream.retain(|_, records| !records.is_empty());
    assert_eq!(before - count(&stream), 1, "the deleted row went through the router");
    stream
}

/// Headers that Debezium adds unless `extended.headers.enabled=false`.
const CONNECTOR_HEADERS: [&str; 4] = [
    "__debezium.context.connectorLogicalName",
    "__debezium.context.taskId",
    "__debezium.context.connectorName",
    "__debezium.context.runId",
];

fn assert_same(ours: &Stream, theirs: &Stream, what: &str) {
    let keys = |stream: &Stream| stream.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(ours), keys(theirs), "{what}: topics and keys");
    for (key, records) in ours {
        assert_eq!(records, &theirs[key], "{what}: {key:?}");
    }
}

/// With Connect's JSON converter a key and a value of text become JSON strings: in quotes, and so in
/// other partitions. No payload becomes the text `null`, which is no tombstone.
fn assert_quoted(ours: &Stream, theirs: &Stream) {
    let unquoted = |bytes: &Bytes| -> Option<Bytes> {
        let text: Option<String> = serde_json::from_slice(&bytes.0).expect("a JSON string or null");
        text.map(|text| Bytes(text.into_bytes()))
    };
    let partitions = |stream: &Stream| -> Vec<i32> {
        stream.values().flatten().map(|seen| seen.partition).collect()
    };
    let mut plain = Stream::new();
    for ((kind, key), records) in theirs {
        let key = (kind.clone(), unquoted(key).expect("a key is a string"));
        let mut records = records.clone();
        for (seen, own) in records.iter_mut().zip(&ours[&key]) {
            seen.value = unquoted(seen.value.as_ref().expect("there is no tombstone"));
            seen.partition = own.partition;
        }
        plain.insert(key, records);
    }
    assert_same(ours, &plain, "quoted");
    assert_ne!(partitions(ours), partitions(theirs), "other keys go to other partitions");
}

/// An expanded payload is written again: without spaces, and without members that are null. What is no
/// object, and what has an array of several types, becomes a JSON string.
fn assert_expanded(ours: &Stream, theirs: &Stream) {
    let expanded = |value: Option<Bytes>| {
        let Some(Bytes(value)) = value else { return Bytes(b"null".to_vec()) };
        Bytes(match value.as_slice() {
            b"{\"a\": [1, 2], \"b\": 1.5, \"n\": null, \"o\": {}}" => {
                b"{\"a\":[1,2],\"b\":1.5,\"o\":{}}".to_vec()
            }
            b"{}" => b"{}".to_vec(),
            other => serde_json::to_vec(std::str::from_utf8(other).expect("JSON is text"))
                .expect("a text is JSON"),
        })
    };
    let mut rewritten = ours.clone();
    for seen in rewritten.values_mut().flatten() {
        seen.value = Some(expanded(seen.value.take()));
    }
    assert_same(&rewritten, theirs, "expanded");
}

/// With `route.tombstone.on.empty.payload` blank text is a tombstone, too; postrider keeps it.
fn assert_emptied(ours: &Stream, theirs: &Stream) {
    let mut emptied = ours.clone();
    for seen in emptied.values_mut().flatten() {
        seen.value = seen.value.take().filter(|value| !value.0.trim_ascii().is_empty());
    }
    assert_ne!(ours, &emptied, "there is blank text among the rows");
    assert_same(&emptied, theirs, "emptied");
}
