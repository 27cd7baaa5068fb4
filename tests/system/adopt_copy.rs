//! What comes before the stream of an adopted table, and what of its values: types of every kind, copies that
//! take long, numbers of what is parked.

use std::time::Duration;

use postrider_testkit::servers::Postgres;
use tokio_postgres::Client;

use crate::adopt::{ADOPT, adopt, legacy_outbox, number};
use crate::support::fixture::Options;
use crate::support::servers::{kafka, start_postgres};
use crate::support::{Consumed, Fixture, Patience, RelayProcess, mostly_waits, read_topic};
use crate::told::as_relay;

fn records_now(fixture: &Fixture, kind: &str) -> Vec<Consumed> {
    read_topic(&fixture.brokers, &fixture.topic(kind))
}

/// Waits until a topic has so many records.
async fn records(
    fixture: &Fixture,
    relay: &RelayProcess,
    kind: &str,
    count: usize,
) -> Vec<Consumed> {
    let patience = Patience::until("the records have come");
    loop {
        let records = records_now(fixture, kind);
        if records.len() >= count {
            return records;
        }
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
}

/// The server ends a stream from which it hears nothing for two seconds; the first row takes longer, and the
/// others come one after the other then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_first_row_takes_long_is_made_once() {
    mostly_waits();
    let fixture = Fixture::new("adopt_slow").await;
    let client = legacy_outbox(&fixture).await;
    let sql = "alter database adopt_slow set wal_sender_timeout = '2s';
        alter database adopt_slow set enable_sort = off;
        alter database adopt_slow set enable_seqscan = off;
        insert into legacy.outbox (id, aggregatetype, aggregateid, type)
            select gen_random_uuid(), 'order', 'a' || n % 7, 'T' from generate_series(1, 400) as n";
    client.batch_execute(sql).await.expect("rows are written");
    let pending = "not published and case when n <= 100 then pg_sleep(0.1) is null
        else pg_sleep(0.012) is not null end";
    adopt(&fixture, &["legacy.outbox", "--pending", pending, "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    records(&fixture, &relay, "order", 350).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let said = relay.said();
    relay.stop_well().await;
    assert_eq!(said.matches("publishing rows of adopted tables").count(), 1, "{said}");
    let all = records_now(&fixture, "order");
    assert_eq!(all.len(), 350, "no row came twice");
}

/// What is noted as copied is there for whoever reads committed records: it comes neither never nor twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_committed_before_it_is_noted() {
    const ROWS: usize = 400;
    let fixture = Fixture::new("adopt_exactly").await;
    let client = legacy_outbox(&fixture).await;
    let sql = "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
        select gen_random_uuid(), 'order', 'a' || n % 7, 'T' from generate_series(1, 400) as n";
    client.batch_execute(sql).await.expect("rows are written");
    fixture.deliver_exactly_once();
    // It takes longer than one transaction of Kafka's.
    let pending = "not published and pg_sleep(0.003) is not null";
    adopt(&fixture, &["legacy.outbox", "--pending", pending, "--order-by", "n"]);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    let patience = Patience::until("the copy is noted");
    while number(&client, "select count(*) from postrider.adopted where passed is null").await > 0 {
        patience.pause().await;
    }
    relay.kill();
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    client.batch_execute(sql).await.expect("more rows are written");
    records(&fixture, &relay, "order", 2 * ROWS).await;
    relay.stop_well().await;
    assert_eq!(records_now(&fixture, "order").len(), 2 * ROWS);
}

/// Rows are taken one by one, however many wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_large_rows_is_bounded_in_memory() {
    let fixture = Fixture::new("adopt_large").await;
    let client = fixture.client().await;
    let sql =
        "create table large (id bigint generated always as identity, aggregateid text, type text,
            payload bytea);
        insert into large (aggregateid, type, payload)
            select 'a' || n, 'T', convert_to(repeat('x', 8000000), 'UTF8')
            from generate_series(1, 40) as n";
    client.batch_execute(sql).await.expect("rows are written");
    adopt(&fixture, &["large", "--column", "aggregatetype='large'"]);
    let arguments = ["--capture", "wal", "--max-in-flight-bytes", "16MiB"];
    let relay = RelayProcess::start(&fixture, &arguments);
    // They are larger than the topic takes.
    let patience = Patience::until("all rows are parked");
    while number(&client, "select count(*) from postrider.parked").await < 40 {
        patience.pause().await;
    }
    let peak = relay.peak_memory_kilobytes() / 1024;
    relay.stop_well().await;
    println!("{peak} MB of 40 rows of 8 MB, 16 MB each as the server prints them");
    assert!(peak < 300, "{peak} MB");
}

const HELD: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'postrider slot'
        and backend_type = 'walsender' and state = 'idle in transaction'";

