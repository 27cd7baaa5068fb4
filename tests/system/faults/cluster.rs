//! Three brokers, three copies, two of which must be in step: leaders move, brokers bounce and freeze
//! while the relay drains. What was seen stands in `tests/system/faults/README.md`.

use std::time::{Duration, Instant};

use postrider_testkit::servers::{Heap, Kafka, KafkaCluster, KafkaOptions};
use tokio_postgres::Client;

use crate::backlog::MEMORY_KILOBYTES_MAX;
use crate::support::consumer::{copies, create_topic_with, leaders};
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{
    Bulk, Fixture, History, Load, RelayProcess, Traffic, class_archive, mostly_waits, read_topic,
};

const HEAP: Heap = Heap { initial_megabytes: 128, largest_megabytes: 256 };
/// Longer than a broker's session of 3 s.
const AWAY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, what is written to it, and who relays it.
struct Scene {
    cluster: KafkaCluster,
    fixture: Fixture,
    history: History,
    traffic: Traffic,
    client: Client,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_brokers_bounce_and_freeze() {
    mostly_waits();
    let scene = Scene::new().await;
    let relay = RelayProcess::start(&scene.fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    // At once: the first batches of new producers to a topic that has just been made.
    for (number, node) in scene.cluster.nodes().iter().enumerate() {
        scene.bounce(number, node).await;
    }
    scene.freeze_two(&relay).await;
    scene.lack_a_leader(&relay).await;
    scene.stop_an_owner(relay).await;
}

impl Scene {
    async fn new() -> Self {
        let class_archive = Some(class_archive());
        let options =
            KafkaOptions { partitions: 6, heap: HEAP, class_archive, ..KafkaOptions::default() };
        let cluster = KafkaCluster::start(3, &options, &|line| println!("{line}"))
            .unwrap_or_else(|missing| panic!("{missing}"));
        let fixture = Fixture::new("cluster").await.with_brokers(cluster.brokers().to_owned());
        let history = History::default();
        let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
        let client = fixture.client().await;
        Self { cluster, fixture, history, traffic, client }
    }

    /// One broker is away, each in another way.
    async fn bounce(&self, number: usize, node: &Kafka) {
        self.traffic.commits_more(100).await;
        let begin = Instant::now();
        match number {
            // Its leaders move in an orderly way, and come back.
            0 => node.stop().expect("it stops"),
            1 => node.kill().expect("it is ours to kill"),
            // For longer than its session: its partitions get other leaders, and it does not know.
            _ => node.freeze().expect("it is ours to freeze"),
        }
        tokio::time::sleep(AWAY).await;
        match number {
            0 | 1 => self.cluster.start_again().expect("it starts again"),
            _ => node.thaw().expect("it is ours to thaw"),
        }
        self.traffic.commits_more(100).await;
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
        println!("broker {} was away; all was published after {:?}", number + 1, begin.elapsed());
    }

    /// With one broker of three nothing is acknowledged: the outbox waits, the relay stays small.
    async fn freeze_two(&self, relay: &RelayProcess) {
        let frozen = &self.cluster.nodes()[..2];
        frozen.iter().for_each(|node| node.freeze().expect("it is ours to freeze"));
        let bulk = Bulk { name: "meanwhile-", events: 100_000, aggregates: 1_000 };
        bulk.write(&self.fixture, &self.history).await;
        tokio::time::sleep(AWAY).await;
        let waits = "select count(*) from postrider.events where not published";
        let waiting: i64 = one(&self.client, waits).await;
        let peak = relay.peak_memory_kilobytes();
        let begin = Instant::now();
        frozen.iter().for_each(|node| node.thaw().expect("it is ours to thaw"));
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
        println!(
            "two of three were frozen: {waiting} events waited, the relay held {} MB; all was \
             published after {:?}",
            peak / 1024,
            begin.elapsed()
        );
        assert!(waiting > 90_000, "{waiting} events waited");
        let parked = "select count(*) from postrider.parked";
        assert_eq!(one::<i64>(&self.client, parked).await, 0, "Kafka was away, and no topic");
        assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    }

    /// A topic of which a partition has no leader holds what goes there, and lets the others pass.
    async fn lack_a_leader(&self, relay: &RelayProcess) {
        let topic = self.fixture.topic("thin");
        // One copy of each partition, with one broker.
        create_topic_with(&self.fixture.brokers, &topic, &[("min.insync.replicas", "1")]).await;
        self.client.batch_execute(&thin("before")).await.expect("an insert never fails");
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
        let leader = leaders(&self.fixture.brokers, &topic)[0];
        let node = usize::try_from(leader - 1).expect("brokers count from 1");
        self.cluster.nodes()[node].kill().expect("it is ours to kill");
        // These are on their way when nobody knows of it yet, and wait for ever.
        self.client.batch_execute(&thin("on its way")).await.expect("an insert never fails");
        let deadline = Instant::now() + PATIENCE;
        while leaders(&self.fixture.brokers, &topic)[0] != -1 {
            assert!(Instant::now() < deadline, "the dead broker leads");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let insert = "insert into outbox (aggregatetype, aggregateid, type, payload)
            select 'thin', 'k' || n % 10, n / 10, '{}' from generate_series(0, 99) n";
        self.client.batch_execute(insert).await.expect("an insert never fails");
        let held = "select from postrider.parked where reason = 'topic-unavailable' limit 1";
        let deadline = Instant::now() + PATIENCE;
        while self.client.query(held, &[]).await.expect("it answers").is_empty() {
            assert!(Instant::now() < deadline, "nothing is held; it said:\n{}", relay.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        relay.wait_until_it_says("cluster.thin has a partition without a leader").await;
        let said = relay.said();
        // The coordinator of the transaction may have been killed, too: then that is missed first.
        let is_told = said.contains("a record waits for very long, and topic")
            || said.contains("nobody knows whether a transaction ended");
        assert!(is_told, "{said}");
        self.traffic.commits_more(100).await;
        let drawn = self.fixture.drawn().await;
        let others = format!(
            "select count(*) from postrider.events
             where not published and aggregatetype <> 'thin' and seq <= {drawn}"
        );
        while one::<i64>(&self.client, &others).await > 0 {
            assert!(Instant::now() < deadline, "the others wait; it said:\n{}", relay.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.cluster.start_again().expect("it starts again");
        self.fixture.wait_published_upto(self.fixture.drawn().await).await;
        self.check_order(&topic);
    }

    /// Each aggregate's ten events, in their order.
    fn check_order(&self, topic: &str) {
        let records = read_topic(&self.fixture.brokers, topic);
        for number in 0..10 {
            let key = format!("k{number}");
            let mut seen = Vec::new();
            for record in records.iter().filter(|record| record.key_text() == key) {
                let kind = String::from_utf8_lossy(record.header("type").expect("it has one"));
                if !seen.contains(&kind.to_string()) {
                    seen.push(kind.to_string());
                }
            }
            let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
            assert_eq!(seen, expected, "{key}");
        }
    }

    /// An owner that is stopped with a full queue, loses its buckets, and goes on.
    async fn stop_an_owner(self, relay: RelayProcess) {
        let Self { cluster, fixture, history, traffic, .. } = self;
        let successor = RelayProcess::start(&fixture, &["--shards", "2"]);
        successor.wait_until_it_says("relaying").await;
        traffic.commits_more(200).await;
        let before = cluster.nodes();
        before.iter().for_each(|node| node.freeze().expect("it is ours to freeze"));
        traffic.commits_more(200).await;
        relay.signal("STOP");
        before.iter().for_each(|node| node.thaw().expect("it is ours to thaw"));
        fixture.wait_published_upto(fixture.drawn().await).await;
        let without = history.audit(&fixture).repeats;
        relay.signal("CONT");
        relay.wait_until_it_says("going back to the saved cursors").await;
        let verdict = traffic.finish([successor, relay], &fixture, &history).await;
        assert!(verdict.holds(), "{verdict}");
        println!("the one that went on appended {} repeats", verdict.repeats - without);
        assert_eq!(copies(&fixture.brokers, &fixture.topic(AGGREGATE_TYPE)), 3);
    }
}

/// Events of many aggregates of the topic with one copy.
fn thin(kind: &str) -> String {
    format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'thin', '{kind} ' || n, '{kind}', '{{}}' from generate_series(1, 24) n"
    )
}

async fn one<T>(client: &Client, query: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(query, &[]).await.expect("it answers").get(0)
}
