//! Adopted tables that consist of others: partitions and inheriting tables, whenever they become parts, and
//! whatever was in them before.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::adopt::{adopt, number, refused};
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

async fn say(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn row(table: &str, key: &str) -> String {
    format!("insert into {table} (aggregateid, type, payload) values ('{key}', 'T', '{{}}');")
}

/// How often each key has come.
fn counts(fixture: &Fixture) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in read_topic(&fixture.brokers, &fixture.topic("ev")) {
        *counts.entry(record.key_text().to_owned()).or_default() += 1;
    }
    counts
}

async fn wait_for(fixture: &Fixture, relay: &RelayProcess, keys: &[&str]) {
    let patience = Patience::until("all rows are published");
    while !keys.iter().all(|key| counts(fixture).contains_key(*key)) {
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

/// Waits until it is noted that all rows are published: what is noted does not come again.
async fn wait_noted(client: &Client) {
    let waits = "select count(*) from shop.ev, postrider.adopted
        where not coalesce(pg_visible_in_snapshot(ev.xmin::text::xid8, passed), false)";
    let patience = Patience::until("what is published is noted");
    while number(client, waits).await > 0 {
        patience.pause().await;
    }
}

const COLUMNS: &str =
    "id bigserial, aggregateid text, type text, payload text, done bool default false";
const ADOPT: &[&str] =
    &["shop.ev", "--column", "aggregatetype='ev'", "--pending", "not done", "--order-by", "id"];
const END: &[&str] = &["shop.ev", "--end", "--mark", "done = true"];

/// Marks what is published: what is left bears these keys.
async fn ends_with_left(fixture: &Fixture, client: &Client, wanted: &str) {
    adopt(fixture, END);
    let left = "select coalesce(string_agg(aggregateid, ' ' order by aggregateid), '')
        from shop.ev where not done";
    let left: String = client.query_one(left, &[]).await.expect("it answers").get(0);
    assert_eq!(left, wanted, "what was not sent, and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_inheriting_tables_are_published() {
    let fixture = Fixture::new("adopt_inherits").await;
    let client = fixture.client().await;
    let tables = format!(
        "create schema shop; create table shop.ev ({COLUMNS});
         create table shop.ev_2026 (extra int) inherits (shop.ev);
         create table shop.ev_may () inherits (shop.ev_2026);"
    );
    say(&client, &tables).await;
    say(&client, &row("shop.ev_2026", "copied")).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let rows =
        [row("shop.ev", "parent"), row("shop.ev_2026", "child"), row("shop.ev_may", "grandchild")];
    say(&client, &rows.concat()).await;
    wait_for(&fixture, &relay, &["copied", "parent", "child", "grandchild"]).await;
    wait_noted(&client).await;
    // One that is made later, with a row and without another word.
    say(&client, "create table shop.ev_2027 () inherits (shop.ev)").await;
    say(&client, &row("shop.ev_2027", "made later")).await;
    wait_for(&fixture, &relay, &["made later"]).await;
    say(&client, &row("shop.ev_2027", "streamed later")).await;
    wait_for(&fixture, &relay, &["streamed later"]).await;
    // One that was filled before.
    say(&client, "create table shop.old (like shop.ev including all)").await;
    say(&client, &row("shop.old", "filled before")).await;
    say(&client, &row("shop.ev", "after that")).await;
    wait_for(&fixture, &relay, &["after that"]).await;
    say(&client, "alter table shop.old inherit shop.ev").await;
    wait_for(&fixture, &relay, &["filled before"]).await;
    relay.stop_well().await;
    say(&client, "create table shop.ev_2028 () inherits (shop.ev)").await;
    say(&client, &row("shop.ev_2028", "unsent")).await;
    ends_with_left(&fixture, &client, "unsent").await;
    let counts = counts(&fixture);
    assert!(!counts.contains_key("unsent"), "{counts:?}");
    for once in ["copied", "parent", "child", "grandchild"] {
        assert_eq!(counts[once], 1, "{counts:?}");
    }
}

fn filled(name: &str, key: &str) -> String {
    format!("create table {name} (like shop.ev including all); {}", row(name, key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_part_that_was_filled_before_are_published() {
    // GIVEN an adopted partitioned table, and tables that were filled before they are its parts.
    let fixture = Fixture::new("adopt_attached").await;
    let client = fixture.client().await;
    let tables = format!(
        "create schema shop;
         create table shop.ev ({COLUMNS}, region int default 0) partition by list (region);
         create table shop.ev_0 partition of shop.ev for values in (0);"
    );
    say(&client, &tables).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    say(&client, &filled("shop.ev_1", "filled")).await;
    say(
        &client,
        &filled("shop.ev_1a", "deep")
            .replace("including all)", "including all) partition by list (id)")
            .replace(
                "; insert",
                "; create table shop.ev_1b partition of shop.ev_1a default; insert",
            ),
    )
    .await;
    say(&client, "update shop.ev_1 set region = 1; update shop.ev_1a set region = 2").await;
    say(&client, &row("shop.ev", "before")).await;
    wait_for(&fixture, &relay, &["before"]).await;
    wait_noted(&client).await;
    // WHEN one is attached, and nothing is written after that, THEN its rows are published.
    say(&client, "alter table shop.ev attach partition shop.ev_1 for values in (1)").await;
    wait_for(&fixture, &relay, &["filled"]).await;
    // WHEN one of several levels is, beside rows that are written all the while, THEN so are its rows.
    let attach = "begin; savepoint s; alter table shop.ev attach partition shop.ev_1a for values in (2); release s;";
    say(
        &client,
        &format!("{attach} {} commit; {}", row("shop.ev", "within"), row("shop.ev", "behind")),
    )
    .await;
    wait_for(&fixture, &relay, &["within", "behind", "deep"]).await;
    relay.stop_well().await;
    // WHEN one is filled and attached in one transaction while nobody reads, THEN so are its rows.
    let region = "alter table shop.ev_3 alter region set default 3;";
    let one = filled("shop.ev_3", "at once").replace("; insert", &format!("; {region} insert"));
    say(
        &client,
        &format!(
            "begin; {one} alter table shop.ev attach partition shop.ev_3 for values in (3); commit"
        ),
    )
    .await;
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_for(&fixture, &relay, &["at once"]).await;
    relay.stop_well().await;
    // WHEN the table is given back at once, THEN such rows are not taken for published.
    let one = filled("shop.ev_4", "unsent");
    say(&client, &format!("{one} update shop.ev_4 set region = 4; alter table shop.ev attach partition shop.ev_4 for values in (4)")).await;
    ends_with_left(&fixture, &client, "unsent").await;
    assert_eq!(counts(&fixture)["before"], 1);
}

/// GIVEN an adopted partitioned table, WHEN tables are filled and become its parts while nobody reads, so that their rows
/// bear later transaction ids than what made them parts, THEN all of these rows are published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_parts_are_published_whatever_their_transaction_ids_are() {
    let fixture = Fixture::new("adopt_late_ids").await;
    let client = fixture.client().await;
    let tables = format!(
        "create schema shop;
         create table shop.ev ({COLUMNS}, region int default 0) partition by list (region);
         create table shop.ev_0 partition of shop.ev for values in (0);"
    );
    say(&client, &tables).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    say(&client, &row("shop.ev", "before")).await;
    wait_for(&fixture, &relay, &["before"]).await;
    wait_noted(&client).await;
    relay.stop_well().await;
    let like = |name: &str, region: u8| {
        format!(
            "create table {name} (like shop.ev including all); alter table {name} alter region set default {region};"
        )
    };
    let attach = |name: &str, region: u8| {
        format!("alter table shop.ev attach partition {name} for values in ({region})")
    };
    let nested = like("shop.ev_1", 1)
        .replace("including all)", "including all) partition by list (id)")
        + "create table shop.ev_1a partition of shop.ev_1 default";
    let steps = [like("shop.ev_3", 3), row("shop.ev_3", "saved"), attach("shop.ev_3", 3)];
    let saved =
        format!("begin; {} savepoint s; {} release s; {}; commit", steps[0], steps[1], steps[2]);
    let late = [like("shop.ev_2", 2), row("shop.ev_2", "late"), attach("shop.ev_2", 2)];
    let nested = [nested, row("shop.ev_1", "nested"), attach("shop.ev_1", 1)];
    for (key, steps, is_early) in [
        // One of several levels, of which the lower one is a part before it is filled.
        ("nested", &nested[..], false),
        // One that is filled by others after who attaches it has its transaction id.
        ("late", &late[..], true),
        // One that is filled in a savepoint.
        ("saved", &[saved][..], false),
    ] {
        let attaching = fixture.client().await;
        if is_early {
            say(&attaching, "begin; select pg_current_xact_id()").await;
        }
        for (number, step) in steps.iter().enumerate() {
            let is_last = number + 1 == steps.len();
            say(if is_last { &attaching } else { &client }, step).await;
        }
        say(&attaching, "commit").await;
        let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
        wait_for(&fixture, &relay, &[key]).await;
        wait_noted(&client).await;
        relay.stop_well().await;
    }
    assert_eq!(counts(&fixture)["before"], 1);
}

/// Partitions that are made every month are no reason to read a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_made_empty_disturb_nobody() {
    let fixture = Fixture::new("adopt_empty_parts").await;
    let client = fixture.client().await;
    let tables = format!(
        "create schema shop;
         create table shop.ev ({COLUMNS}) partition by list (done);
         create table shop.ev_no partition of shop.ev for values in (false) partition by list (type);"
    );
    say(&client, &tables).await;
    let said = adopt(&fixture, ADOPT);
    assert!(said.contains("moves to another partition"), "{said}");
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let made = "create table shop.ev_t partition of shop.ev_no for values in ('T');";
    say(
        &client,
        &format!("begin; {made} {} commit; {}", row("shop.ev", "within"), row("shop.ev", "behind")),
    )
    .await;
    wait_for(&fixture, &relay, &["within", "behind"]).await;
    let empty = "create table shop.other (like shop.ev); alter table shop.ev_no attach partition shop.other default;";
    say(&client, empty).await;
    say(&client, &row("shop.ev", "other").replace("'T'", "'U'")).await;
    wait_for(&fixture, &relay, &["other"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!relay.said().contains("has become a part"), "{}", relay.said());
    relay.stop_well().await;
    assert!(counts(&fixture).values().all(|count| *count == 1), "{:?}", counts(&fixture));
    adopt(&fixture, &["shop.ev", "--end"]);
    say(&client, "create unlogged table shop.fleeting partition of shop.ev for values in (true)")
        .await;
    let (code, said) = refused(&fixture, ADOPT);
    assert!(code == Some(6) && said.contains("shop.fleeting, a part of shop.ev"), "{said}");
    assert_eq!(number(&client, "select count(*) from postrider.adopted").await, 0);
}