/// A slot waits for the transactions of all databases: two tests that keep one open until their slot waits for it would
/// wait for each other, and whoever makes a slot meanwhile for both.
async fn on_a_server_of_its_own(name: &str) -> (Postgres, Fixture) {
    let postgres = start_postgres(&[]);
    let (admin, own) = (postgres.url("postgres"), postgres.url(name));
    let fixture = Fixture::on(name, &admin, own, kafka().brokers()).await;
    (postgres, fixture)
}

/// The session that made a slot keeps its snapshot for the copy. Who does not become the reader needs it no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_by_holds_no_snapshot() {
    let (_postgres, fixture) = on_a_server_of_its_own("adopt_held").await;
    let mut client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let watcher = fixture.client().await;
    let older = fixture.client().await;
    older.batch_execute("begin; select pg_current_xact_id()").await.expect("it has an id");
    let first = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_for_waiter(&watcher, &older).await;
    // From here on nobody can save, so the first one waits with its slot made.
    let lock = client.transaction().await.expect("the session lives");
    lock.batch_execute("lock table postrider.cursor in share mode").await.expect("it is ours");
    older.batch_execute("commit").await.expect("it ends");
    let patience = Patience::until("the slot is made");
    while number(&watcher, HELD).await == 0 {
        patience.pause().await;
    }
    first.signal("STOP");
    lock.rollback().await.expect("it ends");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name in
            ('postrider capture', 'postrider lease', 'postrider cursors')";
    watcher.batch_execute(cut).await.expect("the superuser may");
    let second = RelayProcess::start(&fixture, &["--capture", "wal"]);
    second.wait_until_it_says("reading the log").await;
    assert!(number(&watcher, HELD).await > 0, "that of the first one");
    first.signal("CONT");
    first.wait_until_it_says("standing by").await;
    let patience = Patience::until("the snapshot is given up");
    while number(&watcher, HELD).await > 0 {
        patience.pause().await;
    }
    first.stop_well().await;
    second.stop_well().await;
}

/// Waits until a walsender waits for the end of this session's transaction.
async fn wait_for_waiter(client: &Client, session: &Client) {
    let pid: i32 =
        session.query_one("select pg_backend_pid()", &[]).await.expect("it answers").get(0);
    let waits = format!(
        "select count(*) from pg_stat_activity where datname = current_database()
            and backend_type = 'walsender' and {pid} = any(pg_blocking_pids(pid))"
    );
    let patience = Patience::until("the slot waits for a transaction");
    while number(client, &waits).await == 0 {
        patience.pause().await;
    }
}

/// A transaction that began while the slot waited for older ones writes below the place where it begins, and is
/// in the stream: its rows are none of those that are copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_rows_of_the_copy_and_of_the_stream_are_told_apart() {
    let (_postgres, fixture) = on_a_server_of_its_own("adopt_numbers").await;
    let client = legacy_outbox(&fixture).await;
    // A name that no topic has: all are parked.
    let rows = |name: &str, count: usize| {
        format!(
            "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
                select gen_random_uuid(), 'no topic', '{name}', n::text
                from generate_series(1, {count}) as n"
        )
    };
    client.batch_execute(&rows("copied", 20_000)).await.expect("rows are written");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(fixture.client().await);
    }
    let own_id = "begin; select pg_current_xact_id()";
    open[0].batch_execute(own_id).await.expect("it has an id");
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    wait_for_waiter(&client, &open[0]).await;
    // The slot waits twice: for those that run at first, then for those that have begun meanwhile.
    open[1].batch_execute(own_id).await.expect("it has an id");
    open[0].batch_execute("commit").await.expect("it ends");
    wait_for_waiter(&client, &open[1]).await;
    let writer = fixture.client().await;
    let begin = format!("begin; {}; {}", rows("copied", 30), rows("streamed", 30));
    writer.batch_execute(&begin).await.expect("rows are written");
    open[1].batch_execute("commit").await.expect("it ends");
    relay.wait_until_it_says("reading the log").await;
    writer.batch_execute("commit").await.expect("it ends");
    let parked = "select count(*) from postrider.parked";
    let patience = Patience::until("all rows are parked");
    while number(&client, parked).await < 20_060 {
        assert!(!relay.said().contains(" ERROR "), "{}", relay.said());
        patience.pause().await;
    }
    let misplaced = "select count(*) from (
            select parked.turn, lag(written.n) over (partition by parked.aggregateid order by parked.turn) as before,
                written.n
            from postrider.parked as parked join legacy.outbox as written on written.id = parked.id) as placed
        where before > n";
    assert_eq!(
        number(&client, misplaced).await,
        0,
        "they wait in the order in which they were written"
    );
    let twice = "select count(*) - count(distinct seq) from postrider.parked";
    assert_eq!(number(&client, twice).await, 0);
    relay.stop_well().await;
}

