//! One large transaction in the log.

use postrider_testkit::audit::Fate;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::start_relay;
use crate::support::servers::{kafka, start_postgres};
use crate::support::writer::{AGGREGATE_TYPE, Inserted, insert_event};
use crate::support::{Capture, Fixture, History};

const ROWS: u64 = 1_000_000;
/// With the least memory for decoding, PostgreSQL writes each transaction to its disk first.
const ROWS_ON_DISK: u64 = 30_000;
const PIECE_ROWS: u64 = 100_000;
const AGGREGATES: u64 = 1_000;
/// As in `backlog`: a debug build with librdkafka's queue.
const MEMORY_KILOBYTES_MAX: u64 = 150 * 1024;

async fn insert_piece(client: &impl GenericClient, first: u64, rows: u64) -> Vec<Inserted> {
    let numbers: Vec<i64> = (first..first + rows).map(u64::cast_signed).collect();
    let ids: Vec<Uuid> = numbers.iter().map(|_| Uuid::new_v4()).collect();
    let insert = "insert into outbox (id, aggregatetype, aggregateid, type, payload)
        select id, $1, 'large-' || (n % $2), 'Changed',
            json_build_object('n', n, 'pad', repeat('x', 150))
        from unnest($3::uuid[], $4::bigint[]) as given (id, n)";
    let aggregates = AGGREGATES.cast_signed();
    client
        .execute(insert, &[&AGGREGATE_TYPE, &aggregates, &ids, &numbers])
        .await
        .expect("an insert never fails");
    let event = |(id, n): (&Uuid, &i64)| Inserted {
        id: *id,
        aggregate: format!("large-{}", n.cast_unsigned() % AGGREGATES),
        number: n.cast_unsigned(),
    };
    ids.iter().zip(&numbers).map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_is_streamed_in_bounded_memory() {
    // A server of its own: making a slot waits for the large transaction, whoever makes it.
    let postgres = start_postgres(&[]);
    let (admin, url) = (postgres.url("postgres"), postgres.url("log_large"));
    let fixture = Fixture::on("log_large", &admin, url, kafka().brokers()).await;
    let history = History::default();
    let relay = start_relay(&fixture, Capture::Wal).await;
    let (mut large, others) = (fixture.client().await, fixture.client().await);
    let transaction = large.transaction().await.expect("the session lives");
    let mut written = Vec::new();
    for first in (0..ROWS).step_by(PIECE_ROWS as usize) {
        written.extend(insert_piece(&transaction, first, PIECE_ROWS).await);
        // Whatever others write meanwhile does not wait for the large one.
        history.ended(vec![insert_event(&others, "other", first).await], Fate::Committed);
        fixture.wait_published().await;
    }
    transaction.commit().await.expect("nothing is in the way of the commit");
    history.ended(std::mem::take(&mut written), Fate::Committed);
    fixture.wait_published().await;

    let least = "alter database log_large set logical_decoding_work_mem = '64kB'";
    others.batch_execute(least).await.expect("the superuser may");
    let cut = "select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = current_database() and active";
    others.batch_execute(cut).await.expect("the superuser may");
    history.ended(insert_piece(&large, ROWS, ROWS_ON_DISK).await, Fate::Committed);
    history.ended(vec![insert_event(&others, "other", ROWS).await], Fate::Committed);
    fixture.wait_published().await;
    let peak = relay.peak_memory_kilobytes();
    println!("peak memory of the relay: {} MB", peak / 1024);
    relay.stop_well().await;
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}
