//! What the broker refuses although it was fine when it was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::event::{EventId, OwnedEvent};
use postrider::metrics::counters::PublisherGauge;
use postrider::order::ledger::{Ledger, Limit};
use postrider::publish::kafka::config::producer_config;
use postrider::publish::kafka::learned_limits::LearnedLimits;
use postrider::publish::kafka::passwords::LoginFiles;
use postrider::publish::kafka::producer::{
    KafkaProducer, RecordTimestamp, WARNING_PAUSE, Warnings,
};
use postrider::publish::send_deadline::SendDeadline;
use postrider::publish::{Batch, OnPoison, Publisher, Report};
use postrider::record::encode::Encoder;
use tokio::sync::Notify;

use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::read_topic;
use crate::support::servers::kafka;

/// Everything that the producer can do without an answer it has done by then.
const ANSWERS: Duration = Duration::from_secs(2);

/// Starts a publisher as the relay does, with a producer that sends each record at once.
fn publisher(brokers: &str, topic: &str) -> Publisher<OwnedEvent> {
    let properties = [("linger.ms", "0"), ("batch.size", "5000"), ("compression.type", "none")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = producer_config(brokers, &properties, None, &LoginFiles::default())
        .expect("these can be set");
    let encoder = Encoder::new(topic.parse().expect("a topic's name"));
    let (send_deadline, wake) = (Arc::new(SendDeadline::endless()), Arc::new(Notify::new()));
    let make = |reports| {
        let (warnings, learned_limits) =
            (Arc::new(Warnings::new(WARNING_PAUSE)), Arc::new(LearnedLimits::new(&properties)));
        KafkaProducer::new("gap", &config, RecordTimestamp::Send, reports, warnings, learned_limits)
    };
    Publisher::start(
        PublisherGauge::new("gap", Arc::default()),
        8,
        encoder,
        OnPoison::Park,
        send_deadline,
        wake,
        make,
    )
    .expect("it starts")
}

fn event(seq: i64, payload_bytes: usize) -> OwnedEvent {
    OwnedEvent {
        seq,
        id: EventId(*uuid::Uuid::new_v4().as_bytes()),
        aggregate_type: "order".into(),
        aggregate_id: "k".into(),
        kind: seq.to_string(),
        payload: Some(vec![b'x'; payload_bytes]),
        headers: None,
        created_at_micros: 0,
    }
}

async fn next_report(publisher: &Publisher<OwnedEvent>) -> Report {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match publisher.next_report().expect("the thread works") {
            Some(report) => return report,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(Instant::now() < deadline, "there was no report");
    }
}

/// The shard is slow to go back to its cursor: it is the producer that must let nothing pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_what_the_broker_refused() {
    let (brokers, topic) = (kafka().brokers(), "refused_gap");
    create_topic_with(brokers, topic, &[("max.message.bytes", "100000")]).await;
    let publisher = publisher(brokers, topic);
    let mut ledger: Ledger<()> = Ledger::new(Limit { bytes: 1 << 20, batches: 8 });
    ledger.open_page();
    let mut batch =
        |rows: Vec<OwnedEvent>| Batch { number: ledger.add_batch(rows.len() as u64, 1), rows };
    publisher.send(batch(vec![event(1, 10)]));
    assert!(matches!(next_report(&publisher).await, Report::Delivered(_)));
    // The producer has learnt the limit, and asks again in a minute.
    set_topic(brokers, topic, &[("max.message.bytes", "20000")]).await;
    let rest = (3..=200).map(|seq| event(seq, 10));
    publisher.send(batch(std::iter::once(event(2, 50_000)).chain(rest).collect()));
    let report = next_report(&publisher).await;
    assert!(matches!(report, Report::Failed(_)), "{report:?}");
    tokio::time::sleep(ANSWERS).await;
    let appended: Vec<i64> = read_topic(brokers, topic)
        .iter()
        .map(|record| String::from_utf8_lossy(record.header("type").expect("it has one")).parse())
        .map(|number| number.expect("a number"))
        .collect();
    assert_eq!(appended, [1]);
    tokio::task::spawn_blocking(move || drop(publisher)).await.expect("it ends");
}
