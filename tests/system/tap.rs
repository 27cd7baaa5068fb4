//! `postrider tap`: records as they would be sent, of a database alone.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::parking::insert;
use crate::support::Fixture;
use crate::support::fixture::Options;

/// A tap that runs; it ends with the test.
struct Tap {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Tap {
    fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        let mut command = fixture.command();
        command.arg("tap").args(arguments).stdout(Stdio::piped());
        // Nobody is there.
        let mut child =
            command.env("POSTRIDER_BROKERS", "127.0.0.1:1").spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next record; it comes, or the pipe ends.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).expect("it can be read");
        (length > 0)
            .then(|| serde_json::from_str(&line).unwrap_or_else(|cause| panic!("{cause}: {line}")))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Err(cause) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("tap: {cause}");
        }
    }
}

/// What is there comes first, then what is written; a filter holds for both, and nothing is changed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_shown_as_they_would_be_sent() {
    let fixture = Fixture::new("tap").await;
    let client = fixture.client().await;
    for kind in 1..=3 {
        insert(&client, ("t", "a"), kind, 10).await;
        insert(&client, ("t", "b"), kind, 10).await;
    }
    let state = "select md5(string_agg(cursor::text, ',' order by bucket)) from postrider.cursor";
    let before: String = client.query_one(state, &[]).await.expect("it answers").get(0);
    let mut tap =
        Tap::start(&fixture, &["--aggregate", "t/a", "--limit", "5", "--interval", "100ms"]);
    for kind in ["1", "2", "3"] {
        let record = tap.next().expect("it is there");
        assert_eq!((&record["headers"]["type"], &record["key"]), (&kind.into(), &"a".into()));
        assert_eq!(record["topic"], fixture.topic("t"));
        assert!(record["value"].as_str().is_some_and(|value| value.starts_with('"')), "{record}");
    }
    insert(&client, ("t", "b"), 4, 10).await;
    insert(&client, ("t", "a"), 4, 10).await;
    assert_eq!(tap.next().expect("it comes")["headers"]["type"], "4");
    // A row that is committed late is seen all the same.
    let late = fixture.client().await;
    late.batch_execute("begin").await.expect("a transaction opens");
    insert(&late, ("t", "a"), 5, 10).await;
    insert(&client, ("t", "b"), 6, 10).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    late.batch_execute("commit").await.expect("it commits");
    assert_eq!(tap.next().expect("it comes")["headers"]["type"], "5");
    assert!(tap.next().is_none(), "it ends after as many as were asked for");
    let after: String = client.query_one(state, &[]).await.expect("it answers").get(0);
    assert_eq!(before, after);
}

/// What would be parked says why, and whoever reads no more ends it; messages cannot be looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_says_why() {
    let fixture = Fixture::new("tap_refused").await;
    let client = fixture.client().await;
    let row = "insert into outbox (aggregatetype, aggregateid, type, payload, headers)
               values ('no topic', 'k', 'Made', null, '{}'), ('t', 'k', 'Made', null, '[1]')";
    client.batch_execute(row).await.expect("an insert never fails");
    let mut tap = Tap::start(&fixture, &["--format", "cloudevents", "--interval", "100ms"]);
    for reason in ["illegal-topic", "bad-headers"] {
        let record = tap.next().expect("it is there");
        assert_eq!(record["refused"]["reason"], reason, "{record}");
    }
    drop(tap);
    // Whoever reads no more ends it.
    let mut tap = fixture.command();
    tap.args(["tap", "--interval", "100ms"]).stdout(Stdio::piped());
    let mut tap = tap.spawn().expect("the binary runs");
    drop(tap.stdout.take());
    let deadline = Instant::now() + Duration::from_secs(30);
    while tap.try_wait().expect("it can be asked").is_none() {
        assert!(Instant::now() < deadline, "nobody reads it");
        insert(&client, ("t", "k"), 1, 10).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let output =
        fixture.command().args(["tap", "--capture", "message"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("WAL"), "{said}");
}

/// Of what cannot be read it is said why there is no record; the others are shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_no_text_is_refused() {
    let fixture = Fixture::encoded("tap_ascii", "SQL_ASCII", Options::default()).await;
    let client = fixture.client().await;
    let rows = "insert into outbox (aggregatetype, aggregateid, type, payload) values
        ('t', 'a', '1', '{}'), (E'k\\xfc', 'b', '2', '{}'), ('t', E'c\\xff', '3', '{}'),
        ('t', 'd', E'\\xfd', '{}'), ('t', 'e', '5', E'\"\\xfe\"'), ('t', 'f', '6', '{}')";
    client.batch_execute(rows).await.expect("an insert never fails");
    let mut tap = Tap::start(&fixture, &["--limit", "6"]);
    let records: Vec<Value> = std::iter::from_fn(|| tap.next()).collect();
    let reasons: Vec<Option<&str>> =
        records.iter().map(|record| record["refused"]["reason"].as_str()).collect();
    let no_text = Some("unreadable");
    assert_eq!(reasons, [None, no_text, no_text, no_text, no_text, None], "{records:?}");
    let named =
        records[1]["refused"]["detail"].as_str().is_some_and(|why| why.contains("aggregatetype"));
    assert!(named && records[4]["key"] == "e" && records[5]["key"] == "f", "{records:?}");
}
