//! Tables that postrider did not make: taken over from another publisher while writers write, and given
//! back, row by row exactly.

use std::time::{Duration, Instant};

use postrider_testkit::audit::Fate;
use tokio_postgres::Client;

use crate::support::writer::insert_event;
use crate::support::{Consumed, Fixture, History, Patience, RelayProcess, Traffic, read_topic};

/// Runs the command; what it said.
pub(crate) fn adopt(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = fixture.command().arg("adopt").args(arguments).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What a refused command says, and its exit code.
pub(crate) fn refused(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fixture.command().arg("adopt").args(arguments).output().expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A table with Debezium's names and a flag; the test's writers find it before postrider's own.
pub(crate) async fn legacy_outbox(fixture: &Fixture) -> Client {
    let client = fixture.client().await;
    let sql = format!(
        "create schema legacy;
         create table legacy.outbox (n bigserial primary key, id uuid not null,
            aggregatetype text not null, aggregateid varchar(64) not null, type text not null,
            payload jsonb, headers jsonb, published boolean not null default false);
         insert into legacy.outbox (id, aggregatetype, aggregateid, type, published)
            select gen_random_uuid(), 'order', 'published before', 'Old', true
            from generate_series(1, 50);
         alter database \"{}\" set search_path = legacy, public",
        fixture.name
    );
    client.batch_execute(&sql).await.expect("the table is new");
    client
}

pub(crate) const ADOPT: &[&str] =
    &["legacy.outbox", "--pending", "not published", "--order-by", "n"];
pub(crate) const END: &[&str] = &["legacy.outbox", "--end", "--mark", "published = true"];

/// Waits until every row is published; the test's transaction ids have no epoch.
pub(crate) async fn wait_published(client: &Client) {
    let waits = "select count(*) from legacy.outbox as row_, postrider.adopted
        where not published
            and not coalesce(pg_visible_in_snapshot(row_.xmin::text::xid8, passed), false)";
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let waiting: i64 = client.query_one(waits, &[]).await.expect("it answers").get(0);
        if waiting == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{waiting} rows are not published in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("it answers").get(0)
}

/// From a poller with a flag and back, twice, without a row lost or repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_taken_over_and_given_back_exactly() {
    let fixture = Fixture::new("adopt_and_end").await;
    let client = legacy_outbox(&fixture).await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    for _ in 0..2 {
        assert!(adopt(&fixture, ADOPT).contains("rows are pending, by n"));
        let relays =
            [0, 1].map(|_| RelayProcess::start(&fixture, &["--capture", "wal", "--shards", "2"]));
        traffic.commits_more(500).await;
        let patience = Patience::until("one of them reads the log");
        while !relays.iter().any(|relay| relay.said().contains("reading the log")) {
            patience.pause().await;
        }
        let shown = fixture.command().args(["capture", "show"]).output().expect("it runs");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(text.contains("adopted     legacy.outbox: id=id"), "{text}{shown:?}");
        let (code, said) = refused(&fixture, END);
        assert!(code == Some(3) && said.contains("instances are running"), "{said}");
        for relay in relays {
            relay.stop_well().await;
        }
        traffic.commits_more(100).await;
        let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
        relay.wait_until_it_says("reading the log").await;
        relay.stop_well().await;
        let said = adopt(&fixture, END);
        assert!(said.contains("the table is given back"), "{said}");
        let marked = number(&client, "select count(*) from legacy.outbox where published").await;
        let sent = read_topic(&fixture.brokers, &fixture.topic("order")).len() as i64;
        assert_eq!(marked, sent + 50, "what is marked is what was sent");
    }
    traffic.stop().await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_published(&client).await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// What a snapshot sees was published by somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_taken_over_where_a_snapshot_says() {
    let fixture = Fixture::new("adopt_since").await;
    let client = legacy_outbox(&fixture).await;
    let open = fixture.client().await;
    let row = |name: &str| {
        format!(
            "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
             values (gen_random_uuid(), 'order', '{name}', 'T')"
        )
    };
    open.batch_execute(&format!("begin; {}", row("open"))).await.expect("a row is written");
    client.batch_execute(&row("before")).await.expect("a row is written");
    let snapshot = "select pg_current_snapshot()::text";
    let snapshot: String = client.query_one(snapshot, &[]).await.expect("it answers").get(0);
    client.batch_execute(&row("after")).await.expect("a row is written");
    open.batch_execute("commit").await.expect("it ends");
    let said = adopt(&fixture, &["legacy.outbox", "--since", &snapshot, "--order-by", "n"]);
    // More, where other transactions of the server were open at the snapshot: what was written above them may
    // come again.
    assert!(!said.contains("; 0 rows") && !said.contains("; 1 rows"), "{said}");
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_published(&client).await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("order"));
    let mut keys: Vec<&str> = records.iter().map(Consumed::key_text).collect();
    keys.sort_unstable();
    assert!(keys.contains(&"after") && keys.contains(&"open"), "{keys:?}");
    let counts = |records: &[Consumed]| {
        ["before", "after", "open"]
            .map(|key| records.iter().filter(|record| record.key_text() == key).count())
    };
    let counted = counts(&records);
    assert!(counted[0] <= 1 && counted[1..] == [1, 1], "{counted:?}");
    // In a restored copy a snapshot means nothing: everything comes again.
    let reanchor = fixture.command().args(["migrate", "reanchor"]).output().expect("it runs");
    assert!(reanchor.status.success(), "{}", String::from_utf8_lossy(&reanchor.stderr));
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_published(&client).await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("order"));
    assert_eq!(counts(&records), counted.map(|count| count + 1));
}

