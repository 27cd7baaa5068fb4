use super::*;
use crate::capture::mode::DeliveryMode;

fn status(owner: Option<&str>, unpublished: Option<u64>) -> BucketReport {
    BucketReport {
        bucket: 3,
        epoch: 1,
        owner: owner.map(str::to_owned),
        position: 7,
        saved_age_seconds: None,
        unpublished,
        unpublished_is_lower_bound: unpublished.is_none(),
        oldest_seconds: None,
        parked: 0,
        state: BucketCondition::Owned,
    }
}

fn instance(name: &str, state: TierInstanceCondition) -> TierInstance {
    TierInstance {
        name: name.to_owned(),
        shards: 1,
        buckets: 1,
        age_seconds: 1.0,
        lease_left_seconds: 1.0,
        state,
    }
}

fn capture(pause: Option<Pause>) -> CaptureState {
    CaptureState {
        mode: Mode::Poll,
        delivery: DeliveryMode::AtLeastOnce { term: 0 },
        slot_name: None,
        slot: None,
        delivered: None,
        adopted: 0,
        pause,
        database: 5,
    }
}

#[test]
fn a_bucket_is_as_well_as_its_owner() {
    let instances =
        [instance("a", TierInstanceCondition::Alive), instance("b", TierInstanceCondition::Dead)];
    let running = capture(None);
    for (owner, unpublished, wanted) in [
        (Some("a"), Some(0), BucketCondition::Idle),
        (Some("a"), Some(3), BucketCondition::Publishing),
        (Some("a"), None, BucketCondition::Owned),
        (Some("b"), Some(0), BucketCondition::Orphaned),
        (Some("gone"), Some(0), BucketCondition::Orphaned),
        (None, Some(0), BucketCondition::Free),
    ] {
        let found = bucket_state(&status(owner, unpublished), &instances, &running);
        assert_eq!(found, wanted, "{owner:?} {unpublished:?}");
    }
    let strange = BucketReport { state: BucketCondition::Strange, ..status(Some("a"), None) };
    assert_eq!(bucket_state(&strange, &instances, &running), BucketCondition::Strange);
    let pause = Pause {
        reason: "moving".to_owned(),
        by: "ops".to_owned(),
        for_seconds: 1.0,
        left_seconds: None,
    };
    let found = bucket_state(&status(None, Some(0)), &instances, &capture(Some(pause)));
    assert_eq!(found, BucketCondition::Paused);
}

fn depth(events: u64, is_lower_bound: bool) -> Depth {
    Depth { events, bytes: 10 * events, is_lower_bound, oldest_seconds: Some(2.0) }
}

#[test]
fn nothing_seen_in_a_look_that_was_cut_short_is_not_nothing() {
    let cut = with_depth(status(Some("a"), None), Some(&depth(0, true)));
    assert_eq!((cut.unpublished, cut.unpublished_is_lower_bound), (None, true));
    let whole = with_depth(status(Some("a"), None), Some(&depth(0, false)));
    assert_eq!((whole.unpublished, whole.unpublished_is_lower_bound), (Some(0), false));
    let all = sum(&[cut, whole]);
    assert_eq!((all.events, all.is_lower_bound), (Some(0), true), "nothing is not said of all");
    assert_eq!(sum(&[status(None, None)]).events, None);
}

#[test]
fn only_what_is_owned_counts_as_own() {
    let mut parked = BTreeMap::new();
    for bucket in [3, 4] {
        let counts = ParkedCounts {
            events: 5,
            aggregates: 2,
            oldest_seconds: Some(f64::from(bucket)),
            by_reason: [("too-large".to_owned(), 2), ("follows".to_owned(), 3)].into(),
        };
        parked.insert(bucket, ParkedDepth { counts, topics: vec!["orders".to_owned()] });
    }
    let (mut own, mut held) = (SeenBacklog::default(), BTreeSet::new());
    note_own(&mut own, &mut held, 3, Some(&depth(7, false)), parked.get(&3));
    assert_eq!((own.backlog_events, own.backlog_bytes, own.parked_aggregates), (7, 70, 2));
    assert_eq!((own.parked["follows"], own.topics_held), (3, 1));
    assert_eq!(own.parked_oldest_age_seconds, 3.0);
    let all = all_parked(&parked);
    assert_eq!((all.events, all.aggregates, all.by_reason["too-large"]), (10, 4, 4));
    assert_eq!(all.oldest_seconds, Some(4.0));
    note_own(&mut own, &mut held, 4, None, parked.get(&4));
    assert_eq!((own.parked["follows"], own.topics_held), (6, 1), "both wait for the same topic");
}

#[test]
fn a_look_that_takes_long_is_followed_by_a_shorter_one() {
    let (short, long) = (Duration::from_millis(5), Duration::from_millis(320));
    assert_eq!(next_look_at(LOOK_AT_MIN, short), 2_000);
    assert_eq!(next_look_at(4_000, short), LOOK_AT);
    assert_eq!(next_look_at(LOOK_AT, long), 2_500);
    assert_eq!(next_look_at(LOOK_AT_MIN, long), LOOK_AT_MIN);
}
