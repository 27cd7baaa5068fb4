//! The sequence: read under its page's lock, so that a tick's floor is never too high, and harmless whatever
//! its owner does to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::bad_rows::wait_until;
use crate::parking::{first_seen, insert, wait_for_the_rest, wait_until_parked};
use crate::retention::{Bench, SAVED};
use crate::support::consumer::create_topic;
use crate::support::fixture::connect;
use crate::support::{Fixture, RelayProcess, read_topic, start_postgres};

const DRAWN: &str = include_str!("../../sql/queries/drawn.sql");

/// Reads again and again, inside the server, and counts how often a value was lower than one before it.
const READS: &str = "
    do $reads$
    declare
        read constant text := $drawn${drawn}$drawn$;
        stop constant timestamptz := clock_timestamp() + interval '10 s';
        value bigint;
        highest bigint := 0;
        lower integer := 0;
    begin
        while clock_timestamp() < stop loop
            execute read into value;
            lower := lower + (value < highest)::integer;
            highest := greatest(highest, value);
        end loop;
        perform set_config('test.lower', lower::text, false);
    end
    $reads$";

/// PostgreSQL's nextval leaves a value up to 32 ahead in the page while it logs, which takes long when the
/// log's buffers are full. A plain `select last_value` meets it a few times in these ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_drawn_never_goes_back() {
    let settings =
        [("wal_buffers", "32kB"), ("synchronous_commit", "off"), ("wal_writer_delay", "10s")];
    let postgres = start_postgres(&settings);
    let url = postgres.url("postgres");
    let client = connect(&url).await;
    let table = "create sequence drawn_seq;
        create table filler (n bigint default nextval('drawn_seq'), text text)";
    client.batch_execute(table).await.expect("the database is empty");
    let until = Instant::now() + Duration::from_secs(11);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let writer = connect(&url).await;
        writers.spawn(async move {
            let fill = "insert into filler (text)
                select repeat(md5(g::text), 30) from generate_series(1, 200) g";
            while Instant::now() < until {
                writer.batch_execute(fill).await.expect("an insert never fails");
            }
        });
    }
    let drawn = DRAWN.replace("{sequence}", "'public.drawn_seq'");
    client.batch_execute(&READS.replace("{drawn}", &drawn)).await.expect("it reads");
    let lower = client.query_one("select current_setting('test.lower')", &[]).await;
    assert_eq!(lower.expect("it was set").get::<_, String>(0), "0");
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer panics");
    }
}

/// Inserts events one by one, each in a transaction of its own; their types go on from `first`.
async fn insert_some(client: &Client, first: u32, count: u32) {
    for number in first..first + count {
        insert(client, ("thing", &format!("a{}", number % 3)), number, 10).await;
    }
}

