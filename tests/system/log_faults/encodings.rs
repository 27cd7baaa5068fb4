//! Databases that are not UTF-8: what converts is published, what does not is parked, and nothing ends.

use tokio_postgres::Client;

use super::{start_relay, wait_arrived, wait_parked};
use crate::support::fixture::Options;
use crate::support::{Capture, Fixture};

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn insert(client: &Client, values: &str) {
    let columns = "aggregatetype, aggregateid, type, payload, headers";
    say(client, &format!("insert into outbox ({columns}) values ({values})")).await;
}

/// One row for each column that cannot be read, with a good one behind it in its aggregate where that is named.
async fn write_unreadable(client: &Client, bad: &str) {
    insert(client, &format!("'t', 'in payload', 'T', E'\"{bad}\"', null")).await;
    insert(client, "'t', 'in payload', 'T', '{}', null").await;
    insert(client, &format!("'t', 'in type', E'T{bad}', '{{}}', null")).await;
    insert(client, &format!("'t', E'in id {bad}', 'T', '{{}}', null")).await;
    insert(client, &format!("E't{bad}', 'in name', 'T', '{{}}', null")).await;
    insert(client, &format!("'t', 'in headers', 'T', '{{}}', E'{{\"h\": \"{bad}\"}}'")).await;
}

async fn check_unreadable(fixture: &Fixture, client: &Client) {
    let parked = wait_parked(client, 6).await;
    // Aggregates are parked in any order.
    let mut causes: Vec<&str> =
        parked.iter().map(|(_, detail)| detail.split(' ').next().unwrap_or_default()).collect();
    causes.sort_unstable();
    assert_eq!(causes, ["", "aggregateid", "aggregatetype", "headers", "payload", "type"]);
    for (reason, detail) in &parked {
        assert_eq!(reason, if detail.is_empty() { "follows" } else { "unreadable" }, "{detail}");
    }
    let raw = "select count(*) from postrider.parked p join outbox o on o.id = p.id
        where p.payload = convert_to(o.payload::text, getdatabaseencoding())";
    let kept: i64 = client.query_one(raw, &[]).await.expect("it answers").get(0);
    assert_eq!(kept, 6, "each payload is kept as it lies there");
    let output = fixture.command().args(["parked", "list"]).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One byte, one character: 0x81 stands for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_without_an_equivalent_is_one_parked_event() {
    let fixture = Fixture::encoded("log_win1252", "WIN1252", Options::default()).await;
    let fixture = fixture.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    insert(
        &client,
        "'t', 'caf\u{e9} \u{20ac}', 'T\u{fc}', '\"\u{f1} \u{20ac}\"', '{\"h\": \"\u{e9}\"}'",
    )
    .await;
    write_unreadable(&client, "\\x81").await;
    insert(&client, "'t', 'last', 'T', '{}', null").await;
    let records = wait_arrived(&fixture, "t", &["caf\u{e9} \u{20ac}", "last"]).await;
    let good = records.iter().find(|record| record.key_text().starts_with("caf")).expect("it came");
    assert_eq!(good.value.as_deref(), Some("\"\u{f1} \u{20ac}\"".as_bytes()));
    assert_eq!(good.header("type"), Some("T\u{fc}".as_bytes()));
    assert_eq!(good.header("h"), Some("\u{e9}".as_bytes()));
    check_unreadable(&fixture, &client).await;
    relay.kill();
    let relay = start_relay(&fixture, Capture::Wal).await;
    insert(&client, "'t', 'after', 'T', '{}', null").await;
    wait_arrived(&fixture, "t", &["after"]).await;
    relay.stop_well().await;
}

/// A database that knows no encoding takes any bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_no_encoding_are_taken_for_utf_8() {
    let fixture = Fixture::encoded("log_ascii", "SQL_ASCII", Options::default()).await;
    let fixture = fixture.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    insert(&client, "'t', 'caf\u{e9}', 'T', '\"\u{20ac}\"', null").await;
    write_unreadable(&client, "\\xff").await;
    insert(&client, "'t', 'last', 'T', '{}', null").await;
    let records = wait_arrived(&fixture, "t", &["caf\u{e9}", "last"]).await;
    let good = records.iter().find(|record| record.key_text().starts_with("caf")).expect("it came");
    assert_eq!(good.value.as_deref(), Some("\"\u{20ac}\"".as_bytes()));
    check_unreadable(&fixture, &client).await;
    relay.stop_well().await;
}

