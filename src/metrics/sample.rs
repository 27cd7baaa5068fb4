//! A tier of which everything is known, for tests of what is shown of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::metrics::admin::Admin;
use crate::metrics::counters::{BucketCounts, Monitor, SlotFigures};
use crate::metrics::health::{Readings, SessionState};
use crate::metrics::seen::{SeenBacklog, SeenTier};
use crate::metrics::sentence;
use crate::metrics::shape::{
    BacklogReport, BucketCondition, BucketReport, ParkedAggregate, ParkedCounts, SettingOrigin,
    SettingStatus, TIER_SCHEMA, TierCapture, TierInstance, TierInstanceCondition, TierReport,
    TierSlot,
};
use crate::order::refusal::fix;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleSize {
    pub(crate) buckets: u16,
    pub(crate) instances: u16,
    pub(crate) parked: u64,
}

/// Enough to see each member of each shape.
pub(crate) const SMALL: SampleSize = SampleSize { buckets: 3, instances: 2, parked: 3 };
/// As much as there may be on a bad day.
pub(crate) const LARGE: SampleSize = SampleSize { buckets: 64, instances: 5, parked: 10_000 };

pub(crate) fn instance_name(number: u16) -> String {
    format!("relay-{number}:7:abc12{number}")
}

fn owner(bucket: u16, size: SampleSize) -> Option<String> {
    // One bucket is nobody's.
    (bucket + 1 < size.buckets).then(|| instance_name(bucket % size.instances))
}

fn bucket(bucket: u16, size: SampleSize) -> BucketReport {
    let owner = owner(bucket, size);
    // The last instance is dead.
    let state = match &owner {
        None => BucketCondition::Free,
        Some(name) if *name == instance_name(size.instances - 1) => BucketCondition::Orphaned,
        Some(_) if bucket.is_multiple_of(3) => BucketCondition::Publishing,
        Some(_) => BucketCondition::Idle,
    };
    let waits = !matches!(state, BucketCondition::Idle);
    BucketReport {
        bucket,
        epoch: 4 + i64::from(bucket % 3),
        owner,
        position: 81_234 + 1_000 * i64::from(bucket),
        saved_age_seconds: (state != BucketCondition::Free).then_some(0.1),
        unpublished: Some(if waits { 120 + 7 * u64::from(bucket) } else { 0 }),
        unpublished_is_lower_bound: false,
        oldest_seconds: waits.then_some(0.2 + f64::from(bucket)),
        parked: size.parked / u64::from(size.buckets),
        state,
    }
}

fn instance(number: u16, size: SampleSize) -> TierInstance {
    let is_dead = number + 1 == size.instances;
    TierInstance {
        name: instance_name(number),
        shards: 2,
        buckets: u64::from(size.buckets / size.instances),
        age_seconds: 812.0 + f64::from(number),
        lease_left_seconds: if is_dead { -3.5 } else { 8.1 },
        state: if is_dead { TierInstanceCondition::Dead } else { TierInstanceCondition::Alive },
    }
}

fn parked_event(number: u64) -> ParkedAggregate {
    let reasons =
        ["too-large", "topic-unavailable", "bad-headers", "refused", "unreadable", "illegal-topic"];
    let reason = reasons[number as usize % reasons.len()];
    ParkedAggregate {
        bucket: (number % 64) as u16,
        aggregatetype: if number == 1 { "<img src=x onerror=alert(1)>" } else { "order" }
            .to_owned(),
        aggregateid: (4_711 + number).to_string(),
        event: format!("018f4e6a-5b1c-7def-8a00-{number:012x}"),
        r#type: "OrderPlaced".to_owned(),
        reason: reason.to_owned(),
        detail: "the record takes 1200345 bytes, its topic 1048588".to_owned(),
        topic: Some("outbox.event.order".to_owned()),
        attempts: 2,
        events: 2 + number % 50,
        events_is_lower_bound: number % 7 == 6,
        since_seconds: 90.0 + number as f64,
        is_requested: number % 5 == 4,
        fix: fix(reason).to_owned(),
    }
}

fn parked(size: SampleSize) -> ParkedCounts {
    let by_reason = [("too-large", size.parked / 3), ("follows", size.parked - size.parked / 3)];
    ParkedCounts {
        events: size.parked,
        aggregates: size.parked / 25 + 1,
        oldest_seconds: Some(5_400.0),
        by_reason: by_reason.map(|(reason, events)| (reason.to_owned(), events)).into(),
    }
}

