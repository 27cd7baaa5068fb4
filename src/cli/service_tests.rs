use std::os::unix::net::UnixDatagram;

use super::*;
use crate::metrics::beats::Pulse;
use crate::metrics::health::{Readings, SessionEnd, SessionState};

const WATCHDOG: Duration = Duration::from_secs(30);

/// An instance whose time goes as the test wants, and a service manager at the other end of a socket.
struct Scene {
    monitor: Arc<Monitor>,
    report: ServiceReport,
    began: Instant,
    millis: u64,
    ours: UnixDatagram,
    managers: UnixDatagram,
}

impl Scene {
    fn new(watchdog: Option<Duration>) -> Self {
        let (monitor, began) = (Arc::new(Monitor::default()), Instant::now());
        let report = ServiceReport::new(Arc::clone(&monitor), watchdog, began);
        let (ours, managers) = UnixDatagram::pair().expect("sockets can be made");
        managers.set_nonblocking(true).expect("it may be set");
        Self { monitor, report, began, millis: 0, ours, managers }
    }

    /// What the manager reads within so many seconds, at each of which the relay looks after itself.
    fn pass(&mut self, seconds: u64) -> Vec<String> {
        let mut read = Vec::new();
        for _ in 0..seconds {
            self.millis += 1_000;
            let threads = self.monitor.figures().threads.heard();
            let session = self.monitor.session();
            let readings =
                Readings { now_millis: self.millis, threads, session, ..Readings::default() };
            self.monitor.health().look(readings);
            for told in self.report.next(self.began + Duration::from_millis(self.millis)) {
                let line = told.as_state().to_string();
                self.ours.send(line.as_bytes()).expect("the manager reads");
            }
            let mut message = [0; 4_096];
            while let Ok(length) = self.managers.recv(&mut message) {
                read.push(String::from_utf8_lossy(&message[..length]).into_owned());
            }
        }
        read
    }

    fn signs_of_life(&mut self, seconds: u64) -> usize {
        self.pass(seconds).iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    fn thread(&self) -> Pulse {
        self.monitor.figures().threads.expect("publish-0")
    }
}

#[test]
fn ready_is_said_once_when_a_session_works_stands_by_or_is_paused() {
    for (session, words) in [
        (SessionState::Working, "STATUS=publishing 0 events/s"),
        (SessionState::StandingBy, "STATUS=standing by: another instance reads the log"),
        (
            SessionState::Paused { reason: "a new Kafka".to_owned() },
            "STATUS=publishing is paused: a new Kafka",
        ),
    ] {
        let mut scene = Scene::new(None);
        assert_eq!(scene.pass(3), ["STATUS=starting"]);
        scene.monitor.set_session(session);
        assert_eq!(scene.pass(1), ["READY=1", words]);
        assert_eq!(scene.pass(20), Vec::<String>::new(), "nothing is new");
        scene.monitor.set_session(SessionState::Between(Some(SessionEnd::of("it is gone"))));
        let told = scene.pass(5);
        assert!(told.len() == 1 && told[0].starts_with("STATUS=not ready: postgres "), "{told:?}");
        scene.monitor.set_session(SessionState::Working);
        assert!(!scene.pass(5).contains(&"READY=1".to_owned()), "once");
    }
}

#[test]
fn a_thread_that_stalls_takes_the_signs_of_life_with_it() {
    let mut scene = Scene::new(Some(WATCHDOG));
    scene.monitor.set_session(SessionState::Working);
    let pulse = scene.thread();
    assert_eq!(scene.signs_of_life(25), 3, "one in ten seconds, and one at once");
    pulse.beat();
    assert_eq!(scene.signs_of_life(30), 3);
    assert_eq!(scene.signs_of_life(90), 0, "it is silent for more than 30 s");
    pulse.beat();
    assert_eq!(scene.signs_of_life(20), 2, "it goes on");
    drop(pulse);
    assert_eq!(scene.signs_of_life(60), 6, "who ends in order is not missed");
}

#[test]
fn without_a_watchdog_and_while_kafka_is_away_nobody_is_killed() {
    let mut scene = Scene::new(None);
    scene.monitor.set_session(SessionState::Working);
    assert_eq!(scene.signs_of_life(60), 0, "nobody asked");
    let mut scene = Scene::new(Some(WATCHDOG));
    scene.monitor.set_session(SessionState::Between(Some(SessionEnd::of("the server is away"))));
    assert_eq!(scene.signs_of_life(60), 6, "to start it again would not help");
    assert!(scene.report.pause() <= LOOK_INTERVAL);
    let hasty =
        ServiceReport::new(Arc::default(), Some(Duration::from_millis(300)), Instant::now());
    assert_eq!(hasty.pause(), Duration::from_millis(100));
}

#[test]
fn a_text_of_others_writes_no_line_of_its_own() {
    let mut scene = Scene::new(None);
    let end = SessionEnd::of("no answer\nSTOPPING=1\nMAINPID=1\r\u{1b}[2J");
    scene.monitor.set_session(SessionState::Between(Some(end)));
    let told = scene.pass(1);
    assert_eq!(told.len(), 1);
    assert!(!told[0].contains(['\n', '\r', '\u{1b}']), "{told:?}");
    let reason = "x".repeat(10_000);
    scene.monitor.set_session(SessionState::Paused { reason });
    let told = scene.pass(5);
    assert!(told[1].starts_with("STATUS=") && told[1].len() < 1_000, "{}", told[1].len());
}

#[test]
fn the_status_tells_speed_age_and_what_is_parked() {
    let mut scene = Scene::new(None);
    scene.monitor.set_session(SessionState::Working);
    scene.pass(1);
    scene.monitor.shard(0).published.fetch_add(5_000, std::sync::atomic::Ordering::Relaxed);
    scene.monitor.set_seen(Some(crate::metrics::seen::SeenBacklog {
        oldest_age_seconds: [(0, 0.25), (3, 1.52)].into(),
        parked: [("too-large".to_owned(), 2), ("follows".to_owned(), 1)].into(),
        ..Default::default()
    }));
    let words = "STATUS=publishing 1000 events/s, the oldest that waits is 1.5 s old, 3 parked";
    assert_eq!(scene.pass(5), [words]);
    scene.monitor.set_stopping();
    assert_eq!(scene.pass(20), Vec::<String>::new(), "what a stop says stays");
}
