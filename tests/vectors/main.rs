//! The golden vectors against librdkafka: the client that sends must agree with the Java client.
//!
//! Promises: keys travel through a real producer with `murmur2_random`, into librdkafka's own mock
//! cluster; what is compared is the partition of the delivery report. Must not: need a broker.
//! Fails: with the key that went elsewhere, or when reports are missing after a while.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

const TOPIC: &str = "vectors";
const PARTITIONS: i32 = 12;

/// Keeps where each key went.
#[derive(Default)]
struct Reports(Mutex<Vec<(Vec<u8>, i32)>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivered = result.as_ref().expect("the mock cluster takes every record");
        let key = delivered.key().unwrap_or_default().to_vec();
        self.0.lock().expect("no other thread panicked").push((key, delivered.partition()));
    }
}

/// The keys with the partition of twelve that the Java client chose.
fn vectors() -> Vec<(Vec<u8>, i32)> {
    let lines = include_str!("partition.csv").lines().skip(1);
    let fields = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let twelve = PARTITIONS.to_string();
    fields
        .filter(|fields| fields[1] == twelve)
        .map(|fields| (from_hexadecimal(fields[0]), fields[2].parse().expect("a partition")))
        .collect()
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn librdkafka_chooses_the_partitions_of_the_java_client() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let producer: BaseProducer<Reports> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("partitioner", "murmur2_random")
        .create_with_context(Reports::default())
        .expect("a producer");

    let mut expected = vectors();
    assert!(expected.len() > 300, "only {} vectors", expected.len());
    for (key, _) in &expected {
        let record = BaseRecord::<[u8], [u8]>::to(TOPIC).key(key).payload(b"");
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
    producer.flush(Duration::from_secs(30)).expect("every record is reported");

    let mut reported = producer.context().0.lock().expect("no other thread panicked").clone();
    reported.sort();
    expected.sort();
    assert_eq!(reported, expected);
}
