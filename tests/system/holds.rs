//! Aggregates that are held: very many of them, and names as long as anybody likes.

use std::time::{Duration, Instant};

use postrider::order::holds::HELD_MAX;
use tokio_postgres::Client;

use crate::admin::{address, get};
use crate::parking::{ask, first_seen, parked, wait_for_the_rest, wait_until_parked};
use crate::support::{Capture, Fixture, RelayProcess, read_topic};

/// Waits until a query that counts says this.
pub(crate) async fn wait_for_count(client: &Client, sql: &str, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let found: i64 = client.query_one(sql, &[]).await.expect("it counts").get(0);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found}, not {expected}: {sql}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) const UNPUBLISHED: &str = "select count(*) from (
    select from postrider.events where not published and not parked limit 1) as waiting";

/// An event of the aggregates from..upto with a step, of the kind; poison where it is told so.
async fn write(client: &Client, kind: &str, from: usize, upto: usize, step: usize, poison: bool) {
    let headers = if poison { "'[]'::jsonb" } else { "null" };
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
         select 't', n::text, '{kind}', '{{}}', {headers}
         from generate_series({from}, {upto}, {step}) n"
    );
    client.batch_execute(&sql).await.expect("an insert never fails");
}

async fn write_others(client: &Client, kind: &str) {
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'other', (n % 50)::text, '{kind}-' || n, '{{}}' from generate_series(1, 500) n"
    );
    client.batch_execute(&sql).await.expect("an insert never fails");
}

/// Each event of the others is there once.
fn check_others(fixture: &Fixture, events: usize) {
    let records = read_topic(&fixture.brokers, &fixture.topic("other"));
    assert_eq!(records.len(), events, "nothing is missing, nothing repeats");
}

