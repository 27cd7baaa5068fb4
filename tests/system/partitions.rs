//! Partitions that somebody takes away under a running relay: their rows wait until they are back.

use std::time::Duration;

use tokio_postgres::Client;

use crate::handover::{ask, assert_exact, write};
use crate::support::consumer::create_topic;
use crate::support::{Fixture, Patience, RelayProcess, read_topic};

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect("the statement is sound");
}

/// A partition, its bucket, and its generation.
struct Leaf {
    name: String,
    bucket: String,
    generation: i16,
}

impl Leaf {
    /// That with the newest row.
    async fn newest(client: &Client) -> Self {
        let newest =
            "select tableoid::regclass::text, generation from outbox order by seq desc limit 1";
        let row = client.query_one(newest, &[]).await.expect("there is one");
        let name: String = row.get(0);
        let bucket = name.rsplit_once("_g").expect("it is named so").0.to_owned();
        Self { name, bucket, generation: row.get(1) }
    }

    fn detach(&self) -> String {
        format!("alter table {} detach partition {}", self.bucket, self.name)
    }

    fn attach(&self) -> String {
        let Self { name, bucket, generation } = self;
        format!("alter table {bucket} attach partition {name} for values in ({generation})")
    }
}

async fn started(name: &str) -> (Fixture, Client, RelayProcess) {
    let fixture = Fixture::new(name).await;
    create_topic(&fixture.brokers, &fixture.topic("order"), 3).await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    write(&client, 1..=20).await;
    fixture.wait_published().await;
    (fixture, client, relay)
}

/// The relay names the partition and ends; once that is back all events come, each once.
async fn comes_back(fixture: &Fixture, client: &Client, relay: RelayProcess, leaf: &Leaf) {
    relay.wait_until_it_says("8 buckets with 23 leaves, not 8 with three each").await;
    assert_eq!(relay.wait(Duration::from_secs(60)).await.code(), Some(6));
    ask(fixture, &["run"], 6, "outbox");
    ask(fixture, &["status"], 6, "outbox");
    execute(client, &leaf.attach()).await;
    let relay = RelayProcess::start(fixture, &["--shards", "1"]);
    let patience = Patience::until("all are published");
    while read_topic(&fixture.brokers, &fixture.topic("order")).len() < 60 {
        patience.pause().await;
    }
    assert_exact(fixture, &(1..=60).collect::<Vec<_>>());
    relay.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_partition_that_is_detached_along_with_them_come_once_it_is_back() {
    let (fixture, client, relay) = started("detached_along").await;
    execute(&client, "begin").await;
    write(&client, 21..=60).await;
    let leaf = Leaf::newest(&client).await;
    execute(&client, &format!("{}; commit", leaf.detach())).await;
    comes_back(&fixture, &client, relay, &leaf).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_in_a_partition_that_is_detached_come_once_it_is_back() {
    let (fixture, client, relay) = started("detached_waiting").await;
    let patience = Patience::until("the relay is frozen and holds no lock");
    let detacher = fixture.client().await;
    execute(&detacher, "set lock_timeout = '1s'").await;
    relay.signal("STOP");
    write(&client, 21..=60).await;
    let leaf = Leaf::newest(&client).await;
    while detacher.batch_execute(&leaf.detach()).await.is_err() {
        relay.signal("CONT");
        patience.pause().await;
        relay.signal("STOP");
    }
    relay.signal("CONT");
    comes_back(&fixture, &client, relay, &leaf).await;
}
