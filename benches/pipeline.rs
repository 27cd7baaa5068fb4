//! The pipeline from memory into a producer that keeps nothing: the relay's own cost per event, without
//! PostgreSQL and without librdkafka. Channel, publishing thread, encoding, reports and ledger run as in
//! a shard.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postrider::event::{Event, EventId, LendEvent};
use postrider::metrics::counters::PublisherGauge;
use postrider::order::cursor::Cursor;
use postrider::order::ledger::{Ledger, Limit};
use postrider::publish::null::NullProducer;
use postrider::publish::send_deadline::SendDeadline;
use postrider::publish::{Batch, OnPoison, Publisher, Report};
use postrider::record::encode::Encoder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: usize = 50_000;
const EVENTS_PER_BATCH: usize = 512;
const BATCHES_MAX: usize = 64;

/// A row that shares its bytes: what is measured is the way, not the reading.
struct MemoryRow {
    seq: i64,
    payload: Arc<[u8]>,
    headers: Option<&'static str>,
}

impl LendEvent for MemoryRow {
    fn event(&self) -> Event<'_> {
        Event {
            seq: self.seq,
            id: EventId([7; 16]),
            aggregate_type: "order",
            aggregate_id: "order-4711",
            kind: "OrderPlaced",
            payload: Some(&self.payload),
            headers: self.headers,
            created_at_micros: 0,
        }
    }
}

fn relay(payload: &Arc<[u8]>, headers: Option<&'static str>) {
    let encoder = Encoder::new("outbox.event.{aggregatetype}".parse().expect("a template"));
    let send_deadline = Arc::new(SendDeadline::endless());
    let make = |reports| Ok(NullProducer::new(reports));
    let wake = Arc::default();
    let publisher = Publisher::start(
        PublisherGauge::new("bench", Arc::default()),
        BATCHES_MAX,
        encoder,
        OnPoison::Park,
        send_deadline,
        wake,
        make,
    )
    .expect("a thread can be started");
    let mut ledger = Ledger::new(Limit { bytes: usize::MAX, batches: BATCHES_MAX });
    ledger.open_page();
    let mut sent = 0;
    while sent < EVENTS {
        settle(&publisher, &mut ledger);
        if !ledger.has_room() {
            std::thread::yield_now();
            continue;
        }
        let rows: Vec<MemoryRow> = (sent..sent + EVENTS_PER_BATCH)
            .map(|seq| MemoryRow { seq: seq as i64, payload: Arc::clone(payload), headers })
            .collect();
        sent += rows.len();
        let number = ledger.add_batch(rows.len() as u64, rows.len() * payload.len());
        publisher.send(Batch { number, rows });
    }
    ledger.close_page(Cursor::initial());
    while ledger.next_finished().is_none() {
        settle(&publisher, &mut ledger);
        std::thread::yield_now();
    }
}

fn settle(publisher: &Publisher<MemoryRow>, ledger: &mut Ledger<Cursor>) {
    while let Some(report) = publisher.next_report().expect("the thread lives") {
        match report {
            Report::Delivered(number) => ledger.acknowledge(number),
            Report::Ended => unreachable!("nothing is sent in transactions"),
            Report::Failed(error) => panic!("{error}"),
        }
    }
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS as u64));
    let two_headers = Some(r#"{"traceparent": "00-ab-cd-01", "tenant": "north"}"#);
    for (name, bytes, headers) in [
        ("200 B", 200, None),
        ("200 B, 2 headers of the row", 200, two_headers),
        ("10 kB", 10_000, None),
    ] {
        let payload: Arc<[u8]> = vec![b'x'; bytes].into();
        group.bench_function(name, |bencher| bencher.iter(|| relay(&payload, headers)));
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
