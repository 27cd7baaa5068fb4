//! Replication sessions of our own: who gets in, what comes, what does not come again.
//!
//! Every function of the first part takes the URL of an empty database, as a superuser.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use postrider::capture::log::pgoutput::{Message, Value, decode};
use postrider::error::{Error, ErrorKind};
use postrider::postgres::{
    DatabaseConfig, Everything, Frame, LogStream, Lsn, ReplyWanted, Walsender, connect_walsender,
};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::support::Patience;
use crate::support::fixture::empty_database;
use crate::support::fixture::{NO_PUBLICATION_VERSION, connect, server_version};

const PATIENCE: Duration = Duration::from_secs(30);

async fn walsender(url: &str) -> Walsender {
    connect_walsender(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap()
}

async fn refusal(url: &str) -> Error {
    connect_walsender(&DatabaseConfig::parse(url).unwrap(), "test").await.unwrap_err()
}

fn assert_says(error: &Error, kind: ErrorKind, cause: &str, remedy: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(cause), "{cause} in {error}");
    assert!(error.remedy().is_some_and(|said| said.contains(remedy)), "{remedy} in {error}");
}

/// A table, its publication, and a slot that is called as the database is.
async fn publish(url: &str) -> (Client, String) {
    let client = connect(url).await;
    let make = "create table item (n bigint); create publication item for table item";
    client.batch_execute(make).await.unwrap();
    let name: String =
        client.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let create = format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput NOEXPORT_SNAPSHOT");
    walsender(url).await.query(&create).await.unwrap();
    (client, name)
}

async fn start(url: &str, slot: &str) -> LogStream {
    try_start(url, slot, "item").await.unwrap()
}

/// # Errors
/// When the server refuses.
async fn try_start(url: &str, slot: &str, publication: &str) -> Result<LogStream, Error> {
    let sql = format!(
        "START_REPLICATION SLOT {slot} LOGICAL 0/0 \
         (proto_version '1', publication_names '{publication}', binary 'true')"
    );
    walsender(url).await.stream(&sql).await
}

async fn insert(client: &Client, first: i64, last: i64) {
    let insert = "insert into item select generate_series($1::bigint, $2)";
    client.execute(insert, &[&first, &last]).await.unwrap();
}

/// What ends the stream, if anything does in time.
async fn failure(stream: &mut LogStream, patience: Duration) -> Option<Error> {
    let failure = async {
        loop {
            if let Err(error) = stream.next(&mut Everything).await {
                break error;
            }
        }
    };
    timeout(patience, failure).await.ok()
}

async fn next(stream: &mut LogStream) -> Frame {
    timeout(PATIENCE, stream.next(&mut Everything)).await.expect("a frame in time").unwrap()
}

