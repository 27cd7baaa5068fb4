//! Rows of adopted tables that are too large to be read: parked whole, as they come, in the copy and in the stream.

use tokio_postgres::Client;

use crate::adopt::{adopt, number};
use crate::support::{Consumed, Fixture, Patience, RelayProcess, read_topic};

/// A debug build with librdkafka's buffers takes half of it at rest.
const MEMORY_KILOBYTES_MAX: u64 = 100 * 1024;
const MEBIBYTE: usize = 1024 * 1024;

async fn say(client: &Client, statement: &str) {
    client
        .batch_execute(statement)
        .await
        .unwrap_or_else(|error| panic!("{statement:.200}: {error}"));
}

/// Waits until so many events are parked; gives the reasons, in their order.
async fn wait_parked(client: &Client, relay: &RelayProcess, count: i64) -> Vec<String> {
    let patience = Patience::until("all rows are parked");
    while number(client, "select count(*) from postrider.parked").await < count {
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
    let reasons = "select reason from postrider.parked order by turn";
    let rows = client.query(reasons, &[]).await.expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the topic has a record of each of these keys, as often as it is given.
async fn wait_arrived(
    fixture: &Fixture,
    relay: &RelayProcess,
    kind: &str,
    keys: &[&str],
) -> Vec<Consumed> {
    let patience = Patience::until("all records have come");
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic(kind));
        let count = |key: &str| records.iter().filter(|record| record.key_text() == key).count();
        let wanted = |key: &str| keys.iter().filter(|other| **other == key).count();
        if keys.iter().all(|key| count(key) >= wanted(key)) {
            return records;
        }
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

const TABLE: &str = "create table legacy (n bigint generated always as identity, id uuid default gen_random_uuid(),
    aggregatetype text default 'order', aggregateid text, type text default 'T', payload text, headers jsonb,
    note text)";

/// One giant among others of its aggregate, and one row whose giant is no part of an event.
fn rows_with_a_giant(name: &str) -> String {
    let large = 150 * MEBIBYTE;
    format!(
        "begin;
         insert into legacy (aggregateid, payload) values ('{name}', '1');
         insert into legacy (aggregateid, payload, headers) values ('{name}', repeat('x', {large}), '{{\"h\": 1}}');
         insert into legacy (aggregateid, payload) values ('{name}', '3'), ('other', '{{}}');
         insert into legacy (aggregateid, payload, note) values ('noted', '{{}}', repeat('y', {large}));
         commit"
    )
}

/// It may be gone from its table before the log tells of it: what is parked came by the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_row_is_parked_whole_without_being_read() {
    let fixture = Fixture::new("adopt_giant").await;
    let client = fixture.client().await;
    say(&client, TABLE).await;
    say(&client, &rows_with_a_giant("copied")).await;
    adopt(&fixture, &["legacy", "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    assert_eq!(wait_parked(&client, &relay, 2).await, ["too-large", "follows"]);
    wait_arrived(&fixture, &relay, "order", &["copied", "other", "noted"]).await;
    relay.wait_until_it_says("reading the log").await;
    let copied_peak = relay.peak_memory_kilobytes();
    let deleted = rows_with_a_giant("streamed").replace("commit", "");
    let whole = "create table kept as select * from legacy";
    say(&client, &format!("{deleted}; {whole}; delete from legacy; commit")).await;
    let reasons = wait_parked(&client, &relay, 4).await;
    assert_eq!(reasons, ["too-large", "follows", "too-large", "follows"]);
    let keys = ["copied", "other", "noted", "streamed", "other", "noted"];
    let records = wait_arrived(&fixture, &relay, "order", &keys).await;
    for record in records.iter().filter(|record| !["other", "noted"].contains(&record.key_text())) {
        assert_eq!(record.value.as_deref(), Some(&b"1"[..]), "nothing passes a giant");
    }
    let same = "select count(*) from postrider.parked as parked join kept on kept.id = parked.id
        where kept.aggregateid = parked.aggregateid and kept.type = parked.type and parked.fault is null
            and convert_to(kept.payload, 'UTF8') = parked.payload
            and kept.headers is not distinct from parked.headers::jsonb";
    assert_eq!(number(&client, same).await, 4, "each is kept whole");
    let peak = relay.peak_memory_kilobytes();
    relay.kill();
    // Read again, they are the same ones.
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    say(
        &client,
        "insert into legacy (aggregateid, payload) values ('streamed', '4'), ('last', '')",
    )
    .await;
    wait_arrived(&fixture, &relay, "order", &["last"]).await;
    assert_eq!(wait_parked(&client, &relay, 5).await.len(), 5);
    let peak = peak.max(relay.peak_memory_kilobytes());
    relay.stop_well().await;
    println!("{copied_peak} kB after the copy, {peak} kB at most");
    assert!(peak < MEMORY_KILOBYTES_MAX, "{copied_peak} kB after the copy, {peak} kB at most");
}

/// A giant for each part of an event, and for each type of payload, and rows that are none.
fn rows_of_every_part() -> String {
    let large = format!("repeat('\u{20ac}', {})", 2_950_000);
    let bytes = format!("convert_to({large}, 'UTF8')");
    let insert = |table: &str, values: String| {
        format!(
            "insert into {table} (aggregatetype, aggregateid, type, payload, headers) values ({values})"
        )
    };
    [
        insert("texts", format!("{large}, 'a', 'T', '{{}}', null")),
        insert("texts", format!("'t', {large}, 'T', '{{}}', null")),
        insert("texts", format!("'t', 'c', {large}, '{{}}', null")),
        insert("texts", format!("'t', 'd', 'T', {large}, null")),
        insert("texts", format!("'t', 'e', 'T', '{{}}', json_build_object('h', {large})")),
        // Together they are, each of them is not.
        insert(
            "texts",
            "'t', 'f', 'T', repeat('x', 5000000), json_build_object('h', repeat('x', 5000000))"
                .to_owned(),
        ),
        insert("texts", "'t', 'last', 'T', repeat('x', 500000), null".to_owned()),
        insert("bytes", format!("'t', 'h', 'T', {bytes}, null")),
        insert("documents", format!("'t', 'i', 'T', to_jsonb({large}), null")),
        insert("printed", format!("'t', 'j', 'T', {bytes}, null")),
        insert(
            "printed",
            "'t', 'last', 'T', convert_to(repeat('x', 900000), 'UTF8'), null".to_owned(),
        ),
    ]
    .join(";")
}

/// Whichever part of an event it is, and in whichever form the stream brings it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_part_may_be_the_giant() {
    let fixture = Fixture::new("adopt_giant_parts").await;
    let client = fixture.client().await;
    for (table, identity, payload) in [
        ("texts", "uuid default gen_random_uuid()", "text"),
        ("bytes", "uuid default gen_random_uuid()", "bytea"),
        ("documents", "uuid default gen_random_uuid()", "jsonb"),
        // The stream brings all values as they are printed then.
        ("printed", "numeric default 1", "bytea"),
    ] {
        let sql = format!(
            "create table {table} (n bigint generated always as identity, id {identity}, aggregatetype text,
                aggregateid varchar, type char(6900000), payload {payload}, headers json)"
        );
        say(&client, &sql).await;
    }
    let rows = rows_of_every_part();
    say(&client, &rows).await;
    for table in ["texts", "bytes", "documents", "printed"] {
        adopt(&fixture, &[table, "--order-by", "n"]);
    }
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    wait_parked(&client, &relay, 9).await;
    say(&client, &rows).await;
    let reasons = wait_parked(&client, &relay, 18).await;
    // The aggregates of the copy are held.
    assert!(reasons[..9].iter().all(|reason| reason == "too-large"), "{reasons:?}");
    wait_arrived(&fixture, &relay, "t", &["last"; 4]).await;
    let peak = relay.peak_memory_kilobytes();
    relay.stop_well().await;
    for (table, payload) in [
        ("texts", "convert_to(written.payload, 'UTF8')"),
        ("bytes", "written.payload"),
        ("documents", "convert_to(written.payload::text, 'UTF8')"),
        ("printed", "written.payload"),
    ] {
        let same = format!(
            "select count(*) from {table} as written where aggregateid <> 'last' and 2 <> (
                select count(*) from postrider.parked as parked
                where parked.aggregatetype = written.aggregatetype and parked.aggregateid = written.aggregateid
                    and parked.type = rtrim(written.type::text) and parked.fault is null
                    and parked.payload = {payload}
                    and parked.headers is not distinct from written.headers::text)"
        );
        assert_eq!(
            number(&client, &same).await,
            0,
            "{table}: each is kept whole, once of the copy and once of the stream"
        );
    }
    assert!(peak < MEMORY_KILOBYTES_MAX + 48 * 1024, "{peak} kB");
}

