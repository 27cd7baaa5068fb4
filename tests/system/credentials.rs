//! Passwords that change while the relay runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use postrider::postgres::{DatabaseConfig, PasswordSource, connect, connect_walsender};
use tokio_postgres::Client;

use crate::connection::with_user;
use crate::support::consumer::read_topic;
use crate::support::logins::set_scram_password;
use crate::support::servers::{kafka, postgres};
use crate::support::{Fixture, RelayProcess, mostly_waits};

const INSERT: &str = "insert into outbox (aggregatetype, aggregateid, type, payload)
    select 'order', (g % 5)::text, 'T', '{}' from generate_series(1, 10) as g";

/// A login that may relay, and the file with its password.
struct Login {
    role: String,
    file: PathBuf,
    client: Client,
    fixture: Fixture,
}

impl Login {
    async fn new(name: &str) -> Self {
        let fixture = Fixture::new(name).await;
        let client = fixture.client().await;
        client.batch_execute(include_str!("../../sql/roles.sql")).await.unwrap();
        let role = format!("{name}_login");
        let make = format!("create role {role} login replication in role postrider_relay");
        client.batch_execute(&make).await.unwrap();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.word"));
        // A password in the URL that never was the right one: the file's comes before it.
        let database_url = with_user(&fixture.database_url, &role, "never");
        let login = Self { role, file, client, fixture: Fixture { database_url, ..fixture } };
        login.change("first").await;
        login.write("first");
        login
    }

    async fn change(&self, password: &str) {
        let change = format!("alter role {} password '{password}'", self.role);
        self.client.batch_execute(&change).await.unwrap();
    }

    fn write(&self, password: &str) {
        std::fs::write(&self.file, format!("{password}\n")).unwrap();
    }

    /// Ends all sessions of the login, so that each has to be opened again.
    async fn end_sessions(&self) {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
        self.client.query(end, &[&self.role]).await.unwrap();
    }

    async fn relays(&self, relay: &RelayProcess, expected: usize) {
        self.client.batch_execute(INSERT).await.unwrap();
        let all = Fixture::wait_published;
        let published = tokio::time::timeout(Duration::from_secs(60), all(&self.admin())).await;
        assert!(published.is_ok(), "not published; it said:\n{}", relay.said());
        let events = read_topic(&self.fixture.brokers, &self.fixture.topic("order"));
        assert!(events.len() >= expected, "{} of {expected}", events.len());
    }

    /// As whoever may see everything.
    fn admin(&self) -> Fixture {
        let database_url = postgres().url(&self.fixture.name);
        Fixture { database_url, ..self.fixture.clone() }
    }
}

/// The file is behind the server for some time: nobody gives up before a lease is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changes_under_a_running_relay() {
    mostly_waits();
    for mode in ["poll", "wal"] {
        let login = Login::new(&format!("a_password_changes_{mode}")).await;
        let file = login.file.to_str().unwrap();
        let arguments = ["--database-password-file", file, "--shards", "1"];
        let relay = RelayProcess::start(&login.fixture, &arguments);
        login.relays(&relay, 10).await;
        if mode == "wal" {
            // What the log needs is made by the owner.
            let switch = login.admin().command().args(["capture", "switch", "wal"]).output();
            let switch = switch.unwrap();
            assert!(switch.status.success(), "{}", String::from_utf8_lossy(&switch.stderr));
            relay.wait_until_it_says("\"reading the log\"").await;
        }
        login.change("second").await;
        login.end_sessions().await;
        relay.wait_until_it_says("28P01").await;
        login.write("second");
        login.relays(&relay, 20).await;
        relay.stop_well().await;
    }
}

/// A password that stays wrong is final after a lease, and at the start at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_stays_wrong_is_final() {
    let login = Login::new("a_password_that_stays_wrong").await;
    let command = format!("cat '{}'", login.file.display());
    let arguments = ["--database-password-command", &command, "--shards", "1"];
    let relay = RelayProcess::start(&login.fixture, &arguments);
    login.relays(&relay, 10).await;
    login.change("second").await;
    login.end_sessions().await;
    let ended = relay.wait(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(4));

    let relay = RelayProcess::start(&login.fixture, &arguments);
    let ended = relay.wait(Duration::from_secs(4)).await;
    assert_eq!(ended.code(), Some(4));
    let mut gone = RelayProcess::start(&login.fixture, &["--database-password-command", "false"]);
    gone.wait_until_it_says("password command false").await;
    while gone.ended().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(gone.ended().unwrap().code(), Some(3));
}

/// What was read just before a password was replaced is read again, at once and without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_just_replaced_is_taken_at_once() {
    let login = Login::new("a_password_just_replaced").await;
    let old = login.file.with_extension("old");
    let script =
        format!("if rm '{}' 2>/dev/null; then echo zeroth; else echo first; fi", old.display());
    let command = shlex::try_join(["sh", "-c", script.as_str()]).unwrap();
    let database = DatabaseConfig::parse(&login.fixture.database_url).unwrap();
    let database = database.with_password(PasswordSource::command(&command).unwrap());
    std::fs::write(&old, "").unwrap();
    connect(&database, "test").await.unwrap();
    assert!(!old.exists());
    std::fs::write(&old, "").unwrap();
    connect_walsender(&database, "test").await.unwrap();
    assert!(!old.exists());
}

/// Kafka's password stands in a file. Whoever changes it changes one of both first; the other follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_kafka_changes_under_a_running_relay() {
    let fixture = Fixture::new("a_password_of_kafka_changes").await;
    let (client, user) = (fixture.client().await, "rotating");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kafka.word");
    let write = |password: &str| std::fs::write(&file, format!("{password}\n")).unwrap();
    let change = |password: &str| set_scram_password(&fixture.brokers, user, password);
    change("first");
    write("first");
    let theirs = fixture.with_brokers(kafka().brokers_at("SASL").unwrap());
    let settings = file.with_extension("toml");
    let text = format!(
        "[librdkafka]
'security.protocol' = 'sasl_plaintext'
'sasl.mechanisms' = 'SCRAM-SHA-256'
         'sasl.username' = '{user}'
[librdkafka-files]
'sasl.password' = '{}'
",
        file.display()
    );
    std::fs::write(&settings, text).unwrap();
    let arguments = ["--config", settings.to_str().unwrap(), "--shards", "1"];
    let relay = RelayProcess::start(&theirs, &arguments);
    let relays = async |expected: usize| {
        client.batch_execute(INSERT).await.unwrap();
        let published = fixture.wait_published();
        let published = tokio::time::timeout(Duration::from_secs(60), published).await;
        assert!(published.is_ok(), "not published; it said:\n{}", relay.said());
        let events = read_topic(&fixture.brokers, &fixture.topic("order"));
        assert!(events.len() >= expected, "{} of {expected}", events.len());
    };
    relays(10).await;
    change("second");
    relay.wait_until_it_says("SASL authentication error").await;
    write("second");
    relays(20).await;
    assert!(relay.said().contains("has changed"), "{}", relay.said());
    relay.stop_well().await;
}
