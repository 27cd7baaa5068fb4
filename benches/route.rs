//! What it costs to name an event's topic and to choose its partition.
//!
//! Promises: the buffer is warm, as it is in a pipeline. Must not: read the template each time.

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postrider::event::{Event, EventId};
use postrider::record::topic::{DEFAULT_TOPIC_TEMPLATE, TopicTemplate, partition};

const EVENT: Event<'_> = Event {
    seq: 1,
    id: EventId([0x5a; 16]),
    aggregate_type: "customer_order",
    aggregate_id: "customer-4711",
    kind: "OrderPlaced",
    payload: None,
    headers: None,
    created_at_micros: 0,
};

fn render(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic_render");
    for template in [DEFAULT_TOPIC_TEMPLATE, "{aggregatetype}.{type}", "events"] {
        let parsed: TopicTemplate = template.parse().expect("a legal template");
        let mut buffer = String::new();
        group.bench_function(BenchmarkId::from_parameter(template), |bencher| {
            bencher.iter(|| {
                parsed.render(black_box(&EVENT), &mut buffer).map(str::len).expect("a legal name")
            });
        });
    }
    group.finish();
}

fn choose_partition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    let twelve = NonZeroU32::new(12).expect("not zero");
    for bytes in [8, 36, 1000] {
        let key = vec![b'k'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| partition(black_box(&key), black_box(twelve)));
        });
    }
    group.finish();
}

criterion_group!(benches, render, choose_partition);
criterion_main!(benches);
