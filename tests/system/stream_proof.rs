//! What is changed of publications while rows are deleted as soon as they are committed: what the stream brings is all
//! that there ever is of them.

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::{Fixture, Patience, RelayProcess, read_topic};

const WAL: &[&str] = &["--capture", "wal", "--shards", "2"];
const KIND: &str = "proof";

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Writes these events and deletes all but each tenth at once.
async fn write(client: &Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let insert = format!(
            "insert into outbox (aggregatetype, aggregateid, type) values ('{KIND}', 'a-{number}', 'T')"
        );
        say(client, &insert).await;
        if !number.is_multiple_of(10) {
            say(client, &format!("delete from outbox where aggregateid = 'a-{number}'")).await;
        }
    }
}

/// Keys in the order in which they came.
fn came(fixture: &Fixture) -> Vec<String> {
    let records = read_topic(&fixture.brokers, &fixture.topic(KIND));
    records.iter().map(|record| record.key_text().to_owned()).collect()
}

async fn all_come(fixture: &Fixture, relay: &RelayProcess, count: usize) {
    let missing = || {
        let came = came(fixture);
        (0..count).map(|number| format!("a-{number}")).filter(|key| !came.contains(key)).collect()
    };
    let patience = Patience::until("all events are published");
    loop {
        let missing: Vec<String> = missing();
        if missing.is_empty() {
            return;
        }
        assert!(!relay.said().contains(" ERROR "), "{missing:?}: {}", relay.said());
        patience.pause().await;
    }
}

/// What others do, and what an owner may do, that keeps no row out.
fn changes(round: usize) -> String {
    match round % 5 {
        0 => format!("create publication other{round} for table stranger"),
        1 => format!("alter publication other{} drop table stranger", round - 1),
        2 => "drop table if exists gone; create table gone (i int); create publication shortly for table gone;
              drop table gone; drop publication shortly"
            .to_owned(),
        3 => "alter publication postrider set (publish = 'insert, update, delete, truncate')".to_owned(),
        _ => "begin; drop publication postrider; create publication postrider for table public.outbox
              with (publish = 'insert'); commit"
            .to_owned(),
    }
}

async fn begun(name: &str) -> (Fixture, Client) {
    let fixture = Fixture::new(name).await;
    let client = fixture.client().await;
    say(&client, "create table stranger (i int)").await;
    (fixture, client)
}

