//! All figures: their names, what they are, and where each comes from.
//!
//! Promises: each is here once; `docs/metrics.md` has the same table, as a test sees. What is a figure of a bucket is told
//! by the bucket's owner alone, so that sums over instances are right. Must not: count anything itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::counters::{Monitor, PromotionReadiness};
use crate::metrics::describe::ago;
use crate::metrics::family::FigureKind::{Counter, Gauge, Histogram as Distribution, Info};
use crate::metrics::family::{Family, FigureSource, FigureValue, LabelledFigure, family};
use crate::metrics::health::SessionState;
use crate::metrics::infos::{build_labels, instance_labels};
use crate::metrics::process::ProcessFigures;
use crate::postgres;

/// All of them, in the order in which they are asked for: is it working, how far behind, what holds it, the tier,
/// PostgreSQL, Kafka, the slot, the process.
pub(super) const CATALOGUE: &[Family] = &[
    family(
        "postrider_working",
        Gauge,
        &[],
        "1 while a session works, stands by or is paused",
        FigureSource::One(|monitor| Some(FigureValue::Whole(monitor.is_working().into()))),
    ),
    family(
        "postrider_ready",
        Gauge,
        &["check"],
        "1 while this check of /readyz is well, 0 while it is not",
        FigureSource::Many(ready),
    ),
    family(
        "postrider_paused",
        Gauge,
        &[],
        "1 while people have paused publishing",
        FigureSource::One(|monitor| Some(FigureValue::Whole(is_paused(monitor).into()))),
    ),
    family(
        "postrider_events_published",
        Counter,
        &["shard"],
        "Events that Kafka has acknowledged",
        FigureSource::Shards(|gauge| &gauge.published),
    ),
    family(
        "postrider_events_parked",
        Counter,
        &["shard"],
        "Events that were set aside, each time",
        FigureSource::Shards(|gauge| &gauge.parked),
    ),
    family(
        "postrider_events_maybe_repeated",
        Counter,
        &["cause"],
        "Events that were in flight when a producer or a session ended, and may have been sent again",
        FigureSource::Tally(|monitor| &monitor.figures().maybe_repeated),
    ),
    family(
        "postrider_event_age_seconds",
        Distribution,
        &[],
        "From an event's created_at to its acknowledgement, by the database's clock; a batch counts at the age of its oldest",
        FigureSource::Histogram(|monitor| &monitor.figures().event_age),
    ),
    family(
        "postrider_publish_seconds",
        Distribution,
        &[],
        "From the sending of a batch to its last acknowledgement",
        FigureSource::Histogram(|monitor| &monitor.figures().publish),
    ),
    family(
        "postrider_bucket_oldest_age_seconds",
        Gauge,
        &["bucket"],
        "Age of the oldest event of a bucket that is neither published nor parked, told by the bucket's owner",
        FigureSource::Many(oldest_ages),
    ),
    family(
        "postrider_backlog_events",
        Gauge,
        &[],
        "Events of the own buckets that wait, but for parked ones",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.seen()?.backlog_events))),
    ),
    family(
        "postrider_backlog_bytes",
        Gauge,
        &[],
        "What the payloads and headers of these take in the table",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.seen()?.backlog_bytes))),
    ),
    family(
        "postrider_backlog_is_lower_bound",
        Gauge,
        &[],
        "1 where more events may wait than were counted",
        FigureSource::One(|monitor| {
            Some(FigureValue::Whole(monitor.seen()?.is_lower_bound.into()))
        }),
    ),
    family(
        "postrider_backlog_look_age_seconds",
        Gauge,
        &[],
        "For how long the figures of what waits and what is parked have not been looked at anew",
        FigureSource::One(|monitor| {
            let at_millis = monitor.seen()?.at_millis;
            Some(FigureValue::Seconds(ago(monitor, at_millis)))
        }),
    ),
    family(
        "postrider_time_to_empty_seconds",
        Gauge,
        &[],
        "When all that waits now will be published, by the speed of the last half minute",
        FigureSource::One(|monitor| {
            monitor.health().time_to_empty_seconds().map(FigureValue::Seconds)
        }),
    ),
    family(
        "postrider_in_flight_bytes",
        Gauge,
        &["shard"],
        "Bytes between claim and acknowledgement",
        FigureSource::Shards(|gauge| &gauge.in_flight_bytes),
    ),
    family(
        "postrider_in_flight_limit_bytes",
        Gauge,
        &[],
        "What may be in flight in all shards together (--max-in-flight-bytes)",
        FigureSource::One(|monitor| known(&monitor.in_flight_limit_bytes)),
    ),
    family(
        "postrider_unacknowledged_seconds",
        Gauge,
        &[],
        "For how long Kafka has acknowledged nothing of what is in flight",
        FigureSource::One(unacknowledged),
    ),
    family(
        "postrider_held_aggregates",
        Gauge,
        &["shard"],
        "Aggregates that wait behind a parked event",
        FigureSource::Shards(|gauge| &gauge.held_aggregates),
    ),
    family(
        "postrider_parked_events",
        Gauge,
        &["reason"],
        "Events of the own buckets that are parked",
        FigureSource::Many(parked),
    ),
    family(
        "postrider_parked_oldest_age_seconds",
        Gauge,
        &[],
        "Since when the oldest of these is parked",
        FigureSource::One(|monitor| {
            Some(FigureValue::Seconds(monitor.seen()?.parked_oldest_age_seconds))
        }),
    ),
    family(
        "postrider_topics_held",
        Gauge,
        &[],
        "Topics for which events of the own buckets wait until they can be used",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.seen()?.topics_held))),
    ),
    family(
        "postrider_open_transaction_age_seconds",
        Gauge,
        &[],
        "For how long the oldest open transaction that has written is known; its events wait for its end",
        FigureSource::One(open_transaction),
    ),
    family(
        "postrider_retention_blocked",
        Counter,
        &["cause"],
        "Attempts to empty an old partition of the outbox in whose way something was",
        FigureSource::Tally(|monitor| &monitor.figures().retention_blocked),
    ),
    family(
        "postrider_ring_generations_filled",
        Gauge,
        &[],
        "Generations, of three, of which a partition of the own buckets holds rows",
        FigureSource::One(generations_filled),
    ),
    family(
        "postrider_buckets",
        Gauge,
        &["state"],
        "Buckets that are the own ones, and such that no live instance has: every instance tells these",
        FigureSource::Many(buckets),
    ),
    family(
        "postrider_buckets_taken",
        Counter,
        &["from"],
        "Buckets that were taken, from nobody, from a dead instance, or from a former session of its own",
        FigureSource::Tally(|monitor| &monitor.buckets_taken),
    ),
    family(
        "postrider_lease_remaining_seconds",
        Gauge,
        &[],
        "Until nothing more is sent unless the lease is renewed",
        FigureSource::One(|monitor| {
            let left = monitor.health().lease_left_millis()?;
            Some(FigureValue::Seconds(left as f64 / 1_000.0))
        }),
    ),
    family(
        "postrider_lease_lost",
        Counter,
        &[],
        "Leases that ran out, or buckets that another instance took",
        FigureSource::One(|monitor| {
            Some(FigureValue::Count(monitor.leases_lost.load(Ordering::Relaxed)))
        }),
    ),
    family(
        "postrider_sessions_ended",
        Counter,
        &["kind"],
        "Sessions with PostgreSQL that have worked and ended, by the kind of error",
        FigureSource::Tally(|monitor| &monitor.sessions_ended),
    ),
    family(
        "postrider_sessions_unopened",
        Counter,
        &["kind"],
        "Attempts to begin a session with PostgreSQL that came to nothing, by the kind of error",
        FigureSource::Tally(|monitor| &monitor.sessions_unopened),
    ),
    family(
        "postrider_postgres_connections",
        Gauge,
        &[],
        "Connections to PostgreSQL that are open",
        FigureSource::One(|_| Some(FigureValue::whole(postgres::open_connections()))),
    ),
    family(
        "postrider_claim_seconds",
        Distribution,
        &[],
        "From the claim of a page to its first rows",
        FigureSource::Histogram(|monitor| &monitor.figures().claim),
    ),
    family(
        "postrider_tick_seconds",
        Distribution,
        &[],
        "One observation of the database, with its commit",
        FigureSource::Histogram(|monitor| &monitor.figures().tick),
    ),
    family(
        "postrider_cursor_save_seconds",
        Distribution,
        &[],
        "One save of cursors",
        FigureSource::Histogram(|monitor| &monitor.figures().cursor_save),
    ),
    family(
        "postrider_kafka_errors",
        Counter,
        &["code"],
        "What librdkafka told of connections and of refused records, by its code",
        FigureSource::Tally(|monitor| &monitor.figures().kafka_errors),
    ),
    family(
        "postrider_producer_replaced",
        Counter,
        &["reason"],
        "Producers that gave way to another",
        FigureSource::Tally(|monitor| &monitor.figures().producers_replaced),
    ),
    family(
        "postrider_transaction_end_seconds",
        Distribution,
        &[],
        "The end of a transaction that was committed, where events are delivered exactly once",
        FigureSource::Histogram(|monitor| &monitor.figures().transaction_end),
    ),
    family(
        "postrider_transactions_dropped",
        Counter,
        &["reason"],
        "Transactions whose producer was dropped before their end was sure",
        FigureSource::Tally(|monitor| &monitor.figures().transactions_dropped),
    ),
    family(
        "postrider_slot_retained_bytes",
        Gauge,
        &[],
        "What the server keeps of its log for the replication slot",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.slot()?.retained_bytes))),
    ),
    family(
        "postrider_slot_safe_bytes",
        Gauge,
        &[],
        "What may be written until the slot is lost, where max_slot_wal_keep_size is set",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.slot()?.safe_bytes?))),
    ),
    family(
        "postrider_slot_age_seconds",
        Gauge,
        &[],
        "Since when the slot was not confirmed further, although the log went on",
        FigureSource::One(|monitor| Some(FigureValue::whole(monitor.slot()?.age_seconds))),
    ),
    family(
        "postrider_slot_ready_for_promotion",
        Gauge,
        &[],
        "1 where the slot is ready for the promotion of a standby, 0 where it is not",
        FigureSource::One(ready_for_promotion),
    ),
    family(
        "postrider_build",
        Info,
        &["version", "revision", "librdkafka"],
        "What this program is",
        FigureSource::Many(|_| info(build_labels())),
    ),
    family(
        "postrider_instance",
        Info,
        &["instance", "capture", "delivery", "timeline"],
        "Who this instance is in the tier, and how it reads and delivers",
        FigureSource::Many(|monitor| info(instance_labels(monitor))),
    ),
    family(
        "process_cpu_seconds",
        Counter,
        &[],
        "Processor time of this process",
        FigureSource::One(|_| Some(FigureValue::Seconds(ProcessFigures::read()?.cpu_seconds))),
    ),
    family(
        "process_resident_memory_bytes",
        Gauge,
        &[],
        "Memory that is resident",
        FigureSource::One(|_| ProcessFigures::read()?.resident_bytes.map(FigureValue::whole)),
    ),
    family(
        "process_open_fds",
        Gauge,
        &[],
        "Open files and connections",
        FigureSource::One(|_| ProcessFigures::read()?.open_fds.map(FigureValue::whole)),
    ),
    family(
        "process_start_time_seconds",
        Gauge,
        &[],
        "When this process began, since 1970",
        FigureSource::One(|_| {
            Some(FigureValue::Seconds(ProcessFigures::read()?.start_time_seconds))
        }),
    ),
];