/// Types of keys, a value, and its text with the settings of the sessions that read.
const TYPES: &[(&str, &str, &str)] = &[
    ("numeric(19)", "12345678901234567", "12345678901234567"),
    ("numeric", "-1.50", "-1.50"),
    ("boolean", "true", "t"),
    ("oid", "4000000000", "4000000000"),
    ("real", "0.1", "0.1"),
    ("double precision", "1e300", "1e+300"),
    ("date", "'2026-02-03'", "2026-02-03"),
    ("time", "'01:02:03.5'", "01:02:03.5"),
    ("timestamptz", "'2026-02-03 04:05:06+00'", "2026-02-03 04:05:06+00"),
    ("interval", "'1 day 02:00'", "1 day 02:00:00"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("uuid", "'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
    ("char(6)", "'ab'", "ab"),
    ("integer[]", "'{1,2}'", "{1,2}"),
    ("numbered", "7", "7"),
    ("kind", "'placed'", "placed"),
    ("pair", "'(1,a b)'", "(1,\"a b\")"),
    ("bit(3)", "b'101'", "101"),
];

/// Made by a table's owner: nothing of it may run as the relay.
const OWNERS_CODE: &str = "
    create type kind as enum ('placed', 'paid');
    create type pair as (one integer, two text);
    create domain numbered as integer;
    create function refuse_kind(value kind) returns text language plpgsql as $$
        begin raise 'the relay has run it'; end $$;
    create function refuse_pair(value pair) returns text language plpgsql as $$
        begin raise 'the relay has run it'; end $$;
    create cast (kind as text) with function refuse_kind(kind) as implicit;
    create cast (pair as text) with function refuse_pair(pair) as implicit;";

const OTHER_SETTINGS: &str = "
    alter database adopt_printed set datestyle = 'SQL, DMY';
    alter database adopt_printed set timezone = 'Asia/Tokyo';
    alter database adopt_printed set intervalstyle = iso_8601;
    alter database adopt_printed set extra_float_digits = -10;
    alter database adopt_printed set bytea_output = escape;";

async fn write(client: &Client) {
    for (number, (_, value, _)) in TYPES.iter().enumerate() {
        let sql = format!(
            "insert into typed_{number} (aggregateid, type, payload, headers, created_at) values
             ({value}, {value}, '\\x00ff5c', '{{\"tenant\": \"a\"}}', '2026-11-29 17:34:18.12+00')"
        );
        client.batch_execute(&sql).await.expect("a row is written");
    }
    let own = "insert into outbox (aggregatetype, aggregateid, type, payload, headers) values
        ('own', 'key', 'T', '\\x00ff5c', '{\"tenant\": \"a\"}'), ('own', 'key', 'T', null, null)";
    client.batch_execute(own).await.expect("a row is written");
}

/// Whatever a key's type is, the copy and the stream bring the text that PostgreSQL prints for it, and run
/// nothing that the table's owner has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_are_printed_as_postgresql_does() {
    let options = Options { payload: "bytea", ..Options::default() };
    let fixture = Fixture::with("adopt_printed", options).await;
    let client = fixture.client().await;
    client.batch_execute(OWNERS_CODE).await.expect("they are new");
    for (number, (type_name, ..)) in TYPES.iter().enumerate() {
        let sql = format!(
            "create table typed_{number} (id bigint generated always as identity, aggregateid {type_name},
                type {type_name}, payload bytea, headers json, created_at timestamptz)"
        );
        client.batch_execute(&sql).await.expect(type_name);
    }
    client.batch_execute(OTHER_SETTINGS).await.expect("the superuser may");
    write(&client).await;
    for number in 0..TYPES.len() {
        let constant = format!("aggregatetype='typed_{number}'");
        adopt(&fixture, &[&format!("typed_{number}"), "--column", &constant]);
    }
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    write(&client).await;
    for (number, (type_name, _, text)) in TYPES.iter().enumerate() {
        let pair = records(&fixture, &relay, &format!("typed_{number}"), 2).await;
        for record in &pair {
            assert_eq!(record.key_text(), *text, "{type_name}");
            assert_eq!(record.header("type"), Some(text.as_bytes()), "{type_name}");
            assert_eq!(record.value.as_deref(), Some(&b"\0\xff\\"[..]), "{type_name}");
            assert_eq!(record.header("tenant"), Some(&b"a"[..]), "{type_name}");
        }
    }
    // postrider's own outbox comes by the same stream.
    let own = records(&fixture, &relay, "own", 4).await;
    for pair in own.chunks(2) {
        assert_eq!(pair[0].value.as_deref(), Some(&b"\0\xff\\"[..]));
        assert_eq!(pair[0].header("tenant"), Some(&b"a"[..]));
        assert!(pair[1].value.is_none());
    }
    relay.stop_well().await;
}

