//! Every committed event exactly once in a run without faults, none rolled back, each aggregate in
//! the order of commit: under every way in which a transaction can be long, odd or undone.

use std::time::{Duration, Instant};

use postrider_testkit::audit::Fate;
use tokio_postgres::IsolationLevel;

use crate::support::fixture::Options;
use crate::support::writer::{insert_event, write_events};
use crate::support::{Fixture, History, Random, RelayProcess, Writer};

/// How long the mixed writers write.
const MIXED_SECONDS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_transactions() {
    let fixture = Fixture::new("interleaved").await;
    Writer::create_aggregates(&fixture, 40).await;
    let history = History::default();
    // Small pages: a range is left in its middle, and taken up again.
    let relay = RelayProcess::start(&fixture, &["--shards", "3", "--page-rows", "2"]);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let writer = Writer::new(&fixture, &history).await;
        writers.spawn(write_mixed(writer, number));
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer panics");
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
    assert!(verdict.committed > 200, "{verdict}");
}

/// Commits, rollbacks, savepoints taken back, idle time inside transactions, one to three aggregates.
async fn write_mixed(mut writer: Writer, seed: u64) {
    let mut random = Random::new(seed);
    let mut draw = move |below: u64| random.below(below);
    let deadline = Instant::now() + Duration::from_secs(MIXED_SECONDS);
    while Instant::now() < deadline {
        let mut aggregates: Vec<u32> = (0..=draw(3)).map(|_| 1 + draw(40) as u32).collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        match draw(10) {
            0..=1 => writer.roll_back(&aggregates).await,
            2..=3 => with_savepoint_taken_back(&mut writer, &aggregates).await,
            4 => with_a_pause(&mut writer, &aggregates, Duration::from_millis(draw(300))).await,
            _ => writer.commit(&aggregates).await,
        }
    }
}

async fn with_savepoint_taken_back(writer: &mut Writer, aggregates: &[u32]) {
    let mut transaction = writer.client.transaction().await.expect("the session lives");
    let savepoint = transaction.savepoint("taken_back").await.expect("in a transaction");
    let undone = write_events(&savepoint, aggregates).await;
    savepoint.rollback().await.expect("the session lives");
    let savepoint = transaction.savepoint("kept").await.expect("in a transaction");
    let kept = write_events(&savepoint, aggregates).await;
    savepoint.commit().await.expect("the session lives");
    transaction.commit().await.expect("nothing is in the way of the commit");
    writer.history.ended(undone, Fate::RolledBack);
    writer.history.ended(kept, Fate::Committed);
}

async fn with_a_pause(writer: &mut Writer, aggregates: &[u32], pause: Duration) {
    let transaction = writer.client.transaction().await.expect("the session lives");
    let events = write_events(&transaction, aggregates).await;
    tokio::time::sleep(pause).await;
    transaction.commit().await.expect("nothing is in the way of the commit");
    writer.history.ended(events, Fate::Committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_delays_only_its_own_events() {
    let fixture = Fixture::new("long_transaction").await;
    Writer::create_aggregates(&fixture, 20).await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let mut long = Writer::new(&fixture, &history).await;
    let transaction = long.client.transaction().await.expect("the session lives");
    let held = write_events(&transaction, &[1]).await;
    let mut other = Writer::new(&fixture, &history).await;
    for round in 0..100 {
        other.commit(&[2 + round % 19]).await;
    }
    let observer = fixture.client().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let row = observer
            .query_one("select count(*) filter (where published) from postrider.events", &[])
            .await
            .expect("the view answers");
        if row.get::<_, i64>(0) == 100 {
            break;
        }
        assert!(Instant::now() < deadline, "the others wait for the long transaction");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    transaction.commit().await.expect("nothing is in the way of the commit");
    long.history.ended(held, Fate::Committed);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
    assert_eq!(verdict.committed, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_transactions_come_when_they_are_committed() {
    let fixture = Fixture::new("prepared").await;
    Writer::create_aggregates(&fixture, 20).await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let writer = Writer::new(&fixture, &history).await;
    let mut prepared = Vec::new();
    for number in 1..=6_u32 {
        let name = format!("prepared-{number}");
        writer.client.batch_execute("begin").await.expect("the session lives");
        let events = write_events(&writer.client, &[number]).await;
        let sql = format!("prepare transaction '{name}'");
        writer.client.batch_execute(&sql).await.expect("two-phase commit is on");
        prepared.push((name, events));
    }
    let mut other = Writer::new(&fixture, &history).await;
    for round in 0..60 {
        other.commit(&[7 + round % 14]).await;
        if round % 10 == 9 {
            let (name, events) = prepared.pop().expect("there are six");
            let (end, fate) = if round % 20 == 9 {
                ("commit", Fate::Committed)
            } else {
                ("rollback", Fate::RolledBack)
            };
            let sql = format!("{end} prepared '{name}'");
            writer.client.batch_execute(&sql).await.expect("it was prepared");
            history.ended(events, fate);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
    assert_eq!(verdict.committed, 63);
}

/// The writer's `now()`, and with it the generation of its rows, is from the start of its transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatable_read_writers_older_than_a_generation() {
    let options = Options { generation_seconds: 1, ..Options::default() };
    let fixture = Fixture::with("old_generation", options).await;
    Writer::create_aggregates(&fixture, 20).await;
    let history = History::default();
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    let mut old = Writer::new(&fixture, &history).await;
    let transaction = old
        .client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await
        .expect("the session lives");
    transaction
        .query_one("select count(*) from aggregate", &[])
        .await
        .expect("it takes its snapshot");
    let mut other = Writer::new(&fixture, &history).await;
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < Duration::from_millis(2_500) {
        other.commit(&[2 + round % 19]).await;
        round += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let late = insert_event(&transaction, "aggregate-1", 1).await;
    transaction.commit().await.expect("nobody else touched its aggregate");
    old.history.ended(vec![late], Fate::Committed);
    for round in 0..20 {
        other.commit(&[2 + round % 19]).await;
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// An outbox in which nothing happens costs next to nothing, also while the database is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_relay_rests() {
    let fixture = Fixture::new("idle").await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = relay.cpu_time();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let used = relay.cpu_time() - before;
    assert!(relay.stop().await.success());
    assert!(used < Duration::from_millis(400), "{used:?} of processor time in 4 s");
}
