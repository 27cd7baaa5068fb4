//! A database and topics of one's own, migrated by the real command.

use std::path::PathBuf;
use std::process::Command;

use hashbrown::HashMap;
use postrider_testkit::servers::Postgres;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use super::servers::{both, postgres};
use super::{Capture, Delivery, Proxy, seats};

/// How a test's outbox is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// How its events are written, and read.
    pub(crate) capture: Capture,
}

/// The program that is tested: the one that was built with the tests, or another that a measurement names.
fn binary() -> PathBuf {
    let named = std::env::var_os("POSTRIDER_TEST_BINARY").filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_postrider")), PathBuf::from)
}

impl Fixture {
    /// On the shared servers.
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Options::default()).await
    }

    /// On the shared servers, with a table made in another way.
    pub(crate) async fn with(name: &str, options: Options) -> Self {
        seats::take();
        let (postgres, kafka) = both();
        let template = template(postgres, kafka.brokers(), &options).await;
        let admin = connect(&postgres.url("postgres")).await;
        let create = format!("create database \"{name}\" template \"{template}\"");
        admin.batch_execute(&create).await.expect("the name is free");
        Self {
            database_url: postgres.url(name),
            brokers: kafka.brokers().to_owned(),
            name: name.to_owned(),
            capture: Capture::default(),
        }
    }

    /// On servers of one's own.
    pub(crate) async fn on(
        name: &str,
        admin_url: &str,
        database_url: String,
        brokers: &str,
    ) -> Self {
        Self::made(name, admin_url, database_url, brokers, &Options::default()).await
    }

    /// On servers of one's own, with a table made in another way.
    pub(crate) async fn made(
        name: &str,
        admin_url: &str,
        database_url: String,
        brokers: &str,
        options: &Options,
    ) -> Self {
        seats::take();
        create_database(admin_url, name).await;
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        let fixture = Self { database_url, brokers, name, capture: Capture::default() };
        fixture.migrate(options);
        fixture
    }

    /// On the shared servers, in a database of another encoding.
    pub(crate) async fn encoded(name: &str, encoding: &str, options: Options) -> Self {
        seats::take();
        let (postgres, kafka) = both();
        let admin = connect(&postgres.url("postgres")).await;
        let create = format!(
            "create database \"{name}\" encoding '{encoding}' locale 'C' template template0"
        );
        admin.batch_execute(&create).await.expect("the name is free");
        let fixture = Self {
            database_url: postgres.url(name),
            brokers: kafka.brokers().to_owned(),
            name: name.to_owned(),
            capture: Capture::default(),
        };
        fixture.migrate(&options);
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
        if Delivery::asked() == Delivery::ExactlyOnce {
            self.deliver_exactly_once();
        }
    }

    /// From here on events are delivered exactly once; nobody is waited for.
    pub(crate) fn deliver_exactly_once(&self) {
        let switch = ["delivery", "switch", "exactly-once", "--no-wait"];
        let output = self.command().args(switch).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "delivery switch: {said}");
    }

    /// The binary, pointed at this fixture.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env("POSTRIDER_DATABASE_URL", &self.database_url)
            .env("POSTRIDER_BROKERS", &self.brokers)
            .env("POSTRIDER_TOPIC", format!("{}.{{aggregatetype}}", self.name))
            .env("POSTRIDER_LEASE_SECONDS", "5")
            .env("POSTRIDER_ADMIN_LISTEN", "off")
            .env("POSTRIDER_LOG_LEVEL", "info");
        command
    }

    /// As the relay sees it through a proxy in front of PostgreSQL.
    pub(crate) fn through(&self, proxy: &Proxy) -> Self {
        let (head, tail) = self.database_url.rsplit_once(':').expect("the port is named");
        let (_, database) = tail.split_once('/').expect("the database is named");
        let database_url = format!("{head}:{}/{database}", proxy.port());
        Self { database_url, ..self.clone() }
    }

    /// As the relay sees it with other brokers.
    pub(crate) fn with_brokers(&self, brokers: String) -> Self {
        Self { brokers, ..self.clone() }
    }

    /// A session on the test's database.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.database_url).await
    }

    /// The topic of an aggregate type.
    pub(crate) fn topic(&self, aggregate_type: &str) -> String {
        format!("{}.{aggregate_type}", self.name)
    }

    /// Read in this way, and written as that needs.
    pub(crate) fn captured_by(self, capture: Capture) -> Self {
        Self { capture, ..self }
    }

    /// The last place in the order of events: the highest `seq` of the table, or the end of the log.
    pub(crate) async fn drawn(&self) -> i64 {
        let last = match self.capture {
            Capture::Poll | Capture::Wal => "select coalesce(max(seq), 0) from postrider.events",
            Capture::Message => "select (pg_current_wal_insert_lsn() - '0/0')::bigint",
        };
        self.client().await.query_one(last, &[]).await.expect("it answers").get(0)
    }

    /// Waits until everything is published.
    pub(crate) async fn wait_published(&self) {
        let last = match self.capture {
            Capture::Poll | Capture::Wal => i64::MAX,
            Capture::Message => self.drawn().await,
        };
        self.wait_published_upto(last).await;
    }

    /// Waits until everything up to this place is published.
    pub(crate) async fn wait_published_upto(&self, place: i64) {
        let client = self.client().await;
        // Time for a producer that stands still to be found out and replaced, twice.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
        let waits = match self.capture {
            Capture::Poll | Capture::Wal => {
                "select seq from postrider.events where not published and seq <= $1 limit 1"
            }
            Capture::Message => {
                // The place of a message is known once another one stands behind it.
                let more = "select postrider.emit('place', 'place', 'Marked', null)";
                client.batch_execute(more).await.expect("a message can be written");
                "select coalesce(delivered_lsn - '0/0', 0)::bigint from postrider.capture_slot
                 where coalesce(delivered_lsn - '0/0', 0) < $1::bigint"
            }
        };
        loop {
            let waiting = client.query_opt(waits, &[&place]).await.expect("the database answers");
            let Some(row) = waiting else { return };
            let (name, waiting): (_, i64) = (&self.name, row.get(0));
            assert!(
                std::time::Instant::now() < deadline,
                "{name}: {waiting} of {place} not published in time"
            );
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// The database on the shared server that was migrated so. It is copied, as that takes a fraction of the time.
async fn template(postgres: &Postgres, brokers: &str, options: &Options) -> String {
    static MADE: Mutex<Option<HashMap<Options, String>>> = Mutex::const_new(None);
    let mut made = MADE.lock().await;
    let made = made.get_or_insert_default();
    if let Some(name) = made.get(options) {
        return name.clone();
    }
    let name = format!("migrated_{}", made.len());
    let (admin, url) = (postgres.url("postgres"), postgres.url(&name));
    Fixture::made(&name, &admin, url, brokers, options).await;
    made.insert(options.clone(), name.clone());
    name
}

pub(crate) async fn connect(url: &str) -> Client {
    try_connect(url).await.expect("PostgreSQL answers")
}

/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a test's session ended: {error}");
        }
    });
    Ok(client)
}

/// From this version on, a slot can follow a failover.
pub(crate) const FAILOVER_VERSION: i32 = 170_000;
/// From this version on, the server passes over rows for which there is no publication, with a warning.
pub(crate) const NO_PUBLICATION_VERSION: i32 = 180_000;

/// The server's version, as `170006`: servers differ in what they do.
pub(crate) async fn server_version(client: &Client) -> i32 {
    let version = "select current_setting('server_version_num')::int";
    client.query_one(version, &[]).await.expect("it answers").get(0)
}

/// The address of a database with nothing in it, on the shared server.
pub(crate) async fn empty_database(name: &str) -> String {
    let postgres = postgres();
    create_database(&postgres.url("postgres"), name).await;
    postgres.url(name)
}

pub(crate) async fn create_database(admin_url: &str, name: &str) {
    let admin = connect(admin_url).await;
    admin.batch_execute(&format!("create database \"{name}\"")).await.expect("the name is free");
}
