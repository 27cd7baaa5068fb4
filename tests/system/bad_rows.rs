//! Rows that lie about their place, that PostgreSQL cannot hand over, or that are too large to be read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use uuid::Uuid;

use crate::parking::{ask, first_seen, parked, wait_for_the_rest, wait_until_parked};
use crate::support::fixture::{Options, connect};
use crate::support::servers::both;
use crate::support::{Capture, Fixture, RelayProcess, read_topic};

/// The next rows get these numbers once more.
async fn set_back(client: &Client, last: i64) {
    let sql = format!("select setval(pg_get_serial_sequence('outbox', 'seq'), {last})");
    client.batch_execute(&sql).await.expect("the sequence is ours");
}

/// Events without anything wrong, numbered on.
async fn insert_good(client: &Client, aggregate_id: &str, numbers: std::ops::RangeInclusive<i32>) {
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 't', $1, n::text, '{}' from generate_series($2::int, $3::int) n";
    let range = (numbers.start(), numbers.end());
    client.execute(sql, &[&aggregate_id, range.0, range.1]).await.expect("an insert never fails");
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("it answers").get(0)
}

/// Two events of one `seq` are two; the same one twice is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_seq_are_told_apart_by_their_ids() {
    let fixture = Fixture::new("rows_one_seq").await;
    let client = fixture.client().await;
    insert_good(&client, "good", 1..=5).await;
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 'no topic!', 'k' || n, 'bad', '{}' from generate_series(1, 3) n";
    for _ in 0..2 {
        set_back(&client, 2).await;
        client.batch_execute(bad).await.expect("an insert never fails");
    }
    let same = "insert into outbox (id, aggregatetype, aggregateid, type, payload) values
        ('018f4e6a-5b1c-7def-8a00-0123456789ab', 'no topic!', 'k1', 'same', '{}')";
    for _ in 0..2 {
        set_back(&client, 1).await;
        client.batch_execute(same).await.expect("an insert never fails");
    }
    set_back(&client, 5).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["1", "2", "3", "4", "5"]);
    assert_eq!(parked(&client).await.len(), 7, "six, and one that came twice");
    // The view tells them apart, too.
    assert_eq!(count(&client, "select count(*) from postrider.events").await, 13);
    let published = "select count(*) from postrider.events where published";
    assert_eq!(count(&client, published).await, 5);

    // Each attempt and each discarded event is one's own.
    ask(&fixture, &["parked", "retry", "--all"]);
    let again = "select count(*) from postrider.parked where attempts = 2";
    wait_until(&client, again, 3).await;
    let id: Uuid = client
        .query_one("select id from postrider.parked where seq = 3 order by turn limit 1", &[])
        .await
        .expect("it is parked")
        .get(0);
    ask(&fixture, &["parked", "discard", "--event", &id.to_string()]);
    assert_eq!(parked(&client).await.len(), 6);
    let mend = "update postrider.parked set aggregatetype = 'mended' where seq = 4";
    client.batch_execute(mend).await.expect("the table is ours");
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until(&client, "select count(*) from postrider.parked where seq = 4", 0).await;
    assert_eq!(parked(&client).await.len(), 4, "what shares no seq with them has stayed");
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("mended")).len(), 2);
    relay.stop_well().await;
}