/// The same, where the value is too large to be brought: it is parked from its table, and must be readable there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_bytes_of_no_encoding_are_parked_so_that_they_can_be_read() {
    let fixture = Fixture::encoded("log_ascii_giant", "SQL_ASCII", Options::default()).await;
    let fixture = fixture.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    let giant = "repeat(E'\\xff', 9000000)";
    for values in [
        format!("'t', {giant}, 'T', '{{}}', null"),
        format!("'t', 'kind', {giant}, '{{}}', null"),
        format!("{giant}, 'name', 'T', '{{}}', null"),
        format!("'t', 'headers', 'T', '{{}}', ('{{\"h\": \"' || {giant} || '\"}}')::json"),
    ] {
        insert(&client, &values).await;
    }
    insert(&client, "'t', 'last', 'T', '{}', null").await;
    wait_arrived(&fixture, "t", &["last"]).await;
    relay.stop_well().await;
    // Whoever begins reads what is held; whoever looks reads it, too.
    let relay = start_relay(&fixture, Capture::Wal).await;
    let list = fixture.command().args(["parked", "list", "--json"]).output().expect("it runs");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("it is JSON");
    assert_eq!(list["total"], 4, "{list}");
    let retry = fixture.command().args(["parked", "retry", "--all"]).output().expect("it runs");
    assert!(retry.status.success(), "{}", String::from_utf8_lossy(&retry.stderr));
    insert(&client, "'t', 'after', 'T', '{}', null").await;
    wait_arrived(&fixture, "t", &["after"]).await;
    relay.stop_well().await;
}

/// `bytea` is no text, whatever its bytes; nor is the content of a message. A prefix is, and anybody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_text_is_not_converted() {
    for capture in [Capture::Wal, Capture::Message] {
        let options = Options { payload: "bytea", ..Options::default() };
        let name = format!("log_latin_{}", capture.name());
        let fixture = Fixture::encoded(&name, "WIN1252", options).await.captured_by(capture);
        let relay = start_relay(&fixture, capture).await;
        let client = fixture.client().await;
        say(&client, "select pg_logical_emit_message(true, E'\\x81', 'x')").await;
        let key = format!("\u{fc} {}", capture.name());
        let emit = format!("select postrider.emit('t', '{key}', 'T', '\\x8100ff')");
        say(&client, &emit).await;
        let records = wait_arrived(&fixture, "t", &[&key]).await;
        let record = records.iter().find(|record| record.key_text() == key).expect("it came");
        assert_eq!(record.value.as_deref(), Some(&b"\x81\0\xff"[..]));
        relay.stop_well().await;
    }
}

/// Several bytes, one character. In each of these encodings some are none in UTF-8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_without_an_equivalent_is_one_parked_event() {
    for (encoding, good, bad) in
        [("EUC_KR", "\u{ac00}", "\\xc9\\xa1"), ("EUC_TW", "\u{4e00}", "\\x8e\\xa7\\xfe\\xfe")]
    {
        let name = format!("log_{}", encoding.to_lowercase());
        let fixture = Fixture::encoded(&name, encoding, Options::default()).await;
        let fixture = fixture.captured_by(Capture::Wal);
        let relay = start_relay(&fixture, Capture::Wal).await;
        let client = fixture.client().await;
        let row = format!("'t', '{good}', 'T', '\"{good}\"', '{{\"h\": \"{good}\"}}'");
        insert(&client, &row).await;
        write_unreadable(&client, bad).await;
        insert(&client, "'t', 'last', 'T', '{}', null").await;
        let records = wait_arrived(&fixture, "t", &[good, "last"]).await;
        let read = records.iter().find(|record| record.key_text() == good).expect("it came");
        assert_eq!(read.value.as_deref(), Some(format!("\"{good}\"").as_bytes()));
        assert_eq!(read.header("h"), Some(good.as_bytes()));
        check_unreadable(&fixture, &client).await;
        let said = relay.said();
        assert_eq!(said.matches("polling, while a slot is made").count(), 1, "{said}");
        relay.stop_well().await;
    }
}
