//! What it costs to take an outbox row of `pgoutput` apart.
//!
//! Promises: ten values of the sizes that an outbox has. Must not: count making the input.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postrider::capture::log::pgoutput::{Message, Value, decode};

/// An Insert with the columns of an outbox, in binary form.
fn insert(payload_bytes: usize) -> Bytes {
    let sizes = [8, 8, 16, 5, 13, 11, payload_bytes, 60, 8, 2];
    let mut message = b"I\0\0\x40\x01N\0\x0a".to_vec();
    for size in sizes {
        message.push(b'b');
        message.extend(u32::try_from(size).expect("small").to_be_bytes());
        message.resize(message.len() + size, b'x');
    }
    message.into()
}

fn pgoutput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pgoutput");
    group.throughput(Throughput::Elements(1));
    for payload_bytes in [200, 10_000] {
        let message = insert(payload_bytes);
        group.bench_function(format!("insert_{payload_bytes}_bytes"), |bencher| {
            bencher.iter(|| {
                let Ok(Message::Insert { row, .. }) = decode(black_box(message.clone())) else {
                    panic!("an Insert");
                };
                row.values().filter(|value| matches!(value, Value::Binary(_))).count()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pgoutput);
criterion_main!(benches);
