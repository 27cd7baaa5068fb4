//! The way from Debezium to postrider, as docs/migrate-from-debezium.md says it, while a writer goes on.

use std::time::{Duration, Instant};

use postrider_testkit::servers::{Connect, ConnectOptions, Connector, Postgres};
use uuid::Uuid;

use crate::support::consumer::create_topic;
use crate::support::fixture::{connect, create_database};
use crate::support::servers::{kafka, start_postgres};
use crate::support::{Capture, Fixture, RelayProcess, read_topic};

const DATABASE: &str = "debezium_switch";

const OLD_TABLE: &str = "create table outbox (
        id uuid primary key default gen_random_uuid(), aggregatetype text not null,
        aggregateid text not null, type text not null, payload json
    );
    create publication router for table outbox with (publish = 'insert')";

const INSERT: &str = "insert into outbox (id, aggregatetype, aggregateid, type, payload)
    values ($1, 'thing', $2, 'Made', '{}')";

/// Kafka's topic then holds each event once, and each aggregate's in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_from_debezium_loses_and_repeats_nothing() {
    let postgres = start_postgres(&[]);
    create_database(&postgres.url("postgres"), DATABASE).await;
    let brokers = kafka().brokers().to_owned();
    let fixture = Fixture {
        database_url: postgres.url(DATABASE),
        brokers,
        name: DATABASE.to_owned(),
        capture: Capture::default(),
    };
    create_topic(&fixture.brokers, &fixture.topic("thing"), 4).await;
    let client = fixture.client().await;
    client.batch_execute(OLD_TABLE).await.expect("the database is new");
    let slot = "select pg_create_logical_replication_slot('router', 'pgoutput')::text";
    client.query_one(slot, &[]).await.expect("the log is logical");
    let options = ConnectOptions::new(&fixture.brokers, vec![connector(&postgres)]);
    let debezium = Connect::start(&options, &|line| println!("{line}"))
        .unwrap_or_else(|missing| panic!("{missing}"));

    let url = fixture.database_url.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(async move { write_until(&url, &stopped).await });
    wait_for_records(&fixture, 40);
    replace_table(&fixture).await;
    wait_until_passed(&fixture).await;
    debezium.stop().expect("Kafka Connect stops");
    let by_debezium = read_topic(&fixture.brokers, &fixture.topic("thing")).len();
    stop.send(true).expect("the writer listens");
    let written = writer.await.expect("the writer does not panic");
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;

    let records = read_topic(&fixture.brokers, &fixture.topic("thing"));
    assert!(by_debezium >= 40 && records.len() > by_debezium, "both have published");
    for aggregate in 0..AGGREGATES {
        let key = format!("thing-{aggregate}");
        let seen: Vec<Uuid> = records
            .iter()
            .filter(|record| record.key_text() == key)
            .map(|record| Uuid::from_bytes(record.id().0))
            .collect();
        let wrote: Vec<Uuid> =
            written.iter().skip(aggregate).step_by(AGGREGATES).copied().collect();
        assert_eq!(seen, wrote, "{key}");
    }
}

const AGGREGATES: usize = 7;

/// One event after the other, for the aggregates in turn; gives their ids in order.
async fn write_until(url: &str, stopped: &tokio::sync::watch::Receiver<bool>) -> Vec<Uuid> {
    let client = connect(url).await;
    let insert = client.prepare(INSERT).await.expect("the table is there");
    let mut written = Vec::new();
    while !*stopped.borrow() {
        let id = Uuid::new_v4();
        let key = format!("thing-{}", written.len() % AGGREGATES);
        let rows = client.execute(&insert, &[&id, &key]).await.expect("an insert never fails");
        assert_eq!(rows, 1);
        written.push(id);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

/// The new table takes the old one's place in one transaction.
async fn replace_table(fixture: &Fixture) {
    let printed = fixture.command().args(["migrate", "print"]).output().expect("the binary runs");
    assert!(printed.status.success());
    let sql = String::from_utf8(printed.stdout).expect("SQL is text");
    let rename = "begin; alter table outbox rename to outbox_debezium;";
    let all = format!("{rename}\n{sql}\ncommit;");
    fixture.client().await.batch_execute(&all).await.expect("the table makes room");
}

async fn wait_until_passed(fixture: &Fixture) {
    let client = fixture.client().await;
    let place = client.query_one("select pg_current_wal_lsn()::text", &[]).await;
    let place: String = place.expect("PostgreSQL answers").get(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let message = "select pg_logical_emit_message(true, 'postrider.switch', '')::text";
        client.query_one(message, &[]).await.expect("PostgreSQL answers");
        let passed = "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots
            where slot_name = 'router'";
        if client.query_one(passed, &[&place]).await.expect("the slot is there").get(0) {
            return;
        }
        assert!(Instant::now() < deadline, "the slot does not reach {place}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn wait_for_records(fixture: &Fixture, least: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while read_topic(&fixture.brokers, &fixture.topic("thing")).len() < least {
        assert!(Instant::now() < deadline, "Debezium publishes nothing");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn connector(postgres: &Postgres) -> Connector {
    let port = postgres.port().to_string();
    let replacement = format!("{DATABASE}.${{routedByValue}}");
    let properties = [
        ("database.hostname", postgres.host()),
        ("database.port", &port),
        ("database.user", postgres.superuser()),
        ("database.password", postgres.password()),
        ("database.dbname", DATABASE),
        ("topic.prefix", DATABASE),
        ("table.include.list", "public.outbox"),
        ("plugin.name", "pgoutput"),
        ("slot.name", "router"),
        ("publication.name", "router"),
        ("publication.autocreate.mode", "disabled"),
        ("snapshot.mode", "no_data"),
        ("heartbeat.interval.ms", "500"),
        ("message.prefix.exclude.list", "postrider.*"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
        ("transforms.outbox.route.topic.replacement", &replacement),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Connector { name: DATABASE.to_owned(), properties }
}
