//! The primary dies, and its slot with it; its standby is promoted.

use std::time::Duration;

use postrider_testkit::audit::Fate;

use super::start_relay;
use crate::faults::promotion::{Pair, assert_tail_was, assert_tail_was_all};
use crate::support::fixture::{FAILOVER_VERSION, server_version};
use crate::support::writer::insert_event;
use crate::support::{Capture, Fixture, History, RelayProcess};

const PATIENCE: Duration = Duration::from_secs(30);
const POSTGRES_EXIT_CODE: i32 = 4;

/// What operators are told.
const BEHIND: &str = "a standby that is promoted does not have the slot";
const UNGUARDED: &str = "events may be published that the standby does not have";
const GUARDED: &str = "nothing is sent before these slots of standbys have it: standby";
const WAITS: &str = "sends nothing while these slots of standbys are not read: standby";

fn said(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn pair(name: &str) -> Pair {
    pair_of(name, Capture::Wal).await
}

async fn pair_of(name: &str, capture: Capture) -> Pair {
    let mut pair = Pair::new(name, &[]).await;
    pair.fixture.capture = capture;
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

/// The server sends what its standby does not have: the reader holds it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_published_from_the_log_that_a_synchronous_standby_lacks() {
    let mut pair = pair("log_promoted_sync").await;
    let relay = pair.publish_what_both_have("follow").await;
    pair.write_past_a_synchronous_standby().await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    assert_tail_was(0, pair, relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_refused_by_the_logs_reader_until_reanchored() {
    let mut pair = pair("log_promoted_by_hand").await;
    let relay = pair.publish_a_tail_that_is_lost("refuse").await;
    let relay = pair.fail_over_by_hand(relay).await;
    relay.wait_until_it_says("reading the log").await;
    assert_tail_was_all(pair, relay).await;
}

/// No table brings what a slot that died with its server had kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_promoted_server_without_the_slot_are_said_to_be_lost() {
    let mut pair = pair_of("log_promoted_messages", Capture::Message).await;
    let relay = pair.publish_a_tail_that_is_lost("follow").await;
    let version = server_version(&pair.fixture.client().await).await;
    relay.wait_until_it_says("not ready for the promotion of a standby").await;
    relay.wait_until_it_says(if version < FAILOVER_VERSION { BEHIND } else { UNGUARDED }).await;
    pair.promote();
    relay.wait_until_it_says("published are lost: the slot is gone").await;
    assert!(relay.said().contains("postrider capture switch message --accept-loss"));
    assert_eq!(relay.wait(PATIENCE).await.code(), Some(POSTGRES_EXIT_CODE));
    let mut switch = pair.both().command();
    let switch = switch.args(["capture", "switch", "message", "--accept-loss"]).output();
    let switch = switch.expect("the binary runs");
    assert!(String::from_utf8_lossy(&switch.stdout).contains("is given up"), "{switch:?}");
    let relay = RelayProcess::start(&pair.both(), &["--capture", "message"]);
    relay.wait_until_it_says("reading the log").await;
    assert_tail_was_all(pair, relay).await;
}

/// From PostgreSQL 17 on, the slot may be on the standby, too, and hold back what the standby does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_on_by_a_slot_that_followed() {
    let mut pair = pair_of("log_followed", Capture::Message).await;
    if server_version(&pair.fixture.client().await).await < FAILOVER_VERSION {
        // An older server knows no such slot, and operators are told.
        let relay = start_relay(&pair.fixture, Capture::Message).await;
        for command in [["capture", "show"].as_slice(), &["check"]] {
            let said = said(&pair.fixture, command);
            assert!(said.contains(BEHIND) && said.contains("use PostgreSQL 17"), "{said}");
        }
        return relay.stop_well().await;
    }
    pair.let_slots_follow().await;
    let relay = pair.publish_what_both_have("follow").await;
    pair.wait_until_the_slot_followed().await;
    assert!(!relay.said().contains("not ready for the promotion"), "{}", relay.said());
    let fix = "take their slots out of synchronized_standby_slots";
    let (shown, checked) =
        (said(&pair.fixture, &["capture", "show"]), said(&pair.fixture, &["check"]));
    assert!(shown.contains(GUARDED) && !shown.contains(fix), "{shown}");
    assert!(checked.contains(GUARDED) && !checked.contains(fix), "{checked}");
    pair.write_a_tail().await;
    let (shown, checked) =
        (said(&pair.fixture, &["capture", "show"]), said(&pair.fixture, &["check"]));
    assert!(shown.contains(WAITS) && shown.contains(fix), "{shown}");
    assert!(checked.contains(WAITS) && checked.contains(fix), "{checked}");
    // Time in which the tail would be published.
    relay.wait_until_it_says(WAITS).await;
    pair.promote();
    relay.wait_until_it_says("going on from the cursors that reached it").await;
    let shown = said(&pair.both(), &["capture", "show"]);
    assert!(shown.contains("it came with a promotion") && !shown.contains("gap"), "{shown}");
    assert_tail_was(0, pair, relay).await;
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
    let verdict = history.audit_of_repeats(&fixture);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.repeats, 20, "{verdict}");
}
