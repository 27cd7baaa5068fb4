//! Credentials that change for as long as one likes: PostgreSQL's password and Kafka's token.
//!
//! Promises: while both change, everything that is written is published, in order, and the log says nothing
//! of credentials; where nobody ends sessions it says nothing at all. Must not: let the relay keep a
//! connection that needs no credentials: sessions are ended now and then, and the broker asks for a new token
//! before the old one ends. Fails: with the relays' logs.
//!
//! `POSTRIDER_SOAK_CREDENTIALS_SECONDS` is the length; `just credentials` sets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::connection::with_user;
use crate::support::logins::TokenProgram;
use crate::support::servers::kafka;
use crate::support::{Capture, Fixture, History, Load, RelayProcess, Traffic, mostly_waits};

const SECONDS_DEFAULT: u64 = 16;
/// A long run changes everything once a minute, a short one as often as the broker's clock of whole seconds allows.
const PERIOD_MOST: u64 = 60;
const PERIOD_LEAST: u64 = 4;
/// Sessions are ended in one of so many periods; the log must be silent in the others.
const ENDING: u64 = 4;
const LOAD: Load = Load { writers: 2, pause: Duration::from_millis(50), ..Load::FULL };
/// What a log says when credentials fail.
const WORDS: [&str; 6] = ["28P01", "28000", "password", "token", "uthentication", "SASL"];

/// A login whose password changes, and the file in which it stands.
struct Login {
    role: String,
    file: PathBuf,
    admin: Client,
}

impl Login {
    async fn new(fixture: &Fixture) -> Self {
        let admin = fixture.client().await;
        admin.batch_execute(include_str!("../../sql/roles.sql")).await.unwrap();
        let role = format!("{}_login", fixture.name);
        let make = format!("create role {role} login replication in role postrider_relay");
        admin.batch_execute(&make).await.unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("{}.password", fixture.name));
        Self { role, file, admin }
    }

    /// The server first, then the file, which changes as a whole.
    async fn change(&self, password: &str) {
        let change = format!("alter role {} password '{password}'", self.role);
        self.admin.batch_execute(&change).await.unwrap();
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{password}\n")).unwrap();
        std::fs::rename(&next, &self.file).unwrap();
    }

    async fn end_sessions(&self) -> u64 {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
        self.admin.query(end, &[&self.role]).await.unwrap().len() as u64
    }
}

fn seconds() -> u64 {
    let given = std::env::var("POSTRIDER_SOAK_CREDENTIALS_SECONDS").ok();
    given.map_or(SECONDS_DEFAULT, |text| text.parse().expect("a number of seconds"))
}

/// A relay with both credentials, and what is written meanwhile.
struct Scene {
    fixture: Fixture,
    history: History,
    traffic: Traffic,
    login: Login,
    relay: RelayProcess,
    tokens: TokenProgram,
}

impl Scene {
    async fn start(name: &str, capture: Capture, period: u64) -> Self {
        let fixture = Fixture::new(name).await.captured_by(capture);
        let login = Login::new(&fixture).await;
        login.change("first").await;
        let tokens = TokenProgram::new(name, u32::try_from(period).unwrap());
        let brokers = kafka().brokers_at("SASL").unwrap();
        // A password in the URL that never was the right one: the file's comes before it.
        let database_url = with_user(&fixture.database_url, &login.role, "never");
        let theirs = Fixture { database_url, ..fixture.with_brokers(brokers) };
        let password = ["--database-password-file", login.file.to_str().unwrap()];
        let token = ["--kafka-token-command", &tokens.command];
        let rest = ["--shards", "1", "-X", "security.protocol=SASL_PLAINTEXT"];
        let relay = RelayProcess::start(&theirs, &[&password[..], &token, &rest].concat());
        let history = History::default();
        let traffic = Traffic::with(&fixture, &history, LOAD).await;
        traffic.commits_more(1).await;
        relay.wait_until_it_says("\"relaying\"").await;
        if capture == Capture::Wal {
            // What the log needs is made by the owner.
            let switch = fixture.command().args(["capture", "switch", "wal"]).output().unwrap();
            assert!(switch.status.success(), "{}", String::from_utf8_lossy(&switch.stderr));
        }
        Self { fixture, history, traffic, login, relay, tokens }
    }

    /// Lines of the log that are warnings or worse.
    fn warnings(&self) -> Vec<String> {
        let loud = ["\"level\":\"WARN\"", "\"level\":\"ERROR\""];
        let is_loud = |line: &&str| loud.iter().any(|level| line.contains(level));
        self.relay.said().lines().filter(is_loud).map(str::to_owned).collect()
    }
}

async fn rotate(capture: Capture) {
    let length = seconds();
    let period = (length / 4).clamp(PERIOD_LEAST, PERIOD_MOST);
    // A long run may go on beside others: its files are its own.
    let name = format!("credentials_{length}_{capture:?}").to_lowercase();
    let scene = Scene::start(&name, capture, period).await;
    let begin = Instant::now();
    let (mut number, mut ended, mut excused, mut unexplained) = (0, 0, 0, Vec::new());
    while begin.elapsed() < Duration::from_secs(length) {
        number += 1;
        let is_rough = number % ENDING == 1;
        // In a short run the password changes every second.
        for second in 0..if period < PERIOD_MOST { period } else { 1 } {
            scene.login.change(&format!("word-{number}-{second}")).await;
            if is_rough && second == 0 {
                ended += scene.login.end_sessions().await;
            }
            tokio::time::sleep(Duration::from_secs(if period < PERIOD_MOST { 1 } else { period }))
                .await;
        }
        // What ended sessions make it say is excused, unless it is about credentials.
        let is_excused = |line: &String| is_rough && !WORDS.iter().any(|word| line.contains(word));
        let said = scene.warnings();
        for line in &said[excused + unexplained.len()..] {
            if is_excused(line) {
                excused += 1;
            } else {
                println!("{name}: change {number}: {line}");
                unexplained.push(line.clone());
            }
        }
        scene.traffic.commits_more(1).await;
        println!(
            "{name}: {} s, change {number}, {ended} sessions ended, {} tokens, {excused} warnings",
            begin.elapsed().as_secs(),
            scene.tokens.runs()
        );
    }
    let runs = scene.tokens.runs() as u64;
    assert!(runs >= length / period, "{runs} tokens");
    let verdict = scene.traffic.finish([scene.relay], &scene.fixture, &scene.history).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(unexplained, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_change_while_rows_are_polled() {
    mostly_waits();
    rotate(Capture::Poll).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_change_while_the_log_is_read() {
    mostly_waits();
    rotate(Capture::Wal).await;
}
