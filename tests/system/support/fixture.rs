//! A database and topics of one's own, migrated by the real command.

use std::process::Command;

use tokio_postgres::{Client, NoTls};

use super::servers::servers;

/// How a test's outbox is made.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) buckets: u16,
    pub(crate) payload: &'static str,
    pub(crate) generation_seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { buckets: 8, payload: "json", generation_seconds: 600 }
    }
}

/// A test's outbox and where its events go.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub(crate) database_url: String,
    pub(crate) brokers: String,
    /// Names the database and begins the topics' names.
    pub(crate) name: String,
}

impl Fixture {
    /// On the shared servers.
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Options::default()).await
    }

    /// On the shared servers, with a table made in another way.
    pub(crate) async fn with(name: &str, options: Options) -> Self {
        let servers = servers();
        let admin = servers.postgres.url("postgres");
        create_database(&admin, name).await;
        let fixture = Self {
            database_url: servers.postgres.url(name),
            brokers: servers.kafka.brokers().to_owned(),
            name: name.to_owned(),
        };
        fixture.migrate(&options);
        fixture
    }

    /// On servers of one's own.
    pub(crate) async fn on(
        name: &str,
        admin_url: &str,
        database_url: String,
        brokers: &str,
    ) -> Self {
        create_database(admin_url, name).await;
        let fixture = Self { database_url, brokers: brokers.to_owned(), name: name.to_owned() };
        fixture.migrate(&Options::default());
        fixture
    }

    fn migrate(&self, options: &Options) {
        let output = self
            .command()
            .args(["migrate", "up"])
            .args(["--buckets", &options.buckets.to_string()])
            .args(["--payload", options.payload])
            .args(["--generation-seconds", &options.generation_seconds.to_string()])
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "migrate up: {said}");
    }

    /// The binary, pointed at this fixture.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command
            .env("POSTRIDER_DATABASE_URL", &self.database_url)
            .env("POSTRIDER_BROKERS", &self.brokers)
            .env("POSTRIDER_TOPIC", format!("{}.{{aggregatetype}}", self.name))
            .env("POSTRIDER_LEASE_SECONDS", "5")
            .env("POSTRIDER_LOG_LEVEL", "info");
        command
    }

    /// A session on the test's database.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.database_url).await
    }

    /// The topic of an aggregate type.
    pub(crate) fn topic(&self, aggregate_type: &str) -> String {
        format!("{}.{aggregate_type}", self.name)
    }

    /// Waits until the view says that everything is published.
    pub(crate) async fn wait_published(&self) {
        let client = self.client().await;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let waiting = client
                .query_opt("select from postrider.events where not published limit 1", &[])
                .await
                .expect("the view answers");
            if waiting.is_none() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{}: not published in time", self.name);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a test's session ended: {error}");
        }
    });
    client
}

/// The address of a database with nothing in it, on the shared server.
pub(crate) async fn empty_database(name: &str) -> String {
    let postgres = &servers().postgres;
    create_database(&postgres.url("postgres"), name).await;
    postgres.url(name)
}

async fn create_database(admin_url: &str, name: &str) {
    let admin = connect(admin_url).await;
    admin.batch_execute(&format!("create database \"{name}\"")).await.expect("the name is free");
}
