//! What is too large to be read: rows of the outbox, messages of others, and what is no event.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{LOG, start_relay, wait_arrived, wait_parked};
use crate::support::{Capture, Fixture, read_topic};

/// A debug build with librdkafka's buffers takes half of it at rest.
const MEMORY_KILOBYTES_MAX: u64 = 100 * 1024;
const MEBIBYTE: usize = 1024 * 1024;

async fn say(client: &Client, statement: &str) {
    client
        .batch_execute(statement)
        .await
        .unwrap_or_else(|error| panic!("{statement:.200}: {error}"));
}

/// One event in the fixture's way.
async fn emit(client: &Client, key: &str, payload: &str) {
    say(client, &format!("select postrider.emit('t', {key}, 'T', {payload})")).await;
}

/// The server sends every message of the database, whoever wrote it, and each whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_take_no_room() {
    for capture in LOG {
        let name = format!("log_foreign_{}", capture.name());
        let fixture = Fixture::new(&name).await.captured_by(capture);
        let relay = start_relay(&fixture, capture).await;
        let client = fixture.client().await;
        emit(&client, "'before'", "'{}'").await;
        let large = 150 * MEBIBYTE;
        for (scope, prefix) in [
            ("true", "'theirs'"),
            ("false", "'postrider.outboxes'"),
            ("true", "repeat('p', 70000)"),
        ] {
            let message =
                format!("select pg_logical_emit_message({scope}, {prefix}, repeat('x', {large}))");
            say(&client, &message).await;
        }
        // One that is bound to nothing, under our own prefix.
        say(
            &client,
            &format!(
                "select pg_logical_emit_message(false, 'postrider.outbox', repeat('x', {large}))"
            ),
        )
        .await;
        say(&client, "select count(pg_logical_emit_message(true, 'theirs', 'x')) from generate_series(1, 100000)").await;
        emit(&client, "'behind'", "'{}'").await;
        wait_arrived(&fixture, "t", &["before", "behind"]).await;
        let peak = relay.peak_memory_kilobytes();
        relay.stop_well().await;
        assert!(peak < MEMORY_KILOBYTES_MAX, "{}: {peak} kB", capture.name());
        let parked: i64 = client
            .query_one("select count(*) from postrider.parked", &[])
            .await
            .expect("it answers")
            .get(0);
        assert_eq!(parked, 0);
    }
}

/// It is parked by the server itself, whole, with what follows in its aggregate; the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_row_is_parked_without_being_read() {
    let fixture = Fixture::new("log_giant_row").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    emit(&client, "'large'", "'1'").await;
    let large = 150 * MEBIBYTE;
    emit(&client, "'large'", &format!("to_json(repeat('x', {large}))")).await;
    emit(&client, "'large'", "'3'").await;
    emit(&client, "'other'", "'{}'").await;
    wait_arrived(&fixture, "t", &["large", "other"]).await;
    let parked = wait_parked(&client, 2).await;
    let reasons: Vec<&str> = parked.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["too-large", "follows"]);
    assert!(parked[0].1.contains("8388608"), "{}", parked[0].1);
    let whole = "select octet_length(p.payload), p.payload = convert_to(o.payload::text, 'UTF8'), p.type, p.id = o.id
        from postrider.parked p join outbox o using (seq) where p.reason = 'too-large'";
    let row = client.query_one(whole, &[]).await.expect("it is there");
    assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(1)), (large as i32 + 2, true));
    assert_eq!((row.get::<_, &str>(2), row.get::<_, bool>(3)), ("T", true));
    fixture.wait_published_upto(1).await;
    let peak = relay.peak_memory_kilobytes();
    relay.kill();
    // Read again, it is the same one.
    let relay = start_relay(&fixture, Capture::Wal).await;
    emit(&client, "'large'", "'4'").await;
    emit(&client, "'last'", "'{}'").await;
    wait_arrived(&fixture, "t", &["last"]).await;
    assert_eq!(wait_parked(&client, 3).await.len(), 3);
    let peak = peak.max(relay.peak_memory_kilobytes());
    relay.stop_well().await;
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let large: Vec<_> = records.iter().filter(|record| record.key_text() == "large").collect();
    assert!(large.iter().all(|record| record.value.as_deref() == Some(b"1")), "nothing passes it");
}