/// Kills during the copy and the stream, and slots that are lost: rows come again, none is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_lost_slots_lose_no_row() {
    let fixture = Fixture::new("adopt_kills").await;
    let client = legacy_outbox(&fixture).await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 3).await;
    traffic.commits_more(2_000).await;
    adopt(&fixture, ADOPT);
    for pause_millis in [300, 900, 1_500, 2_000] {
        let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
        tokio::time::sleep(Duration::from_millis(pause_millis)).await;
        relay.kill();
    }
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let drop_slot = "select pg_terminate_backend(active_pid), pg_sleep(0.05)
        from pg_replication_slots where database = current_database() and active;
        select pg_drop_replication_slot(slot_name) from postrider.capture_slot";
    let patience = Patience::until("the slot can be dropped");
    while client.batch_execute(drop_slot).await.is_err() {
        patience.pause().await;
    }
    traffic.commits_more(500).await;
    traffic.stop().await;
    wait_published(&client).await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

/// Nobody can note any more that the slot is needed no further than here, once all rows are noted as published.
const REFUSE_DELIVERY: &str = "
    create function refuse() returns trigger language plpgsql as $$
    begin
        if not exists (
            select from legacy.outbox as row_, postrider.adopted
            where not published
                and not coalesce(pg_visible_in_snapshot(row_.xmin::text::xid8, passed), false))
        then
            raise 'not now';
        end if;
        return new;
    end $$;
    create trigger refuse before update of delivered_lsn on postrider.capture_slot
        for each row execute function refuse()";