pub(crate) async fn wait_until(client: &Client, sql: &str, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = count(client, sql).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A page ends behind the last row of a `seq`, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_skipped_behind_a_cut_between_rows_of_one_seq() {
    let fixture = Fixture::new("rows_cut").await;
    let client = fixture.client().await;
    insert_good(&client, "before", 1..=5).await;
    let many = "do $$ begin
            for n in 1..50 loop
                perform setval(pg_get_serial_sequence('outbox', 'seq'), 5);
                insert into outbox (aggregatetype, aggregateid, type, payload)
                    values ('t', 'a' || n, n::text, '{}');
            end loop;
        end $$";
    client.batch_execute(many).await.expect("an insert never fails");
    insert_good(&client, "after", 1..=5).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1", "--page-rows", "7"]);
    fixture.wait_published().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let ids: HashSet<Vec<u8>> =
        records.iter().map(|record| record.header("id").expect("it has one").to_vec()).collect();
    assert_eq!((ids.len(), records.len()), (60, 60));
    relay.stop_well().await;
}

/// A database whose texts need not have a form in UTF-8.
async fn in_encoding(name: &str, encoding: &str, payload: &str) -> Fixture {
    let (postgres, kafka) = both();
    let admin = connect(&postgres.url("postgres")).await;
    let create =
        format!("create database {name} template template0 encoding '{encoding}' locale 'C'");
    admin.batch_execute(&create).await.expect("the name is free");
    let fixture = Fixture {
        database_url: postgres.url(name),
        brokers: kafka.brokers().to_owned(),
        name: name.to_owned(),
        capture: Capture::default(),
    };
    ask(&fixture, &["migrate", "up", "--buckets", "4", "--payload", payload]);
    fixture
}

/// Each column once with a byte that does not convert; those of the columns that name no aggregate are
/// followed by a good event of theirs.
async fn assert_unconvertible(name: &str, encoding: &str, byte: &str, payload: &str) {
    // GIVEN a database with bytes that are no text of UTF-8, in each part of an event, among good rows.
    let fixture = in_encoding(name, encoding, payload).await;
    let client = fixture.client().await;
    insert_good(&client, "good", 1..=3).await;
    let insert = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers) values
            (E'{byte}', 'a', '4', '{{}}', null),
            ('t', E'b{byte}', '5', '{{}}', null), ('t', E'b{byte}', '6', '{{}}', null),
            ('t', 'c', E'7{byte}', '{{}}', null), ('t', 'c', '8', '{{}}', null),
            ('t', 'd', '9', E'\"{byte}\"', null), ('t', 'd', '10', '{{}}', null),
            ('t', 'e', '11', '{{}}', (E'{{\"h\": \"{byte}\"}}')::jsonb), ('t', 'e', '12', '{{}}', null),
            ('t', 'c' || 'c', '13', '{{}}', null)"
    );
    client.batch_execute(&insert).await.expect("an insert never fails");
    insert_good(&client, "good", 14..=15).await;
    // WHEN a relay publishes them.
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    // THEN these and what follows them are parked, and nobody else waits.
    let escaped = byte.replace("\\x", "");
    let octal = format!("\\{:o}", u8::from_str_radix(&escaped, 16).expect("a byte"));
    let seventh = format!("7{octal}");
    let waits = [
        ("4", "unreadable"),
        ("5", "unreadable"),
        ("6", "follows"),
        (seventh.as_str(), "unreadable"),
        ("8", "follows"),
        ("9", "unreadable"),
        ("10", "follows"),
        ("11", "unreadable"),
        ("12", "follows"),
    ];
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["1", "2", "3", "14", "15"]);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "cc"), ["13"]);

    // THEN people see them, and the bytes are kept.
    let listed = ask(&fixture, &["parked", "list"]);
    assert!(listed.contains(&format!("t/b{octal}")) && listed.contains("SQLSTATE 22"), "{listed}");
    let kept = format!(
        "select count(*) from postrider.parked where type = '9' and payload = '\"{}\"'::bytea",
        octal
    );
    assert_eq!(count(&client, &kept).await, 1, "{listed}");
    let ids = client.query("select id from postrider.parked", &[]).await.expect("it answers");
    for row in ids {
        ask(&fixture, &["parked", "show", &row.get::<_, Uuid>(0).to_string(), "--json"]);
    }

    // WHEN it starts again, THEN it knows what is held, and another try finds the same.
    relay.stop_well().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    insert_good(&client, "c", 16..=16).await;
    let held = "select count(*) from postrider.parked where type = '16' and reason = 'follows'";
    wait_until(&client, held, 1).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    let again =
        "select count(*) from postrider.parked where attempts = 2 and reason = 'unreadable'";
    wait_until(&client, again, 5).await;

    // WHEN they are discarded or mended, THEN their followers go on.
    let mend = "update postrider.parked set type = '7', fault = null where aggregateid = 'c' and attempts > 0";
    client.batch_execute(mend).await.expect("the table is ours");
    ask(&fixture, &["parked", "retry", "--aggregate", "t/c"]);
    wait_until(&client, "select count(*) from postrider.parked where aggregateid = 'c'", 0).await;
    ask(&fixture, &["parked", "discard", "--reason", "unreadable"]);
    wait_until(&client, "select count(*) from postrider.parked where reason <> 'unreadable'", 0)
        .await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "c"), ["7", "8", "16"]);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "e"), ["12"]);
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_without_utf8_parks_its_event_alone() {
    assert_unconvertible("rows_ascii", "SQL_ASCII", "\\xff", "text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_without_an_equivalent_parks_its_event_alone() {
    assert_unconvertible("rows_1252", "WIN1252", "\\x81", "json").await;
}

/// A value whose pieces are gone, and a text that a cast made of bytes that are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_value_parks_its_event_alone() {
    let fixture = Fixture::with("rows_damaged", Options { buckets: 4, ..Options::default() }).await;
    let client = fixture.client().await;
    insert_good(&client, "good", 1..=3).await;
    let random = "(select string_agg(md5(random()::text), '') from generate_series(1, 500))";
    let insert = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
            values ('t', 'a', '4', to_json({random}));
        insert into outbox (aggregatetype, aggregateid, type, payload)
            values ('t', 'b' || {random}, '5', '{{}}'), ('t', 'a', '6', '{{}}');
        create extension pg_surgery;
        create cast (bytea as text) without function;
        insert into outbox (aggregatetype, aggregateid, type, payload)
            values ('t', ('c\\377'::bytea)::text, '7', '{{}}'), ('t', 'd', '8', '{{}}')"
    );
    client.batch_execute(&insert).await.expect("an insert never fails");
    let pieces = "select distinct reltoastrelid::regclass::text from pg_class
        where reltoastrelid <> 0 and pg_relation_size(reltoastrelid) > 0
            and oid in (select relid from pg_partition_tree('outbox') where isleaf)";
    for row in client.query(pieces, &[]).await.expect("it answers") {
        let table: String = row.get(0);
        let kill =
            format!("select heap_force_kill('{table}'::regclass, array(select ctid from {table}))");
        client.batch_execute(&kill).await.expect("the extension is there");
    }
    insert_good(&client, "good", 9..=9).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    let waits = [("4", "unreadable"), ("5", "unreadable"), ("6", "follows"), ("7", "unreadable")];
    wait_until_parked(&client, &waits).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["1", "2", "3", "9"]);
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "d"), ["8"]);
    let listed = ask(&fixture, &["parked", "list"]);
    assert!(listed.contains("missing chunk") && listed.contains("SQLSTATE XX001"), "{listed}");
    ask(&fixture, &["parked", "retry", "--all"]);
    let again = "select count(*) from postrider.parked where attempts = 2";
    wait_until(&client, again, 3).await;
    ask(&fixture, &["parked", "discard", "--reason", "unreadable"]);
    wait_until(&client, "select count(*) from postrider.parked", 0).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "a"), ["6"]);
    relay.stop_well().await;
}

