//! Rows whose `seq` the sequence did not give out when they were written: whoever owns the table can write any, with
//! `overriding system value` or by copy. None is lost, whatever it says of itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::Client;

use crate::parking::{insert, wait_until_parked};
use crate::support::consumer::create_topic;
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

pub(crate) async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect("the owner may");
}

/// Rows of one aggregate each with these numbers; their type is the number.
async fn forge(client: &Client, aggregate: &str, numbers: &[i64]) {
    let rows: Vec<String> = numbers
        .iter()
        .map(|seq| format!("({seq}, 'thing', '{aggregate}', '{aggregate} {seq}', '{{}}')"))
        .collect();
    let sql = format!(
        "insert into outbox (seq, aggregatetype, aggregateid, type, payload) overriding system value values {}",
        rows.join(", ")
    );
    execute(client, &sql).await;
}

/// Lawful events, so many in one statement.
async fn fill(client: &Client, count: i64) {
    let sql = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'thing', 'fill ' || n % 50, 'fill', json_build_object('text', repeat('x', (n % 7 * 200)::int))
         from generate_series(1, {count}) as n"
    );
    execute(client, &sql).await;
}

/// How often each type arrived, those of `fill` aside.
fn arrived(fixture: &Fixture) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for record in read_topic(&fixture.brokers, &fixture.topic("thing")) {
        let kind = String::from_utf8(record.header("type").expect("it has one").to_vec());
        let kind = kind.expect("it is text");
        if kind != "fill" {
            *times.entry(kind).or_insert(0) += 1;
        }
    }
    times
}

/// Waits until so many of them have arrived, each once.
pub(crate) async fn wait_for(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let times = arrived(fixture);
        assert!(times.values().all(|times| *times == 1), "{times:?}");
        if times.len() == count {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} arrived: {:?}",
            times.len(),
            times.keys()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn begin(name: &str) -> (Fixture, Client) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let client = fixture.client().await;
    (fixture, client)
}

fn status(fixture: &Fixture) -> Value {
    let output = fixture.command().args(["status", "--json"]).output().expect("the binary runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Far below, a little below, among what was just drawn, in each bucket, two of one number, by copy; in an outbox at
/// rest and under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_any_number_are_published_once() {
    let (fixture, client) = begin("numbers_any").await;
    const LOWEST: [i64; 5] = [i64::MIN, i64::MIN, i64::MIN + 1, i64::MIN / 2 - 1, i64::MIN / 2];
    // What was there before any relay.
    for (number, seq) in LOWEST.into_iter().enumerate() {
        forge(&client, &format!("before {number}"), &[seq]).await;
    }
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    fill(&client, 3_000).await;
    fixture.wait_published().await;
    let drawn = fixture.drawn().await;
    let far =
        [1, 0, -1, -7, i64::MIN / 2 + 1, drawn - 255, drawn - 257, drawn - 1_200, drawn - 2_900];
    forge(&client, "far", &far).await;
    for (number, seq) in LOWEST.into_iter().enumerate() {
        forge(&client, &format!("since {number}"), &[seq]).await;
    }
    let count = far.len() + 2 * LOWEST.len();
    wait_for(&fixture, count).await;
    // Each bucket has some of these.
    for number in 0..40 {
        forge(&client, &format!("each {number}"), &[2, 2_000 - number]).await;
    }
    forge(&client, "twins a", &[11]).await;
    forge(&client, "twins b", &[11]).await;
    let count = count + 80 + 2;
    wait_for(&fixture, count).await;
    let copy = r#"copy outbox (seq, aggregatetype, aggregateid, type, payload) from program
        $$seq 500 1499 | awk '{ print $1 "\tthing\tcopied " $1 % 20 "\tcopied " $1 "\t{}" }'$$"#;
    execute(&client, copy).await;
    wait_for(&fixture, count + 1_000).await;
    for round in 0..20 {
        fill(&client, 300).await;
        forge(&client, "under load", &[3_001 + round, 100 + round]).await;
    }
    wait_for(&fixture, count + 1_040).await;
    fixture.wait_published().await;
    assert_eq!(status(&fixture)["waits"], "no");
    relay.wait_until_it_says("with a seq that was not drawn for them").await;
    let check = fixture.command().arg("check").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("no row lies where no cursor looks"), "{said}");
    relay.stop_well().await;
}

