//! Records as CloudEvents, however their events are read.

use crate::parking::{ask, insert, wait_until_parked};
use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::{Consumed, Fixture, RelayProcess, read_topic};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// A table as Debezium's extension for Quarkus makes it.
const DEBEZIUM: &str = "
    create table outboxevent (
        id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
        type varchar(255) not null, payload varchar(8000), tracingspancontext varchar(256))";

fn text<'r>(record: &'r Consumed, name: &str) -> Option<&'r str> {
    record.header(name).map(|value| std::str::from_utf8(value).expect("it is text"))
}

fn of_type<'r>(records: &'r [Consumed], kind: &str) -> &'r Consumed {
    let mut found = records.iter().filter(|record| text(record, "ce_type") == Some(kind));
    let first = found.next().unwrap_or_else(|| panic!("{kind} is missing in {records:?}"));
    assert!(found.next().is_none(), "{kind} came once");
    first
}

/// Whatever a CloudEvent must have, and the key that the event has anyway.
#[track_caller]
fn assert_cloud_event(record: &Consumed, fixture: &Fixture) {
    let source = format!("/{}/public/outbox", fixture.name);
    for (name, value) in
        [("ce_specversion", "1.0"), ("ce_source", source.as_str()), ("ce_subject", "k")]
    {
        assert_eq!(text(record, name), Some(value), "{record:?}");
    }
    assert_eq!(text(record, "ce_id"), Some(record.id().to_string().as_str()), "{record:?}");
    assert!(text(record, "ce_time").is_some_and(|time| time.ends_with('Z')), "{record:?}");
    assert_eq!(record.key_text(), "k");
}

/// GIVEN `--format cloudevents` WHEN events are polled, parked, streamed, adopted and emitted THEN each record is a
/// CloudEvent; a null payload stays a tombstone, and a trace of Debezium's is an attribute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_reading_makes_cloud_events() {
    let fixture = Fixture::new("cloud_events").await;
    let (topic, client) = (fixture.topic("t"), fixture.client().await);
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "5000")]).await;
    let relay = RelayProcess::start(&fixture, &["--format", "cloudevents", "--shards", "1"]);
    let rows = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers) values
            ('t', 'k', 'polled', '{{}}', '{{\"traceparent\": \"{TRACE}\"}}'), ('t', 'k', 'gone', null, null)"
    );
    client.batch_execute(&rows).await.expect("an insert never fails");
    // The attributes count: without them it would fit.
    insert(&client, ("t", "k"), 1, 4_850).await;
    wait_until_parked(&client, &[("1", "too-large")]).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "100000")]).await;
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until_parked(&client, &[]).await;
    fixture.wait_published().await;

    client.batch_execute(DEBEZIUM).await.expect("the name is free");
    ask(
        &fixture,
        &["adopt", "outboxevent", "--column", "headers=tracingspancontext", "--order-by", "id"],
    );
    ask(&fixture, &["capture", "switch", "wal"]);
    relay.wait_until_it_says("streaming from the replication slot").await;
    let adopted = format!(
        "insert into outboxevent values (gen_random_uuid(), 't', 'k', 'adopted', '{{}}', E'#now\\ntraceparent={TRACE}\\n')"
    );
    client.batch_execute(&adopted).await.expect("it is written");
    let streamed = format!(
        "insert into outbox (aggregatetype, aggregateid, type, payload, headers) values
            ('t', 'k', 'streamed', '{{}}', '{{\"tracingspancontext\": \"traceparent={TRACE}\"}}')"
    );
    client.batch_execute(&streamed).await.expect("an insert never fails");
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &topic);
    for kind in ["polled", "1", "adopted", "streamed"] {
        let record = of_type(&records, kind);
        assert_cloud_event(record, &fixture);
        assert_eq!(text(record, "content-type"), Some("application/json"), "{kind}");
    }
    for kind in ["polled", "adopted", "streamed"] {
        let record = of_type(&records, kind);
        for name in ["traceparent", "ce_traceparent"] {
            assert_eq!(text(record, name), Some(TRACE), "{kind} {name}");
        }
        assert_eq!(record.header("tracingspancontext"), None, "{kind}");
    }
    let gone = of_type(&records, "gone");
    assert_cloud_event(gone, &fixture);
    assert_eq!((gone.value.as_ref(), gone.header("content-type")), (None, None));
}

/// The same for messages, with a source of one's own; an event without a type is parked, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_cloud_events_of_the_source_that_was_named() {
    let fixture =
        Fixture::new("cloud_messages").await.captured_by(crate::support::Capture::Message);
    let client = fixture.client().await;
    ask(&fixture, &["capture", "switch", "message", "--no-wait"]);
    let format = ["--format", "cloudevents", "--cloudevents-source", "https://shop.example/orders"];
    let relay = RelayProcess::start(&fixture, &format);
    relay.wait_until_it_says("reading the log").await;
    let emit = format!(
        "select postrider.emit('t', 'k', 'emitted', '{{}}', headers => '{{\"traceparent\": \"{TRACE}\"}}');
         select postrider.emit('t', 'other', '', '{{}}')"
    );
    client.batch_execute(&emit).await.expect("messages can be written");
    wait_until_parked(&client, &[("", "bad-headers")]).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let record = of_type(&records, "emitted");
    assert_eq!(text(record, "ce_source"), Some("https://shop.example/orders"));
    assert_eq!(text(record, "ce_traceparent"), Some(TRACE));
    assert_eq!(records.len(), 1, "{records:?}");
}
