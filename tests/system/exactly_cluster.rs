//! Exactly once on three brokers with three copies, two of which must be in step, while one dies.

use std::time::{Duration, Instant};

use postrider_testkit::servers::{Heap, KafkaCluster, KafkaOptions};

use crate::support::consumer::{copies, leaders, list_topics};
use crate::support::{Fixture, History, Load, RelayProcess, Traffic, class_archive, mostly_waits};

const HEAP: Heap = Heap { initial_megabytes: 96, largest_megabytes: 192 };
const PATIENCE: Duration = Duration::from_secs(60);
/// Where coordinators keep what they know of transactions.
const STATE_TOPIC: &str = "__transaction_state";

/// Which partition of the coordinators' topic has this id, as brokers reckon it.
fn state_partition(id: &str, partitions: usize) -> usize {
    let hash = id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().map_or(0, |hash| hash.unsigned_abs() as usize % partitions)
}

/// A cluster that delivers exactly once, and where its topics are led.
struct Scene {
    cluster: KafkaCluster,
    fixture: Fixture,
    traffic: Traffic,
}

impl Scene {
    /// The broker that coordinates the transactions of whoever has bucket 0.
    async fn coordinator(&self) -> i32 {
        let fence = "select fence[1] from postrider.cursor where bucket = 0";
        let row = self.fixture.client().await.query_one(fence, &[]).await;
        let id: String = row.expect("it answers").get(0);
        let leaders = leaders(&self.fixture.brokers, STATE_TOPIC);
        leaders[state_partition(&id, leaders.len())]
    }

    /// Kills a broker with transactions open, waits until others lead in its place, and starts it again.
    async fn bounce(&self, broker: i32, topics: [&str; 2]) {
        let node = usize::try_from(broker - 1).expect("brokers count from 1");
        self.cluster.nodes()[node].kill().expect("it is ours to kill");
        let deadline = Instant::now() + PATIENCE;
        let leads = |topic: &str| {
            let leaders = leaders(&self.fixture.brokers, topic);
            leaders.iter().any(|leader| [broker, -1].contains(leader))
        };
        while topics.into_iter().any(leads) {
            assert!(Instant::now() < deadline, "the dead broker leads");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.traffic.commits_more(100).await;
        self.cluster.start_again().expect("it starts again");
        self.traffic.commits_more(100).await;
    }
}

/// GIVEN three brokers and exactly-once delivery WHEN the broker dies that coordinates transactions and leads partitions of
/// the topic of cursors, and comes back, THEN nothing is missing, nothing comes twice, and all comes in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_and_comes_back_repeats_nothing() {
    mostly_waits();
    let class_archive = Some(class_archive());
    let options =
        KafkaOptions { partitions: 3, heap: HEAP, class_archive, ..KafkaOptions::default() };
    let cluster = KafkaCluster::start(3, &options, &|line| println!("{line}"))
        .unwrap_or_else(|missing| panic!("{missing}"));
    let fixture = Fixture::new("exactly_cluster").await.with_brokers(cluster.brokers().to_owned());
    fixture.deliver_exactly_once();
    let history = History::default();
    let load = Load { writers: 2, pause: Duration::from_millis(2), ..Load::FULL };
    let traffic = Traffic::with(&fixture, &history, load).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    fixture.wait_published_upto(fixture.drawn().await).await;
    let brokers = &fixture.brokers;
    let cursors = list_topics(brokers).into_iter().find(|topic| topic.ends_with("-cursors"));
    let cursors = cursors.expect("it was made");
    assert_eq!((copies(brokers, &cursors), copies(brokers, STATE_TOPIC)), (3, 3));
    let scene = Scene { cluster, fixture, traffic };
    let coordinator = scene.coordinator().await;
    let led = leaders(&scene.fixture.brokers, &cursors);
    assert!(led.contains(&coordinator), "each broker leads some of {led:?}");
    scene.bounce(coordinator, [STATE_TOPIC, &cursors]).await;
    let Scene { cluster: _cluster, fixture, traffic } = scene;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}