/// All events so far are in Kafka, each once, unless they were published before they were looked at again.
async fn assert_all_arrived(fixture: &Fixture, count: u32) {
    let topic = fixture.topic("thing");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let records = read_topic(&fixture.brokers, &topic);
        let kinds: BTreeSet<u32> = records
            .iter()
            .map(|record| {
                let kind = String::from_utf8(record.header("type").expect("it has one").to_vec());
                kind.expect("it is text").parse().expect("it is a number")
            })
            .collect();
        if kinds == (1..=count).collect() {
            return;
        }
        assert!(Instant::now() < deadline, "{kinds:?} arrived of {count}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn begin(name: &str) -> (Fixture, Client) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let client = fixture.client().await;
    (fixture, client)
}

/// What people do to a sequence, each followed at once by more events than the relay may take for the rest
/// of a range.
const SET_BACK: &[(&str, &str)] = &[
    ("setval", "select setval('outbox_seq_seq', 1)"),
    ("setval_before_first", "select setval('outbox_seq_seq', 1, false)"),
    ("restart", "alter sequence outbox_seq_seq restart"),
    ("identity", "alter table outbox alter column seq restart with 3"),
    ("truncate", "truncate outbox restart identity"),
    (
        "remade",
        "begin; alter table outbox alter column seq drop identity;
         alter table outbox alter column seq add generated always as identity; commit",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_is_set_back_under_the_relay_loses_nothing() {
    for (name, statement) in SET_BACK {
        let (fixture, client) = begin(&format!("set_back_{name}")).await;
        let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
        insert_some(&client, 1, 20).await;
        fixture.wait_published().await;
        client.batch_execute(statement).await.expect("the owner may");
        insert_some(&client, 21, 1).await;
        assert_all_arrived(&fixture, 21).await;
        // It passes its former value before anybody looks.
        client.batch_execute(statement).await.expect("the owner may");
        let many = "insert into outbox (aggregatetype, aggregateid, type, payload)
            select 'thing', (n % 3)::text, n::text, '{}' from generate_series(22, 60) n";
        client.batch_execute(&format!("{statement}; {many}")).await.expect("the owner may");
        assert_all_arrived(&fixture, 60).await;
        assert!(relay.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_is_set_back_while_the_relay_is_away_loses_nothing() {
    for (name, statement) in SET_BACK {
        for more in [3, 40] {
            let (fixture, client) = begin(&format!("set_back_away_{name}_{more}")).await;
            let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
            insert_some(&client, 1, 20).await;
            fixture.wait_published().await;
            assert!(relay.stop().await.success());
            client.batch_execute(statement).await.expect("the owner may");
            insert_some(&client, 21, more).await;
            let relay = RelayProcess::start(&fixture, &["--shards", "3"]);
            assert_all_arrived(&fixture, 20 + more).await;
            assert!(relay.stop().await.success());
        }
    }
}

/// Tables come by logical replication, sequences do not; or somebody forgot `setval` after a restore.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_is_behind_its_rows_is_noticed_and_loses_nothing() {
    let (fixture, client) = begin("behind_its_rows").await;
    let ahead = "select setval('outbox_seq_seq', 400000)";
    client.batch_execute(ahead).await.expect("the owner may");
    insert_some(&client, 1, 10).await;
    client.batch_execute("select setval('outbox_seq_seq', 2)").await.expect("the owner may");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    assert_all_arrived(&fixture, 10).await;
    relay.wait_until_it_says("is behind its rows").await;
    insert_some(&client, 11, 5).await;
    assert_all_arrived(&fixture, 15).await;
    assert!(relay.stop().await.success());
}

/// A session that holds numbers back writes below what a tick took for the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_breaks_the_law_is_refused_before_anything_is_lost() {
    let cases = [
        ("cache", "cache 20", "cache 1", "in blocks"),
        ("downwards", "increment by -1 minvalue -1000", "increment by 1", "downwards"),
    ];
    for (name, wrong, right, words) in cases {
        let (fixture, client) = begin(&format!("law_{name}")).await;
        let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
        insert_some(&client, 1, 20).await;
        fixture.wait_published().await;
        let alter = |setting| format!("alter sequence outbox_seq_seq {setting}");
        client.batch_execute(&alter(wrong)).await.expect("the owner may");
        for number in 21..=40 {
            insert_some(&client, number, 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        relay.wait_until_it_says(words).await;
        let said = relay.said();
        assert_eq!(relay.wait(Duration::from_secs(30)).await.code(), Some(6), "{said}");
        let remedy = format!("alter sequence public.outbox_seq_seq {right}");
        assert!(said.contains(&remedy), "{said}");
        client.batch_execute(&alter(right)).await.expect("the owner may");
        let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
        insert_some(&client, 41, 5).await;
        assert_all_arrived(&fixture, 45).await;
        assert!(relay.stop().await.success());
    }
}

/// Other steps than one are nobody's harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_may_be_made_anew_and_lead_on() {
    let (fixture, client) = begin("sequence_leads_on").await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    insert_some(&client, 1, 10).await;
    fixture.wait_published().await;
    let steps = [
        "alter sequence outbox_seq_seq increment by 7",
        "select setval('outbox_seq_seq', 5000000)",
        "alter sequence outbox_seq_seq restart with 9000000",
        "truncate outbox",
    ];
    for (step, first) in steps.into_iter().zip((11..).step_by(5)) {
        client.batch_execute(step).await.expect("the owner may");
        insert_some(&client, first, 5).await;
        assert_all_arrived(&fixture, first + 4).await;
    }
    assert!(relay.stop().await.success());
}

/// Running or away: consumers never see the later event first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_parked_before_the_sequence_was_set_back_holds_what_comes() {
    for (name, is_away) in [("running", false), ("away", true)] {
        let (fixture, client) = begin(&format!("set_back_parked_{name}")).await;
        let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
        insert_some(&client, 1, 10).await;
        let bad = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
            values ('thing', 'held', '11', '{}', '[]')";
        client.batch_execute(bad).await.expect("an insert never fails");
        wait_until_parked(&client, &[("11", "bad-headers")]).await;
        let relay = if is_away {
            relay.stop_well().await;
            None
        } else {
            Some(relay)
        };
        let restart = "alter sequence outbox_seq_seq restart";
        client.batch_execute(restart).await.expect("the owner may");
        insert(&client, ("thing", "held"), 12, 10).await;
        insert(&client, ("thing", "free"), 13, 10).await;
        let relay = relay.unwrap_or_else(|| RelayProcess::start(&fixture, &["--shards", "2"]));
        wait_until_parked(&client, &[("11", "bad-headers"), ("12", "follows")]).await;
        wait_for_the_rest(&fixture).await;
        assert_eq!(first_seen(&fixture, &fixture.topic("thing"), "free"), ["13"]);
        assert!(first_seen(&fixture, &fixture.topic("thing"), "held").is_empty());
        relay.stop_well().await;
    }
}

/// What was written since the sequence was set back has numbers below the saved cursor's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_was_set_back_keeps_its_leaf() {
    let restart = "alter sequence outbox_seq_seq restart with 2";
    for (how, set_back) in [("made", restart), ("led", "select setval('outbox_seq_seq', 2)")] {
        let bench = Bench::new(&format!("retention_{how}_back")).await;
        bench.pass_up_to(20_000).await;
        bench.run(SAVED).await;
        bench.run(set_back).await;
        let columns = "aggregatetype, aggregateid, type, payload, generation";
        let values = format!("'order', '1', 'Changed', '{{}}', {}", bench.generation);
        bench.run(&format!("insert into outbox ({columns}) values ({values})")).await;
        assert_eq!(bench.attempt().await, "waiting");
    }
}

/// The sequence is known by its number: another name is no reason to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_sequence_ends_no_relay() {
    let fixture = Fixture::new("sequence_renamed").await;
    create_topic(&fixture.brokers, &fixture.topic("t"), 1).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &[]);
    insert(&client, ("t", "k"), 1, 10).await;
    fixture.wait_published().await;
    let rename =
        "alter sequence outbox_seq_seq rename to numbers; alter table outbox add column more int";
    client.batch_execute(rename).await.expect("it has another name");
    for number in 2..6 {
        insert(&client, ("t", "k"), number, 10).await;
        fixture.wait_published().await;
    }
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "k"), ["1", "2", "3", "4", "5"]);
    relay.stop_well().await;
}

