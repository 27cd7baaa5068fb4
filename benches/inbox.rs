//! What the inbox costs a consumer: records per second with and without it, and how large it is afterwards.
//!
//! One session on a PostgreSQL of its own handles polls of 500 records; the effect of a poll is one insert of a row per
//! record. `POSTRIDER_INBOX_RECORDS` (1,000,000) records are spread over a tenth as many aggregates.
//! `POSTRIDER_INBOX_WAY=BySeq` measures one way alone. `cargo bench --bench inbox`; the time is PostgreSQL's, so `--profile
//! dev` tells the same sooner.

#![allow(clippy::print_stdout, reason = "a benchmark says what it found")]

use std::time::Instant;

use postrider::control::migrate;
use postrider::inbox::{Admission, Inbox, InboxRecord, Replay};
use postrider_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

const POLL_RECORDS: u64 = 500;
const RECORDS_PER_AGGREGATE: u64 = 10;

/// By what repeats are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    WithoutInbox,
    BySeq,
    ByPosition,
    ById,
}

/// A record's numbers, as text where the wire has text.
struct Numbers {
    name: String,
    position: String,
    id: Uuid,
}

impl Numbers {
    fn of(number: u64, aggregates: u64) -> Self {
        // Aggregates come in no order, and neighbours in time are none in the index.
        let mixed = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let aggregate = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) % aggregates;
        let hash = aggregate.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            name: format!("customer-{hash:016x}"),
            position: ((u128::from(number) << 5 | 9) << 32).to_string(),
            id: Uuid::from_u128(u128::from(number.wrapping_mul(0xD134_2543_DE82_EF95)) << 64 | 7),
        }
    }

    fn record(&self, way: Way, number: u64) -> InboxRecord<'_> {
        let seq = i64::try_from(number).expect("numbers are small");
        InboxRecord {
            aggregate_type: "outbox.event.customer",
            aggregate_id: &self.name,
            seq: (way == Way::BySeq).then_some(seq),
            position: (way == Way::ByPosition).then_some(&self.position),
            id: Some(self.id),
            replay: Replay::No,
        }
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client
}

/// Handles all records in one way; records per second.
async fn consume(client: &mut Client, way: Way, records: u64) -> f64 {
    let inbox = Inbox::open(client, "billing").await.expect("it was made");
    let effect = "insert into effect select * from unnest($1::text[], $2::bigint[])";
    let effect = client.prepare(effect).await.expect("the table is there");
    let (begin, aggregates) = (Instant::now(), records / RECORDS_PER_AGGREGATE);
    for first in (1..=records).step_by(POLL_RECORDS.try_into().expect("it is small")) {
        let range = first..(first + POLL_RECORDS).min(records + 1);
        let numbers: Vec<Numbers> =
            range.clone().map(|number| Numbers::of(number, aggregates)).collect();
        let poll: Vec<InboxRecord<'_>> = numbers
            .iter()
            .zip(range)
            .map(|(numbers, number)| numbers.record(way, number))
            .collect();
        let transaction = client.transaction().await.expect("it begins");
        let admissions = match way {
            Way::WithoutInbox => vec![Admission::New; poll.len()],
            Way::BySeq | Way::ByPosition | Way::ById => {
                inbox.admit(&transaction, &poll).await.expect("it answers")
            }
        };
        assert!(admissions.iter().all(|admission| *admission == Admission::New), "none came twice");
        let names: Vec<&str> = poll.iter().map(|record| record.aggregate_id).collect();
        let amounts: Vec<i64> = (0..).take(names.len()).collect();
        transaction.execute(&effect, &[&names, &amounts]).await.expect("it is written");
        transaction.commit().await.expect("it commits");
    }
    records as f64 / begin.elapsed().as_secs_f64()
}

async fn megabytes(client: &Client) -> f64 {
    let size = "select sum(pg_total_relation_size(oid))::float8 / 1e6 from pg_class
        where relnamespace = 'postrider_inbox'::regnamespace and relkind = 'r'";
    client.query_one(size, &[]).await.expect("it answers").get(0)
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` builds it, and asks whether it runs.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let records = std::env::var("POSTRIDER_INBOX_RECORDS").ok();
    let records: u64 =
        records.map_or(1_000_000, |count| count.parse().expect("POSTRIDER_INBOX_RECORDS counts"));
    let postgres = Postgres::start(PostgresOptions::default(), &|line| println!("{line}"))
        .unwrap_or_else(|error| panic!("{error}"));
    let admin = connect(&postgres.url("postgres")).await;
    println!(
        "{records} records, {POLL_RECORDS} per transaction, {RECORDS_PER_AGGREGATE} per aggregate"
    );
    let ways = [Way::WithoutInbox, Way::BySeq, Way::ByPosition, Way::ById];
    let wanted = std::env::var("POSTRIDER_INBOX_WAY").ok();
    let is_wanted = |way: &Way| wanted.as_ref().is_none_or(|name| *name == format!("{way:?}"));
    assert!(ways.iter().any(is_wanted), "POSTRIDER_INBOX_WAY is one of {ways:?}");
    for (number, way) in ways.into_iter().filter(is_wanted).enumerate() {
        let name = format!("inbox_{number}");
        admin.batch_execute(&format!("create database {name}")).await.expect("the name is free");
        let mut client = connect(&postgres.url(&name)).await;
        migrate::inbox::up(&client).await.expect("it can be made");
        let table = "create table effect (customer text, amount bigint)";
        client.batch_execute(table).await.expect("the database is ours");
        let rate = consume(&mut client, way, records).await;
        let size = megabytes(&client).await;
        println!("{way:?}: {rate:.0} records/s, {size:.1} MB of inbox");
        drop(client);
    }
}
