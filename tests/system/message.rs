//! The writer's side of capture `message`: what `postrider.emit` and `postrider.event_message` write.

use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::capture::log::message;
use postrider::capture::log::message::Envelope;
use postrider::capture::log::pgoutput;
use postrider::capture::log::pgoutput::{Message, Scope};
use postrider::event::{Event, EventId};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::fixture::connect;
use crate::support::{Fixture, RelayProcess, read_topic, start_postgres};

const ROLES: &str = include_str!("../../sql/roles.sql");

/// Everything that an `event_message` of this SQL says; the codec is the relay's.
async fn event_message(client: &Client, arguments: &str) -> Envelope {
    let call = format!("select postrider.event_message({arguments})");
    let row = client.query_one(&call, &[]).await.expect("it is written");
    message::decode(Bytes::copy_from_slice(row.get(0))).expect("it is an event")
}

async fn text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.expect("it answers").get(0)
}

/// The code with which the statement is refused.
async fn refusal(client: &Client, statement: &str) -> SqlState {
    let error = client.batch_execute(statement).await.expect_err(statement);
    error.code().expect("the server refused it").clone()
}

async fn set_mode(client: &Client, mode: &str) {
    let set = "update postrider.capture set mode = $1, changed_at = clock_timestamp()";
    assert_eq!(client.execute(set, &[&mode]).await.expect("it is set"), 1);
}

fn migrate(url: &str, payload: &str) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
        .env("POSTRIDER_DATABASE_URL", url)
        .args(["migrate", "up", "--buckets", "2", "--payload", payload])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// SQL writes the form that the codec reads, in databases of two encodings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_in_sql_is_the_codecs() {
    let fixture = Fixture::new("message_form").await;
    let client = fixture.client().await;
    vectors(&client).await;
    let latin =
        "create database message_form_latin encoding 'LATIN1' locale 'C' template template0";
    client.batch_execute(latin).await.expect("the name is free");
    let url = fixture.database_url.replace("/message_form", "/message_form_latin");
    migrate(&url, "json");
    vectors(&connect(&url).await).await;
}

const ID: &str = "'00112233-4455-6677-8899-aabbccddeeff'";

async fn vectors(client: &Client) {
    let id = uuid::uuid!("00112233-4455-6677-8899-aabbccddeeff").into_bytes();
    let parts = |event: Event<'_>| {
        let texts = [event.aggregate_type, event.aggregate_id, event.kind].map(str::to_owned);
        let headers = event.headers.map(str::to_owned);
        assert_eq!(event.id.0, id);
        (texts.join("|"), event.payload.map(<[u8]>::to_vec), headers)
    };
    let long = "\u{e9}".repeat(70_000);
    for (arguments, texts, payload, headers) in [
        (
            "'order', '4711', 'T', '{}', null".to_owned(),
            "order|4711|T".to_owned(),
            Some("{}"),
            None,
        ),
        (
            "'a\u{fc}', '\u{df} 1', '\u{c4}', null, '{}'".to_owned(),
            "a\u{fc}|\u{df} 1|\u{c4}".to_owned(),
            None,
            Some("{}"),
        ),
        ("'', '', '', '', null".to_owned(), "||".to_owned(), Some(""), None),
        ("'', '', '', null, null".to_owned(), "||".to_owned(), None, None),
        (
            "'a', repeat('\u{e9}', 70000), 'T', '\\x6e756c6c', '{\"b\": 1, \"a\": \"\u{f1}\"}'"
                .to_owned(),
            format!("a|{long}|T"),
            Some("null"),
            Some("{\"a\": \"\u{f1}\", \"b\": 1}"),
        ),
    ] {
        let envelope = event_message(client, &format!("{arguments}, {ID}")).await;
        let expected =
            (texts, payload.map(|text| text.as_bytes().to_vec()), headers.map(str::to_owned));
        assert_eq!(parts(envelope.event(1)), expected, "{arguments:.60}");
    }
    let any_bytes = event_message(client, "'a', '1', 'T', '\\x00ff0a5c'").await;
    assert_eq!(any_bytes.event(1).payload, Some(&b"\0\xff\n\\"[..]));
    times_are_now(client).await;
    nulls_are_refused(client).await;
}

/// `created_at` is the moment of the call, to the microsecond, and the id a new one.
async fn times_are_now(client: &Client) {
    let call = "select clock_timestamp()::text, m, clock_timestamp()::text
                from postrider.event_message('a', '1', 'T', null) m";
    let row = client.query_one(call, &[]).await.expect("it is written");
    let envelope = message::decode(Bytes::copy_from_slice(row.get(1))).expect("it is an event");
    let micros = envelope.event(1).created_at_micros;
    let between = "select timestamptz 'epoch' + $1::bigint * interval '1 microsecond'
                   between $2::text::timestamptz - interval '1 s' and $3::text::timestamptz";
    let (from, to): (String, String) = (row.get(0), row.get(2));
    let is_now = client.query_one(between, &[&micros, &from, &to]).await.expect("it answers");
    assert!(is_now.get::<_, bool>(0), "{micros} between {from} and {to}");
    let other = event_message(client, "'a', '1', 'T', null").await;
    assert_ne!(other.event(1).id, envelope.event(1).id);
}

