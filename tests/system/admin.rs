//! What a running instance answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Fixture, RelayProcess};

/// Where the relay said that it answers.
pub(crate) async fn address(relay: &RelayProcess) -> String {
    relay.wait_until_it_says("answering /metrics").await;
    let said = relay.said();
    let line = said.lines().find(|line| line.contains("answering /metrics")).unwrap_or_default();
    let start = line.find("127.0.0.1:").expect("the address is in the line");
    line[start..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// A client that never asks, or each second time never to the end.
fn silent(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    if number % 2 == 1 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").expect("it is taken");
    }
    stream
}

/// Asks until the answer contains the text.
pub(crate) async fn wait_for(address: &str, path: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = get(address, path);
        if answer.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "{path} never says {text:?}: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_and_readiness_are_answered() {
    let fixture = Fixture::new("admin_answers").await;
    let client = fixture.client().await;
    let arguments = ["--admin-listen", "127.0.0.1:0", "--capture", "wal", "--shards", "2"];
    let relay = RelayProcess::start(&fixture, &arguments);
    let address = address(&relay).await;
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/nowhere").starts_with("HTTP/1.1 404"));
    wait_for(&address, "/readyz", "HTTP/1.1 200").await;
    relay.wait_until_it_says("reading the log").await;
    let emit = "select postrider.emit('order', 'a' || n, 'T', '{}') from generate_series(1, 40) n";
    client.batch_execute(emit).await.expect("events are written");
    wait_for(&address, "/metrics", "postrider_events_published_total{shard=\"0\"} 40").await;
    wait_for(&address, "/metrics", "\npostrider_event_age_seconds_count 40\n").await;
    wait_for(&address, "/metrics", "\npostrider_working 1\n").await;
    wait_for(&address, "/metrics", "postrider_bucket_oldest_age_seconds{bucket=\"7\"} 0.0\n").await;
    wait_for(&address, "/metrics", "postrider_buckets{state=\"owned\"} 8\n").await;
    wait_for(&address, "/metrics", "capture=\"wal\",delivery=\"at-least-once\",timeline=\"1\"")
        .await;
    wait_for(&address, "/readyz?verbose", "[+]shards ok, nothing waits\n").await;
    assert!(get(&address, "/livez?verbose").contains("[+]publish-1 ok\n"));
    wait_for(&address, "/metrics", "\npostrider_slot_retained_bytes ").await;
    // A thousand clients that say nothing, or never end a word, cost neither figures nor events.
    let before = relay.open_descriptors();
    let crowd: Vec<TcpStream> = (0..1_000).map(|number| silent(&address, number)).collect();
    client.batch_execute(emit).await.expect("events are written");
    wait_for(&address, "/metrics", "postrider_events_published_total{shard=\"0\"} 80").await;
    let open = relay.open_descriptors();
    assert!(open < before + 100, "{open} descriptors are open, before it were {before}");
    drop(crowd);
    // Somebody else has the port.
    let taken = fixture.command().args(["run", "--admin-listen", &address]).output();
    let taken = taken.expect("the binary runs");
    let said = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("--admin-listen {address} cannot be listened on")), "{said}");
    relay.stop_well().await;
}
