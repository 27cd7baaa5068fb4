use super::*;
use crate::cli::waiting::LookState;

fn sample() -> ShownStatus {
    let state = BucketState::sample(3);
    let waiting = Waiting::seen(17, Some(2.0), LookState::CutBehind);
    ShownStatus {
        outbox: "public.outbox".to_owned(),
        control_schema: Some("Billing-2".to_owned()),
        database: "h:1/d".to_owned(),
        partitions: 3,
        size_bytes: 2_048,
        waiting,
        unseen: vec!["not all rows were looked at".to_owned()],
        generations: vec![GenerationStatus {
            generation: 1,
            is_current: true,
            leaves: 16,
            filled_leaves: 3,
            size_bytes: 4_096,
        }],
        instances: vec![InstanceStatus {
            name: "db1:7:abc".to_owned(),
            shards: 2,
            buckets: 5,
            age_seconds: 90.0,
            lease_left_seconds: -3.0,
        }],
        parked: ParkedStatus { events: 3, aggregates: 2, oldest_age_seconds: Some(90.0) },
        capture: ShownCapture { mode: "wal", ..ShownCapture::default() },
        paused: Some(Pause {
            reason: "moving".to_owned(),
            by: "ops".to_owned(),
            for_seconds: 90.0,
            left_seconds: None,
        }),
        adopted: Vec::new(),
        without_lease: 2,
        open_transactions: vec!["session 7 of shop in shop has written".to_owned()],
        buckets: vec![BucketStatus::new(state, waiting)],
    }
}

#[test]
fn what_is_known_stays_and_what_is_not_is_added() {
    let mut known = serde_json::json!({
        "parked": {"events": 3}, "slot": null, "buckets": [{"bucket": 1, "epoch": 4}, {"bucket": 2, "epoch": 5}],
    });
    let added = serde_json::json!({
        "schema": "s", "parked": {"events": 9, "by_reason": {}}, "slot": {"name": "p"},
        "buckets": [{"bucket": 2, "state": "idle", "epoch": 9}, {"bucket": 3, "state": "free"}],
    });
    add_members(&mut known, added);
    let wanted = serde_json::json!({
        "schema": "s", "parked": {"events": 3, "by_reason": {}}, "slot": null,
        "buckets": [{"bucket": 1, "epoch": 4}, {"bucket": 2, "state": "idle", "epoch": 5}],
    });
    assert_eq!(known, wanted);
}

#[test]
fn a_lower_bound_says_so() {
    let status = sample();
    let table = status.table();
    assert!(
        table.contains("2 relays without a lease: waiting for the end of the pause"),
        "{table}"
    );
    assert!(table.contains("open: session 7 of shop"), "{table}");
    assert!(!table.contains("/readyz"), "it has not waited for long: {table}");
    assert!(table.contains("\u{2265}17"), "{table}");
    assert!(table.contains("capture     wal, since"), "{table}");
    assert!(
        table.contains("paused for 1.5min by ops, until `postrider resume`: moving"),
        "{table}"
    );
    assert!(table.contains("2.0 KiB"), "{table}");
    assert!(table.contains("waited for 2.0s"), "{table}");
    assert!(table.contains("4.0 KiB in 3 of 16 partitions, being filled"), "{table}");
    assert!(table.contains("db1:7:abc: 5 buckets, 2 shards, up 1.5min"), "{table}");
    assert!(table.contains("dead or hanging: its lease ran out 3.0s ago"), "{table}");
    assert!(table.contains("parked: 3 events of 2 aggregates, the oldest for 1.5min"), "{table}");
}

#[test]
fn relays_without_a_lease_are_there() {
    let status = |without_lease, paused: Option<Pause>| ShownStatus {
        without_lease,
        paused,
        waiting: Waiting::seen(3, Some(90.0), LookState::Whole),
        instances: Vec::new(),
        ..sample()
    };
    let pause = || Pause {
        reason: "moving".to_owned(),
        by: "ops".to_owned(),
        for_seconds: 90.0,
        left_seconds: None,
    };
    for (status, words) in [
        (status(0, None), "\nno instance runs\n"),
        (status(1, None), "\n1 relay without a lease: standing by, or changing over\n"),
        (status(0, Some(pause())), "no instance has a lease"),
    ] {
        assert!(status.table().contains(words), "{}", status.table());
    }
    let waits = ShownStatus { waiting: Waiting::seen(3, Some(90.0), LookState::Whole), ..sample() };
    assert!(waits.table().contains("the database alone was asked"), "{}", waits.table());
}
