//! What a tick costs, and what a cursor asks of it.
//!
//! Promises: half of the open transactions are known to the tick before, half are new. Must not:
//! count the making of the observation.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use postrider::order::cursor::Cursor;
use postrider::order::snapshot::Snapshot;
use postrider::order::tick::{Observation, Probe, Tick};

const OPEN: [u64; 2] = [10, 200];

/// Listed: every second id of `first..last`, the odd ones, so that a tick sees the one before, whose id is
/// even; running unlisted: ten ids from `xmax` on.
fn observe(first: u64, last: u64, floor: i64) -> Observation {
    let listed = (first + 1..last).step_by(2).collect();
    let snapshot = Snapshot::new(first + 1, last, listed).expect("well-formed");
    Observation { floor, snapshot, next: last + 10, ceiling: floor + 100, storage: 1 }
}

/// A tick with `open` listed transactions, and what is observed after half of them ended.
fn ticks(open: u64) -> (Tick, Observation) {
    let before =
        Tick::follow(&Tick::first(), observe(1000, 1000 + open, 1000)).expect("one history");
    let previous =
        Tick::follow(&before, observe(1000, 1020 + 2 * open, 2000)).expect("one history");
    let observed = observe(1000 + open, 1040 + 3 * open, 3000);
    (previous, observed)
}

fn follow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick_follow");
    for open in OPEN {
        let (previous, observed) = ticks(open);
        group.bench_function(BenchmarkId::from_parameter(open), |bencher| {
            bencher.iter_batched(
                || observed.clone(),
                |observed| Tick::follow(black_box(&previous), observed),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn lower_bound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick_lower_bound");
    for open in OPEN {
        let (previous, observed) = ticks(open);
        let later = Tick::follow(&previous, observed).expect("one history");
        group.bench_function(BenchmarkId::from_parameter(open), |bencher| {
            bencher.iter(|| black_box(&previous).lower_bound(black_box(&later)));
        });
    }
    group.finish();
}

fn is_stale(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick_is_stale");
    for open in OPEN {
        // At rest: nothing drawn since, and all that is open drew before: every entry is looked at.
        let (mut tick, _) = ticks(open);
        tick.floor = tick.ceiling;
        let probe = Probe { drawn: tick.ceiling, snapshot: tick.snapshot.clone() };
        assert!(!tick.is_stale(&probe), "the probe must look at the whole carry");
        group.bench_function(BenchmarkId::from_parameter(open), |bencher| {
            bencher.iter(|| black_box(&tick).is_stale(black_box(&probe)));
        });
    }
    group.finish();
}

fn enter(criterion: &mut Criterion) {
    let (previous, observed) = ticks(10);
    let later = Arc::new(Tick::follow(&previous, observed).expect("one history"));
    let mut cursor = Cursor::initial();
    cursor.enter(&Arc::new(previous));
    cursor.finish();
    criterion.bench_function("cursor_enter_advance_finish", |bencher| {
        bencher.iter_batched_ref(
            || cursor.clone(),
            |cursor| {
                cursor.enter(black_box(&later));
                cursor.advance(cursor.through() - 1);
                cursor.finish();
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, follow, lower_bound, is_stale, enter);
criterion_main!(benches);