/// A relay that is away, or killed at any moment, finds them all the same; repeats are those of a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_any_number_outlast_the_relay() {
    let (fixture, client) = begin("numbers_away").await;
    fill(&client, 2_000).await;
    let mut relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    fixture.wait_published().await;
    let mut count = 0;
    for round in 0..4 {
        for step in 0..5_i64 {
            fill(&client, 20).await;
            forge(&client, &format!("{round} {step}"), &[round * 10 + step, 2_010 + 100 * round])
                .await;
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        relay.kill();
        forge(&client, &format!("{round} away"), &[-round, 2_050]).await;
        count += 12;
        relay =
            RelayProcess::start(&fixture, &["--shards", if round % 2 == 0 { "1" } else { "3" }]);
    }
    let patience = Patience::until("all have arrived");
    while arrived(&fixture).len() < count {
        patience.pause().await;
    }
    fixture.wait_published().await;
    relay.stop_well().await;
}

/// A row whose aggregate is parked lies before what is: it goes at once. One that cannot be published is parked as
/// any other, and its aggregate with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_any_number_and_what_is_parked() {
    let (fixture, client) = begin("numbers_parked").await;
    fill(&client, 1_000).await;
    let relay = RelayProcess::start(&fixture, &[]);
    execute(
        &client,
        "insert into outbox (aggregatetype, aggregateid, type, headers) values ('thing', 'held', 'bad', '[1]')",
    )
    .await;
    wait_until_parked(&client, &[("bad", "bad-headers")]).await;
    forge(&client, "held", &[5]).await;
    wait_for(&fixture, 1).await;
    execute(
        &client,
        "insert into outbox (seq, aggregatetype, aggregateid, type, headers) overriding system value
         values (6, 'thing', 'low', 'low', '[1]')",
    )
    .await;
    wait_until_parked(&client, &[("bad", "bad-headers"), ("low", "bad-headers")]).await;
    insert(&client, ("thing", "low"), 7, 10).await;
    wait_until_parked(&client, &[("bad", "bad-headers"), ("low", "bad-headers"), ("7", "follows")])
        .await;
    let discard = ["parked", "discard", "--reason", "bad-headers"];
    assert!(fixture.command().args(discard).status().expect("the binary runs").success());
    wait_for(&fixture, 2).await;
    relay.stop_well().await;
}

/// The log brings such a row by itself; whoever polls after it does not bring it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_any_number_across_a_switch() {
    let (fixture, client) = begin("numbers_switch").await;
    fill(&client, 1_000).await;
    let relay = RelayProcess::start(&fixture, &[]);
    for (round, mode) in ["wal", "poll", "wal"].into_iter().enumerate() {
        let round = round as i64;
        forge(&client, &format!("{round} before {mode}"), &[10 * round, 500]).await;
        let switch = ["capture", "switch", mode];
        assert!(fixture.command().args(switch).status().expect("the binary runs").success());
        forge(&client, &format!("{round} in {mode}"), &[10 * round + 1, 501]).await;
        fill(&client, 10).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while arrived(&fixture).len() < 12 {
        assert!(Instant::now() < deadline, "{:?} {}", arrived(&fixture), relay.said());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What the log has brought is published, also where the table is polled again.
    let switch = ["capture", "switch", "poll"];
    assert!(fixture.command().args(switch).status().expect("the binary runs").success());
    fixture.wait_published().await;
    let check = fixture.command().arg("check").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("no row lies where no cursor looks"), "{said}");
    // A switch repeats no more than it always may: what was on its way.
    relay.stop_well().await;
}
