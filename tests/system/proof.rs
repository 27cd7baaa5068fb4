//! Before a partition is emptied each of its rows is proven to be read: what nobody has read is published first.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::numbers::{execute, wait_for};
use crate::parking::wait_until_parked;
use crate::support::consumer::create_topic;
use crate::support::fixture::Options;
use crate::support::{Fixture, Patience, RelayProcess};

/// One shard, so that the looks below its windows share what they may read among all partitions.
const KEEPS: &[&str] = &["--shards", "1", "--replay-window", "1h"];
const EMPTIES: &[&str] = &["--shards", "1", "--replay-window", "0s"];

/// A payload that no topic takes.
const LARGE: &str = "json_build_object('text', repeat('x', 2000000))";

/// Whoever has written goes on in its block until the table's description changes, as after each autovacuum.
const KEEP_PLACES: &str = "do $$
    declare leaf regclass;
    begin
        for leaf in select relid from pg_partition_tree('outbox') where isleaf loop
            execute format('alter table %s set (autovacuum_enabled = off)', leaf);
        end loop;
    end $$";

/// A partition of a past generation with more blocks than the looks below windows read, and sessions that go on in
/// its first block and in its middle.
struct Ring {
    fixture: Fixture,
    writer: Client,
    early: Client,
    middle: Client,
    generation: i32,
}

impl Ring {
    async fn with_rows(name: &str, rows: i32) -> Self {
        let options = Options { buckets: 16, ..Options::default() };
        let fixture = Fixture::with(name, options).await;
        create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
        let (writer, early) = (fixture.client().await, fixture.client().await);
        let middle = fixture.client().await;
        let past = "select ((date_part('epoch', now())::bigint / 600 + 2) % 3)::integer";
        let generation = writer.query_one(past, &[]).await.expect("an answer").get(0);
        let ring = Self { fixture, writer, early, middle, generation };
        execute(&ring.writer, KEEP_PLACES).await;
        ring.insert(&ring.early, "default", "first", "'{}'").await;
        ring.fill(rows / 2).await;
        ring.insert(&ring.middle, "default", "second", "'{}'").await;
        ring.fill(rows / 2).await;
        ring
    }

    async fn fill(&self, rows: i32) {
        let sql = format!(
            "insert into outbox (aggregatetype, aggregateid, type, payload, generation)
             select 'thing', 'a', 'fill', json_build_object('text', repeat('x', 950)), {}
             from generate_series(1, {rows})",
            self.generation
        );
        execute(&self.writer, &sql).await;
    }

    /// A row with this number, or one that is drawn.
    async fn insert(&self, client: &Client, seq: &str, kind: &str, payload: &str) {
        let sql = format!(
            "insert into outbox (seq, aggregatetype, aggregateid, type, payload, generation) overriding system value
             values ({seq}, 'thing', 'a', '{kind}', {payload}, {})",
            self.generation
        );
        execute(client, &sql).await;
    }

    async fn rows(&self) -> i64 {
        let count = "select count(*) from outbox";
        self.writer.query_one(count, &[]).await.expect("it can be read").get(0)
    }

    /// How many blocks lie behind the block of a row.
    async fn blocks_behind(&self, kind: &str) -> i64 {
        let sql = "select (select max((ctid::text::point)[0]) from outbox)::bigint
                - (select (ctid::text::point)[0] from outbox where type = $1)::bigint";
        self.writer.query_one(sql, &[&kind]).await.expect("it is there").get(0)
    }