async fn reader(fixture: &Fixture) -> RelayProcess {
    let relay = RelayProcess::start(fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    relay
}

async fn changed_under_the_stream(fixture: &Fixture, client: &Client) {
    let relay = reader(fixture).await;
    let polls = relay.said().matches("polling").count();
    // WHEN publications are changed while events are written and deleted.
    let mut count = 0;
    for round in 0..10 {
        write(client, count..count + 40).await;
        // A session that ends has its changes counted.
        say(&fixture.client().await, &changes(round)).await;
        write(client, count + 40..count + 80).await;
        count += 80;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    // THEN all of them come, once, and the log is read all the while.
    all_come(fixture, &relay, count).await;
    let patience = Patience::until("it is noted that nothing was kept out");
    while !relay.said().contains("the stream has brought every row") {
        patience.pause().await;
    }
    let said = relay.said();
    relay.stop_well().await;
    assert_eq!(said.matches("polling").count(), polls, "{said}");
    assert_eq!(came(fixture).len(), count, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_are_changed_under_the_stream() {
    let (fixture, client) = begun("proof_stream").await;
    changed_under_the_stream(&fixture, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_are_changed_under_the_stream_exactly_once() {
    let (fixture, client) = begun("proof_exactly").await;
    fixture.deliver_exactly_once();
    changed_under_the_stream(&fixture, &client).await;
}

/// Events wait in the log alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_are_changed_while_nobody_reads() {
    let (fixture, client) = begun("proof_away").await;
    let relay = reader(&fixture).await;
    write(&client, 0..20).await;
    all_come(&fixture, &relay, 20).await;
    relay.stop_well().await;
    let mut count = 20;
    for round in 0..5 {
        write(&client, count..count + 20).await;
        say(&fixture.client().await, &changes(round)).await;
        count += 20;
    }
    write(&client, count..count + 20).await;
    count += 20;
    // WHEN the next one dies while it proves, and once more.
    for millis in [150, 400, 900] {
        let relay = RelayProcess::start(&fixture, WAL);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        relay.kill();
    }
    let relay = RelayProcess::start(&fixture, WAL);
    all_come(&fixture, &relay, count).await;
    let said = relay.said();
    relay.stop_well().await;
    assert!(!said.contains("polling"), "{said}");
}

/// Of more gaps than are told apart nothing is lost either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_gaps_between_all_of_them_come_though_publications_were_changed() {
    const ROWS: usize = 300_000;
    let (fixture, client) = begun("proof_gapped").await;
    let relay = reader(&fixture).await;
    relay.stop_well().await;
    say(&fixture.client().await, &changes(0)).await;
    let insert = format!(
        "insert into outbox (seq, aggregatetype, aggregateid, type) overriding system value
         select nextval('outbox_seq_seq') * 0 + nextval('outbox_seq_seq'), '{KIND}', 'g-' || n % 50, 'T'
         from generate_series(1, {ROWS}) n"
    );
    say(&client, &insert).await;
    say(&client, "delete from outbox").await;
    let relay = RelayProcess::start(&fixture, WAL);
    let patience = Patience::until("all of them come");
    while came(&fixture).len() < ROWS {
        patience.pause().await;
    }
    assert!(!relay.said().contains("polling what"), "{}", relay.said());
    relay.stop_well().await;
}

/// The partitions with filters that let nothing through, and without.
async fn leaves(client: &Client) -> (String, String) {
    let leaves =
        "select string_agg(relid::text, ' where (false), ') || ' where (false)', string_agg(relid::text, ', ')
        from pg_partition_tree('public.outbox') where isleaf";
    let row = client.query_one(leaves, &[]).await.expect("it answers");
    (row.get(0), row.get(1))
}

/// A filter that comes and goes between two looks leaves nothing but a count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_filter_kept_out_for_a_moment_come() {
    let (fixture, client) = begun("proof_moment").await;
    let relay = reader(&fixture).await;
    let (filtered, plain) = leaves(&client).await;
    for round in 0..3 {
        write(&client, 10 * round..10 * round + 1).await;
        all_come(&fixture, &relay, 1).await;
        let owner = fixture.client().await;
        let moment = format!(
            "alter publication postrider add table {filtered};
             insert into outbox (aggregatetype, aggregateid, type) values ('{KIND}', 'kept-{round}', 'T');
             alter publication postrider drop table {plain}"
        );
        for statement in moment.split(';') {
            say(&owner, statement).await;
        }
        drop(owner);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    let patience = Patience::until("what was kept out is published");
    while (0..3).any(|round| !came(&fixture).contains(&format!("kept-{round}"))) {
        patience.pause().await;
    }
    relay.stop_well().await;
}

/// A filter on a partition has kept rows out: they are found before what was written behind them is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_filter_kept_out_come_first() {
    let (fixture, client) = begun("proof_filter").await;
    let relay = reader(&fixture).await;
    write(&client, 0..1).await;
    all_come(&fixture, &relay, 1).await;
    relay.stop_well().await;
    let insert =
        "insert into outbox (aggregatetype, aggregateid, type) values ('proof', 'a-1', 'First')";
    let (filtered, plain) = leaves(&client).await;
    let owner = fixture.client().await;
    say(&owner, &format!("alter publication postrider add table {filtered}")).await;
    say(&client, insert).await;
    say(&owner, &format!("alter publication postrider drop table {plain}")).await;
    drop(owner);
    say(&client, &insert.replace("First", "Second")).await;
    let relay = RelayProcess::start(&fixture, WAL);
    all_come(&fixture, &relay, 2).await;
    fixture.wait_published().await;
    let said = relay.said();
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic(KIND));
    let types: Vec<_> = records.iter().filter(|record| record.key_text() == "a-1").collect();
    assert!(types.len() >= 2, "{said}");
    let first = types[0].header("type").map(String::from_utf8_lossy);
    assert_eq!(first.as_deref(), Some("First"), "{said}");
}
