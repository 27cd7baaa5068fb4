//! What a relay tells a service manager that started it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Fixture, RelayProcess};

/// A service manager, as far as a relay sees one.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}.notify", std::process::id()));
        let socket = UnixDatagram::bind(&path).expect("the name is free");
        socket.set_nonblocking(true).expect("it may be set");
        Self { socket, path, heard: Vec::new() }
    }

    /// All lines since the beginning.
    fn heard(&mut self) -> &[String] {
        let mut message = [0; 8_192];
        while let Ok(length) = self.socket.recv(&mut message) {
            let message = String::from_utf8_lossy(&message[..length]);
            self.heard.extend(message.lines().map(str::to_owned));
        }
        &self.heard
    }

    fn count(&mut self, line: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == line).count()
    }

    async fn wait_for(&mut self, what: &str, is_there: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_there(self.heard()) {
            assert!(Instant::now() < deadline, "{what} never came: {:?}", self.heard);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("it was made");
    }
}

/// GIVEN a manager that waits for a sign of life within 600 ms, WHEN a relay starts, is frozen, goes on and stops, THEN it
/// is told when the relay is ready, hears nothing while it is frozen, and learns of the stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_alive_and_stopping_are_told() {
    let fixture = Fixture::new("service_notify").await;
    let mut manager = Manager::new("service_notify");
    let socket = manager.path.to_str().expect("it is text").to_owned();
    let environment = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "600000")];
    let relay = RelayProcess::start_in(&fixture, &["--shards", "1"], &environment);
    manager.wait_for("READY", |heard| heard.iter().any(|line| line == "READY=1")).await;
    let status = |heard: &[String]| heard.iter().any(|line| line.starts_with("STATUS=publishing "));
    manager.wait_for("the status", status).await;
    let signs = |heard: &[String]| heard.iter().filter(|line| *line == "WATCHDOG=1").count() >= 4;
    manager.wait_for("a sign of life", signs).await;
    relay.signal("STOP");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = manager.count("WATCHDOG=1");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(manager.count("WATCHDOG=1"), before, "a frozen process gives no sign of life");
    relay.signal("CONT");
    let more =
        |heard: &[String]| heard.iter().filter(|line| *line == "WATCHDOG=1").count() > before;
    manager.wait_for("one more sign of life", more).await;
    relay.stop_well().await;
    let heard = manager.heard();
    let at = |line: &str| heard.iter().position(|heard| heard == line);
    assert!(at("READY=1") < at("STOPPING=1") && at("STOPPING=1").is_some(), "{heard:?}");
    assert_eq!(manager.count("READY=1"), 1);
}
