//! Buckets that move while events of theirs are parked.

use crate::parking::{ask, parked};
use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::writer::AGGREGATE_TYPE;
use crate::support::{Fixture, History, Load, Patience, RelayProcess, Traffic};
use crate::tier::wait_for_shares;

/// Instances join and leave in an orderly way: the order is kept, and nothing is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_aggregates_move_with_their_buckets() {
    let fixture = Fixture::new("parked_moves").await;
    let topic = fixture.topic(AGGREGATE_TYPE);
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let client = fixture.client().await;
    let (history, load) = (History::default(), Load { flawed_every: Some(50), ..Load::BROKEN });
    let retry = || ask(&fixture, &["parked", "retry", "--reason", "too-large"]);
    let traffic = Traffic::with(&fixture, &history, load).await;
    let first = RelayProcess::start(&fixture, &["--shards", "2"]);
    first.wait_until_it_says("an event is parked").await;
    let second = RelayProcess::start(&fixture, &["--shards", "3"]);
    wait_for_shares(&client, &[4, 4]).await;
    traffic.commits_more(200).await;
    // Tried in vain while buckets move, then with success while they move back.
    retry();
    let third = RelayProcess::start(&fixture, &["--shards", "1"]);
    wait_for_shares(&client, &[3, 3, 2]).await;
    traffic.commits_more(200).await;
    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    retry();
    first.stop_well().await;
    wait_for_shares(&client, &[4, 4]).await;
    traffic.commits_more(100).await;
    traffic.stop().await;
    second.stop_well().await;
    let patience = Patience::until("nothing is parked");
    while !parked(&client).await.is_empty() {
        ask(&fixture, &["parked", "discard", "--reason", "bad-headers"]);
        retry();
        patience.pause().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    fixture.wait_published().await;
    third.stop_well().await;
    let verdict = history.audit(&fixture);
    println!("{verdict}");
    assert!(verdict.holds_without_repeats(), "{verdict}");
}