/// GIVEN a database in which nobody may make a table, not even a temporary one, WHEN rows of an adopted table are too
/// large to be read, THEN they are parked whole, and what gathered of them is gone; the relay's role needs no more
/// rights than the group's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_needs_no_table_of_its_own() {
    let fixture = Fixture::new("adopt_no_ddl").await;
    let client = fixture.client().await;
    say(&client, TABLE).await;
    adopt(&fixture, &["legacy", "--order-by", "n"]);
    let switched = fixture.command().args(["capture", "switch", "wal", "--no-wait"]).output();
    assert!(switched.expect("the binary runs").status.success());
    say(&client, include_str!("../../sql/roles.sql")).await;
    let harden = "create role adopt_no_ddl_relay login replication password 'known' in role postrider_relay;
        grant select on legacy to adopt_no_ddl_relay;
        revoke temporary on database adopt_no_ddl from public, postrider_relay;
        create function no_ddl() returns event_trigger language plpgsql as
            $no$ begin raise exception 'no tables are made here'; end $no$;
        create event trigger no_ddl on ddl_command_start when tag in ('CREATE TABLE', 'CREATE TABLE AS')
            execute function no_ddl()";
    say(&client, harden).await;
    let (head, tail) = fixture.database_url.split_once("//").expect("it is a URL");
    let (_, server) = tail.split_once('@').expect("the user is named");
    let database_url = format!("{head}//adopt_no_ddl_relay:known@{server}");
    let relay = RelayProcess::start(&Fixture { database_url, ..fixture.clone() }, &[]);
    relay.wait_until_it_says("reading the log").await;
    for _ in 0..2 {
        let giants = format!(
            "begin;
             insert into legacy (aggregateid, payload) values ('large', repeat('x', {})), ('other', '{{}}');
             delete from legacy;
             commit",
            20 * MEBIBYTE
        );
        say(&client, &giants).await;
    }
    assert_eq!(wait_parked(&client, &relay, 2).await.len(), 2);
    wait_arrived(&fixture, &relay, "order", &["other", "other"]).await;
    let whole =
        "select count(*) from postrider.parked where octet_length(payload) = 20 * 1024 * 1024";
    assert_eq!(number(&client, whole).await, 2);
    assert_eq!(number(&client, "select count(*) from postrider.large_part").await, 0);
    relay.stop_well().await;
    // What they took of the disk is given back by the cleaning that is due.
    let bytes = "select pg_total_relation_size('postrider.large_part')";
    let patience = Patience::until("the disk is free again");
    while number(&client, bytes).await >= MEBIBYTE as i64 {
        say(&client, "vacuum postrider.large_part").await;
        patience.pause().await;
    }
}