fn tier(size: SampleSize) -> TierReport {
    let buckets: Vec<BucketReport> = (0..size.buckets).map(|number| bucket(number, size)).collect();
    let oldest_seconds = buckets.iter().filter_map(|one| one.oldest_seconds).reduce(f64::max);
    let mut tier = TierReport {
        schema: TIER_SCHEMA.to_owned(),
        control_schema: None,
        seen_seconds_ago: 0.0,
        sentence: String::new(),
        capture: TierCapture {
            mode: "wal".to_owned(),
            changed_at: "2026-11-29 08:00:00Z".to_owned(),
            changed_by: "ops".to_owned(),
            slot: Some(TierSlot {
                name: "postrider_16401".to_owned(),
                retained_bytes: Some(40_000_000),
                safe_bytes: Some(900_000_000),
                behind_bytes: Some(1_024),
                inactive_seconds: None,
                confirmed_lsn: Some("0/16B3748".to_owned()),
                delivered_lsn: Some("0/16B3748".to_owned()),
            }),
        },
        paused: None,
        backlog: BacklogReport {
            events: Some(buckets.iter().filter_map(|one| one.unpublished).sum()),
            is_lower_bound: false,
            oldest_seconds,
            ..BacklogReport::default()
        },
        parked: parked(size),
        instances: (0..size.instances).map(|number| instance(number, size)).collect(),
        buckets,
    };
    tier.sentence = sentence::of_tier(&tier);
    tier
}

/// An instance that has seen such a tier, and publishes.
pub(crate) fn monitor(size: SampleSize) -> Arc<Monitor> {
    let monitor = Arc::new(Monitor::default());
    monitor.set_instance(|instance| {
        instance.name = instance_name(0);
        instance.capture = "wal".to_owned();
        instance.delivery = "at-least-once".to_owned();
        instance.lease_seconds = 10;
    });
    monitor.set_session(SessionState::Working);
    monitor.in_flight_limit_bytes.store(6 << 20, Ordering::Relaxed);
    monitor.shard(1).in_flight_bytes.store(1_234_567, Ordering::Relaxed);
    monitor.shard(1).held_aggregates.store(2, Ordering::Relaxed);
    monitor.set_dealt(vec![vec![0], vec![2]]);
    monitor.set_buckets(BucketCounts { owned: 2, free: 1 });
    let slot = SlotFigures {
        retained_bytes: 40_000_000,
        safe_bytes: None,
        age_seconds: 3,
        promotion: None,
    };
    monitor.set_slot(Some(slot));
    for second in 0..=11_u64 {
        move_on(&monitor, second);
    }
    monitor.set_seen(Some(SeenBacklog {
        at_millis: 10_000,
        oldest_age_seconds: BTreeMap::from([(0, 0.2), (2, 0.0)]),
        backlog_events: 1_200,
        backlog_bytes: 600_000,
        is_lower_bound: false,
        parked: parked(size).by_reason,
        parked_aggregates: 2,
        parked_oldest_age_seconds: 90.0,
        topics_held: 1,
    }));
    let parked = (0..size.parked.min(500)).map(parked_event).collect();
    monitor.set_tier(SeenTier { at_millis: 10_000, tier: tier(size), parked });
    monitor
}

/// A second passes.
pub(crate) fn move_on(monitor: &Monitor, second: u64) {
    for number in 0..2 {
        let shard = monitor.shard(number);
        shard.published.fetch_add(49_102, Ordering::Relaxed);
        shard.acknowledged.fetch_add(100, Ordering::Relaxed);
        shard.advanced.fetch_add(100, Ordering::Relaxed);
    }
    let figures = monitor.figures();
    figures.event_age.record(34_000, 97_000);
    figures.event_age.record(168_000, 1_204);
    figures.claim.record(3_100, 100);
    figures.publish.record(7_900, 200);
    look(monitor, second);
}

/// What is seen in this second, in a session that works.
pub(super) fn look(monitor: &Monitor, second: u64) {
    monitor.look_at_counts(second * 1_000);
    monitor.health().look(Readings {
        now_millis: second * 1_000,
        session: SessionState::Working,
        lease_left_millis: Some(8_100),
        lease_millis: 10_000,
        shards: monitor.shards().iter().map(|shard| shard.reading()).collect(),
        ..Readings::default()
    });
}

/// The same, as those see it who ask over HTTP.
pub(crate) fn admin(monitor: &Arc<Monitor>) -> Admin {
    let setting = |name: &str, value: Option<&str>, origin, from: Option<&str>| SettingStatus {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        origin,
        from: from.map(str::to_owned),
    };
    let settings = vec![
        setting("database-url", Some("db:5432/shop"), SettingOrigin::Flag, None),
        setting("outbox", Some("public.outbox"), SettingOrigin::Default, None),
        setting("shards", None, SettingOrigin::Default, None),
        setting(
            "brokers",
            Some("kafka:9092"),
            SettingOrigin::Environment,
            Some("POSTRIDER_BROKERS"),
        ),
        setting(
            "librdkafka.sasl.password",
            Some("***"),
            SettingOrigin::File,
            Some("postrider.toml"),
        ),
    ];
    Admin::new(Arc::clone(monitor), settings)
}
