//! Rows that lie about their place, that PostgreSQL cannot hand over, or that are too large to be read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use uuid::Uuid;

use crate::parking::{ask, first_seen, parked, wait_for_the_rest};
use crate::support::{Fixture, RelayProcess, read_topic};

/// The next rows get these numbers once more.
async fn set_back(client: &Client, last: i64) {
    let sql = format!("select setval(pg_get_serial_sequence('outbox', 'seq'), {last})");
    client.batch_execute(&sql).await.expect("the sequence is ours");
}

/// Events without anything wrong, numbered on.
async fn insert_good(client: &Client, aggregate_id: &str, numbers: std::ops::RangeInclusive<i32>) {
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 't', $1, n::text, '{}' from generate_series($2::int, $3::int) n";
    let range = (numbers.start(), numbers.end());
    client.execute(sql, &[&aggregate_id, range.0, range.1]).await.expect("an insert never fails");
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("it answers").get(0)
}

/// Two events of one `seq` are two; the same one twice is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_seq_are_told_apart_by_their_ids() {
    let fixture = Fixture::new("rows_one_seq").await;
    let client = fixture.client().await;
    insert_good(&client, "good", 1..=5).await;
    let bad = "insert into outbox (aggregatetype, aggregateid, type, payload)
        select 'no topic!', 'k' || n, 'bad', '{}' from generate_series(1, 3) n";
    for _ in 0..2 {
        set_back(&client, 2).await;
        client.batch_execute(bad).await.expect("an insert never fails");
    }
    let same = "insert into outbox (id, aggregatetype, aggregateid, type, payload) values
        ('018f4e6a-5b1c-7def-8a00-0123456789ab', 'no topic!', 'k1', 'same', '{}')";
    for _ in 0..2 {
        set_back(&client, 1).await;
        client.batch_execute(same).await.expect("an insert never fails");
    }
    set_back(&client, 5).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_the_rest(&fixture).await;
    assert_eq!(first_seen(&fixture, &fixture.topic("t"), "good"), ["1", "2", "3", "4", "5"]);
    assert_eq!(parked(&client).await.len(), 7, "six, and one that came twice");
    // The view tells them apart, too.
    assert_eq!(count(&client, "select count(*) from postrider.events").await, 13);
    let published = "select count(*) from postrider.events where published";
    assert_eq!(count(&client, published).await, 5);

    // Each attempt and each discarded event is one's own.
    ask(&fixture, &["parked", "retry", "--all"]);
    let again = "select count(*) from postrider.parked where attempts = 2";
    wait_until(&client, again, 3).await;
    let id: Uuid = client
        .query_one("select id from postrider.parked where seq = 3 order by turn limit 1", &[])
        .await
        .expect("it is parked")
        .get(0);
    ask(&fixture, &["parked", "discard", "--event", &id.to_string()]);
    assert_eq!(parked(&client).await.len(), 6);
    let mend = "update postrider.parked set aggregatetype = 'mended' where seq = 4";
    client.batch_execute(mend).await.expect("the table is ours");
    ask(&fixture, &["parked", "retry", "--all"]);
    wait_until(&client, "select count(*) from postrider.parked where seq = 4", 0).await;
    assert_eq!(parked(&client).await.len(), 4, "what shares no seq with them has stayed");
    assert_eq!(read_topic(&fixture.brokers, &fixture.topic("mended")).len(), 2);
    relay.stop_well().await;
}

async fn wait_until(client: &Client, sql: &str, expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = count(client, sql).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A page ends behind the last row of a `seq`, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_skipped_behind_a_cut_between_rows_of_one_seq() {
    let fixture = Fixture::new("rows_cut").await;
    let client = fixture.client().await;
    insert_good(&client, "before", 1..=5).await;
    let many = "do $$ begin
            for n in 1..50 loop
                perform setval(pg_get_serial_sequence('outbox', 'seq'), 5);
                insert into outbox (aggregatetype, aggregateid, type, payload)
                    values ('t', 'a' || n, n::text, '{}');
            end loop;
        end $$";
    client.batch_execute(many).await.expect("an insert never fails");
    insert_good(&client, "after", 1..=5).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1", "--page-rows", "7"]);
    fixture.wait_published().await;
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let ids: HashSet<Vec<u8>> =
        records.iter().map(|record| record.header("id").expect("it has one").to_vec()).collect();
    assert_eq!((ids.len(), records.len()), (60, 60));
    relay.stop_well().await;
}
