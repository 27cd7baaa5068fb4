//! Reading the log: everything once, switches in full flight, and a slot that is lost is healed.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use postrider_testkit::audit::Fate;
use tokio_postgres::Client;

use crate::admin::{address, wait_for};
use crate::support::consumer::read_topic;
use crate::support::writer::{AGGREGATE_TYPE, Inserted};
use crate::support::{Bulk, Fixture, History, Patience, RelayProcess, Traffic};
use crate::told::as_relay;

const WAL: &[&str] = &["--capture", "wal", "--shards", "3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_the_stream_repeats_nothing() {
    let fixture = Fixture::new("log_stops").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    for _ in 0..3 {
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(relay.stop().await.success());
    }
    traffic.stop().await;
    let relay = RelayProcess::start(&fixture, WAL);
    fixture.wait_published().await;
    assert!(relay.stop().await.success());
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// Instances that poll already tick, too, before the reader knows that it is to stop. Its place can be
/// saved at its own ticks only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_the_stream_waits_for_a_tick_of_its_own() {
    let fixture = Fixture::new("log_ticks").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let client = fixture.client().await;
    let others = tokio::spawn(async move {
        let tick = "select pg_logical_emit_message(true, 'postrider.tick', '')";
        while client.batch_execute(tick).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    for _ in 0..3 {
        let relay = RelayProcess::start(&fixture, WAL);
        relay.wait_until_it_says("reading the log").await;
        traffic.commits_more(200).await;
        relay.stop_well().await;
    }
    others.abort();
    let relay = RelayProcess::start(&fixture, WAL);
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_reader_lose_nothing_and_the_others_take_over() {
    let fixture = Fixture::new("log_kills").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 4).await;
    let mut reader = RelayProcess::start(&fixture, WAL);
    reader.wait_until_it_says("reading the log").await;
    for _ in 0..3 {
        let next = RelayProcess::start(&fixture, WAL);
        next.wait_until_it_says("standing by").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        reader.kill();
        next.wait_until_it_says("reading the log").await;
        reader = next;
    }
    let verdict = traffic.finish([reader], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// Rows that `copy` or one statement has written: the server gives many of them one position in the WAL.
async fn copy_rows(client: &Client, first: u64, rows: u64) -> Vec<Inserted> {
    let command = "copy outbox (id, aggregatetype, aggregateid, type, payload) from stdin";
    let mut sink = std::pin::pin!(client.copy_in(command).await.expect("the superuser may"));
    let (mut text, mut written) = (String::new(), Vec::new());
    for number in first..first + rows {
        let (id, aggregate) = (uuid::Uuid::new_v4(), format!("copied-{}", number % 50));
        text.push_str(&format!(
            "{id}\t{AGGREGATE_TYPE}\t{aggregate}\tChanged\t{{\"n\": {number}}}\n"
        ));
        written.push(Inserted { id, aggregate, number });
    }
    sink.send(bytes::Bytes::from(text)).await.expect("the session lives");
    sink.finish().await.expect("nothing is in the way of the commit");
    written
}

/// A reader that remembered a position in place of transactions would skip the rest of those that share it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_rows_of_one_position_loses_none() {
    const ROWS: u64 = 20_000;
    let fixture = Fixture::new("log_one_position").await;
    let history = History::default();
    // Little is in flight at a time, so that the kill comes in the middle.
    let arguments = [WAL, &["--max-in-flight-bytes", "64KiB"]].concat();
    let client = fixture.client().await;
    let mut cut_in_the_middle = 0;
    for round in 0..2 {
        let relay = RelayProcess::start(&fixture, &arguments);
        relay.wait_until_it_says("reading the log").await;
        history.ended(copy_rows(&client, round * ROWS, ROWS).await, Fate::Committed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        relay.kill();
        let there = read_topic(&fixture.brokers, &fixture.topic(AGGREGATE_TYPE)).len() as u64;
        cut_in_the_middle += u64::from(there > 0 && there < (round + 1) * ROWS);
    }
    let relay = RelayProcess::start(&fixture, WAL);
    fixture.wait_published().await;
    relay.stop_well().await;
    assert!(cut_in_the_middle > 0, "each kill came before the first row, or behind the last");
    let verdict = history.audit(&fixture);
    assert!(verdict.holds(), "{verdict}");
}

/// A place in the log, as a number.
async fn place(client: &Client, query: &str) -> i64 {
    let query = format!("select coalesce(({query}) - '0/0', 0)::bigint");
    client.query_one(&query, &[]).await.expect("it answers").get(0)
}

/// The server throws away the log up to what is confirmed: so what is confirmed must be saved before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_is_confirmed_no_further_than_what_is_saved() {
    const CONFIRMED: &str = "select confirmed_flush_lsn from pg_replication_slots
        where database = current_database()";
    const SAVED: &str = "select delivered_lsn from postrider.capture_slot";
    let fixture = Fixture::new("log_confirms").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    let client = fixture.client().await;
    let (mut last, mut moves) = (place(&client, CONFIRMED).await, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while moves < 10 {
        assert!(Instant::now() < deadline, "it was confirmed {moves} times only");
        let confirmed = place(&client, CONFIRMED).await;
        let saved = place(&client, SAVED).await;
        assert!(confirmed <= saved, "confirmed up to {confirmed}, but saved up to {saved}");
        moves += u32::from(confirmed > last);
        last = confirmed;
    }
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// What had committed before the slot began is not in the stream: it is polled first, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_polled_before_the_log_is_read() {
    let fixture = Fixture::new("log_backlog").await;
    let history = History::default();
    Bulk { name: "aggregate-", events: 20_000, aggregates: 100 }.write(&fixture, &history).await;
    // Slow: the slot is made long before the table is read.
    let slow = ["--max-in-flight-bytes", "1MiB", "--page-rows", "1000", "-X", "linger.ms=200"];
    let relay = RelayProcess::start(&fixture, &[WAL, &slow].concat());
    fixture.wait_published().await;
    relay.wait_until_it_says("reading the log").await;
    relay.stop_well().await;
    let verdict = history.audit(&fixture);
    assert!(verdict.holds_without_repeats(), "{verdict}");
}

/// The stream goes on without a word when its publication lacks the table, and so do the ticks in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_leaves_the_publication_under_the_reader_loses_nothing() {
    let fixture = Fixture::new("log_unpublished").await;
    let history = History::default();
    let traffic = Traffic::start(&fixture, &history, 2).await;
    let relay = RelayProcess::start(&fixture, WAL);
    relay.wait_until_it_says("reading the log").await;
    traffic.commits_more(200).await;
    let lack = "alter publication postrider drop table outbox";
    fixture.client().await.batch_execute(lack).await.expect("the superuser may");
    traffic.commits_more(200).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// A publication that the relay may not make again is told where people look, with what helps; the table is polled
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_gone_is_told() {
    let fixture = Fixture::new("log_no_publication").await;
    let client = fixture.client().await;
    let relays = as_relay(&fixture, &client).await;
    let run = |arguments: &[&str]| {
        let output = fixture.command().args(arguments).output().expect("the binary runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let insert = "insert into outbox (aggregatetype, aggregateid, type) values ('thing', 'a', 'T')";
    let said = run(&["capture", "switch", "wal", "--no-wait"]);
    assert!(said.contains("the publication is there"), "{said}");
    let relay = RelayProcess::start(&relays, &["--admin-listen", "127.0.0.1:0"]);
    relay.wait_until_it_says("reading the log").await;
    let said = run(&["capture", "show"]);
    assert!(!said.contains("gap "), "{said}");
    client.batch_execute("drop publication postrider").await.expect("it is there");
    client.batch_execute(insert).await.expect("an insert never fails");
    let patience = Patience::until("the gap is told");
    let said = loop {
        let said = run(&["capture", "show"]);
        if said.contains("gap ") {
            break said;
        }
        patience.pause().await;
    };
    assert!(said.contains("run `postrider capture switch wal` as a role that does"), "{said}");
    assert!(!said.contains("nothing needs to be done"), "{said}");
    let polled = "the table is polled, as the log cannot be read: cannot make the publication";
    wait_for(&address(&relay).await, "/api/v1/status", polled).await;
    let said = run(&["check"]);
    assert!(said.contains("wal: the table is polled until its log can be read"), "{said}");
    fixture.wait_published().await;
    let said = run(&["capture", "switch", "wal"]);
    assert!(said.contains("the publication is there"), "{said} {}", relay.said());
    client.batch_execute(insert).await.expect("an insert never fails");
    fixture.wait_published().await;
    let patience = Patience::until("the log is read again");
    while run(&["capture", "show"]).contains("gap ") {
        patience.pause().await;
    }
    relay.stop_well().await;
}
