//! Transactions that end in two phases, and those of many savepoints.

use postrider_testkit::audit::Fate;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::{ALL, outlets, start_relay};
use crate::support::servers::{kafka, start_postgres};
use crate::support::writer::{Inserted, write_event};
use crate::support::{Capture, Fixture, History, RelayProcess};

/// More than a backend keeps in its entry of the shared array of running transactions.
const SAVEPOINTS: u64 = 100;

/// A session that writes events by hand.
struct Hand<'a> {
    client: Client,
    capture: Capture,
    history: &'a History,
    written: Vec<Inserted>,
}

impl<'a> Hand<'a> {
    async fn new(fixture: &Fixture, history: &'a History) -> Self {
        let client = fixture.client().await;
        Self { client, capture: fixture.capture, history, written: Vec::new() }
    }

    async fn say(&self, statement: &str) {
        self.client.batch_execute(statement).await.expect(statement);
    }

    async fn write(&mut self, aggregate: &str, number: u64) {
        self.written.push(write_event(&self.client, self.capture, aggregate, number).await);
    }

    fn ended(&mut self, fate: Fate) {
        self.history.ended(std::mem::take(&mut self.written), fate);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_transactions_come_when_they_are_committed() {
    let postgres = start_postgres(&[]);
    let outlets = outlets("log_prepared", &ALL, &postgres, kafka().brokers(), None).await;
    let mut tests = JoinSet::new();
    outlets.into_iter().for_each(|outlet| {
        tests.spawn(prepare(outlet));
    });
    tests.join_all().await;
}

/// Two are prepared; the relay is killed while they wait; one is committed, the other rolled back.
async fn prepare((fixture, relay): (Fixture, RelayProcess)) {
    let history = History::default();
    let mut prepared = [Hand::new(&fixture, &history).await, Hand::new(&fixture, &history).await];
    let mut other = Hand::new(&fixture, &history).await;
    for (hand, end) in prepared.iter_mut().zip(["committed", "rolled back"]) {
        hand.say("begin").await;
        for number in 1..=20 {
            hand.write(end, number).await;
        }
        hand.say(&format!("prepare transaction '{} {end}'", fixture.name)).await;
    }
    for number in 1..=20 {
        other.write("other", number).await;
    }
    fixture.wait_published().await;
    relay.kill();
    let relay = start_relay(&fixture, fixture.capture).await;
    for number in 21..=40 {
        other.write("other", number).await;
    }
    fixture.wait_published().await;
    let [mut committed, mut rolled_back] = prepared;
    committed.say(&format!("commit prepared '{} committed'", fixture.name)).await;
    committed.ended(Fate::Committed);
    rolled_back.say(&format!("rollback prepared '{} rolled back'", fixture.name)).await;
    rolled_back.ended(Fate::RolledBack);
    committed.write("committed", 21).await;
    committed.ended(Fate::Committed);
    other.ended(Fate::Committed);
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{}: {verdict}", fixture.name);
    assert_eq!(verdict.committed, 61);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolled_back_savepoints_do_not_come_out() {
    let postgres = start_postgres(&[]);
    let outlets = outlets("log_savepoints", &ALL, &postgres, kafka().brokers(), None).await;
    let mut tests = JoinSet::new();
    outlets.into_iter().for_each(|outlet| {
        tests.spawn(savepoints(outlet));
    });
    tests.join_all().await;
}

/// One transaction with savepoints one after the other, and one with savepoints in each other. The
/// relay is killed when both have begun.
async fn savepoints((fixture, relay): (Fixture, RelayProcess)) {
    let history = History::default();
    let (mut flat, mut deep) =
        (Hand::new(&fixture, &history).await, Hand::new(&fixture, &history).await);
    flat.say("begin").await;
    deep.say("begin").await;
    for number in 1..=SAVEPOINTS {
        flat.say(&format!("savepoint s{number}")).await;
        flat.write("flat", number).await;
        let end = match number % 3 {
            0 => "rollback to",
            _ => "release",
        };
        flat.say(&format!("{end} s{number}")).await;
        deep.say(&format!("savepoint s{number}")).await;
        deep.write("deep", number).await;
    }
    let mut other = Hand::new(&fixture, &history).await;
    other.write("other", 1).await;
    other.ended(Fate::Committed);
    fixture.wait_published().await;
    relay.kill();
    let relay = start_relay(&fixture, fixture.capture).await;
    // Everything from the inner half on is taken back, though its own savepoints were not.
    let kept = SAVEPOINTS / 2;
    deep.say(&format!("rollback to s{}; commit", kept + 1)).await;
    flat.say("commit").await;
    for hand in [&mut flat, &mut deep] {
        for event in std::mem::take(&mut hand.written) {
            let is_kept = match event.aggregate.as_str() {
                "flat" => event.number % 3 != 0,
                _ => event.number <= kept,
            };
            let fate = if is_kept { Fate::Committed } else { Fate::RolledBack };
            history.ended(vec![event], fate);
        }
    }
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{}: {verdict}", fixture.name);
    assert_eq!(verdict.committed, 1 + (SAVEPOINTS - SAVEPOINTS / 3) + kept);
}