fn ready(monitor: &Monitor) -> Vec<LabelledFigure> {
    let checks = monitor.health().ready().into_iter();
    checks
        .map(|check| LabelledFigure {
            figure: FigureValue::Whole(check.is_well().into()),
            labels: vec![("check", check.name)],
        })
        .collect()
}

fn is_paused(monitor: &Monitor) -> bool {
    matches!(monitor.session(), SessionState::Paused { .. })
}

/// Known where there is a standby that could be promoted.
fn ready_for_promotion(monitor: &Monitor) -> Option<FigureValue> {
    let is_ready = monitor.slot()?.promotion? == PromotionReadiness::Ready;
    Some(FigureValue::Whole(is_ready.into()))
}

fn known(number: &AtomicU64) -> Option<FigureValue> {
    let number = number.load(Ordering::Relaxed);
    (number > 0).then(|| FigureValue::whole(number))
}

fn seconds(millis: u64) -> FigureValue {
    FigureValue::Seconds(millis as f64 / 1_000.0)
}

fn unacknowledged(monitor: &Monitor) -> Option<FigureValue> {
    Some(seconds(monitor.health().silence().map_or(0, |silence| silence.millis)))
}

/// Known while the table is polled, or its stream is.
fn open_transaction(monitor: &Monitor) -> Option<FigureValue> {
    let millis = monitor.figures().open_transaction_millis.load(Ordering::Relaxed);
    monitor.is_working().then(|| seconds(millis))
}

