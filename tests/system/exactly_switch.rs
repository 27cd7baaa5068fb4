//! From exactly-once delivery back, and what has to hold when `delivery switch` says that it is done.

use crate::parking::ask;
use crate::support::{Fixture, RelayProcess};

/// What the switch says, and with which code it ends.
fn switch(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["delivery", "switch"], arguments].concat();
    let output = fixture.command().args(arguments).output().expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// GIVEN two instances that deliver exactly once WHEN somebody switches back THEN it waits until all buckets have begun
/// anew, names who has not followed, and says so where nobody runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_back_waits_for_the_instances_too() {
    let fixture = Fixture::new("exactly_back").await;
    fixture.deliver_exactly_once();
    let client = fixture.client().await;
    let one = RelayProcess::start(&fixture, &["--shards", "2"]);
    let other = RelayProcess::start(&fixture, &["--shards", "1"]);
    one.wait_until_it_says("relaying").await;
    other.wait_until_it_says("relaying").await;
    let (code, told) = switch(&fixture, &["exactly-once"]);
    assert_eq!(code, Some(0), "{told}");
    // As long as it holds the lease, nobody knows that it does not follow.
    one.signal("STOP");
    let (code, told) = switch(&fixture, &["at-least-once", "--timeout", "1s"]);
    assert_eq!(code, Some(1), "{told}");
    for words in
        ["switched to at-least-once", "may still be delivered in transactions", "The switch stands"]
    {
        assert!(told.contains(words), "{told}");
    }
    let shown = ask(&fixture, &["delivery", "show"]);
    assert!(shown.contains("are to be delivered at least once"), "{shown}");
    one.signal("CONT");
    let (code, told) = switch(&fixture, &["at-least-once"]);
    assert_eq!((code, told.as_str()), (Some(0), "events are delivered at least once\n"));
    let behind = "select count(*) from postrider.cursor as cursor, postrider.capture as capture
        where cursor.delivery_term is distinct from capture.delivery_term";
    let behind: i64 = client.query_one(behind, &[]).await.expect("it answers").get(0);
    assert_eq!(behind, 0, "whoever has a bucket has begun with it anew");
    one.stop_well().await;
    other.stop_well().await;
    ask(&fixture, &["delivery", "switch", "exactly-once", "--no-wait"]);
    let (code, told) = switch(&fixture, &["at-least-once"]);
    assert!(code == Some(0) && told.contains("the next one delivers at least once"), "{told}");
}
