//! What a transaction that stays open for long costs the others: nothing, unless it has drawn from the outbox.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::consumer::create_topic;
use crate::support::{Fixture, RelayProcess, read_topic};

/// More than the values from which on it is worth a look who has drawn.
const MANY: i64 = 12_000;

async fn insert(client: &Client, aggregate: &str, events: i64) {
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload)
               select 'thing', $1, 'T', '{}' from generate_series(1, $2::bigint)";
    client.execute(sql, &[&aggregate, &events]).await.expect("the outbox takes them");
}

/// Begins a transaction with an id; the id.
async fn begin(client: &Client) -> i64 {
    client.batch_execute("begin").await.expect("the session lives");
    let sql = "select pg_current_xact_id()::text::bigint";
    client.query_one(sql, &[]).await.expect("it gets an id").get(0)
}

/// The lowest value above which all that the transaction drew lies, as the cursors were saved last.
async fn saved_floor(client: &Client, xid: i64) -> Option<i64> {
    let sql = "select min(carry[place + 2]) from postrider.cursor,
                   generate_series(1, coalesce(array_length(carry, 1), 0), 3) as place
               where carry[place] <= $1 and carry[place + 1] >= $1";
    client.query_one(sql, &[&xid]).await.expect("the cursors are there").get(0)
}

async fn wait_until_its_floor_rises(client: &Client, xid: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while saved_floor(client, xid).await.is_none_or(|floor| floor < MANY) {
        assert!(Instant::now() < deadline, "its end would bring all rows back");
        insert(client, "other", 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_drawn_brings_older_rows_back() {
    let fixture = Fixture::new("open_transactions").await;
    create_topic(&fixture.brokers, &fixture.topic("thing"), 2).await;
    let [client, idle, drew, later] = [(); 4].map(|()| fixture.client());
    let (client, idle, drew, later) = tokio::join!(client, idle, drew, later);
    let relay = RelayProcess::start(&fixture, &["--shards", "2"]);
    insert(&client, "first", 1).await;
    fixture.wait_published().await;
    let [idle_xid, drew_xid, later_xid] =
        [begin(&idle).await, begin(&drew).await, begin(&later).await];
    // A draw that was taken back is a draw: the next one may be the one after it.
    drew.batch_execute("savepoint undone").await.expect("the session lives");
    insert(&drew, "drew", 1).await;
    drew.batch_execute("rollback to savepoint undone").await.expect("the session lives");
    insert(&drew, "drew", 1).await;
    insert(&client, "many", MANY).await;
    wait_until_its_floor_rises(&client, idle_xid).await;
    wait_until_its_floor_rises(&client, later_xid).await;
    let floor = saved_floor(&client, drew_xid).await.expect("it is open");
    assert!(floor < 10, "its rows lie above {floor}");
    insert(&later, "later", 3).await;
    insert(&client, "other", 1).await;
    for session in [&drew, &later, &idle] {
        session.batch_execute("commit").await.expect("nothing is in the way of the commit");
    }
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let records = read_topic(&fixture.brokers, &fixture.topic("thing"));
    let of = |aggregate: &str| {
        records.iter().filter(|record| record.key.as_deref() == Some(aggregate.as_bytes())).count()
    };
    assert_eq!(["first", "drew", "later", "many"].map(of), [1, 1, 3, MANY as usize]);
}
