//! Quotas of the brokers: slow, and nothing else.

use crate::support::acl::limit_producer;
use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

/// A broker reads nothing more of a client that is above its quota, for as long as a standstill takes to be
/// looked into. It is waited for, and nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_makes_it_slow_without_repeats() {
    const EVENTS: i64 = 290;
    let fixture = Fixture::new("quota").await;
    let topic = fixture.topic("slow");
    create_topic(&fixture.brokers, &topic, 1).await;
    limit_producer(&fixture.brokers, "quota_relay", 70_000.0);
    let client = fixture.client().await;
    let write = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'slow', n::text, 'T', to_json((select string_agg(md5(n * 1000 + k || 'x'), '')
             from generate_series(1, 312) as k)) from generate_series(1, {EVENTS}) as n"
    );
    client.batch_execute(&write).await.expect("an insert never fails");
    let relay = RelayProcess::start(
        &fixture,
        &["--shards", "1", "-X", "client.id=quota_relay", "-X", "compression.type=none"],
    );
    fixture.wait_published().await;
    let said = relay.said();
    assert!(said.contains("a quota of the brokers holds the producer up"), "{said}");
    assert!(!said.contains("is replaced"), "{said}");
    assert_eq!(read_topic(&fixture.brokers, &topic).len() as i64, EVENTS);
    relay.stop_well().await;
}