/// Whoever may write the column writes what he likes: a restored backup, a copy, a mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_nobody_drew_lose_nothing() {
    let fixture = Fixture::new("sequence_undrawn").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2", "--page-rows", "4"]);
    insert(&client, ("thing", "a"), 1, 10).await;
    fixture.wait_published().await;
    let write = async |values: &str| {
        let sql = format!(
            "insert into outbox (seq, aggregatetype, aggregateid, type, payload)
             overriding system value
             select g, 'thing', 'far' || g, g::text, '{{}}' from {values} as written (g)"
        );
        client.batch_execute(&sql).await.expect("the owner may");
    };
    // Many, with one that is drawn behind them; and some that nobody follows.
    write("generate_series(1001, 1010)").await;
    insert(&client, ("thing", "a"), 2, 10).await;
    fixture.wait_published().await;
    write("unnest('{1000000, 9223372036854775807}'::bigint[])").await;
    relay.wait_until_it_says("behind its rows").await;
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    insert(&client, ("thing", "a"), 3, 10).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("thing"));
    let far = records
        .iter()
        .filter(|record| record.key.as_deref().is_some_and(|key| key.starts_with(b"far")));
    assert_eq!((far.count(), records.len()), (12, 12 + 3), "each of them once");
}

/// A row that is drawn and written between the look at the sequence and the one at the newest rows.
#[tokio::test]
async fn a_row_that_comes_during_a_look_is_not_said_to_be_ahead_of_the_sequence() {
    let fixture = Fixture::new("sequence_look").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let (client, writer) = (fixture.client().await, fixture.client().await);
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    insert(&client, ("thing", "a"), 1, 1).await;
    fixture.wait_published().await;
    writer
        .batch_execute("begin; lock table outbox in access exclusive mode")
        .await
        .expect("a test may lock");
    let waits = "select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%as newest%' and datname = current_database()";
    wait_until(&client, waits, 1).await;
    writer
        .batch_execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload)
             values ('thing', 'b', 't', '{}');
             commit",
        )
        .await
        .expect("the owner may");
    fixture.wait_published().await;
    let said = relay.said();
    assert!(!said.contains("behind its rows"), "{said}");
    relay.stop_well().await;
}