/// The figure of all shards.
fn shown_as_held(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("postrider_held_aggregates{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn more_are_held_than_lie_in_memory(fixture: Fixture, arguments: &[&str]) {
    let held = HELD_MAX + 2_000;
    let client = fixture.client().await;
    write_others(&client, "first").await;
    let relay = RelayProcess::start(&fixture, arguments);
    for begin in (1..=held).step_by(10_000) {
        write(&client, "1", begin, (begin + 9_999).min(held), 1, true).await;
        write_others(&client, &format!("at-{begin}")).await;
    }
    let others = 500 * (2 + (held - 1) / 10_000);
    wait_for_count(&client, "select count(*) from postrider.parked", held as i64).await;
    wait_for_count(&client, UNPUBLISHED, 0).await;
    check_others(&fixture, others);
    assert!(relay.said().contains("many aggregates are held"), "{}", relay.said());

    // Those behind them wait, whether the relay was there when the first came or not.
    write(&client, "2", 1, held, 100, false).await;
    let followers = held.div_ceil(100) as i64;
    let follow = "select count(*) from postrider.parked where reason = 'follows'";
    wait_for_count(&client, follow, followers).await;
    relay.stop_well().await;
    write(&client, "3", 1, held, 100, false).await;
    write(&client, "1", held + 1, held + 200, 1, false).await;
    let relay =
        RelayProcess::start(&fixture, &[arguments, &["--admin-listen", "127.0.0.1:0"]].concat());
    wait_for_count(&client, follow, 2 * followers).await;
    let metrics = get(&address(&relay).await, "/metrics");
    assert!(shown_as_held(&metrics) >= held as u64, "{metrics}");
    wait_for_count(&client, UNPUBLISHED, 0).await;
    assert!(relay.peak_memory_kilobytes() < 150_000, "{} kB", relay.peak_memory_kilobytes());

    let mend = "update postrider.parked set headers = null where headers = '[]'";
    client.batch_execute(mend).await.expect("the table is ours");
    ask(&fixture, &["parked", "retry", "--all"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    write(&client, "4", 1, held, 100, false).await;
    wait_for_count(&client, "select count(*) from postrider.parked", 0).await;
    wait_for_count(&client, UNPUBLISHED, 0).await;
    write_others(&client, "last").await;
    wait_for_count(&client, UNPUBLISHED, 0).await;
    check_in_order(&fixture, held, held + 200 + 3 * followers as usize);
    check_others(&fixture, others + 500);
    relay.stop_well().await;
}

/// The events of each aggregate come in the order of their kinds.
fn check_in_order(fixture: &Fixture, held: usize, events: usize) {
    let mut last: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    assert!(records.len() >= events, "{} of {events}", records.len());
    for record in records {
        let kind = String::from_utf8_lossy(record.header("type").expect("it has one")).into_owned();
        let kind: u32 = kind.parse().expect("it is a number");
        let before = last.entry(record.key_text().to_owned()).or_default();
        assert!(kind <= *before + 1, "{}: {kind} after {before}", record.key_text());
        *before = kind.max(*before);
    }
    assert_eq!(last.len(), held + 200);
    let complete = |number: &usize| last[&number.to_string()] == 4;
    assert!((1..=held).step_by(100).all(|number| complete(&number)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_lie_in_memory_stop_nobody() {
    more_are_held_than_lie_in_memory(Fixture::new("hold_many").await, &["--shards", "1"]).await;
}

/// The same where the log is read, and by two publishers of which each knows its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_lie_in_memory_stop_nobody_in_the_log() {
    let fixture = Fixture::new("hold_log").await.captured_by(Capture::Wal);
    more_are_held_than_lie_in_memory(fixture, &["--capture", "wal", "--shards", "2"]).await;
}

/// An id that has long been parked costs as much as any other, also when the relay begins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_names_are_held_by_a_few_bytes() {
    let fixture = Fixture::new("hold_long").await;
    let client = fixture.client().await;
    let long = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 't', repeat(n::text || '-', 5000000 / (length(n::text) + 1)), $1, '{}'
        from generate_series(1, 100) n";
    client.execute(long, &[&"1"]).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_count(&client, "select count(*) from postrider.parked", 100).await;
    relay.stop_well().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload)
        values ('t', 'short', '1', '{}')";
    client.batch_execute(sql).await.expect("an insert never fails");
    wait_for_the_rest(&fixture).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "short"), ["1"]);
    let peak = relay.peak_memory_kilobytes();
    assert!(peak < 100_000, "{peak} kB, for what is held alone");
    client.execute(long, &[&"2"]).await.expect("an insert never fails");
    wait_for_count(&client, "select count(*) from postrider.parked where reason = 'follows'", 100)
        .await;
    relay.stop_well().await;
}

/// Whatever two names have in common, one aggregate does not wait for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_alike_are_two() {
    let fixture = Fixture::new("hold_alike").await;
    let client = fixture.client().await;
    let begin = "ä".repeat(3_000);
    let (one, other) = (format!("{begin}1"), format!("{begin}2"));
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
        values ($1, $2, $3, '{}', $4::text::jsonb)";
    for (kind, id, number, headers) in [
        ("a", "bc", "1", Some("[]")),
        ("t", &one, "2", Some("[]")),
        ("ab", "c", "3", None),
        ("t", &other, "4", None),
        ("a", "bc", "5", None),
        ("t", &one, "6", None),
    ] {
        client.execute(sql, &[&kind, &id, &number, &headers]).await.expect("it never fails");
    }
    let waits = [("1", "bad-headers"), ("2", "bad-headers"), ("5", "follows"), ("6", "follows")];
    for _ in 0..2 {
        let relay = RelayProcess::start(&fixture, &[]);
        wait_for_the_rest(&fixture).await;
        let mut found = parked(&client).await;
        found.sort();
        assert_eq!(found, waits.map(|(kind, reason)| (kind.to_owned(), reason.to_owned())));
        relay.stop_well().await;
    }
    assert_eq!(first_seen(&fixture, &fixture.topic("ab"), "c"), ["3"]);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), &other), ["4"]);
    ask(&fixture, &["parked", "discard", "--reason", "bad-headers"]);
    let relay = RelayProcess::start(&fixture, &[]);
    wait_until_parked(&client, &[]).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("a"), "bc"), ["5"]);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), &one), ["6"]);
    relay.stop_well().await;
}
