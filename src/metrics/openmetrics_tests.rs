use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::*;
use crate::metrics::counters::{BucketCounts, PromotionReadiness, SlotFigures};
use crate::metrics::health::SessionState;
use crate::metrics::seen::SeenBacklog;

/// One of which everything is known.
fn full() -> Arc<Monitor> {
    let monitor = Arc::new(Monitor::default());
    monitor.shard(1).published.store(7, Ordering::Relaxed);
    monitor.shard(0).in_flight_bytes.store(512, Ordering::Relaxed);
    monitor.set_session(SessionState::Working);
    monitor.set_slot(Some(SlotFigures {
        retained_bytes: 4096,
        safe_bytes: Some(9),
        age_seconds: 3,
        promotion: Some(PromotionReadiness::NotReady),
    }));
    monitor.set_buckets(BucketCounts { owned: 5, free: 1 });
    monitor.look_at_counts(9_000);
    monitor.set_seen(Some(SeenBacklog {
        at_millis: 2_500,
        oldest_age_seconds: BTreeMap::from([(0, 0.25), (3, 0.0)]),
        backlog_events: 70,
        backlog_bytes: 7_000,
        is_lower_bound: true,
        parked: BTreeMap::from([("too-large".to_owned(), 2)]),
        parked_aggregates: 1,
        parked_oldest_age_seconds: 90.5,
        topics_held: 1,
    }));
    monitor.figures().generations_filled.store(2, Ordering::Relaxed);
    monitor.in_flight_limit_bytes.store(1 << 25, Ordering::Relaxed);
    let figures = monitor.figures();
    figures.event_age.record(30_000, 100);
    for tally in [
        &figures.kafka_errors,
        &figures.producers_replaced,
        &figures.maybe_repeated,
        &figures.transactions_dropped,
        &figures.retention_blocked,
        &monitor.sessions_ended,
        &monitor.sessions_unopened,
        &monitor.buckets_taken,
    ] {
        tally.add("a \"quoted\" \\ label", 3);
    }
    let readings = crate::metrics::health::Readings {
        session: SessionState::Working,
        lease_left_millis: Some(6_100),
        ..Default::default()
    };
    monitor.health().look(readings);
    monitor
}

#[test]
fn all_figures_are_written() {
    let text = text(full()).expect("it can be written");
    for line in [
        "postrider_events_published_total{shard=\"1\"} 7",
        "postrider_events_published_total{shard=\"0\"} 0",
        "postrider_in_flight_bytes{shard=\"0\"} 512",
        "postrider_working 1",
        "postrider_slot_retained_bytes 4096",
        "postrider_slot_age_seconds 3",
        "postrider_event_age_seconds_bucket{le=\"0.025\"} 0",
        "postrider_event_age_seconds_bucket{le=\"0.05\"} 100",
        "postrider_event_age_seconds_bucket{le=\"+Inf\"} 100",
        "postrider_event_age_seconds_count 100",
        "postrider_event_age_seconds_sum 3.0",
        "postrider_bucket_oldest_age_seconds{bucket=\"0\"} 0.25",
        "postrider_backlog_is_lower_bound 1",
        "postrider_buckets{state=\"free\"} 1",
        "postrider_parked_events{reason=\"too-large\"} 2",
        "postrider_lease_remaining_seconds 6.1",
        "postrider_kafka_errors_total{code=\"a \\\"quoted\\\" \\\\ label\"} 3",
        "postrider_lease_lost_total 0",
        "postrider_backlog_look_age_seconds 6.5",
        "postrider_time_to_empty_seconds 0.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} in {text}");
    }
    assert!(text.contains("postrider_build_info{version="), "{text}");
}

#[test]
fn a_pause_and_the_readiness_for_a_promotion_are_told() {
    let monitor = full();
    let has = |line: &str| {
        let text = text(Arc::clone(&monitor)).expect("it can be written");
        text.lines().any(|written| written == line)
    };
    assert!(has("postrider_paused 0") && has("postrider_slot_ready_for_promotion 0"));
    let slot =
        |promotion| SlotFigures { retained_bytes: 0, safe_bytes: None, age_seconds: 0, promotion };
    monitor.set_slot(Some(slot(Some(PromotionReadiness::Ready))));
    assert!(has("postrider_slot_ready_for_promotion 1"));
    monitor.set_slot(Some(slot(None)));
    assert!(
        !has("postrider_slot_ready_for_promotion 0")
            && !has("postrider_slot_ready_for_promotion 1")
    );
    monitor.set_session(SessionState::Paused { reason: "a new broker".to_owned() });
    assert!(has("postrider_paused 1") && has("postrider_working 1"));
}

#[test]
fn what_is_not_known_is_left_out() {
    let text = text(Arc::new(Monitor::default())).expect("it can be written");
    for absent in ["slot", "backlog", "bucket=", "lease_remaining", "time_to_empty", "limit_bytes"]
    {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    assert!(text.contains("\npostrider_working 0\n"), "{text}");
}

/// What differs from build to build, and from moment to moment.
const ITS_OWN: [&str; 2] = ["postrider_build", "process_"];

/// `just openmetrics` has this text read by the parser of Prometheus' own client library.
#[test]
fn the_text_is_the_one_that_another_programs_parser_reads() {
    let text = text(full()).expect("it can be written");
    let is_own = |line: &&str| ITS_OWN.iter().any(|name| line.contains(name));
    let lines: Vec<&str> = text.lines().filter(|line| !is_own(line)).collect();
    let written = format!("{}\n", lines.join("\n"));
    let known = include_str!("figures.txt");
    assert!(written == known, "write this into src/metrics/figures.txt:\n{written}");
}

/// Name, with what its kind adds, and labels, of a row of the table in docs/metrics.md.
fn documented() -> BTreeMap<String, Vec<String>> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let named = rows.filter_map(|row| row.split_once('`'));
    let named = named.filter(|(name, _)| name.contains('_'));
    let split = |(name, _): (&str, &str)| {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        (name.to_owned(), labels.map(|label| label.trim().to_owned()).collect())
    };
    named.map(split).collect()
}

#[test]
fn the_page_tells_of_each_figure_and_of_no_other() {
    let mut documented = documented();
    for family in CATALOGUE {
        let suffix = match family.kind {
            FigureKind::Counter => "_total",
            FigureKind::Info => "_info",
            FigureKind::Gauge | FigureKind::Histogram => "",
        };
        let name = format!("{}{suffix}", family.name);
        let labels = documented.remove(&name);
        let labels = labels.unwrap_or_else(|| panic!("docs/metrics.md does not tell of {name}"));
        assert_eq!(labels, family.labels, "{name}");
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{name}");
    }
    assert!(documented.is_empty(), "docs/metrics.md tells of {documented:?}");
}

#[test]
fn each_family_has_what_it_says() {
    let monitor = full();
    for family in CATALOGUE {
        let samples = family.read(&monitor);
        if !family.name.starts_with("process_") {
            assert!(!samples.is_empty(), "{}", family.name);
        }
        for sample in samples {
            let labels: Vec<&str> = sample.labels.iter().map(|(label, _)| *label).collect();
            assert_eq!(labels, family.labels, "{}", family.name);
        }
    }
}
