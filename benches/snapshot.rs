//! What it costs to ask a snapshot about a transaction.
//!
//! Promises: the ids that are asked for lie below, among and above the listed ones. Must not: count
//! the making of the snapshot.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use postrider::order::snapshot::Snapshot;

/// Every third id of a range is in progress.
fn snapshot(in_progress: u64) -> Snapshot {
    let listed = (0..in_progress).map(|index| 1000 + 3 * index).collect();
    Snapshot::new(1000, 1000 + 3 * in_progress + 1, listed).expect("well-formed")
}

fn sees(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot_sees");
    for in_progress in [0, 20, 200] {
        let snapshot = snapshot(in_progress);
        let span = snapshot.xmax() - snapshot.xmin() + 20;
        let mut xid = 0;
        group.bench_function(BenchmarkId::from_parameter(in_progress), |bencher| {
            bencher.iter(|| {
                xid = (xid + 7) % span;
                black_box(&snapshot).sees(990 + xid)
            });
        });
    }
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot_parse");
    for in_progress in [0, 20, 200] {
        let text = snapshot(in_progress).to_string();
        group.bench_function(BenchmarkId::from_parameter(in_progress), |bencher| {
            bencher.iter(|| black_box(&text).parse::<Snapshot>());
        });
    }
    group.finish();
}

criterion_group!(benches, sees, parse);
criterion_main!(benches);
