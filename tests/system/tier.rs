//! Many instances: each has its share of the buckets, whoever joins, leaves, dies or hangs.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{Fixture, History, RelayProcess, Traffic, mostly_waits};

/// As the fixture sets it.
const LEASE: Duration = Duration::from_secs(5);
/// A busy machine is late.
const SLACK: Duration = Duration::from_secs(2);

/// How many buckets each live owner has, most first; buckets without one make an empty answer.
async fn shares(client: &Client) -> Vec<i64> {
    let rows = client
        .query(
            "select count(*), bool_and(i.lease_until > clock_timestamp()) as live
             from postrider.cursor c left join postrider.instance i on i.name = c.owner
             group by c.owner order by 1 desc",
            &[],
        )
        .await
        .expect("the control tables are there");
    let live = rows.iter().all(|row| row.get::<_, Option<bool>>("live") == Some(true));
    if live { rows.iter().map(|row| row.get(0)).collect() } else { Vec::new() }
}

/// Waits for these shares; how long it took.
pub(crate) async fn wait_for_shares(client: &Client, expected: &[i64]) -> Duration {
    let begin = Instant::now();
    loop {
        let found = shares(client).await;
        if found == expected {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{found:?} and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many instances are in the list: the dead leave it a lease after theirs has run out.
async fn wait_until_listed(client: &Client, expected: i64) {
    let begin = Instant::now();
    loop {
        let row = client.query_one("select count(*) from postrider.instance", &[]).await;
        let found: i64 = row.expect("the control tables are there").get(0);
        if found == expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{found} and not {expected}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn epochs(client: &Client) -> i64 {
    let row = client.query_one("select sum(epoch)::bigint from postrider.cursor", &[]).await;
    row.expect("the control tables are there").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_and_leaves_moves_the_fewest_buckets_and_repeats_nothing() {
    let fixture = Fixture::new("joining").await;
    let (history, client) = (History::default(), fixture.client().await);
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let first = RelayProcess::start(&fixture, &["--shards", "2"]);
    wait_for_shares(&client, &[8]).await;
    let second = RelayProcess::start(&fixture, &["--shards", "3"]);
    wait_for_shares(&client, &[4, 4]).await;
    let third = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_shares(&client, &[3, 3, 2]).await;
    assert_eq!(epochs(&client).await, 8 + 4 + 2, "each move is one bucket that had to move");
    assert!(second.stop().await.success());
    third.wait_until_it_says("an instance has stopped").await;
    assert!(!third.said().contains("has died"), "{}", third.said());
    wait_for_shares(&client, &[4, 4]).await;
    assert_eq!(epochs(&client).await, 8 + 4 + 2 + 3);
    assert!(first.stop().await.success());
    wait_for_shares(&client, &[8]).await;
    let verdict = traffic.finish([third], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_buckets_of_a_dead_instance_are_taken_within_the_lease() {
    mostly_waits();
    let fixture = Fixture::new("dying").await;
    let (history, client) = (History::default(), fixture.client().await);
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let mut left = RelayProcess::start(&fixture, &["--shards", "2"]);
    for _ in 0..3 {
        let dies = left;
        left = RelayProcess::start(&fixture, &["--shards", "2"]);
        wait_for_shares(&client, &[4, 4]).await;
        dies.kill();
        let taken = wait_for_shares(&client, &[8]).await;
        assert!(taken < LEASE + SLACK, "it took {taken:?}");
        left.wait_until_it_says("an instance has died, or hangs").await;
    }
    assert!(!left.said().contains("an instance has stopped"), "{}", left.said());
    wait_until_listed(&client, 1).await;
    let verdict = traffic.finish([left], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_hangs_past_its_lease_steps_down_and_joins_again() {
    let fixture = Fixture::new("hanging").await;
    let (history, client) = (History::default(), fixture.client().await);
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let hangs = RelayProcess::start(&fixture, &["--shards", "2"]);
    let other = RelayProcess::start(&fixture, &["--shards", "2"]);
    wait_for_shares(&client, &[4, 4]).await;
    hangs.signal("STOP");
    let taken = wait_for_shares(&client, &[8]).await;
    assert!(taken < LEASE + SLACK, "it took {taken:?}");
    hangs.signal("CONT");
    hangs.wait_until_it_says("going back to the saved cursors").await;
    wait_for_shares(&client, &[4, 4]).await;
    assert!(hangs.stop().await.success());
    let verdict = traffic.finish([other], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_without_a_bucket_stand_by() {
    let options = crate::support::fixture::Options { buckets: 1, ..Default::default() };
    let fixture = Fixture::with("standing_by", options).await;
    let (history, client) = (History::default(), fixture.client().await);
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let working = RelayProcess::start(&fixture, &[]);
    wait_for_shares(&client, &[1]).await;
    let waiting = RelayProcess::start(&fixture, &[]);
    waiting.wait_until_it_says("standing by").await;
    assert!(working.stop().await.success());
    waiting.wait_until_it_says("relaying").await;
    let verdict = traffic.finish([waiting], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}
