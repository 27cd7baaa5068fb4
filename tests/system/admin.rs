//! What a running instance answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

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

/// The body of an answer, as JSON.
fn json(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    serde_json::from_str(body).unwrap_or_else(|cause| panic!("{cause}: {answer}"))
}

/// Members that `shown` lacks of those that `wanted` has, by their paths.
fn lacking(shown: &Value, wanted: &Value, path: &str, lacks: &mut Vec<String>) {
    match (shown, wanted) {
        (Value::Object(shown), Value::Object(wanted)) => {
            for (name, value) in wanted {
                let path = format!("{path}/{name}");
                match shown.get(name) {
                    Some(shown) => lacking(shown, value, &path, lacks),
                    None => lacks.push(path),
                }
            }
        }
        (Value::Array(shown), Value::Array(wanted)) => {
            assert_eq!(shown.len(), wanted.len(), "{path}");
            for (shown, wanted) in shown.iter().zip(wanted) {
                lacking(shown, wanted, path, lacks);
            }
        }
        _ => {}
    }
}

/// The tier as one of its instances sees it, what is parked with what helps, and the same names in `status --json`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tier_is_told_as_json() {
    let fixture = Fixture::new("admin_tier").await;
    let client = fixture.client().await;
    let relay = RelayProcess::start(&fixture, &["--admin-listen", "127.0.0.1:0"]);
    let address = address(&relay).await;
    relay.wait_until_it_says("relaying").await;
    let write = "select postrider.emit('order', 'a' || n, 'T', '{}') from generate_series(1, 40) n;
        insert into public.outbox (id, aggregatetype, aggregateid, type, payload, headers)
        values (gen_random_uuid(), 'order', 'bad', 'T', '{}', '[1]'),
            (gen_random_uuid(), 'order', 'bad', 'T', '{}', null)";
    client.batch_execute(write).await.expect("events are written");
    wait_for(&address, "/api/v1/parked", "\"events\":2,").await;
    let parked = json(&get(&address, "/api/v1/parked"));
    assert_eq!(parked["listed"][0]["reason"], "bad-headers", "{parked}");
    assert_eq!(parked["listed"][0]["events"], 2, "{parked}");
    assert!(parked["listed"][0]["fix"].as_str().is_some_and(|fix| fix.contains("discard")));
    let tier = json(&get(&address, "/api/v1/tier"));
    assert_eq!(tier["instances"][0]["state"], "alive", "{tier}");
    assert!(
        tier["buckets"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "idle"))
    );
    assert_eq!((&tier["backlog"]["events"], &tier["parked"]["aggregates"]), (&0.into(), &1.into()));
    let status = json(&get(&address, "/api/v1/status"));
    assert_eq!(status["state"], "publishing", "{status}");
    assert_eq!(status["instance"], tier["instances"][0]["name"], "{status}");
    assert_eq!(
        status["buckets"].as_array().map(Vec::len),
        tier["buckets"].as_array().map(Vec::len)
    );
    let dealt = status["shards"].as_array().expect("it has shards").iter();
    let dealt: usize = dealt.filter_map(|shard| shard["buckets"].as_array().map(Vec::len)).sum();
    assert_eq!(Some(dealt), tier["buckets"].as_array().map(Vec::len), "{status}");
    let config = json(&get(&address, "/api/v1/config"));
    let settings = config["settings"].as_array().expect("it has settings");
    let listen = settings.iter().find(|one| one["name"] == "admin-listen").expect("it is one");
    assert_eq!((&listen["value"], &listen["origin"]), (&"127.0.0.1:0".into(), &"flag".into()));
    let output = fixture.command().args(["status", "--json"]).output().expect("the binary runs");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let mut lacks = Vec::new();
    lacking(&shown, &tier, "", &mut lacks);
    assert!(lacks.is_empty(), "status --json lacks {lacks:?}");
    relay.stop_well().await;
}

/// Asks for something to be done; status and body.
fn post(address: &str, path: &str, token: &str, body: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, _) = answer.split_once("\r\n").expect("it has a head");
    (head.to_owned(), json(&answer))
}

/// Who has the token pauses, resumes, and has what is parked tried again and discarded; who has not does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_token_steers() {
    let fixture = Fixture::new("admin_steer").await;
    let client = fixture.client().await;
    let token = "0123456789abcdef-system";
    let file = std::env::temp_dir().join(format!("postrider-steer-{}", std::process::id()));
    std::fs::write(&file, token).expect("it can be written");
    let path = file.to_str().expect("it is text");
    let arguments = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", path];
    let relay = RelayProcess::start(&fixture, &arguments);
    let address = address(&relay).await;
    relay.wait_until_it_says("relaying").await;
    let (head, refused) = post(&address, "/api/v1/pause", "0123456789abcdef-other", "{}");
    assert!(head.contains("401") && refused["schema"] == "postrider/error/1", "{head} {refused}");
    let asked = r#"{"reason": "the brokers move", "for_seconds": 3600}"#;
    let (head, done) = post(&address, "/api/v1/pause", token, asked);
    assert!(head.contains("200"), "{head} {done}");
    // Buckets have a state, too, and may be seen before.
    wait_for(&address, "/api/v1/status", "\"paused\":{\"reason\":\"the brokers move\"").await;
    let status = json(&get(&address, "/api/v1/status"));
    assert_eq!(status["state"], "paused", "{status}");
    let write = "insert into public.outbox (id, aggregatetype, aggregateid, type, payload, headers)
        values (gen_random_uuid(), 'order', 'bad', 'T', '{}', '[1]')";
    client.batch_execute(write).await.expect("an event is written");
    let (_, done) = post(&address, "/api/v1/resume", token, "{}");
    assert_eq!(done["done"], "publishing goes on", "{done}");
    wait_for(&address, "/api/v1/parked", "\"reason\":\"bad-headers\"").await;
    let event = json(&get(&address, "/api/v1/parked"))["listed"][0]["event"].to_string();
    let (_, done) = post(&address, "/api/v1/parked/retry", token, r#"{"reason": "bad-headers"}"#);
    assert_eq!(done["done"], "1 aggregate will be tried again", "{done}");
    let other = r#"{"event": "018f4e6a-5b1c-7def-8a00-0123456789ab"}"#;
    let (_, done) = post(&address, "/api/v1/parked/discard", token, other);
    assert_eq!(done["done"], "0 events discarded", "{done}");
    let (_, done) =
        post(&address, "/api/v1/parked/discard", token, &format!("{{\"event\": {event}}}"));
    assert_eq!(done["done"], "1 event discarded", "{done}");
    let left = client.query_one("select count(*) from postrider.parked", &[]).await;
    assert_eq!(left.expect("the table answers").get::<_, i64>(0), 0);
    assert!(relay.said().contains("somebody with the admin token"), "{}", relay.said());
    assert!(!relay.said().contains(token), "the token is in the log");
    std::fs::remove_file(&file).expect("it is there");
    relay.stop_well().await;
}