/// A null message would be dropped without a word.
async fn nulls_are_refused(client: &Client) {
    for arguments in [
        "null, '1', 'T', ''",
        "'a', null, 'T', ''",
        "'a', '1', null, ''",
        "'a', '1', 'T', '', null, null",
    ] {
        let call = format!(
            "select pg_logical_emit_message(true, 'postrider.outbox',
                postrider.event_message({arguments}))"
        );
        assert_eq!(refusal(client, &call).await, SqlState::NOT_NULL_VIOLATION, "{arguments}");
    }
}

/// What a slot saw since it was asked last: messages of our prefix, and rows.
struct Log {
    client: Client,
}

impl Log {
    async fn begin(url: &str) -> Self {
        let client = connect(url).await;
        let publication = "create publication everything for all tables";
        client.batch_execute(publication).await.expect("a superuser may");
        let slot =
            "select pg_create_logical_replication_slot('log_' || current_database(), 'pgoutput')";
        client.batch_execute(slot).await.expect("the log is logical");
        Self { client }
    }

    async fn read(&self) -> (Vec<Envelope>, usize) {
        let get = "select data from pg_logical_slot_get_binary_changes(
            'log_' || current_database(), null, null,
            'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')";
        let mut events = Vec::new();
        let mut rows = 0;
        for row in self.client.query(get, &[]).await.expect("the slot is read") {
            match pgoutput::decode(Bytes::copy_from_slice(row.get(0))).expect("it is pgoutput's") {
                Message::Logical { scope: Scope::Transactional, prefix, content, .. }
                    if prefix == message::PREFIX.as_bytes() =>
                {
                    events.push(message::decode(content).expect("it is an event"));
                }
                Message::Insert { .. } => rows += 1,
                _ => {}
            }
        }
        (events, rows)
    }
}

fn kinds(events: &[Envelope]) -> Vec<&str> {
    events.iter().map(|envelope| envelope.event(1).kind).collect()
}

/// In mode message an emit is one message and no row, as its transaction's fate is; in the others a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_writes_what_the_mode_says() {
    // A server of its own: a slot waits for every transaction of a server.
    let postgres = start_postgres(&[]);
    let admin = connect(&postgres.url("postgres")).await;
    for payload in ["json", "jsonb", "text", "bytea"] {
        admin.batch_execute(&format!("create database {payload}")).await.expect("the name is free");
        let url = postgres.url(payload);
        migrate(&url, payload);
        emits(&url, payload).await;
    }
}

async fn emits(url: &str, payload: &str) {
    let client = connect(url).await;
    client.batch_execute(ROLES).await.expect("the roles are made");
    let log = Log::begin(url).await;
    let writer = connect(url).await;
    writer.batch_execute("set role postrider_writer").await.expect("it may");
    let waiting = "select count(*)::text from postrider.events";

    for mode in ["poll", "wal"] {
        set_mode(&client, mode).await;
        emit(&writer, "row").await;
        let (events, rows) = log.read().await;
        assert_eq!((events.len(), rows), (0, 1), "{mode}, {payload}");
    }
    assert_eq!(text(&client, waiting).await, "2");

    set_mode(&client, "message").await;
    let id = emit(&writer, "message").await;
    let (events, rows) = log.read().await;
    assert_eq!((events.len(), rows), (1, 0), "{payload}");
    let event = events[0].event(1);
    assert_eq!(
        (event.aggregate_type, event.aggregate_id, event.kind),
        ("order", "\u{e9}", "message")
    );
    assert_eq!(event.payload, Some(&b"{\"a\": 1}"[..]), "{payload}");
    assert_eq!(event.headers, Some("{\"h\": \"v\"}"));
    assert_eq!(uuid::Uuid::from_bytes(event.id.0), id);
    assert_eq!(text(&client, waiting).await, "2");

    savepoints(&writer).await;
    let (events, rows) = log.read().await;
    assert_eq!((kinds(&events), rows), (vec!["first", "third"], 0), "{payload}");
    let null = "select postrider.emit('order', null, 'T', null)";
    assert_eq!(refusal(&writer, null).await, SqlState::NOT_NULL_VIOLATION);
    client.batch_execute("delete from postrider.capture").await.expect("an owner may");
    emit(&writer, "row").await;
    let (events, rows) = log.read().await;
    assert_eq!((events.len(), rows), (0, 1), "without a mode an event goes to the table");
}

async fn emit(writer: &Client, kind: &str) -> uuid::Uuid {
    let emit = format!(
        "select postrider.emit('order', '\u{e9}', '{kind}', '{{\"a\": 1}}', '{{\"h\": \"v\"}}')"
    );
    writer.query_one(&emit, &[]).await.expect("a writer may emit").get(0)
}

/// Three events in one transaction, the second in a savepoint that is rolled back; then a transaction
/// that is rolled back.
async fn savepoints(writer: &Client) {
    for (statement, kind) in
        [("begin", "first"), ("savepoint s", "second"), ("rollback to s", "third")]
    {
        writer.batch_execute(statement).await.expect("it may");
        emit(writer, kind).await;
    }
    writer.batch_execute("commit; begin").await.expect("it may");
    emit(writer, "never").await;
    writer.batch_execute("rollback").await.expect("it may");
}

