//! The claim keeps its plan: an index scan per leaf, merged, whatever the statistics say.

use std::sync::Arc;

use postrider::capture::table::claim::{PageReading, claim_sql};
use postrider::event::Bucket;
use postrider::order::cursor::CursorGroup;
use tokio_postgres::GenericClient;

use crate::support::servers::kafka;
use crate::support::{Fixture, RelayProcess, start_postgres};

const WAITS: &str = include_str!("../../sql/queries/table_waits.sql");
const FLOOR: &str = include_str!("../../sql/queries/cursor_floor.sql");
const WAITS_SESSION: &str = include_str!("../../sql/queries/leaf_session.sql");
const SESSION: &str = include_str!("../../sql/queries/claim_session.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_uses_the_index_with_empty_stale_and_fresh_statistics() {
    let fixture = Fixture::new("claim_plan").await;
    let client = fixture.client().await;
    client.batch_execute("analyze outbox").await.expect("the table is there");
    assert_plan(&fixture, "statistics of an empty table").await;
    fill(&client, 20_000).await;
    assert_plan(&fixture, "statistics older than the rows").await;
    client.batch_execute("analyze outbox").await.expect("the table is there");
    assert_plan(&fixture, "fresh statistics").await;
    client.batch_execute("truncate outbox").await.expect("the table is there");
    assert_plan(&fixture, "statistics of rows that are gone").await;
}

/// Rows that are published already are not read again, however many the table keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_look_for_rows_that_wait_uses_the_index() {
    let fixture = Fixture::new("waits_plan").await;
    let client = fixture.client().await;
    fill(&client, 20_000).await;
    let sql = waits_sql();
    let waits = async || client.query_one(&sql, &[]).await.expect("it is valid").get::<_, bool>(0);
    assert!(waits().await);
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    assert!(!waits().await);
    client.batch_execute(WAITS_SESSION).await.expect("the settings exist");
    let explain = format!("explain (analyze, costs off, timing off, summary off) {sql}");
    let rows = client.query(&explain, &[]).await.expect("it can be explained");
    let plan: String = rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    let scans: Vec<&str> = plan.lines().filter(|line| line.contains(" on outbox_b")).collect();
    let tree = "select count(*) from pg_partition_tree('outbox') where isleaf";
    let leaves: i64 = client.query_one(tree, &[]).await.expect("it is a table").get(0);
    assert_eq!(scans.len() as i64, leaves, "{plan}");
    let rows_of = |scan: &str| -> u32 {
        let (_, rest) = scan.split_once("rows=").expect("it was run");
        rest.split(' ').next().and_then(|rows| rows.parse().ok()).expect("a number")
    };
    let mut read = 0;
    for scan in scans {
        assert!(scan.contains("Index Scan using"), "{scan}\n{plan}");
        read += rows_of(scan);
    }
    // A little below the place of the cursors, too: setval leaves no trace.
    assert!(read <= 256, "it reads {read} rows that are published:\n{plan}");
    assert_eq!(plan.matches("Index Cond: (seq > ").count() as i64, leaves, "{plan}");
}

/// Its place lies far below what the cursors have passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_transaction_that_ends_late_is_seen_to_wait() {
    let fixture = Fixture::new("waits_late").await;
    let (mut late, client) = (fixture.client().await, fixture.client().await);
    let transaction = late.transaction().await.expect("the session lives");
    fill(&transaction, 1).await;
    fill(&client, 500).await;
    let relay = RelayProcess::start(&fixture, &[]);
    fixture.wait_published().await;
    relay.stop_well().await;
    let sql = waits_sql();
    let waits = async || client.query_one(&sql, &[]).await.expect("it is valid").get::<_, bool>(0);
    assert!(!waits().await);
    transaction.commit().await.expect("nothing is in the way of the commit");
    assert!(waits().await);
}

fn waits_sql() -> String {
    WAITS.replace("{floor}", FLOOR)
}

async fn fill(client: &impl GenericClient, events: i32) {
    let sql = "insert into outbox (aggregatetype, aggregateid, type, payload)
               select 'thing', n::text, 'Made', '{}' from generate_series(1, $1::int) n";
    client.execute(sql, &[&events]).await.expect("an insert never fails");
}

/// A new session each time, as the relay's after a reconnect; six executions, because PostgreSQL
/// may change its mind about a prepared statement after five.
async fn assert_plan(fixture: &Fixture, when: &str) {
    let client = fixture.client().await;
    let outbox =
        postrider::control::migrate::load(&client, &"public.outbox".parse().expect("a name"))
            .await
            .expect("it was migrated");
    let cursor_group: CursorGroup = Arc::from((0..outbox.buckets).map(Bucket).collect::<Vec<_>>());
    client.batch_execute(SESSION).await.expect("the settings exist");
    let claim = claim_sql(&outbox, &cursor_group, PageReading::Plain, 8 << 20);
    let prepare =
        format!("prepare claim (bigint, bigint, pg_snapshot, pg_snapshot, bigint) as {claim}");
    client.batch_execute(&prepare).await.expect("the claim is valid");
    let execute = "execute claim (10, 15000, '3:3:', '900000:900000:', 5000)";
    let mut plan = String::new();
    for _ in 0..6 {
        client.batch_execute(execute).await.expect("the claim runs");
        let rows = client
            .query(&format!("explain (costs off) {execute}"), &[])
            .await
            .expect("the claim can be explained");
        plan = rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    }
    let leaves = 3 * usize::from(outbox.buckets);
    assert_eq!(plan.matches("Index Scan using").count(), leaves, "{when}:\n{plan}");
    assert_eq!(plan.matches("Index Cond: ((seq >= ").count(), leaves, "{when}:\n{plan}");
    assert!(plan.contains("Merge Append"), "{when}:\n{plan}");
    for wrong in ["Seq Scan", "Bitmap", "Sort Method", "->  Sort"] {
        assert!(!plan.contains(wrong), "{when}: {wrong}\n{plan}");
    }
}

/// A tick whose upper bound is read before its snapshot hides what is drawn and committed in between; the
/// moment is too short to be hit, so that the server's own log tells the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_reads_floor_then_snapshot_then_ceiling() {
    let settings = [("log_statement", "all"), ("log_line_prefix", "%a|")];
    let postgres = start_postgres(&settings);
    let url = postgres.url("tick_order");
    let brokers = kafka().brokers();
    let fixture = Fixture::on("tick_order", &postgres.url("postgres"), url, brokers).await;
    let relay = RelayProcess::start(&fixture, &["--shards", "1"]);
    fill(&fixture.client().await, 10).await;
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let log = std::fs::read_to_string(postgres.log_file()).expect("the log is readable");
    let is_ticks = |line: &&str| line.starts_with("postrider ticker|") && line.contains("execute ");
    let steps: String = log
        .lines()
        .filter(is_ticks)
        .map(|line| match line {
            _ if line.contains("-- Purpose: the tick:") => 't',
            _ if line.contains("-- Purpose: the last value that") => 'd',
            _ => '.',
        })
        .collect();
    assert!(steps.contains("dtd"), "{steps}");
    assert!(steps.split("dtd").all(|rest| !rest.contains(['d', 't'])), "{steps}");
}
