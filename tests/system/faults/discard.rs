//! Events that are discarded while their aggregate is tried again.

use crate::parking::{
    ask, first_seen, insert, insert_with, parked, wait_for_the_rest, wait_until_parked,
};
use crate::support::consumer::{create_topic_with, set_topic};
use crate::support::{Fixture, RelayProcess};

/// The discard sees an event for the last time that is published at the moment: what follows both waits for
/// nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_an_event_that_goes_meanwhile_goes_too() {
    let fixture = Fixture::new("discard_late").await;
    let topic = fixture.topic("t");
    create_topic_with(&fixture.brokers, &topic, &[("max.message.bytes", "20000")]).await;
    let (client, holder) = (fixture.client().await, fixture.client().await);
    let hot = ("t", "hot");
    insert(&client, hot, 1, 30_000).await;
    insert_with(&client, hot, 2, "{}", Some("[1]")).await;
    insert(&client, hot, 3, 100).await;
    let relay = RelayProcess::start(&fixture, &[]);
    wait_for_the_rest(&fixture).await;
    wait_until_parked(&client, &[("1", "too-large"), ("2", "follows"), ("3", "follows")]).await;

    set_topic(&fixture.brokers, &topic, &[("max.message.bytes", "200000")]).await;
    let hold = "begin; select from postrider.parked where type = '1' for update";
    holder.batch_execute(hold).await.expect("the row can be locked");
    ask(&fixture, &["parked", "retry", "--reason", "too-large"]);
    // The first is published, and its row waits for the lock to go away.
    wait_until_parked(&client, &[("1", "too-large"), ("2", "bad-headers"), ("3", "follows")]).await;
    ask(&fixture, &["parked", "discard", "--reason", "bad-headers"]);
    assert_eq!(parked(&client).await.len(), 2);
    holder.batch_execute("commit").await.expect("the lock is let go");

    wait_until_parked(&client, &[]).await;
    insert(&client, hot, 4, 100).await;
    fixture.wait_published().await;
    assert_eq!(first_seen(&fixture, &topic, "hot"), ["1", "3", "4"]);
    relay.stop_well().await;
}
