//! The printed SQL, run as people run it: by psql without any option, which goes on after an error.
//!
//! Every function takes the URL of an empty database, as a superuser.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use postrider::control::migrate;
use postrider::control::migrate::{MigrationRequest, OutboxName};
use postrider::postgres::{Connection, DatabaseConfig, connect};

use crate::migrations::TITLES;
use crate::support::fixture::empty_database;

const REGISTRY: &str = "
    select coalesce(string_agg(version || ' ' || name || ' ' || applied_at, ', ' order by version), '')
    from postrider.migration";

async fn session(url: &str) -> Connection {
    connect(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

/// Sends one statement after the other, each a transaction of its own, whatever becomes of it: the
/// messages of those that failed.
async fn run_as_psql(connection: &Connection, sql: &str) -> Vec<String> {
    let mut failed = Vec::new();
    for statement in statements(sql) {
        if let Err(cause) = connection.client().batch_execute(statement).await {
            failed.push(cause.as_db_error().unwrap().message().to_owned());
        }
    }
    failed
}

/// Cuts a script where psql cuts it: at semicolons outside quotes and comments.
fn statements(script: &str) -> Vec<&str> {
    let (mut found, mut start, mut place) = (Vec::new(), 0, 0);
    while place < script.len() {
        let rest = &script[place..];
        place += if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(quoted) = rest.strip_prefix('\'') {
            quoted.find('\'').unwrap() + 2
        } else if let Some(tag) = dollar_tag(rest) {
            rest[tag.len()..].find(tag).unwrap() + 2 * tag.len()
        } else {
            rest.chars().next().unwrap().len_utf8()
        };
        if rest.starts_with(';') {
            found.push(&script[start..place]);
            start = place;
        }
    }
    found
}

/// The opening of a dollar quote, if the text starts with one.
fn dollar_tag(text: &str) -> Option<&str> {
    let length = text.strip_prefix('$')?.find('$')? + 2;
    let is_name = |c: char| c == '_' || c.is_alphanumeric();
    text[1..length - 1].chars().all(is_name).then(|| &text[..length])
}

async fn registry(connection: &Connection) -> String {
    connection.client().query_one(REGISTRY, &[]).await.unwrap().get(0)
}

fn versions(registry: &str) -> Vec<&str> {
    registry.split(", ").map(|row| &row[..1]).collect()
}

/// A migration that failed is not noted as applied; when the cause is gone, the same text goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_not_noted() {
    let url = &empty_database("what_failed_is_not_noted").await;
    let connection = session(url).await;
    let client = connection.client();
    let sql = migrate::print(&MigrationRequest::default()).unwrap();
    client.batch_execute("create table public.outbox_b02 (id int)").await.unwrap();
    let failed = run_as_psql(&connection, &sql).await;
    assert_eq!(failed.len(), TITLES.len() - 2, "{failed:?}");
    assert!(failed[0].contains("outbox_b02"), "{failed:?}");
    assert_eq!(versions(&registry(&connection).await), ["0", "1"]);
    assert!(migrate::status(client).await.unwrap().is_pending());

    client.batch_execute("drop table public.outbox_b02").await.unwrap();
    assert_eq!(run_as_psql(&connection, &sql).await, Vec::<String>::new());
    assert_eq!(versions(&registry(&connection).await).len(), TITLES.len());
    migrate::load(client, &OutboxName::default()).await.unwrap();
}

/// Run again it does nothing and says nothing; what it cannot do any more it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_does_nothing() {
    let url = &empty_database("a_second_run_does_nothing").await;
    let connection = session(url).await;
    let print = |buckets| {
        migrate::print(&MigrationRequest { buckets: Some(buckets), ..MigrationRequest::default() })
            .unwrap()
    };
    assert_eq!(run_as_psql(&connection, &print(2)).await, Vec::<String>::new());
    let before = registry(&connection).await;
    assert_eq!(run_as_psql(&connection, &print(2)).await, Vec::<String>::new());
    let failed = run_as_psql(&connection, &print(3)).await;
    assert_eq!(failed, ["the outbox of this database was made with other settings"]);
    let other = "update postrider.migration set checksum = 'x' where version = 3";
    connection.client().batch_execute(other).await.unwrap();
    let failed = run_as_psql(&connection, &print(2)).await;
    assert_eq!(failed, ["migration 0003 interface was applied with another text"]);
    assert_eq!(registry(&connection).await, before);
    let outbox = "select buckets::text from postrider.outbox";
    let buckets: String = connection.client().query_one(outbox, &[]).await.unwrap().get(0);
    assert_eq!(buckets, "2");
}

/// A table of somebody else is left alone, and another name may still be chosen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_occupied_name_can_be_changed() {
    let url = &empty_database("an_occupied_name_can_be_changed").await;
    let connection = session(url).await;
    let client = connection.client();
    client.batch_execute("create table public.outbox (id int)").await.unwrap();
    let failed =
        run_as_psql(&connection, &migrate::print(&MigrationRequest::default()).unwrap()).await;
    assert_eq!(failed[0], "public.outbox exists already, and postrider did not make it");
    let other =
        MigrationRequest { outbox: "events".parse().unwrap(), ..MigrationRequest::default() };
    let sql = migrate::print(&other).unwrap();
    assert_eq!(run_as_psql(&connection, &sql).await, Vec::<String>::new());
    migrate::load(client, &other.outbox).await.unwrap();
}

/// The session is left with the settings that it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_are_put_back() {
    let url = &empty_database("the_settings_are_put_back").await;
    let connection = session(url).await;
    let client = connection.client();
    let sql = migrate::print(&MigrationRequest::default()).unwrap();
    let in_one = format!(
        "set search_path = app, public; set lock_timeout = '7s'; begin; {sql};
         create table kept as select concat_ws(' ', current_setting('search_path'),
            current_setting('lock_timeout')) as settings; commit"
    );
    client.batch_execute(&in_one).await.unwrap();
    let kept: String = client.query_one("select settings from kept", &[]).await.unwrap().get(0);
    assert_eq!(kept, "app, public 7s");
}