/// The numbers of one transaction, and the end of its commit.
async fn transaction(stream: &mut LogStream) -> (Vec<i64>, Lsn) {
    let mut numbers = Vec::new();
    loop {
        let Frame::Data { message, .. } = next(stream).await else { continue };
        match decode(message).unwrap() {
            Message::Insert { row, .. } => match row.values().next() {
                Some(Value::Binary(raw)) => {
                    numbers.push(i64::from_be_bytes(raw.try_into().unwrap()));
                }
                other => panic!("a number in binary form, not {other:?}"),
            },
            Message::Commit { end_lsn, .. } if !numbers.is_empty() => {
                return (numbers, Lsn(end_lsn));
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_rows_come_and_confirmed_ones_do_not_come_again() {
    let url = &empty_database("committed_rows_come_and_confirmed_ones_do_not_come_again").await;
    let (client, slot) = publish(url).await;
    let mut stream = start(url, &slot).await;
    insert(&client, 1, 3).await;
    client.batch_execute("begin; insert into item values (-1); rollback").await.unwrap();
    insert(&client, 4, 4).await;
    let (numbers, first_end) = transaction(&mut stream).await;
    assert_eq!(numbers, [1, 2, 3]);
    let (numbers, second_end) = transaction(&mut stream).await;
    assert_eq!(numbers, [4]);
    assert!(first_end < second_end);
    stream.confirm(second_end, first_end).await.unwrap();
    stream.end().await.unwrap();

    // At once: the slot is free. What was received and not flushed comes again.
    let mut stream = start(url, &slot).await;
    assert_eq!(transaction(&mut stream).await, (vec![4], second_end));
    stream.confirm(second_end, second_end).await.unwrap();
    stream.end().await.unwrap();
    insert(&client, 5, 5).await;
    let mut stream = start(url, &slot).await;
    assert_eq!(transaction(&mut stream).await.0, [5]);
    stream.end().await.unwrap();
    assert_eq!(confirmed(&client, &slot).await, second_end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_give_rows() {
    let url = &empty_database("statements_give_rows").await;
    let mut session = walsender(url).await;
    let rows = session.query("IDENTIFY_SYSTEM").await.unwrap();
    assert_eq!((rows.len(), rows[0].len()), (1, 4));
    let several = "-- a head\n-- of two lines\nselect 1; select 'ä', null union all select '', 'b'; set jit = off";
    let text = |text: &str| Some(text.to_owned());
    let expected = vec![vec![text("ä"), None], vec![text(""), text("b")]];
    assert_eq!(session.query(several).await.unwrap(), expected);
    assert!(session.query("").await.unwrap().is_empty());
    // An error leaves the session usable.
    let error = session.query("select * from postrider.cursor").await.unwrap_err();
    assert_says(&error, ErrorKind::Schema, "42P01", "migrate up");
    assert_eq!(session.query("select 1").await.unwrap(), [vec![text("1")]]);
    let long = session.query("select repeat('x', 3000000)").await.unwrap();
    assert_eq!(long[0][0].as_ref().unwrap().len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_is_ours_and_direct() {
    let url = &empty_database("the_session_is_ours_and_direct").await;
    let mut session = walsender(url).await;
    let settings = "select current_setting('application_name'), current_setting('search_path'), \
                    current_setting('client_encoding'), current_setting('postrider.direct'), \
                    (select backend_type from pg_stat_activity where pid = pg_backend_pid())";
    let rows = session.query(settings).await.unwrap();
    let found: Vec<&str> = rows[0].iter().map(|value| value.as_deref().unwrap()).collect();
    assert_eq!(found, ["postrider test", "pg_catalog", "UTF8", "on", "walsender"]);
    let error = refusal(&crate::connection::dropping_proxy(url).await).await;
    assert_says(&error, ErrorKind::PostgresRefused, "pooler", "connect to PostgreSQL itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_as_elsewhere() {
    let url = &empty_database("refusals_are_told_as_elsewhere").await;
    let (client, slot) = publish(url).await;
    let wrong = crate::connection::with_user(url, "postgres", "wrong");
    assert_says(&refusal(&wrong).await, ErrorKind::PostgresRefused, "28P01", "PGPASSWORD");
    let (_, server) = url.split_once('@').unwrap();
    let without = refusal(&format!("postgres://postgres@{server}?passfile=/nowhere")).await;
    assert_says(&without, ErrorKind::PostgresRefused, "password", "PGPASSWORD");
    let missing = url.replace(&format!("/{slot}"), "/no_such_database");
    assert_says(&refusal(&missing).await, ErrorKind::PostgresRefused, "3D000", "create");
    let bound = refusal(&format!("{url}?channel_binding=require")).await;
    assert_says(&bound, ErrorKind::PostgresRefused, "channel binding", "");
    let tls = refusal(&format!("{url}?sslmode=require")).await;
    assert_says(&tls, ErrorKind::PostgresRefused, "does not offer TLS", "turn on ssl");

    let role = format!("{slot}_role");
    let make = format!("create role {role} login password 'right'");
    client.batch_execute(&make).await.unwrap();
    let plain = refusal(&crate::connection::with_user(url, &role, "right")).await;
    assert_says(&plain, ErrorKind::PostgresRefused, "42501", "alter role … replication");
    client.batch_execute(&format!("alter role {role} replication")).await.unwrap();
    drop(walsender(&crate::connection::with_user(url, &role, "right")).await);
    client.batch_execute(&format!("drop role {role}")).await.unwrap();

    let read_only = format!("alter database {slot} set default_transaction_read_only = on");
    client.batch_execute(&read_only).await.unwrap();
    drop(walsender(url).await);
    let standby = refusal(&format!("{url}?target_session_attrs=read-write")).await;
    assert_says(&standby, ErrorKind::Standby, "does not allow writes", "primary");

    let unavailable = ErrorKind::PostgresUnavailable;
    let absent = try_start(url, "no_such_slot", "item").await.unwrap_err();
    assert_says(&absent, unavailable, "\"no_such_slot\" does not exist", "made again");
    let mut stream = try_start(url, &slot, "no_such_publication").await.unwrap();
    insert(&client, 1, 1).await;
    if server_version(&client).await < NO_PUBLICATION_VERSION {
        let error = failure(&mut stream, PATIENCE).await.expect("an answer in time");
        assert_says(&error, ErrorKind::Schema, "no_such_publication", "capture switch wal");
    } else {
        assert!(failure(&mut stream, Duration::from_secs(1)).await.is_none());
    }
    drop(stream);
    let patience = Patience::until("the slot is free");
    let holder = loop {
        // The server frees the slot when it sees that we have left.
        if let Ok(stream) = try_start(url, &slot, "item").await {
            break stream;
        }
        patience.pause().await;
    };
    let taken = try_start(url, &slot, "item").await.unwrap_err();
    assert_eq!(taken.kind(), unavailable, "{taken}");
    assert!(taken.message().contains("is active for PID"), "{taken}");
    holder.end().await.unwrap();
}

/// With waits that are nearly always too short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_can_be_given_up() {
    let url = &empty_database("a_wait_can_be_given_up").await;
    const ROWS: i64 = 300;
    let (client, slot) = publish(url).await;
    let mut stream = start(url, &slot).await;
    let writer = tokio::spawn(async move {
        for n in 1..=ROWS {
            insert(&client, n, n).await;
        }
    });
    let mut numbers = Vec::new();
    let mut given_up = 0_u64;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while numbers.len() < usize::try_from(ROWS).unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "only {} rows", numbers.len());
        let mut everything = Everything;
        let frame = tokio::select! {
            biased;
            frame = stream.next(&mut everything) => frame.unwrap(),
            () = tokio::task::yield_now() => {
                given_up += 1;
                continue;
            }
        };
        let Frame::Data { message, .. } = frame else { continue };
        if let Message::Insert { row, .. } = decode(message).unwrap() {
            let Some(Value::Binary(raw)) = row.values().next() else { panic!("binary") };
            numbers.push(i64::from_be_bytes(raw.try_into().unwrap()));
        }
    }
    writer.await.unwrap();
    assert!(given_up > 10, "{given_up}");
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
    stream.end().await.unwrap();
}

/// The server is stuck in sending, as nobody reads: confirmations still return, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_does_not_wait_for_a_blocked_server() {
    let url = &empty_database("a_confirmation_does_not_wait_for_a_blocked_server").await;
    const ROWS: i64 = 400_000;
    let (client, slot) = publish(url).await;
    let mut stream = start(url, &slot).await;
    insert(&client, 1, ROWS).await;
    let first = loop {
        if let Frame::Data { start, .. } = next(&mut stream).await {
            break start;
        }
    };
    let blocked = "select from pg_stat_activity where wait_event = 'WalSenderWriteData'
                   and datname = current_database()";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while client.query(blocked, &[]).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the server is never stuck");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let confirmations = async {
        for _ in 0..200_000 {
            stream.confirm(first, Lsn(0)).await.unwrap();
        }
    };
    timeout(PATIENCE, confirmations).await.expect("a confirmation waits for nobody");
    let (numbers, end) = transaction(&mut stream).await;
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
    stream.confirm(end, end).await.unwrap();
    stream.end().await.unwrap();
    assert_eq!(confirmed(&client, &slot).await, end);
}

async fn confirmed(client: &Client, slot: &str) -> Lsn {
    let place = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots
                 where slot_name = $1";
    let place: i64 = client.query_one(place, &[&slot]).await.unwrap().get(0);
    Lsn(place.cast_unsigned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_of_life_is_asked_for_and_answered() {
    let url = &empty_database("a_sign_of_life_is_asked_for_and_answered").await;
    let (client, slot) = publish(url).await;
    let short = format!("{url}?options=-c%20wal_sender_timeout%3D3000");
    let mut stream = start(&short, &slot).await;
    let begin = tokio::time::Instant::now();
    let mut asked = 0;
    while asked < 3 {
        if let Frame::KeepAlive { end, reply: ReplyWanted::Yes } = next(&mut stream).await {
            asked += 1;
            stream.confirm(end, end).await.unwrap();
        }
    }
    assert!(begin.elapsed() > Duration::from_millis(3_000), "answered longer than the timeout");
    // Unanswered, the server hangs up.
    let error = loop {
        match timeout(PATIENCE, stream.next(&mut Everything)).await.expect("an end in time") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_says(&error, ErrorKind::PostgresUnavailable, "cannot read the log", "log");
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_is_told() {
    let url = &empty_database("an_ended_session_is_told").await;
    let (client, slot) = publish(url).await;
    let mut stream = start(url, &slot).await;
    let end = "select pg_terminate_backend(active_pid) from pg_replication_slots
               where slot_name = $1 and active_pid is not null";
    client.query_one(end, &[&slot]).await.unwrap();
    let error = loop {
        match timeout(PATIENCE, stream.next(&mut Everything)).await.expect("an end in time") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_says(&error, ErrorKind::PostgresUnavailable, "57P01", "stopped");
}
