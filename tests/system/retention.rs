//! Space comes back by truncation of past generations, nothing is lost by it, and no writer waits.

use std::time::{Duration, Instant};

use postrider_testkit::audit::Fate;
use tokio_postgres::{Client, IsolationLevel, SimpleQueryMessage};

use crate::support::fixture::{Options, connect};
use crate::support::servers::postgres;
use crate::support::writer::{insert_event, write_events};
use crate::support::{Fixture, History, RelayProcess, Writer};

/// Nothing is kept longer than it must be.
const AT_ONCE: &[&str] = &["--shards", "2", "--replay-window", "0s"];
const PATIENCE: Duration = Duration::from_secs(40);
const AGGREGATES: u32 = 20;
/// Longer than a ring of three generations of one second.
const LONGER_THAN_THE_RING: Duration = Duration::from_millis(4_500);

/// An outbox whose ring takes three seconds.
pub(crate) async fn quick_ring(name: &str) -> Fixture {
    let options = Options { generation_seconds: 1, buckets: 4, ..Options::default() };
    let fixture = Fixture::with(name, options).await;
    Writer::create_aggregates(&fixture, AGGREGATES).await;
    fixture
}

/// Commits to all aggregates but the first for some time.
async fn write_for(writer: &mut Writer, time: Duration) {
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < time {
        writer.commit(&[2 + round % (AGGREGATES - 1)]).await;
        round += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The rows of the outbox, and the bytes that they take.
async fn rows_and_bytes(client: &Client) -> (i64, i64) {
    let sql = "select (select count(*) from outbox),
                   (select sum(pg_relation_size(relid))::bigint from pg_partition_tree('outbox'))";
    let row = client.query_one(sql, &[]).await.expect("the outbox can be read");
    (row.get(0), row.get(1))
}

/// Waits until no leaf holds a page any more.
pub(crate) async fn wait_until_empty(fixture: &Fixture, relay: &RelayProcess) {
    let client = fixture.client().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (rows, bytes) = rows_and_bytes(&client).await;
        if bytes == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{rows} rows, {bytes} bytes stay:\n{}", relay.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Stops the relay; all that was written must have arrived, once.
async fn assert_nothing_lost(fixture: &Fixture, relay: RelayProcess, history: &History) -> u64 {
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
    verdict.committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_comes_back_while_writers_write() {
    let fixture = quick_ring("retention_space").await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut writer = Writer::new(&fixture, &history).await;
        writers.spawn(async move { write_for(&mut writer, Duration::from_secs(7)).await });
    }
    let observer = fixture.client().await;
    let (mut rows_fell, mut bytes_fell, mut before) = (0, 0, (0, 0));
    while !writers.is_empty() {
        let now = rows_and_bytes(&observer).await;
        rows_fell += u32::from(now.0 < before.0);
        bytes_fell += u32::from(now.1 < before.1);
        before = now;
        let pause = tokio::time::sleep(Duration::from_millis(100));
        tokio::select! {
            () = pause => {}
            Some(ended) = writers.join_next() => ended.expect("no writer panics"),
        }
    }
    assert!(rows_fell > 0 && bytes_fell > 0, "nothing came back:\n{}", relay.said());
    wait_until_empty(&fixture, &relay).await;
    assert!(assert_nothing_lost(&fixture, relay, &history).await > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_keeps_its_leaf() {
    let fixture = quick_ring("retention_open").await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    let mut long = Writer::new(&fixture, &history).await;
    let transaction = long.client.transaction().await.expect("the session lives");
    let held = write_events(&transaction, &[1]).await;
    // Asked from outside: had the transaction read the outbox, it would hold a lock on every leaf.
    let observer = fixture.client().await;
    let leaf_pages = "select leaf.relname::text, pg_relation_size(leaf.oid) > 0
        from pg_locks join pg_class leaf on leaf.oid = relation
        where mode = 'RowExclusiveLock'
            and database = (select oid from pg_database where datname = current_database())
            and leaf.relname like 'outbox\\_b%\\_g_'";
    let before = observer.query_one(leaf_pages, &[]).await.expect("one leaf is written");
    write_for(&mut Writer::new(&fixture, &history).await, LONGER_THAN_THE_RING).await;
    let after = observer.query_one(leaf_pages, &[]).await.expect("one leaf is written");
    assert_eq!(before.get::<_, String>(0), after.get::<_, String>(0));
    assert!(after.get::<_, bool>(1), "its row is gone");
    relay.wait_until_it_says("truncated old partitions").await;
    transaction.commit().await.expect("nothing is in the way of the commit");
    history.ended(held, Fate::Committed);
    wait_until_empty(&fixture, &relay).await;
    assert_nothing_lost(&fixture, relay, &history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_keeps_its_leaf() {
    let fixture = quick_ring("retention_prepared").await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    let writer = Writer::new(&fixture, &history).await;
    writer.client.batch_execute("begin").await.expect("the session lives");
    let held = write_events(&writer.client, &[1]).await;
    let prepare = "prepare transaction 'retention'";
    writer.client.batch_execute(prepare).await.expect("two-phase commit is on");
    write_for(&mut Writer::new(&fixture, &history).await, LONGER_THAN_THE_RING).await;
    relay.wait_until_it_says("truncated old partitions").await;
    let commit = "commit prepared 'retention'";
    writer.client.batch_execute(commit).await.expect("it was prepared");
    history.ended(held, Fate::Committed);
    wait_until_empty(&fixture, &relay).await;
    assert_nothing_lost(&fixture, relay, &history).await;
}

/// Its rows go into a generation that was emptied since its snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_older_than_the_ring_loses_nothing() {
    let fixture = quick_ring("retention_old_writer").await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    let mut old = Writer::new(&fixture, &history).await;
    let repeatable = old.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = repeatable.start().await.expect("the session lives");
    transaction.query_one("select count(*) from aggregate", &[]).await.expect("a snapshot");
    write_for(&mut Writer::new(&fixture, &history).await, LONGER_THAN_THE_RING).await;
    relay.wait_until_it_says("truncated old partitions").await;
    let late = insert_event(&transaction, "aggregate-1", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    transaction.commit().await.expect("nobody else touched its aggregate");
    history.ended(vec![late], Fate::Committed);
    wait_until_empty(&fixture, &relay).await;
    assert_nothing_lost(&fixture, relay, &history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_away_for_longer_than_the_ring_loses_nothing() {
    let fixture = quick_ring("retention_away").await;
    let history = History::default();
    let mut writer = Writer::new(&fixture, &history).await;
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    write_for(&mut writer, Duration::from_secs(1)).await;
    relay.kill();
    write_for(&mut writer, LONGER_THAN_THE_RING).await;
    // Small pages: the first passes meet a backlog of which most is not published.
    let relay = RelayProcess::start(&fixture, &[AT_ONCE, &["--page-rows", "2"]].concat());
    write_for(&mut writer, Duration::from_secs(1)).await;
    wait_until_empty(&fixture, &relay).await;
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replay_window_keeps_published_rows() {
    let fixture = quick_ring("retention_window").await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, &["--shards", "2", "--replay-window", "1h"]);
    relay.wait_until_it_says("shorten --replay-window").await;
    write_for(&mut Writer::new(&fixture, &history).await, LONGER_THAN_THE_RING).await;
    fixture.wait_published().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (rows, _) = rows_and_bytes(&fixture.client().await).await;
    let committed = assert_nothing_lost(&fixture, relay, &history).await;
    assert_eq!(rows.cast_unsigned(), committed, "a row is missing inside the window");
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    wait_until_empty(&fixture, &relay).await;
    assert!(!relay.said().contains("shorten --replay-window"), "one generation fits the ring");
    assert!(relay.stop().await.success());
}

/// Retention asks for its lock in a way that nobody has to queue behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_lock_blocks_no_writer() {
    let fixture = quick_ring("retention_lock").await;
    let history = History::default();
    let mut writer = Writer::new(&fixture, &history).await;
    write_for(&mut writer, LONGER_THAN_THE_RING).await;
    let reader = fixture.client().await;
    reader.batch_execute("begin; lock table outbox in access share mode").await.expect("a lock");
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    fixture.wait_published().await;
    let (rows, _) = rows_and_bytes(&reader).await;
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < LONGER_THAN_THE_RING {
        let begun = Instant::now();
        writer.commit(&[2]).await;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Whoever queues behind it waits until the reader is done.
    assert!(slowest < Duration::from_secs(1), "an insert took {slowest:?}");
    assert!(rows_and_bytes(&reader).await.0 > rows, "a leaf was truncated under a reader's lock");
    relay.wait_until_it_says("could not be truncated for more than 2 generations").await;
    // Rows that are not published yet may be in the way first.
    relay.wait_until_it_says("a transaction holds a lock on it").await;
    reader.batch_execute("commit").await.expect("the session lives");
    wait_until_empty(&fixture, &relay).await;
    assert_nothing_lost(&fixture, relay, &history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_relaying_goes_on() {
    let mut fixture = quick_ring("retention_right").await;
    let admin = fixture.client().await;
    admin.batch_execute(include_str!("../../sql/roles.sql")).await.expect("the roles are made");
    let each_leaf = |change: &str| {
        format!(
            "do $$ declare leaf regclass; begin
                 for leaf in select relid from pg_partition_tree('outbox') where isleaf loop
                     execute format('{change}', leaf);
                 end loop;
             end $$"
        )
    };
    admin
        .batch_execute(&each_leaf("revoke truncate on %s from postrider_relay"))
        .await
        .expect("ok");
    admin
        .batch_execute(
            "create role retention_login login password 'secret' in role postrider_relay",
        )
        .await
        .expect("the role is new");
    let postgres = postgres();
    fixture.database_url = format!(
        "postgresql://retention_login:secret@{}:{}/{}",
        postgres.host(),
        postgres.port(),
        fixture.name
    );
    let relay = RelayProcess::start(&fixture, AT_ONCE);
    fixture.database_url = postgres.url(&fixture.name);
    let history = History::default();
    write_for(&mut Writer::new(&fixture, &history).await, LONGER_THAN_THE_RING).await;
    relay.wait_until_it_says("the role may not truncate").await;
    let said = relay.said();
    assert!(said.contains("sql/roles.sql"), "the remedy is named: {said}");
    assert_eq!(said.matches("the role may not truncate").count(), 1, "{said}");
    let grant = each_leaf("grant truncate on %s to postrider_relay");
    admin.batch_execute(&grant).await.expect("the role is there");
    wait_until_empty(&fixture, &relay).await;
    assert_nothing_lost(&fixture, relay, &history).await;
}

/// An outbox without a relay: the test is the relay, and sets the cursor by hand.
pub(crate) struct Bench {
    client: Client,
    leaf: u32,
    pub(crate) generation: i32,
    epoch: i64,
    replay_window: Duration,
}

impl Bench {
    /// One bucket with three committed rows in a past leaf: `seq` 1 to 3, each its own transaction.
    pub(crate) async fn new(name: &str) -> Self {
        let options = Options { buckets: 1, ..Options::default() };
        let fixture = Fixture::with(name, options).await;
        let client = fixture.client().await;
        let sql = "select ((date_part('epoch', now())::bigint / 600 + 2) % 3)::integer";
        let generation: i32 = client.query_one(sql, &[]).await.expect("an answer").get(0);
        let sql = format!("select 'public.outbox_b00_g{generation}'::regclass::oid");
        let leaf = client.query_one(&sql, &[]).await.expect("the leaf is there").get(0);
        let bench = Self { client, leaf, generation, epoch: 1, replay_window: Duration::ZERO };
        for _ in 0..3 {
            bench.insert().await;
        }
        bench
            .run(
                "update postrider.cursor set epoch = 1,
                     system_identifier = (select system_identifier from pg_control_system()),
                     timeline = 1",
            )
            .await;
        bench
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn insert(&self) {
        let sql = "insert into outbox (aggregatetype, aggregateid, type, payload, generation) \
                   values ('order', '1', 'Changed', '{}', $1::integer)";
        self.client.execute(sql, &[&self.generation]).await.expect("an insert never fails");
    }

    /// As a relay would save it behind all rows: in the range of one tick, up to a position.
    pub(crate) async fn pass_up_to(&self, position: i64) {
        self.run(&format!(
            "update postrider.cursor set upto_snapshot = pg_current_snapshot(),
                 upto_next = pg_current_xact_id(), upto_floor = 3, upto_ceiling = 3,
                 carry = '{{}}', \"position\" = {position}"
        ))
        .await;
    }

    /// One attempt of retention.
    pub(crate) async fn attempt(&self) -> String {
        let sql = include_str!("../../sql/queries/retention_attempt.sql")
            .replace("{steps}", "'look', 'act'")
            .replace("{attempts}", "2")
            .replace("{floor}", include_str!("../../sql/queries/cursor_floor.sql"))
            .replace("{leaf}", &self.leaf.to_string())
            .replace("{generation_seconds}", "600")
            .replace("{generation}", &self.generation.to_string())
            .replace("{bucket}", "0")
            .replace("{epoch}", &self.epoch.to_string())
            .replace("{replay_window_micros}", &self.replay_window.as_micros().to_string());
        let sql = format!("begin isolation level read committed; {sql}");
        let answer = self.client.simple_query(&sql).await.expect("an attempt never fails");
        let word = answer.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        word.expect("an attempt has an outcome")
    }

    async fn rows(&self) -> i64 {
        rows_and_bytes(&self.client).await.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_passed_rows_are_removed() {
    let bench = Bench::new("retention_passed").await;
    assert_eq!(bench.attempt().await, "waiting", "nothing is passed");
    bench.pass_up_to(2).await;
    assert_eq!(bench.attempt().await, "waiting", "the last row is not passed");
    bench.pass_up_to(3).await;
    bench.insert().await;
    assert_eq!(bench.attempt().await, "waiting", "a row that came after the tick");
    assert_eq!(bench.rows().await, 4);
    bench.run("update postrider.cursor set from_snapshot = pg_current_snapshot()").await;
    assert_eq!(bench.attempt().await, "truncated");
    assert_eq!(bench.rows().await, 0);
    assert_eq!(bench.attempt().await, "empty");
}

/// A writer that is open when the attempt begins and commits before it could end: by itself a
/// truncation would wait for the writer, and then remove the row that it has just committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_during_an_attempt_is_kept() {
    let bench = Bench::new("retention_race").await;
    bench.pass_up_to(3).await;
    let mut writer = connect(&postgres().url("retention_race")).await;
    for committed in 1..=20_i64 {
        let transaction = writer.transaction().await.expect("the session lives");
        let sql = "insert into outbox (aggregatetype, aggregateid, type, payload, generation) \
                   values ('order', '1', 'Changed', '{}', $1::integer)";
        transaction.execute(sql, &[&bench.generation]).await.expect("an insert never fails");
        let commit = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            transaction.commit().await.expect("nothing is in the way of the commit");
        };
        let (outcome, ()) = tokio::join!(bench.attempt(), commit);
        assert!(["locked", "waiting"].contains(&outcome.as_str()), "{outcome}");
        assert_eq!(bench.rows().await, 3 + committed);
    }
}

/// A transaction that drew a low `seq` early and committed after the tick lies above its carry floor
/// only, far below the position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_row_with_a_low_seq_is_found() {
    let bench = Bench::new("retention_carry").await;
    let late = "select txid::text::bigint from outbox where seq = 2";
    let xid: i64 = bench.client.query_one(late, &[]).await.expect("the row").get(0);
    bench.pass_up_to(3).await;
    // At the saved tick the transaction of row 2 was open; row 1's floor was what had been drawn.
    let later = xid + 2;
    bench
        .run(&format!(
            "update postrider.cursor set upto_snapshot = '{xid}:{later}:{xid}',
                 upto_next = '{later}', upto_floor = 3, \"position\" = 3,
                 carry = '{{{xid},{xid},1}}'"
        ))
        .await;
    assert_eq!(bench.attempt().await, "waiting");
    assert_eq!(bench.rows().await, 3);
}

/// The cursors were saved by a tick of the sequence that is there.
pub(crate) const SAVED: &str =
    "update postrider.cursor set upto_floor = 20000, upto_ceiling = 20000,
    upto_sequence = pg_relation_filenode('outbox_seq_seq')::bigint";

/// However many rows a leaf holds: the check reads those above the floor, and the newest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_reads_by_the_index() {
    let mut bench = Bench::new("retention_plan").await;
    bench.replay_window = Duration::from_secs(3_600);
    bench
        .run(&format!(
            "insert into outbox (aggregatetype, aggregateid, type, payload, generation)
             select 'order', '1', 'Changed', '{{}}', {} from generate_series(4, 20000)",
            bench.generation
        ))
        .await;
    bench.pass_up_to(20_000).await;
    bench.run(SAVED).await;
    bench.run(include_str!("../../sql/queries/leaf_session.sql")).await;
    // As in all sessions of ours: costs of scans that are not to be chosen would call for it.
    bench.run("set jit = off").await;
    let scans = async || {
        let client = &bench.client;
        client.execute("select pg_stat_force_next_flush()", &[]).await.expect("15 or later");
        let sql = "select seq_scan, idx_scan, idx_tup_fetch from pg_stat_user_tables
                   where relid = $1";
        let row = client.query_one(sql, &[&bench.leaf]).await.expect("the leaf is counted");
        (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
    };
    for statistics in ["", "analyze outbox", ""] {
        bench.run(statistics).await;
        let before = scans().await;
        assert_eq!(bench.attempt().await, "young");
        let after = scans().await;
        assert_eq!(after.0, before.0, "it read the leaf from end to end");
        assert!(after.1 > before.1, "the scans were not counted");
        assert!(after.2 - before.2 < 300, "{} rows were fetched", after.2 - before.2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn young_current_locked_or_foreign_leaves_stay() {
    let mut bench = Bench::new("retention_reasons").await;
    bench.pass_up_to(3).await;
    bench.epoch = 2;
    assert_eq!(bench.attempt().await, "taken", "another instance's epoch");
    bench.epoch = 1;
    bench.run("update postrider.cursor set timeline = 2").await;
    assert_eq!(bench.attempt().await, "taken", "another timeline");
    bench.run("update postrider.cursor set timeline = 1").await;
    bench.replay_window = Duration::from_secs(600);
    assert_eq!(bench.attempt().await, "young");
    bench.replay_window = Duration::ZERO;
    let past = bench.generation;
    bench.generation = (past + 1) % 3;
    assert_eq!(bench.attempt().await, "current");
    bench.generation = past;
    let other = connect(&postgres().url("retention_reasons")).await;
    other.batch_execute("begin; lock table outbox in access share mode").await.expect("a lock");
    assert_eq!(bench.attempt().await, "locked");
    other.batch_execute("commit").await.expect("the session lives");
    assert_eq!(bench.rows().await, 3);
    assert_eq!(bench.attempt().await, "truncated");
}

/// What was rolled back takes space too, and no vacuum comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolled_back_rows_give_their_space_back() {
    let bench = Bench::new("retention_dead").await;
    bench.pass_up_to(3).await;
    assert_eq!(bench.attempt().await, "truncated");
    bench.run("begin").await;
    bench.insert().await;
    bench.run("rollback").await;
    let (rows, bytes) = rows_and_bytes(&bench.client).await;
    assert!(rows == 0 && bytes > 0, "{rows} rows, {bytes} bytes");
    assert_eq!(bench.attempt().await, "truncated");
    assert_eq!(rows_and_bytes(&bench.client).await.1, 0);
}
