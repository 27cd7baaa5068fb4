//! What the figures cost: what is counted per event, batch and page, and what is looked at meanwhile, as a share of the CPU
//! that a relay takes for its events.
//!
//! Each part runs alone, in rounds, and the cheapest round counts: whatever else the machine does is left out of it. A share
//! of turns of a whole relay would be smaller than what two turns differ by themselves.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postrider::metrics::counters::Monitor;
use postrider::metrics::health::{Readings, SessionState};
use postrider::metrics::openmetrics;
use postrider::metrics::progress::ShardProgress;

/// What a relay takes for an event where it takes least: in a drain (docs/benchmarks.md).
const RELAY_NANOS_PER_EVENT: f64 = 2_200.0;
/// Fewer than a batch has in any run that was measured: so its share is rather too large.
const EVENTS_PER_BATCH: f64 = 20.0;
const BATCHES_PER_PAGE: f64 = 10.0;
const EVENTS_PER_SECOND: f64 = 100_000.0;
/// The relay looks at itself twice a second; a Prometheus that is in a hurry asks each five seconds.
const LOOKS_PER_SECOND: f64 = 2.0;
const SCRAPES_PER_SECOND: f64 = 0.2;
const SHARDS: usize = 2;
const ROUNDS: u32 = 20;

/// Nanoseconds of the cheapest round, for one time.
fn nanos(times: u32, mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        (0..times).for_each(|_| work());
        began.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn per_event() -> f64 {
    let (oldest, mut created) = (AtomicI64::new(i64::MAX), 0_i64);
    nanos(1_000_000, || {
        created += 1;
        black_box(oldest.fetch_min(black_box(created), Ordering::Relaxed));
    })
}

fn per_batch(monitor: &Monitor) -> f64 {
    let gauge = monitor.shard(0);
    nanos(100_000, || {
        let sent = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        gauge.acknowledged.fetch_add(1, Ordering::Relaxed);
        gauge.published.fetch_add(20, Ordering::Relaxed);
        gauge.instance.publish.record(took, 1);
        gauge.instance.event_age.record(now.subsec_micros().into(), 20);
        gauge.get_on(ShardProgress::acknowledge);
        gauge.in_flight_bytes.store(took, Ordering::Relaxed);
        gauge.in_flight_events.store(took, Ordering::Relaxed);
        gauge.held_aggregates.store(took, Ordering::Relaxed);
        gauge.has_work.store(true, Ordering::Relaxed);
    })
}

fn per_page(monitor: &Monitor) -> f64 {
    let gauge = monitor.shard(0);
    nanos(100_000, || {
        let began = Instant::now();
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        gauge.instance.claim.record(took, 1);
        gauge.instance.tick.record(took, 1);
        gauge.instance.cursor_save.record(took, 1);
        gauge.get_on(ShardProgress::finish_page);
        gauge.position.fetch_add(1, Ordering::Relaxed);
        gauge.remaining.store(took, Ordering::Relaxed);
    })
}

fn look(monitor: &Monitor) -> f64 {
    let mut millis = 0;
    nanos(1_000, || {
        millis += 500;
        monitor.look_at_counts(millis);
        monitor.health().look(Readings {
            now_millis: millis,
            session: SessionState::Working,
            lease_left_millis: Some(8_000),
            lease_millis: 10_000,
            shards: monitor.shards().iter().map(|shard| shard.reading()).collect(),
            threads: monitor.figures().threads.heard(),
            tasks: monitor.figures().tasks.heard(),
            ..Readings::default()
        });
    })
}

fn scrape(monitor: &Arc<Monitor>) -> f64 {
    nanos(100, || {
        black_box(openmetrics::text(Arc::clone(monitor)).expect("it is written"));
    })
}

fn main() {
    let monitor = Arc::new(Monitor::default());
    (0..SHARDS).for_each(|shard| drop(monitor.shard(shard)));
    let (event, batch, page) = (per_event(), per_batch(&monitor), per_page(&monitor));
    let (look, scrape) = (look(&monitor), scrape(&monitor));
    let each = event + batch / EVENTS_PER_BATCH + page / (EVENTS_PER_BATCH * BATCHES_PER_PAGE);
    let second = Duration::from_secs(1).as_nanos() as f64;
    let still = LOOKS_PER_SECOND * look + SCRAPES_PER_SECOND * scrape;
    let busy = RELAY_NANOS_PER_EVENT * EVENTS_PER_SECOND;
    let share = 100.0 * (each * EVENTS_PER_SECOND + still) / busy;
    let said = format!(
        "event {event:.1} ns, batch {batch:.0} ns, page {page:.0} ns: {each:.1} ns per event\n\
         look {:.1} µs, scrape {:.0} µs\n\
         at {EVENTS_PER_SECOND}/s: {share:.2} % of the relay's CPU; at rest: {:.4} % of a core\n",
        look / 1e3,
        scrape / 1e3,
        100.0 * still / second,
    );
    std::io::stdout().write_all(said.as_bytes()).expect("somebody reads it");
}