/// What is published is noted for the tables first, then for the slot: whoever ends between the two repeats
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_between_two_notes_of_what_is_published_repeats_nothing() {
    let fixture = Fixture::new("adopt_notes").await;
    legacy_outbox(&fixture).await;
    let (mut client, history) = (fixture.client().await, History::default());
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let transaction = client.transaction().await.expect("the session lives");
    let mut written = Vec::new();
    for number in 1..=10 {
        written.push(insert_event(&transaction, "a", number).await);
    }
    // Others write into the log of this server, and the slot moves on: it may until these rows are noted.
    transaction.batch_execute(REFUSE_DELIVERY).await.expect("the superuser may");
    transaction.commit().await.expect("nothing is in the way of the commit");
    history.ended(written, Fate::Committed);
    wait_published(&client).await;
    relay.wait_until_it_says("not now").await;
    relay.kill();
    let allow = "drop trigger refuse on postrider.capture_slot";
    client.batch_execute(allow).await.expect("the superuser may");
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    history.ended(vec![insert_event(&client, "a", 11).await], Fate::Committed);
    wait_published(&client).await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// What of a record must be the same for a row that is copied and one that is streamed.
fn described(record: &Consumed) -> String {
    let header = |name: &str| record.header(name).map(<[u8]>::to_vec);
    format!(
        "{:?} {:?} {:?} {:?}",
        record.key_text(),
        record.value.as_deref().map(<[u8]>::to_vec),
        header("type"),
        header("tenant"),
    )
}

/// Partitioned, with other names and types; updates and deletes are not published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_and_streamed_rows_become_the_same_records() {
    // GIVEN a partitioned table of odd names and types, with rows.
    let fixture = Fixture::new("adopt_types").await;
    let client = fixture.client().await;
    let sql = "
        create type kind as enum ('placed', 'paid');
        create table \"Odd Events\" (
            id bigint generated always as identity, part integer not null default 0,
            order_id bigint, kind kind, body bytea, meta json, note text,
            written_at timestamptz not null default clock_timestamp(),
            primary key (id, part)) partition by list (part);
        create table odd_0 partition of \"Odd Events\" for values in (0);
        create table odd_1 partition of \"Odd Events\" for values in (1)";
    client.batch_execute(sql).await.expect("the tables are new");
    let rows = "insert into \"Odd Events\" (part, order_id, kind, body, meta)
        values (0, 7, 'placed', '\\x00ff0a5c', '{\"tenant\": \"a\"}'),
            (1, -8, 'paid', null, null), (1, null, null, '', '{}')";
    client.batch_execute(rows).await.expect("rows are written");
    // WHEN it is adopted, and the same rows are written once more.
    let arguments = [
        "public.\"Odd Events\"",
        "--column",
        "aggregatetype='odd'",
        "--column",
        "aggregateid=order_id",
        "--column",
        "type=kind",
        "--column",
        "payload=body",
        "--column",
        "headers=meta",
        "--column",
        "created_at=written_at",
    ];
    let said = adopt(&fixture, &[&arguments[..], &["--dry-run"]].concat());
    assert!(said.contains("3 rows are pending") && said.contains("nothing was changed"), "{said}");
    adopt(&fixture, &arguments);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    client.batch_execute(rows).await.expect("rows are written");
    // WHEN rows are updated and deleted.
    let others = "update \"Odd Events\" set note = 'seen'; delete from \"Odd Events\" where id = 1";
    client.batch_execute(others).await.expect("rows may be changed");
    // THEN each inserted row is one record, and those copied are as those streamed.
    let deadline = Instant::now() + Duration::from_secs(60);
    let topic = fixture.topic("odd");
    while read_topic(&fixture.brokers, &topic).len() < 6 {
        assert!(Instant::now() < deadline, "six records in time: {}", relay.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    relay.stop_well().await;
    let mut records = read_topic(&fixture.brokers, &topic);
    assert_eq!(records.len(), 6, "neither the update nor the delete is an event");
    records.sort_by_key(|record| record.id().0);
    let ids: Vec<String> = records.iter().map(|record| record.id().to_string()).collect();
    assert_eq!(ids[5], "00000000-0000-0000-0000-000000000006");
    let (copied, streamed) = records.split_at(3);
    let all = |records: &[Consumed]| records.iter().map(described).collect::<Vec<_>>();
    assert_eq!(all(copied), all(streamed));
    assert!(copied[0].key_text() == "7" && copied[1].key_text() == "-8");
    assert_eq!(copied[0].value.as_deref(), Some(&b"\0\xff\n\\"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_adopted_is_refused() {
    let fixture = Fixture::new("adopt_refused").await;
    let client = fixture.client().await;
    let sql = "create table plain (id uuid, aggregatetype text, aggregateid text, type text,
            payload jsonb);
        create unlogged table fleeting (like plain);
        create view window_on as select * from plain;
        create table numbers (id uuid, aggregatetype text, aggregateid text, type text, payload point)";
    client.batch_execute(sql).await.expect("the tables are new");
    for (arguments, code, cause) in [
        (&["nowhere"][..], 6, "there is no table public.nowhere"),
        (&["fleeting"], 6, "unlogged"),
        (&["window_on"], 6, "is no table"),
        (&["numbers", "--order-by", "id"], 6, "payload has a type that payload cannot have"),
        (&["plain"], 3, "in which order its rows were written"),
        (&["plain", "--order-by", "nothing"], 3, "nothing"),
        (&["plain", "--order-by", "id", "--pending", "1"], 3, "boolean"),
        (&["plain", "--column", "aggregateid=key", "--order-by", "id"], 6, "no column key"),
        (&["outbox"], 3, "postrider's own outbox"),
        (&["plain", "--end"], 3, "is not adopted"),
    ] {
        let (found, said) = refused(&fixture, arguments);
        assert!(said.contains(cause), "{arguments:?}: {said}");
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
    }
    assert_eq!(number(&client, "select count(*) from postrider.adopted").await, 0);
    adopt(&fixture, &["plain", "--order-by", "id"]);
    let (code, said) = refused(&fixture, &["plain", "--order-by", "id"]);
    assert!(code == Some(3) && said.contains("adopted already"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_polls_while_a_table_is_adopted() {
    let fixture = Fixture::new("adopt_polls").await;
    legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let switch = fixture.command().args(["capture", "switch", "poll"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&switch.stderr).into_owned();
    assert_eq!(switch.status.code(), Some(3), "{said}");
    assert!(said.contains("adopted tables are read from the log alone"), "{said}");
    relay.stop_well().await;
    adopt(&fixture, END);
    let switch = fixture.command().args(["capture", "switch", "poll"]).output().expect("it runs");
    assert!(switch.status.success(), "{}", String::from_utf8_lossy(&switch.stderr));
}

/// Whoever gives a table back runs the recorded condition with his own rights: he sees it before, and need not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_is_shown_before_it_runs_for_its_caller() {
    let fixture = Fixture::new("adopt_condition").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let padding = " ".repeat(5_000);
    let other = format!("not published{padding} or nextval('public.trap') < 0");
    client.batch_execute("create sequence public.trap").await.expect("it is new");
    let change = "update postrider.adopted set pending = $1";
    client.execute(change, &[&other]).await.expect("it is changed");
    for expected in ["not published", "published", ""] {
        let (code, said) = refused(&fixture, &[END, &["--pending", expected]].concat());
        assert!(code == Some(3) && said.contains("or nextval('public.trap') < 0"), "{said}");
    }
    assert_eq!(number(&client, "select count(*) from public.trap where is_called").await, 0);
    let shown = fixture.command().args(["capture", "show", "--json"]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("or nextval('public.trap') < 0"), "{shown}");
    for more in [&["--dry-run"][..], &["--pending", &other]] {
        let said = adopt(&fixture, &[&["legacy.outbox", "--end"][..], more].concat());
        let (runs, rest) = said.split_once('\n').expect("two lines");
        assert!(runs.starts_with("runs with your rights") && runs.contains("trap"), "{said}");
        assert!(rest.contains("0 rows"), "{said}");
    }
    // Where none is recorded none is to run.
    adopt(&fixture, &["legacy.outbox", "--order-by", "n"]);
    let (code, said) = refused(&fixture, &["legacy.outbox", "--end", "--pending", "true"]);
    assert!(code == Some(3) && said.contains("legacy.outbox: none"), "{said}");
    assert!(!adopt(&fixture, &["legacy.outbox", "--end"]).contains("runs with"));
}
