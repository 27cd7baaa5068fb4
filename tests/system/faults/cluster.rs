//! Three brokers, three copies, two of which must be in step: leaders move, brokers bounce and freeze
//! while the relay drains. What was seen stands in `tests/system/faults/README.md`.

use std::time::Duration;

use postrider::embedded::{Heap, KafkaCluster, KafkaOptions};

use crate::support::consumer::copies;
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{Fixture, History, Load, RelayProcess, Traffic};

const HEAP: Heap = Heap { initial_megabytes: 128, largest_megabytes: 256 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_brokers_bounce_and_freeze() {
    let options = KafkaOptions { partitions: 6, heap: HEAP, ..KafkaOptions::default() };
    let cluster = KafkaCluster::start(3, &options, &|line| println!("{line}"))
        .unwrap_or_else(|missing| panic!("{missing}"));
    let fixture = Fixture::new("cluster").await.with_brokers(cluster.brokers().to_owned());
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, Load::BROKEN).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    relay.wait_until_it_says("relaying").await;
    // At once: the first batches of new producers to a topic that has just been made.
    for (number, node) in cluster.nodes().iter().enumerate() {
        traffic.commits_more(100).await;
        let begin = std::time::Instant::now();
        match number {
            // Its leaders move in an orderly way, and come back.
            0 => node.stop().expect("it stops"),
            1 => node.kill().expect("it is ours to kill"),
            // For longer than its session: its partitions get other leaders, and it does not know.
            _ => node.freeze().expect("it is ours to freeze"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        match number {
            0 | 1 => cluster.start_again().expect("it starts again"),
            _ => node.thaw().expect("it is ours to thaw"),
        }
        traffic.commits_more(100).await;
        fixture.wait_published_upto(fixture.drawn().await).await;
        println!("broker {} was away; all was published after {:?}", number + 1, begin.elapsed());
    }
    // An owner that is stopped with a full queue, loses its buckets, and goes on.
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
