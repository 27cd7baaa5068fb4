//! Adopted tables in databases that are not UTF-8: what converts is published, what does not is one parked event, in
//! the copy and in the stream.

use tokio_postgres::Client;

use crate::adopt::{adopt, number};
use crate::support::fixture::Options;
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// One row for each part that cannot be read, one whose aggregate waits, and one where it is no part.
async fn write(client: &Client, name: &str, good: &str, bad: &str) {
    for values in [
        format!("'t', '{name} {good}', 'T', '\"{good}\"', '{{\"h\": \"{good}\"}}', null"),
        format!("'t', '{name} payload', 'T', E'\"{bad}\"', null, null"),
        format!("'t', '{name} payload', 'T', '{{}}', null, null"),
        format!("'t', '{name} type', E'T{bad}', '{{}}', null, null"),
        format!("'t', E'{name} {bad}', 'T', '{{}}', null, null"),
        format!("E't{bad}', '{name} kind', 'T', '{{}}', null, null"),
        format!("'t', '{name} headers', 'T', '{{}}', E'{{\"h\": \"{bad}\"}}', null"),
        format!("'t', '{name} note', 'T', '{{}}', null, E'{bad}'"),
    ] {
        let columns = "aggregatetype, aggregateid, type, payload, headers, note";
        say(client, &format!("insert into legacy ({columns}) values ({values})")).await;
    }
}

async fn check(fixture: &Fixture, client: &Client, relay: &RelayProcess, name: &str, good: &str) {
    let keys = [format!("{name} {good}"), format!("{name} note")];
    let patience = Patience::until("what can be read has come");
    let records = loop {
        let records = read_topic(&fixture.brokers, &fixture.topic("t"));
        if keys.iter().all(|key| records.iter().any(|record| record.key_text() == key)) {
            break records;
        }
        patience.pause().await;
    };
    let readable = records.iter().find(|record| record.key_text() == keys[0]).expect("it came");
    assert_eq!(readable.value.as_deref(), Some(format!("\"{good}\"").as_bytes()));
    assert_eq!(readable.header("h"), Some(good.as_bytes()));
    let named = format!("aggregateid like '{name}%'");
    let count = format!("select count(*) from postrider.parked where {named}");
    let patience = Patience::until("the others are parked");
    while number(client, &count).await < 6 {
        patience.pause().await;
    }
    let unreadable = format!("{count} and reason = 'unreadable' and fault is not null");
    assert_eq!(number(client, &unreadable).await, 5, "{name}");
    let follows = format!("{count} and reason = 'follows' and aggregateid like '%payload'");
    assert_eq!(number(client, &follows).await, 1, "{name}: what follows waits");
    let raw = format!(
        "select count(*) from postrider.parked as parked join legacy on legacy.id = parked.id
         where parked.{named} and parked.payload = convert_to(legacy.payload, getdatabaseencoding())"
    );
    assert_eq!(number(client, &raw).await, 6, "{name}: each payload is kept as it lies there");
    let said = relay.said();
    assert_eq!(said.matches("publishing rows of adopted tables").count(), 1, "{said}");
    assert_eq!(said.matches("polling, while a slot is made").count(), 1, "{said}");
}

async fn takes_rows_that_cannot_be_read(encoding: &str, good: &str, bad: &str) {
    let name = format!("adopt_in_{}", encoding.to_lowercase());
    let fixture = Fixture::encoded(&name, encoding, Options::default()).await;
    let client = fixture.client().await;
    let table = "create table legacy (n bigint generated always as identity, id uuid default gen_random_uuid(),
        aggregatetype text, aggregateid text, type text, payload text, headers json, note text)";
    say(&client, table).await;
    write(&client, "copied", good, bad).await;
    adopt(&fixture, &["legacy", "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    check(&fixture, &client, &relay, "copied", good).await;
    relay.wait_until_it_says("reading the log").await;
    write(&client, "streamed", good, bad).await;
    check(&fixture, &client, &relay, "streamed", good).await;
    let listed = fixture.command().args(["parked", "list"]).output().expect("the binary runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_an_encoding() {
    takes_rows_that_cannot_be_read("SQL_ASCII", "\u{20ac}", "\\xff").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_per_character() {
    takes_rows_that_cannot_be_read("WIN1252", "caf\u{e9}", "\\x81").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_bytes_per_character() {
    takes_rows_that_cannot_be_read("EUC_JP", "\u{3042}", "\\xa9\\xa1").await;
}
