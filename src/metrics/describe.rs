//! What there is to tell of an instance, out of what it counts and has seen.
//!
//! Promises: asks nobody, and tells nothing that is not known. Must not: change anything, or read a clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::metrics::counters::{Monitor, ShardGauge};
use crate::metrics::health::{Health, HealthCheck, SessionState};
use crate::metrics::seen::SeenBacklog;
use crate::metrics::sentence;
use crate::metrics::sentence::Present;
use crate::metrics::shape::{
    Age, BacklogReport, BucketReport, Cause, InFlightReport, InstanceCapture, InstanceCondition,
    InstanceReport, KafkaReport, LeaseReport, PARKED_SCHEMA, ParkedCounts, ParkedReport,
    PauseReason, Rate, ReadSlot, STATUS_SCHEMA, ShardCondition, ShardReport, TierReport, WorkTime,
};
use crate::schema;

/// What is known of Kafka's silence where librdkafka says nothing.
pub const NO_ANSWER_OF_BROKERS: &str = "the brokers give no answer";

/// This instance, by what is in its memory.
pub fn instance_status(monitor: &Monitor) -> InstanceReport {
    let (identity, session, seen) = (monitor.instance(), monitor.session(), monitor.seen());
    let (trouble, uptime_millis) = (monitor.figures().trouble(), monitor.recent().now_millis());
    let (causes, silence, lease_left, time_to_empty, shard_words) = {
        let health = monitor.health();
        let left = health.lease_left_millis();
        let causes = causes(&health, trouble.as_deref());
        (causes, health.silence(), left, health.time_to_empty_seconds(), health.shard_words())
    };
    let state = state(&session, monitor.is_stopping(), &causes);
    let mut status = InstanceReport {
        schema: STATUS_SCHEMA.to_owned(),
        control_schema: schema::chosen().unusual().map(str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: seconds(uptime_millis),
        sentence: String::new(),
        state,
        causes,
        capture: capture(monitor, identity.capture),
        delivery: identity.delivery,
        paused: match session {
            SessionState::Paused { reason } => Some(PauseReason { reason }),
            _ => None,
        },
        rate: rate(monitor),
        age: age(monitor),
        backlog: BacklogReport {
            seen_seconds_ago: seen.as_ref().map(|seen| ago(monitor, seen.at_millis)),
            ..backlog(seen.as_ref(), time_to_empty)
        },
        in_flight: InFlightReport {
            bytes: monitor.in_flight_bytes(),
            limit_bytes: monitor.in_flight_limit_bytes.load(Ordering::Relaxed),
        },
        parked: seen.as_ref().map(parked_counts),
        time: work_time(monitor),
        shards: shards(monitor, &shard_words),
        buckets: own_buckets(monitor, &identity.name),
        kafka: KafkaReport {
            unacknowledged_seconds: silence.map(|silence| seconds(silence.millis)),
            trouble,
            topics_held: seen.as_ref().map(|seen| seen.topics_held),
        },
        lease: LeaseReport {
            left_seconds: lease_left.map(|millis| millis as f64 / 1_000.0),
            length_seconds: identity.lease_seconds,
        },
        instance: identity.name,
    };
    status.sentence = sentence::of_instance(&status, present(monitor));
    status
}

/// All instances and buckets, as they were seen last; none before the first look.
pub fn tier_status(monitor: &Monitor) -> Option<TierReport> {
    let seen = monitor.tier()?;
    let seen_seconds_ago = ago(monitor, seen.at_millis);
    let backlog =
        BacklogReport { seen_seconds_ago: Some(seen_seconds_ago), ..seen.tier.backlog.clone() };
    Some(TierReport { seen_seconds_ago, backlog, ..seen.tier.clone() })
}

/// What is parked, as it was seen last, so many of it at most; none before the first look.
pub fn parked_status(monitor: &Monitor, limit: usize) -> Option<ParkedReport> {
    let seen = monitor.tier()?;
    Some(ParkedReport {
        schema: PARKED_SCHEMA.to_owned(),
        seen_seconds_ago: ago(monitor, seen.at_millis),
        counts: seen.tier.parked.clone(),
        listed: seen.parked.iter().take(limit).cloned().collect(),
    })
}

pub(super) fn ago(monitor: &Monitor, at_millis: u64) -> f64 {
    seconds(monitor.recent().now_millis().saturating_sub(at_millis))
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn state(session: &SessionState, is_stopping: bool, causes: &[Cause]) -> InstanceCondition {
    match session {
        _ if is_stopping => InstanceCondition::Draining,
        SessionState::Between(_) => InstanceCondition::NoSession,
        SessionState::Obstructed => InstanceCondition::Stalled,
        SessionState::StandingBy => InstanceCondition::StandingBy,
        SessionState::Paused { .. } => InstanceCondition::Paused,
        SessionState::Working if causes.is_empty() => InstanceCondition::Publishing,
        SessionState::Working => InstanceCondition::Stalled,
    }
}

/// What is not well. Without a session the lease is gone, too: that is said once.
fn causes(health: &Health, trouble: Option<&str>) -> Vec<Cause> {
    let checks = health.ready();
    let is_without_session =
        checks.iter().any(|check| check.name == "postgres" && !check.is_well());
    let is_told =
        |check: &HealthCheck| !(check.is_well() || check.name == "lease" && is_without_session);
    checks.into_iter().filter(is_told).map(|check| cause(check, trouble)).collect()
}

fn cause(check: HealthCheck, trouble: Option<&str>) -> Cause {
    let words = match (check.name.as_str(), trouble) {
        ("kafka", _) => format!("{}: {}", check.words, trouble.unwrap_or(NO_ANSWER_OF_BROKERS)),
        ("shards", Some(trouble)) => format!("{}: {trouble}", check.words),
        _ => check.words,
    };
    let fix = check.remedy.unwrap_or_else(|| fix(&check.name).to_owned());
    Cause { what: check.name, since_seconds: check.since_millis.map(seconds), words, fix }
}

fn fix(check: &str) -> &'static str {
    match check {
        "postgres" => {
            "check that PostgreSQL runs, lets postrider in, and that nobody holds locks on its tables; postrider goes \
             on by itself"
        }
        "lease" => "check PostgreSQL's load and the network to it; postrider joins again by itself",
        "kafka" => {
            "check that the brokers run, and that the network lets us through; nothing is lost, and postrider goes on \
             by itself"
        }
        _ => "the log has the cause; `postrider check` looks at both sides",
    }
}

fn capture(monitor: &Monitor, mode: String) -> InstanceCapture {
    InstanceCapture {
        mode: (!mode.is_empty()).then_some(mode),
        slot: monitor.slot().map(|slot| ReadSlot {
            retained_bytes: slot.retained_bytes,
            safe_bytes: slot.safe_bytes,
            age_seconds: slot.age_seconds,
        }),
    }
}

fn rate(monitor: &Monitor) -> Rate {
    let recent = monitor.recent();
    Rate { r#in: recent.rate_in(), out: recent.rate_out() }
}

fn age(monitor: &Monitor) -> Age {
    let recent = monitor.recent();
    Age {
        p50: recent.age_seconds(50.0),
        p99: recent.age_seconds(99.0),
        window_seconds: recent.age_window_seconds(),
    }
}

fn present(monitor: &Monitor) -> Present {
    let open_millis = monitor.figures().open_transaction_millis.load(Ordering::Relaxed);
    Present {
        behind_seconds: monitor.recent().age_seconds_now(50.0),
        open_transaction_seconds: seconds(open_millis),
        log_refusal: monitor.log_refusal(),
    }
}

fn work_time(monitor: &Monitor) -> WorkTime {
    let recent = monitor.recent();
    WorkTime { claim_ms: recent.claim_ms(), ack_ms: recent.ack_ms() }
}

fn backlog(seen: Option<&SeenBacklog>, time_to_empty_seconds: Option<f64>) -> BacklogReport {
    let oldest = seen.and_then(|seen| seen.oldest_age_seconds.values().copied().reduce(f64::max));
    let is_counted = seen.is_some_and(|seen| !seen.oldest_age_seconds.is_empty());
    BacklogReport {
        events: seen.filter(|_| is_counted).map(|seen| seen.backlog_events),
        is_lower_bound: seen.is_none_or(|seen| seen.is_lower_bound) || !is_counted,
        oldest_seconds: oldest.filter(|seconds| *seconds > 0.0),
        // Before the first look nothing is known of what waits, and nothing left would be a guess.
        time_to_empty_seconds: time_to_empty_seconds
            .filter(|seconds| seconds.is_finite() && is_counted),
        stands_still: time_to_empty_seconds.is_some_and(f64::is_infinite),
        seen_seconds_ago: None,
    }
}

fn parked_counts(seen: &SeenBacklog) -> ParkedCounts {
    let events = seen.parked.values().sum();
    ParkedCounts {
        events,
        aggregates: seen.parked_aggregates,
        oldest_seconds: (events > 0).then_some(seen.parked_oldest_age_seconds),
        by_reason: seen.parked.clone(),
    }
}

fn shards(monitor: &Monitor, words: &[Option<String>]) -> Vec<ShardReport> {
    let (dealt, recent) = (monitor.dealt(), monitor.recent());
    let shards = monitor.shards();
    let shard = |(shard, gauge): (usize, &Arc<ShardGauge>)| {
        let reading = gauge.reading();
        let words = words.get(shard).cloned().flatten();
        ShardReport {
            shard,
            buckets: dealt.get(shard).cloned().unwrap_or_default(),
            rate: recent.rate_of_shard(shard),
            in_flight_bytes: reading.in_flight_bytes,
            held: gauge.held_aggregates.load(Ordering::Relaxed),
            replaced: reading.begun_anew,
            state: match (&words, reading.has_work) {
                (Some(_), _) => ShardCondition::Stalled,
                (None, true) => ShardCondition::Publishing,
                (None, false) => ShardCondition::Idle,
            },
            words,
        }
    };
    shards.iter().enumerate().map(shard).collect()
}

fn own_buckets(monitor: &Monitor, name: &str) -> Vec<BucketReport> {
    let is_own = |bucket: &&BucketReport| bucket.owner.as_deref() == Some(name);
    let seen = monitor.tier().filter(|_| monitor.session() == SessionState::Working);
    seen.map(|seen| seen.tier.buckets.iter().filter(is_own).cloned().collect()).unwrap_or_default()
}