/// GIVEN a relay that reads the log, WHEN giants are deleted by the transactions that wrote them, or while nobody reads,
/// THEN nobody waits for what is gone: each is parked by its beginning, and Kafka is not blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_row_that_is_gone_holds_nobody_up() {
    const PATIENCE: Duration = Duration::from_secs(15);
    let fixture = Fixture::new("log_giant_gone").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    let large = format!("to_json(repeat('x', {}))", 9 * MEBIBYTE);
    let began = Instant::now();
    for number in 0..3 {
        let gone = format!(
            "begin; select postrider.emit('t', 'gone{number}', 'T', {large}); delete from outbox; commit"
        );
        say(&client, &gone).await;
        emit(&client, &format!("'other{number}'"), "'{}'").await;
    }
    wait_arrived(&fixture, "t", &["other0", "other1", "other2"]).await;
    let parked = wait_parked(&client, 3).await;
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    let kept = |(reason, detail): &(String, String)| {
        reason == "too-large" && detail.contains("the row is not in the table any more")
    };
    assert!(parked.iter().all(kept), "{parked:?}");
    assert!(!relay.said().contains("Kafka acknowledges nothing"), "{}", relay.said());
    relay.stop_well().await;
    emit(&client, "'gone3'", &large).await;
    say(&client, "delete from outbox").await;
    emit(&client, "'other3'", "'{}'").await;
    let (began, relay) = (Instant::now(), start_relay(&fixture, Capture::Wal).await);
    wait_arrived(&fixture, "t", &["other3"]).await;
    assert_eq!(wait_parked(&client, 4).await.len(), 4);
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    relay.stop_well().await;
}

/// Whichever column it is, and whatever its type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_column_may_be_the_giant() {
    let fixture = Fixture::new("log_giant_columns").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let client = fixture.client().await;
    let large = format!("repeat('\u{20ac}', {})", 12 * MEBIBYTE);
    let insert = "insert into outbox (aggregatetype, aggregateid, type, payload, headers) values";
    for row in [
        format!("({large}, 'a', 'T', '{{}}', null)"),
        format!("('t', {large}, 'T', '{{}}', null)"),
        format!("('t', 'c', {large}, '{{}}', null)"),
        format!("('t', 'd', 'T', to_json({large}), null)"),
        format!("('t', 'e', 'T', '{{}}', jsonb_build_object('h', {large}))"),
        // Together they are, each of them is not.
        format!(
            "('t', 'f', 'T', to_json(repeat('x', {0})), jsonb_build_object('h', repeat('x', {0})))",
            10 * MEBIBYTE
        ),
        // And one that is not yet.
        format!(
            "('t', 'g', repeat('x', 2000), '{{}}', jsonb_build_object('h', repeat('x', {})))",
            2000
        ),
    ] {
        say(&client, &format!("{insert} {row}")).await;
    }
    wait_arrived(&fixture, "t", &["g"]).await;
    let parked = wait_parked(&client, 6).await;
    assert!(parked.iter().all(|(reason, _)| reason == "too-large"), "{parked:?}");
    let peak = relay.peak_memory_kilobytes();
    relay.stop_well().await;
    let same = "select count(*) from postrider.parked p join outbox o
        on o.seq = p.seq and o.id = p.id and o.aggregatetype = p.aggregatetype and o.aggregateid = p.aggregateid
        and o.type = p.type and convert_to(o.payload::text, 'UTF8') = p.payload
        and o.headers is not distinct from p.headers::jsonb";
    let same: i64 = client.query_one(same, &[]).await.expect("it answers").get(0);
    assert_eq!(same, 6, "each is kept whole");
    assert!(peak < MEMORY_KILOBYTES_MAX + 48 * 1024, "{peak} kB");
}