    async fn wait_until_empty(&self, relay: &RelayProcess) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.rows().await > 0 {
            assert!(
                Instant::now() < deadline,
                "{} rows stay:\n{}",
                self.rows().await,
                relay.said()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Far below all numbers, among those that were drawn, too large for its topic; and next to them such as were read,
/// which come no second time. The relay that was there when they came dies before it empties anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_nobody_has_read_are_published_before_their_partition_is_emptied() {
    // GIVEN rows whose numbers nobody drew, in gaps of long ago.
    let ring = Ring::with_rows("proof_gaps", 7_000).await;
    let fixture = &ring.fixture;
    let mut relay = RelayProcess::start(fixture, KEEPS);
    fixture.wait_published().await;
    let drawn = fixture.drawn().await;
    ring.insert(&ring.writer, "7", "seen far", "'{}'").await;
    ring.insert(&ring.writer, &(drawn - 200).to_string(), "seen near", "'{}'").await;
    wait_for(fixture, 4).await;
    ring.insert(&ring.early, "5", "far", "'{}'").await;
    ring.insert(&ring.early, &(drawn - 2_000).to_string(), "among", "'{}'").await;
    ring.insert(&ring.middle, "6", "large", LARGE).await;
    for kind in ["far", "among", "large"] {
        assert!(ring.blocks_behind(kind).await > 400, "{kind} lies where everybody looks");
    }
    fixture.wait_published().await;
    relay.kill();
    // WHEN another relay empties the partition.
    relay = RelayProcess::start(fixture, EMPTIES);
    ring.wait_until_empty(&relay).await;
    // THEN each was published once before, or is parked.
    wait_for(fixture, 6).await;
    wait_until_parked(&ring.writer, &[("large", "too-large")]).await;
    relay.wait_until_it_says("no cursor had read them").await;
    relay.stop_well().await;
}

/// As a relay leaves the cursors that has overlooked what is there.
const OVERLOOK: &str = "update postrider.cursor set from_snapshot = pg_current_snapshot(),
    upto_snapshot = pg_current_snapshot(), window_since = null, window_bound = null";

/// Before anybody else looks for it: a partition that is due is looked through first of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_emptied_only_when_its_rows_are_proven_to_be_read() {
    let ring = Ring::with_rows("proof_due", 150).await;
    let fixture = &ring.fixture;
    let relay = RelayProcess::start(fixture, KEEPS);
    fixture.wait_published().await;
    relay.stop_well().await;
    ring.insert(&ring.early, "5", "far", "'{}'").await;
    ring.insert(&ring.early, "6", "large", LARGE).await;
    execute(&ring.writer, OVERLOOK).await;
    let relay = RelayProcess::start(fixture, EMPTIES);
    ring.wait_until_empty(&relay).await;
    wait_for(fixture, 3).await;
    wait_until_parked(&ring.writer, &[("large", "too-large")]).await;
    relay.stop_well().await;
}

/// What was read is known as long as it is retained, however long ago it was noted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_read_long_ago_come_once() {
    // GIVEN rows that were found by the looks below windows and by those at retained rows.
    let ring = Ring::with_rows("proof_long_ago", 7_000).await;
    let fixture = &ring.fixture;
    let relay = RelayProcess::start(fixture, KEEPS);
    fixture.wait_published().await;
    ring.insert(&ring.writer, "7", "at the end", "'{}'").await;
    ring.insert(&ring.early, "5", "far", "'{}'").await;
    wait_for(fixture, 4).await;
    // WHEN days go by, and one more comes.
    let age = "update postrider.whole_range set noted_at = noted_at - interval '3 days'";
    execute(&ring.writer, age).await;
    ring.insert(&ring.writer, "8", "at the end again", "'{}'").await;
    wait_for(fixture, 5).await;
    relay.stop_well().await;
    // THEN no row counts as unread before its partition is emptied.
    let relay = RelayProcess::start(fixture, EMPTIES);
    ring.wait_until_empty(&relay).await;
    wait_for(fixture, 5).await;
    assert!(!relay.said().contains("no cursor had read them"), "{}", relay.said());
    relay.stop_well().await;
}

/// A transaction that has drawn nothing while much was drawn brings a number of that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_transaction_that_was_open_for_long_is_published() {
    let ring = Ring::with_rows("proof_long", 10).await;
    let (fixture, long) = (&ring.fixture, &ring.early);
    let relay = RelayProcess::start(fixture, KEEPS);
    fixture.wait_published().await;
    let begin = "begin; select pg_current_xact_id()";
    execute(long, begin).await;
    ring.fill(12_000).await;
    let patience = Patience::until("it is known to have drawn nothing");
    // By a tick behind its number: a range that brings it begins at the floor of the latest one.
    let known = "select from postrider.past_tick where undrawn is not null and floor > 8000";
    while ring.writer.query(known, &[]).await.expect("it answers").is_empty() {
        ring.fill(1).await;
        patience.pause().await;
    }
    fixture.wait_published().await;
    relay.stop_well().await;
    ring.insert(long, "7000", "long", "'{}'").await;
    execute(long, "commit").await;
    execute(&ring.writer, OVERLOOK).await;
    let relay = RelayProcess::start(fixture, KEEPS);
    wait_for(fixture, 3).await;
    relay.stop_well().await;
}

