//! What happens to the table while its log is read: leaves are emptied, columns come and go.

use std::time::Duration;

use super::{Trial, start_relay};
use crate::support::fixture::Options;
use crate::support::{Capture, Fixture, History, Load, RelayProcess, Traffic};

const LIGHT: Load = Load { writers: 2, pause: Duration::from_millis(2), ..Load::FULL };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_are_emptied_under_the_stream() {
    let options = Options { generation_seconds: 1, ..Options::default() };
    let fixture = Fixture::with("log_truncate", options).await.captured_by(Capture::Wal);
    let start = || {
        let arguments = ["--capture", "wal", "--shards", "2", "--replay-window", "0s"];
        RelayProcess::start(&fixture, &arguments)
    };
    let relay = start();
    relay.wait_until_it_says("reading the log").await;
    let history = History::default();
    let traffic = Traffic::with(&fixture, &history, LIGHT).await;
    relay.wait_until_it_says("truncated old partitions").await;
    relay.kill();
    // Old leaves may not be emptied now; the next reader does it.
    traffic.commits_more(500).await;
    let relay = start();
    relay.wait_until_it_says("truncated old partitions").await;
    traffic.commits_more(500).await;
    let verdict = traffic.finish([relay], &fixture, &history).await;
    assert!(verdict.holds(), "{verdict}");
}

/// Each is done while everything runs, and is read again by a relay that starts afterwards.
const CHANGES: [&str; 4] = [
    "alter table outbox add column note text",
    "alter table outbox add column rank integer not null default 7",
    "alter table outbox add column tags text[] default array['a', 'b']",
    "alter table outbox drop column note",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_and_go_under_the_stream() {
    let fixture = Fixture::new("log_columns").await.captured_by(Capture::Wal);
    let relay = start_relay(&fixture, Capture::Wal).await;
    let mut trial = Trial::begin((fixture.clone(), relay), LIGHT).await;
    let client = fixture.client().await;
    for change in CHANGES {
        trial.go_on().await;
        client.batch_execute(change).await.expect(change);
        trial.go_on().await;
    }
    trial.restart(&[]).await;
    trial.go_on().await;
    assert!(!trial.relay.said().contains("polling"), "the slot is as it was");
    trial.finish().await;
}