/// It was meant to be an event: it is kept as it came, once, and stops nothing; the log says it now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_no_events_are_kept() {
    let fixture = Fixture::new("log_malformed").await.captured_by(Capture::Message);
    let relay = start_relay(&fixture, Capture::Message).await;
    let client = fixture.client().await;
    emit(&client, "'before'", "'{}'").await;
    let good = "postrider.event_message('t', 'k', 'T', '{}')";
    let strays = [
        "''::bytea".to_owned(),
        "'garbage'::bytea".to_owned(),
        format!("substr({good}, 1, 43)"),
        // A length that is a claim, a text that is none, a NUL.
        format!("set_byte({good}, 26, 255)"),
        format!("set_byte({good}, 42, 255)"),
        format!("set_byte({good}, 42, 0)"),
    ];
    for stray in &strays {
        say(&client, &format!("select pg_logical_emit_message(true, 'postrider.outbox', {stray})"))
            .await;
    }
    let many = "select count(pg_logical_emit_message(true, 'postrider.outbox', 'stray ' || n)) from generate_series(1, 2000) n";
    say(&client, many).await;
    emit(&client, "'behind'", "'{}'").await;
    wait_arrived(&fixture, "t", &["before", "behind"]).await;
    let parked = wait_parked(&client, strays.len() + 2000).await;
    assert!(parked.iter().all(|(reason, _)| reason == "unreadable"), "all are named");
    let lines = relay.said().lines().count();
    assert!(lines < 100, "{lines} lines");
    relay.kill();
    let relay = start_relay(&fixture, Capture::Message).await;
    emit(&client, "'last'", "'{}'").await;
    wait_arrived(&fixture, "t", &["last"]).await;
    relay.stop_well().await;
    assert_eq!(wait_parked(&client, 1).await.len(), strays.len() + 2000, "each once");
    let kept = "select count(*) from postrider.parked where payload in ('garbage', '', 'stray 7')";
    assert_eq!(client.query_one(kept, &[]).await.expect("it answers").get::<_, i64>(0), 3);
}

/// It is nowhere but in the log: the server takes it up as it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_message_is_parked_as_it_comes() {
    // GIVEN a relay that reads messages.
    let fixture = Fixture::new("log_giant_message").await.captured_by(Capture::Message);
    let relay = start_relay(&fixture, Capture::Message).await;
    let client = fixture.client().await;
    // WHEN giants are written: a payload, a name, a text that is none, a length that is a claim.
    let large = 150 * MEBIBYTE;
    say(
        &client,
        &format!(
            "begin;
         select postrider.emit('t', 'large', 'T', '1');
         select postrider.emit('t', 'large', 'T', to_json(repeat('x', {large})), '{{\"h\": 1}}');
         select postrider.emit('t', 'large', 'T', '3');
         select postrider.emit('t', 'other', 'T', '{{}}');
         commit"
        ),
    )
    .await;
    let most = 20 * MEBIBYTE;
    // A name that is a giant, a text that is none, a length that is a claim, no payload.
    emit(&client, &format!("repeat('k', {most})"), "'{}'").await;
    for stray in [
        format!(
            "set_byte(postrider.event_message('t', 'k', 'T', convert_to(repeat('x', {most}), 'UTF8')), 42, 255)"
        ),
        format!(
            "set_byte(postrider.event_message('t', 'k', 'T', convert_to(repeat('x', {most}), 'UTF8')), 26, 255)"
        ),
        format!("convert_to(repeat('x', {most}), 'UTF8')"),
    ] {
        say(&client, &format!("select pg_logical_emit_message(true, 'postrider.outbox', {stray})"))
            .await;
    }
    emit(&client, "'behind'", "'{}'").await;
    // THEN all others arrive, and each giant is parked whole or as unreadable.
    wait_arrived(&fixture, "t", &["large", "other", "behind"]).await;
    let parked = wait_parked(&client, 6).await;
    let reasons: Vec<&str> = parked.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons[..2], ["too-large", "follows"], "{parked:?}");
    assert_eq!(reasons[2..], ["too-large", "unreadable", "unreadable", "unreadable"], "{parked:?}");
    let whole = "select payload = convert_to(to_json(repeat('x', $1))::text, 'UTF8'), type, headers, aggregateid
        from postrider.parked where turn = (select min(turn) from postrider.parked)";
    let row = client.query_one(whole, &[&(large as i32)]).await.expect("it is there");
    assert!(row.get::<_, bool>(0), "the payload is whole");
    let texts: [&str; 3] = [row.get(1), row.get(2), row.get(3)];
    assert_eq!(texts, ["T", "{\"h\": 1}", "large"]);
    // WHEN the relay is killed, THEN the next one parks each once, and memory stayed bounded.
    let peak = relay.peak_memory_kilobytes();
    relay.kill();
    let relay = start_relay(&fixture, Capture::Message).await;
    emit(&client, "'large'", "'4'").await;
    emit(&client, "'last'", "'{}'").await;
    wait_arrived(&fixture, "t", &["last"]).await;
    assert_eq!(wait_parked(&client, 7).await.len(), 7, "each once");
    relay.stop_well().await;
    assert!(peak < MEMORY_KILOBYTES_MAX, "{peak} kB");
    let records = read_topic(&fixture.brokers, &fixture.topic("t"));
    let large: Vec<_> = records.iter().filter(|record| record.key_text() == "large").collect();
    assert!(large.iter().all(|record| record.value.as_deref() == Some(b"1")), "nothing passes it");
}