fn generations_filled(monitor: &Monitor) -> Option<FigureValue> {
    let filled = monitor.figures().generations_filled.load(Ordering::Relaxed);
    (monitor.is_working() && filled >= 0).then_some(FigureValue::Whole(filled))
}

fn oldest_ages(monitor: &Monitor) -> Vec<LabelledFigure> {
    let ages = monitor.seen().unwrap_or_default().oldest_age_seconds.into_iter();
    ages.map(|(bucket, age)| LabelledFigure {
        labels: vec![("bucket", bucket.to_string())],
        figure: FigureValue::Seconds(age),
    })
    .collect()
}

fn parked(monitor: &Monitor) -> Vec<LabelledFigure> {
    let parked = monitor.seen().unwrap_or_default().parked.into_iter();
    parked
        .map(|(reason, events)| LabelledFigure {
            labels: vec![("reason", reason)],
            figure: FigureValue::whole(events),
        })
        .collect()
}

fn buckets(monitor: &Monitor) -> Vec<LabelledFigure> {
    let Some(counts) = monitor.buckets() else { return Vec::new() };
    let sample = |(state, count): (&str, u64)| LabelledFigure {
        labels: vec![("state", state.to_owned())],
        figure: FigureValue::whole(count),
    };
    [("owned", counts.owned), ("free", counts.free)].map(sample).to_vec()
}

fn info(labels: Vec<(&'static str, String)>) -> Vec<LabelledFigure> {
    vec![LabelledFigure { labels, figure: FigureValue::Count(1) }]
}