/// The owner gives columns types of his own, with casts of his own, once the table is adopted.
const OWNERS_TYPES: &str = "
    create type own.moment as (at timestamptz);
    create type own.name as (words text);
    create function own.at(own.moment) returns timestamptz language plpgsql as $$
        begin raise 'a cast of the owner''s ran as %', current_user; end $$;
    create function own.words(own.name) returns text language plpgsql as $$
        begin raise 'a cast of the owner''s ran as %', current_user; end $$;
    create cast (own.moment as timestamptz) with function own.at(own.moment) as implicit;
    create cast (own.name as text) with function own.words(own.name) as implicit;
    alter table own.events alter written drop default,
        alter written type own.moment using row(written)::own.moment,
        alter aggregateid type own.name using row(aggregateid)::own.name";

/// Whoever counts its rows, copies them or reads them on runs no cast of the owner's: a time of another type is none,
/// a key of another type is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cast_of_the_owner_runs_as_nobody_else() {
    let fixture = Fixture::new("adopt_casts").await;
    let client = fixture.client().await;
    let relays = as_relay(&fixture, &client).await;
    let table = "create role adopt_casts_own;
        create schema own authorization adopt_casts_own;
        set role adopt_casts_own;
        create table own.events (id uuid default gen_random_uuid(), aggregatetype text, aggregateid text,
            type text, payload jsonb, written timestamptz default now(), n bigint generated always as identity);
        grant usage on schema own to adopt_casts_relay;
        grant select on own.events to adopt_casts_relay;
        reset role";
    client.batch_execute(table).await.expect("it is new");
    let write = |id: &str| {
        format!(
            "insert into own.events (aggregatetype, aggregateid, type) values ('own', {id}, 'T')"
        )
    };
    client.batch_execute(&write("'before'")).await.expect("a row is written");
    adopt(&fixture, &["own.events", "--column", "created_at=written", "--order-by", "n"]);
    let change = format!("set role adopt_casts_own; {OWNERS_TYPES}; reset role");
    client.batch_execute(&change).await.expect("it is the owner's");
    let status = relays.command().args(["status", "--json"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&[status.stdout, status.stderr].concat()).into_owned();
    assert!(said.contains("\"unpublished\": 1"), "{said}");
    let relay = RelayProcess::start(&relays, &["--capture", "wal"]);
    let patience = Patience::until("the relay says what is wrong with the table");
    while !relay.said().contains("has a type that created_at cannot have") {
        assert!(!relay.said().contains("a cast of the owner"), "{}", relay.said());
        patience.pause().await;
    }
    // Without the time the rows can be read.
    let time = "set role adopt_casts_own; alter table own.events drop written; reset role;
        update postrider.adopted set columns = array_remove(columns, 'created_at=written')";
    client.batch_execute(time).await.expect("it is the owner's");
    relay.wait_until_it_says("reading the log").await;
    client.batch_execute(&write("row('after')")).await.expect("a row is written");
    let all = records(&fixture, &relay, "own", 2).await;
    let mut keys: Vec<&str> = all.iter().map(Consumed::key_text).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["(after)", "(before)"]);
    assert!(!relay.said().contains("a cast of the owner"), "{}", relay.said());
    relay.stop_well().await;
}

/// As tools do that change a table without a long lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_replaced_by_another_of_its_name_is_read_on() {
    let fixture = Fixture::new("adopt_replaced").await;
    let client = legacy_outbox(&fixture).await;
    adopt(&fixture, ADOPT);
    let relay = RelayProcess::start(&fixture, &["--capture", "wal"]);
    relay.wait_until_it_says("reading the log").await;
    let row = |name: &str| {
        format!(
            "insert into legacy.outbox (id, aggregatetype, aggregateid, type)
             values (gen_random_uuid(), 'order', '{name}', 'T');"
        )
    };
    client.batch_execute(&row("before")).await.expect("a row is written");
    records(&fixture, &relay, "order", 1).await;
    let replace = format!(
        "begin;
         create table legacy.made_anew (like legacy.outbox including all);
         insert into legacy.made_anew select * from legacy.outbox;
         alter table legacy.outbox rename to replaced;
         alter table legacy.made_anew rename to outbox;
         {} commit; {}",
        row("in it"),
        row("behind it")
    );
    client.batch_execute(&replace).await.expect("the table is replaced");
    let patience = Patience::until("the rows of the new table have come");
    loop {
        let records = read_topic(&fixture.brokers, &fixture.topic("order"));
        let has = |key: &str| records.iter().any(|record| record.key_text() == key);
        if has("in it") && has("behind it") {
            break;
        }
        patience.pause().await;
    }
    relay.stop_well().await;
}