/// What docs/operations.md says the relay takes at most, whatever a row holds.
const MEMORY_KILOBYTES_MAX: u64 = 100_000;

/// A text of 150 MB in each column, once; it takes the server alone to park it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_value_in_any_column_is_parked_without_being_read() {
    let fixture = Fixture::with("rows_giant", Options { buckets: 4, ..Options::default() }).await;
    let client = fixture.client().await;
    insert_good(&client, "good", 1..=3).await;
    let giant = "repeat('x', 150 * 1024 * 1024)";
    let insert = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values
            ('t', 'a', '4', to_json({giant}));
        insert into outbox (aggregatetype, aggregateid, type, payload, headers) values
            ('t', 'b', '5', '{{}}', jsonb_build_object('h', {giant}));
        insert into outbox (aggregatetype, aggregateid, type, payload) values
            ('t', {giant}, '6', '{{}}');
        insert into outbox (aggregatetype, aggregateid, type, payload) values
            ({giant}, 'c', '7', '{{}}');
        insert into outbox (aggregatetype, aggregateid, type, payload) values
            ('t', 'd', {giant}, '{{}}')"
    );
    client.batch_execute(&insert).await.expect("an insert never fails");
    for aggregate in ["a", "b", "d", "good"] {
        insert_good(&client, aggregate, 8..=8).await;
    }
    let reasons = "select count(*) from postrider.parked where reason = 'too-large'";
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    wait_until(&client, reasons, 5).await;
    let follow = "select count(*) from postrider.parked where reason = 'follows'";
    wait_until(&client, follow, 3).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["1", "2", "3", "8"]);
    let whole = "select count(*) from postrider.parked where octet_length(payload) > 150000000
        or octet_length(headers) > 150000000 or octet_length(aggregateid) > 150000000
        or octet_length(aggregatetype) > 150000000 or octet_length(type) > 150000000";
    assert_eq!(count(&client, whole).await, 5);
    let taken = relay.peak_memory_kilobytes();
    assert!(taken < MEMORY_KILOBYTES_MAX, "{taken} kB");
    relay.stop_well().await;

    // Neither a restart nor another try reads them; nor do people's commands need to.
    let relay = RelayProcess::start(&fixture, &[]);
    insert_good(&client, "a", 9..=9).await;
    wait_until(&client, follow, 4).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until(&client, "select count(*) from postrider.parked where attempts = 2", 3).await;
    wait_until(&client, "select count(*) from postrider.parked_request", 0).await;
    let taken = relay.peak_memory_kilobytes();
    assert!(taken < MEMORY_KILOBYTES_MAX, "{taken} kB");
    let listed = ask(&fixture, &["parked", "list", "--json"]);
    assert!(listed.len() < 100_000 && listed.contains("--max-event-bytes"), "{}", listed.len());
    ask(&fixture, &["parked", "discard", "--reason", "too-large"]);
    wait_until(&client, "select count(*) from postrider.parked", 0).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "a"), ["8", "9"]);
    relay.stop_well().await;
}

