//! What it costs to take an event out of a logical message.
//!
//! Promises: the texts have the sizes that an outbox has, and all parts are read. Must not: count
//! making the input.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postrider::capture::log::message::{decode, encode};
use postrider::event::{Event, EventId};

fn message(payload: &[u8]) -> Bytes {
    let event = Event {
        seq: 0,
        id: EventId(*b"0123456789abcdef"),
        aggregate_type: "order",
        aggregate_id: "order-1234567",
        kind: "OrderPlaced",
        payload: Some(payload),
        headers: Some(r#"{"source": "shop", "trace": "4bf92f3577b34da6a3ce929d0e0e4736"}"#),
        created_at_micros: 1_764_000_000_000_000,
    };
    let mut content = Vec::new();
    encode(&event, &mut content).expect("short");
    content.into()
}

fn envelope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    group.throughput(Throughput::Elements(1));
    for payload_bytes in [200, 10_000] {
        let message = message(&vec![b'x'; payload_bytes]);
        group.bench_function(format!("decode_{payload_bytes}_bytes"), |bencher| {
            bencher.iter(|| {
                let envelope = decode(black_box(message.clone())).expect("an event");
                black_box(envelope.event(1));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, envelope);
criterion_main!(benches);
