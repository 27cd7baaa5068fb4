//! Quotas of the brokers: slow, and nothing else.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::support::acl::limit_producer;
use crate::support::consumer::create_topic;
use crate::support::{Capture, Fixture, RelayProcess, mostly_waits, read_topic};

/// A broker reads nothing more of a client that is above its quota, for as long as a standstill takes to be
/// looked into. It is waited for, and nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_makes_it_slow_without_repeats() {
    const EVENTS: i64 = 290;
    mostly_waits();
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

/// GIVEN a quota by which what may be in flight takes longer than a transaction may last WHEN events are delivered
/// exactly once THEN transactions become as small as that takes, and the cause is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_makes_transactions_smaller() {
    mostly_waits();
    a_quota_holds_no_transaction_up(Capture::Poll).await;
}

/// The same for one transaction of PostgreSQL's that is far larger than one of Kafka's may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_makes_transactions_of_the_log_smaller() {
    mostly_waits();
    a_quota_holds_no_transaction_up(Capture::Wal).await;
}

async fn a_quota_holds_no_transaction_up(capture: Capture) {
    const EVENTS: i64 = 290;
    /// One transaction is given up after 20 s; 2.9 MB take 42 s; what is taken in the first 20 s is sent again.
    const PATIENCE: Duration = Duration::from_secs(150);
    let name = format!("quota_exactly_{}", capture.name());
    let fixture = Fixture::new(&name).await.captured_by(capture);
    fixture.deliver_exactly_once();
    let topic = fixture.topic("slow");
    create_topic(&fixture.brokers, &topic, 1).await;
    limit_producer(&fixture.brokers, &name, 70_000.0);
    let write = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'slow', (n % 7)::text, n::text, to_json((select string_agg(md5(n * 1000 + k || 'x'), '')
             from generate_series(1, 312) as k)) from generate_series(1, {EVENTS}) as n"
    );
    let client = format!("client.id={name}");
    let arguments = ["--capture", capture.name(), "--shards", "1"];
    let quota = ["-X", client.as_str(), "-X", "compression.type=none"];
    let relay = RelayProcess::start(&fixture, &[&arguments[..], &quota].concat());
    relay.wait_until_it_says(capture.words()).await;
    fixture.client().await.batch_execute(&write).await.expect("an insert never fails");
    let (began, client) = (Instant::now(), fixture.client().await);
    let waits = "select from postrider.events where not published limit 1";
    while client.query_opt(waits, &[]).await.expect("the database answers").is_some() {
        assert!(began.elapsed() < PATIENCE, "{}", relay.said());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{name}: all are published after {:?}", began.elapsed());
    let said = relay.said();
    assert!(said.contains("transactions take longer than their time-out"), "{said}");
    assert!(said.contains("Kafka takes less than"), "{said}");
    let counted = said.split("\"published\":").skip(1);
    let counted = counted.filter_map(|rest| rest.split(',').next()?.parse::<i64>().ok());
    let most = counted.max().unwrap_or_default();
    assert!(most <= EVENTS, "{most} are counted: what is dropped is not published");
    let mut last: HashMap<String, i64> = HashMap::new();
    let records = read_topic(&fixture.brokers, &topic);
    for record in &records {
        let number = String::from_utf8_lossy(record.header("type").expect("it has one"));
        let number: i64 = number.parse().expect("it is a number");
        let before = last.insert(record.key_text().to_owned(), number).unwrap_or(0);
        assert!(before < number, "{number} comes behind {before}");
    }
    assert_eq!(records.len() as i64, EVENTS, "each once");
    relay.stop_well().await;
}