/// Writes an event as a program does that makes the bytes itself.
async fn write_message(client: &Client, aggregate_id: &str, kind: &str, headers: &str) {
    let event = Event {
        seq: 0,
        id: EventId(uuid::Uuid::new_v4().into_bytes()),
        aggregate_type: "order",
        aggregate_id,
        kind,
        payload: Some(b"{}"),
        headers: Some(headers),
        created_at_micros: 1_764_000_000_000_000,
    };
    let mut content = Vec::new();
    message::encode(&event, &mut content).expect("short");
    let write = "select pg_logical_emit_message(true, $1, $2::bytea)";
    client.query(write, &[&message::PREFIX, &content]).await.expect("anybody may write it");
}

async fn wait_for_parked(client: &Client, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let list =
        "select coalesce(string_agg(concat_ws(' ', type, reason, headers), ', ' order by seq), '')
                from postrider.parked";
    loop {
        let found = text(client, list).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "parked {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Headers that no column of the type jsonb takes are parked as they came, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_no_json_are_parked() {
    let fixture = Fixture::new("message_headers").await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    write_message(&client, "1", "A", "no json").await;
    write_message(&client, "1", "B", "{}").await;
    write_message(&client, "2", "C", r#"{"a": "\ud800"}"#).await;
    write_message(&client, "3", "D", "{}").await;
    let parked = r#"A bad-headers no json, B follows {}, C bad-headers {"a": "\ud800"}"#;
    wait_for_parked(&client, parked).await;
    let mend = "update postrider.parked set headers = '{}' where reason = 'bad-headers'";
    client.batch_execute(mend).await.expect("a superuser may");
    let retry = fixture.command().args(["parked", "retry", "--reason", "bad-headers"]).output();
    assert!(retry.expect("the binary runs").status.success());
    wait_for_parked(&client, "").await;
    relay.stop_well().await;
    let mut kinds: Vec<(String, String)> = read_topic(&fixture.brokers, &fixture.topic("order"))
        .iter()
        .map(|record| (record.key_text(), record.header("type").expect("each has one")))
        .map(|(key, kind)| (key.to_owned(), String::from_utf8_lossy(kind).into_owned()))
        .collect();
    // By aggregate; inside one, the order of the topic stays.
    kinds.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [("1", "A"), ("1", "B"), ("2", "C"), ("3", "D")];
    assert_eq!(kinds, expected.map(|(key, kind)| (key.to_owned(), kind.to_owned())));
}

/// Texts that the database cannot hold are parked all the same, and come out as they went in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_the_database_cannot_hold_are_parked_and_published() {
    let shared = Fixture::new("message_texts").await;
    let latin = "create database message_latin encoding 'LATIN1' locale 'C' template template0";
    shared.client().await.batch_execute(latin).await.expect("the name is free");
    let url = shared.database_url.replace("/message_texts", "/message_latin");
    migrate(&url, "json");
    let fixture = Fixture { database_url: url, ..shared };
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    let han = "\u{4e2d}";
    write_message(&client, han, "A", "no json").await;
    write_message(&client, han, "B\u{4e2d}", "{}").await;
    write_message(&client, "euro", "C", "\u{20ac}").await;
    write_message(&client, "3", "D", "{}").await;
    wait_for_count(&client, "select count(*) from postrider.parked", 3).await;
    relay.stop_well().await;

    // A restart holds the aggregates under their own names.
    let relay = RelayProcess::start(&fixture, &["--capture", "message"]);
    write_message(&client, han, "E", "{}").await;
    write_message(&client, "euro", "F", "{}").await;
    let follow = "select count(*) from postrider.parked where reason = 'follows'";
    wait_for_count(&client, follow, 3).await;
    let retry = || fixture.command().args(["parked", "retry", "--all"]).output();
    assert!(retry().expect("the binary runs").status.success());
    let again = "select count(*) from postrider.parked where attempts = 2";
    wait_for_count(&client, again, 2).await;
    let mend = "update postrider.parked set headers = '{}' where reason = 'bad-headers'";
    client.batch_execute(mend).await.expect("a superuser may");
    assert!(retry().expect("the binary runs").status.success());
    wait_for_count(&client, "select count(*) from postrider.parked", 0).await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("order"));
    let kinds = |key: &str| -> Vec<String> {
        let of_key = records.iter().filter(|record| record.key_text() == key);
        of_key
            .map(|record| record.header("type").expect("each has one"))
            .map(|kind| String::from_utf8_lossy(kind).into_owned())
            .collect()
    };
    assert_eq!(kinds(han), ["A", "B\u{4e2d}", "E"]);
    assert_eq!(kinds("euro"), ["C", "F"]);
    assert_eq!(kinds("3"), ["D"]);
}

async fn wait_for_count(client: &Client, sql: &str, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found: i64 = client.query_one(sql, &[]).await.expect("it answers").get(0);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
