//! The ledger: what a batch costs on its way in and out.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postrider::event::Bucket;
use postrider::order::cursor::{Cursor, CursorGroup, GroupCursor};
use postrider::order::ledger::{Ledger, Limit};

const BATCHES_PER_PAGE: u64 = 10;
const EVENTS_PER_BATCH: u64 = 512;

fn pages(criterion: &mut Criterion) {
    let cursor_group: CursorGroup = (0..16).map(Bucket).collect::<Vec<_>>().into();
    let place = GroupCursor { cursor_group, cursor: Cursor::initial() };
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCHES_PER_PAGE * EVENTS_PER_BATCH));
    for in_flight_pages in [1_usize, 64] {
        group.bench_function(format!("page with {in_flight_pages} before it"), |bencher| {
            let mut ledger = Ledger::new(Limit { bytes: usize::MAX, batches: usize::MAX });
            let mut waiting = std::collections::VecDeque::new();
            bencher.iter(|| {
                ledger.open_page();
                let batches: Vec<_> = (0..BATCHES_PER_PAGE)
                    .map(|_| ledger.add_batch(EVENTS_PER_BATCH, 200_000))
                    .collect();
                ledger.close_page(GroupCursor::clone(&place));
                waiting.push_back(batches);
                if waiting.len() > in_flight_pages {
                    for batch in waiting.pop_front().expect("one was pushed") {
                        ledger.acknowledge(batch);
                    }
                }
                black_box(ledger.next_finished())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
