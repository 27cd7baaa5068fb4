//! The primary dies, and its slot with it; its standby is promoted.

use postrider::audit::Fate;

use super::start_relay;
use crate::faults::promotion::{Pair, assert_tail_was_all};
use crate::support::writer::insert_event;
use crate::support::{Capture, Fixture, History};

async fn pair(name: &str) -> Pair {
    let mut pair = Pair::new(name, &[]).await;
    pair.fixture.capture = Capture::Wal;
    pair
}

/// The table brings what the new slot does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promoted_server_gets_a_slot_of_its_own() {
    let mut pair = pair("log_promoted").await;
    let relay = pair.publish_a_tail_that_is_lost("follow").await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    relay.wait_until_it_says("the slot is gone").await;
    assert_tail_was_all(pair, relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_refused_by_the_logs_reader_until_reanchored() {
    let mut pair = pair("log_promoted_by_hand").await;
    let relay = pair.publish_a_tail_that_is_lost("refuse").await;
    let relay = pair.fail_over_by_hand(relay).await;
    relay.wait_until_it_says("reading the log").await;
    assert_tail_was_all(pair, relay).await;
}

/// The slot that is there begins behind what is to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_are_set_anew_bring_all_retained_events_again() {
    let fixture = Fixture::new("log_reanchored").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let (client, history) = (fixture.client().await, History::default());
    for number in 1..=20 {
        history.ended(vec![insert_event(&client, "a", number).await], Fate::Committed);
    }
    fixture.wait_published().await;
    relay.stop_well().await;
    let reanchored = fixture.command().args(["migrate", "reanchor"]).output();
    assert!(reanchored.expect("the binary runs").status.success());
    let relay = start_relay(&fixture, Capture::Wal).await;
    fixture.wait_published().await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.repeats, 20, "{verdict}");
}