/// The limit is what decides, for each type of payload, also where the stored size says little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_for_what_an_event_takes_when_it_is_read() {
    let values = [
        ("json", "to_json(repeat('x', $1))"),
        ("jsonb", "to_jsonb(repeat('x', $1))"),
        ("text", "repeat('x', $1)"),
        ("bytea", "repeat('x', $1)::bytea"),
    ];
    for (payload, value) in values {
        let name = format!("rows_limit_{payload}");
        let fixture = Fixture::with(&name, Options { buckets: 2, payload, ..Options::default() });
        let fixture = fixture.await;
        let client = fixture.client().await;
        let insert = format!(
            "insert into outbox (aggregatetype, aggregateid, type, payload)
            select 't', $2::text, $2::text, {}",
            value.replace("$1", "$1::int")
        );
        for (bytes, number) in [(100_000, "1"), (90_000, "2"), (99_000, "3"), (101_000, "4")] {
            client.execute(&insert, &[&bytes, &number]).await.expect("an insert never fails");
        }
        if payload == "jsonb" {
            // Less than 2 kB here, 13 MB as text.
            let numbers = "insert into outbox (aggregatetype, aggregateid, type, payload)
                select 't', '5', '5', jsonb_agg('1e131000'::numeric) from generate_series(1, 100)";
            client.batch_execute(numbers).await.expect("an insert never fails");
        }
        let relay = RelayProcess::start(&fixture, &["--max-event-bytes", "100000B"]);
        wait_for_the_rest(&fixture).await;
        let large = "select type from postrider.parked where reason = 'too-large' order by type";
        let rows = client.query(large, &[]).await.expect("it answers");
        let large: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let expected: &[&str] = if payload == "jsonb" { &["1", "4", "5"] } else { &["1", "4"] };
        assert_eq!(large, expected, "{payload}");
        // A larger limit lets another try through.
        relay.stop_well().await;
        let discard = "delete from postrider.parked where type = '5'";
        client.batch_execute(discard).await.expect("the table is ours");
        let relay = RelayProcess::start(&fixture, &["--max-event-bytes", "1MiB"]);
        ask(&fixture, &["parked", "retry", "--all"]);
        fixture.wait_published().await;
        assert_eq!(first_seen(&fixture, &fixture.topic("t"), "4"), ["4"], "{payload}");
        relay.stop_well().await;
    }
}

/// What is just small enough to be read is read one by one, by each shard: 24 times 8 MB are not held at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_below_the_limit_do_not_add_up() {
    let fixture = Fixture::with("rows_below", Options { buckets: 4, ..Options::default() }).await;
    let client = fixture.client().await;
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 't', n::text, n::text, to_json(repeat('x', 8000000)) from generate_series(1, 24) n";
    client.batch_execute(insert).await.expect("an insert never fails");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let reasons = "select count(*) from postrider.parked where reason = 'too-large'";
    wait_until(&client, reasons, 24).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until(&client, "select count(*) from postrider.parked where attempts = 2", 24).await;
    let taken = relay.peak_memory_kilobytes();
    assert!(taken < 2 * MEMORY_KILOBYTES_MAX, "{taken} kB");
    relay.stop_well().await;
}