/// Between two ticks that are remembered hardly more is drawn than between two ticks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_are_remembered_as_they_are_made() {
    let ring = Ring::with_rows("proof_ticks", 10).await;
    let relay = RelayProcess::start(&ring.fixture, KEEPS);
    ring.fixture.wait_published().await;
    let count = "select count(*) from postrider.past_tick";
    let count =
        async || ring.writer.query_one(count, &[]).await.expect("an answer").get::<_, i64>(0);
    let before = count().await;
    let begun = Instant::now();
    for _ in 0..20 {
        ring.fill(200).await;
        ring.fixture.wait_published().await;
    }
    let (remembered, seconds) = (count().await - before, begun.elapsed().as_secs());
    assert!(remembered >= 20, "{remembered} in {seconds} s");
    relay.stop_well().await;
}

/// Above the bound of a window rows are read by its ranges, whatever their numbers: these are noted when it is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_an_open_window_has_read_come_once() {
    let options = Options { buckets: 2, generation_seconds: 4, ..Options::default() };
    let fixture = Fixture::with("proof_open_window", options).await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 1).await;
    let writer = fixture.client().await;
    let row = |columns: &str, values: &str| {
        format!(
            "insert into outbox ({columns}aggregatetype, aggregateid, type, payload) overriding system value
             values ({values}'thing', 'a', gen_random_uuid()::text, '{{}}')"
        )
    };
    let many = "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'thing', 'a', gen_random_uuid()::text, '{}' from generate_series(1, 400)";
    execute(&writer, many).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1", "--replay-window", "0s"]);
    fixture.wait_published().await;
    let odd =
        row("seq, ", "pg_sequence_last_value(pg_get_serial_sequence('outbox', 'seq')) - 200, ");
    for _ in 0..40 {
        execute(&writer, &odd).await;
        for _ in 0..4 {
            execute(&writer, &row("", "")).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    fixture.wait_published().await;
    wait_for(&fixture, 600).await;
    assert!(!relay.said().contains("no cursor had read them"), "{}", relay.said());
    relay.stop_well().await;
}

/// Until the log can be read the table is polled, whatever the mode says; and what the log has brought comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_judged_while_the_table_is_polled_until_the_log_is_read() {
    let ring = Ring::with_rows("proof_wal", 3_500).await;
    let fixture = &ring.fixture;
    let unlogged =
        |word: &str| format!("alter table outbox_b00_g{} set {word}", (ring.generation + 1) % 3);
    let arguments = ["--capture", "wal", "--shards", "1", "--replay-window", "1h"];
    let relay = RelayProcess::start(fixture, &arguments);
    relay.wait_until_it_says("reading the log").await;
    fixture.wait_published().await;
    execute(&ring.writer, &unlogged("unlogged")).await;
    relay.wait_until_it_says("the table is polled until it can").await;
    // Remembered after the log was read, so that rows are judged by it.
    ring.fill(200).await;
    fixture.wait_published().await;
    ring.insert(&ring.early, "5", "polled", "'{}'").await;
    wait_for(fixture, 3).await;
    execute(&ring.writer, &unlogged("logged")).await;
    relay.wait_until_it_says("backlog published").await;
    ring.insert(&ring.middle, "6", "by the log", "'{}'").await;
    wait_for(fixture, 4).await;
    let switch = fixture.command().args(["capture", "switch", "poll"]).output().expect("it runs");
    assert!(switch.status.success(), "{}", String::from_utf8_lossy(&switch.stderr));
    ring.insert(&ring.early, "7", "polled again", "'{}'").await;
    wait_for(fixture, 5).await;
    relay.stop_well().await;
}

/// However many ticks were made while a transaction was open, they are forgotten in a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_of_long_ago_are_few() {
    let ring = Ring::with_rows("proof_few", 10).await;
    let plant = "insert into postrider.past_tick (next, oldest, floor, storage, began, noted_at)
        select (3 + n)::text::xid8, '3', n, 1, '3', now() - interval '41 minutes' + n * interval '25 milliseconds'
        from generate_series(1, 72000) n";
    execute(&ring.writer, plant).await;
    let begun = Instant::now();
    for _ in 0..4 {
        execute(&ring.writer, include_str!("../../sql/queries/law_forget.sql")).await;
    }
    let took = begun.elapsed();
    let count = "select count(*) from postrider.past_tick";
    let kept: i64 = ring.writer.query_one(count, &[]).await.expect("an answer").get(0);
    assert!((1_700..=1_900).contains(&kept), "one a second of half an hour: {kept}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}
