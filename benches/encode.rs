//! What it costs to make a record of an event, and to know its size.
//!
//! Promises: the encoder is warm, as it is in a pipeline. Must not: copy the record anywhere.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postrider::event::{Event, EventId, EventPlace};
use postrider::record::encode::size_bytes;
use postrider::record::encode::{AddedHeader, Encoder};
use postrider::record::topic::DEFAULT_TOPIC_TEMPLATE;

fn event<'a>(payload: &'a [u8], headers: Option<&'a str>) -> Event<'a> {
    Event {
        seq: 1,
        id: EventId([0x5a; 16]),
        aggregate_type: "order",
        aggregate_id: "customer-4711",
        kind: "OrderPlaced",
        payload: Some(payload),
        headers,
        created_at_micros: 1_795_466_121_219_663,
    }
}

/// A headers column as PostgreSQL writes it.
fn headers(count: usize) -> Option<String> {
    let member = |index| format!(r#""header-{index}": "4bf92f3577b34da6-{index}""#);
    let members: Vec<String> = (0..count).map(member).collect();
    (count > 0).then(|| format!("{{{}}}", members.join(", ")))
}

fn encoder() -> Encoder {
    Encoder::new(DEFAULT_TOPIC_TEMPLATE.parse().expect("a legal template"))
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for payload_bytes in [200, 10_000] {
        let payload = vec![b'x'; payload_bytes];
        for count in [0, 2, 10] {
            let headers = headers(count);
            let event = event(&payload, headers.as_deref());
            let mut encoder = encoder();
            let id = BenchmarkId::new(format!("{payload_bytes}_bytes"), format!("{count}_headers"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let record = encoder
                        .encode(black_box(&event), EventPlace::default())
                        .expect("publishable");
                    black_box(record).header_count()
                });
            });
        }
    }
    group.finish();
}

fn added(criterion: &mut Criterion) {
    let event = event(b"{}", None);
    let place = EventPlace { seq: Some(48_000_000_000), position: Some(90_000_000_000 << 32 | 17) };
    for (name, added) in [
        ("encode_with_created_at", vec![AddedHeader::CreatedAt]),
        ("encode_with_seq_and_position", vec![AddedHeader::Seq, AddedHeader::Position]),
    ] {
        let mut encoder = encoder().with_headers(added.into_iter().collect());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                encoder.encode(black_box(&event), place).expect("publishable").header_count()
            });
        });
    }
}

fn size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_size");
    for count in [0, 10] {
        let headers = headers(count);
        let event = event(b"{}", headers.as_deref());
        let mut encoder = encoder();
        let record = encoder.encode(&event, EventPlace::default()).expect("publishable");
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| size_bytes(black_box(&record)));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, added, size);
criterion_main!(benches);
