//! The stage: PostgreSQL, Kafka, a database per service, the topics, and every process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::arguments::Options;
use crate::database;
use crate::events::{ORDER_TOPIC, PAYMENT_TOPIC, STOCK_TOPIC};
use crate::ledger::NAIVE_TOPIC;
use crate::read_model;
use crate::supervisor::{Process, Supervisor, postrider};
use crate::topics;

/// A service with its database.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// Of service and database.
    name: &'static str,
    schema: &'static str,
    /// It writes events, and its relay has this name.
    relay: Option<&'static str>,
    /// It reads events.
    has_inbox: bool,
}

const OWNERS: [Owner; 5] = [
    Owner {
        name: "orders",
        schema: include_str!("sql/orders_schema.sql"),
        relay: Some("orders-relay"),
        has_inbox: true,
    },
    Owner {
        name: "stock",
        schema: include_str!("sql/stock_schema.sql"),
        relay: Some("stock-relay"),
        has_inbox: true,
    },
    Owner {
        name: "payments",
        schema: include_str!("sql/payments_schema.sql"),
        relay: Some("payments-relay"),
        has_inbox: true,
    },
    Owner {
        name: "read-model",
        schema: include_str!("sql/readmodel_schema.sql"),
        relay: None,
        has_inbox: true,
    },
    Owner {
        name: "naive",
        schema: include_str!("sql/naive_schema.sql"),
        relay: None,
        has_inbox: false,
    },
];
/// The audit reads the outboxes to the end, so none of their rows is removed while the example runs.
const GENERATION_SECONDS: &str = "604800";
/// A killed relay's buckets are idle for so long; ten seconds is the default.
const LEASE_SECONDS: &str = "2";
const JOURNAL_LINES: usize = 12;
/// A killed server is away for so long at least.
const OUTAGE: Duration = Duration::from_millis(700);

/// One that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Process(&'static str),
    Server(ServerKind),
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Postgres,
    Kafka,
}

impl Victim {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Process(name) => name,
            Self::Server(ServerKind::Postgres) => "postgres",
            Self::Server(ServerKind::Kafka) => "kafka",
        }
    }
}

/// All that runs. What ends first when it is dropped stands first.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) supervisor: Supervisor,
    postgres: Postgres,
    kafka: Kafka,
    pub(crate) orders: SocketAddr,
    pub(crate) naive: Option<SocketAddr>,
    /// Logs, and the word to be slow.
    pub(crate) folder: PathBuf,
    /// Held while a server is away.
    turns: [Arc<Mutex<()>>; 2],
    server_kills: [AtomicU32; 2],
    /// What was done to it, last things last.
    journal: std::sync::Mutex<Vec<String>>,
    reads_log: AtomicBool,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let (postgres, kafka) = servers().await?;
        for owner in &OWNERS {
            prepare(&postgres, owner).await?;
        }
        let topics = [ORDER_TOPIC, STOCK_TOPIC, PAYMENT_TOPIC, NAIVE_TOPIC];
        topics::create(kafka.brokers(), &topics).await?;
        let folder = std::env::temp_dir().join(format!("order-service-{}", std::process::id()));
        std::fs::create_dir(&folder).context("cannot make a folder for the logs")?;
        let (orders, naive) = (free_address()?, free_address()?);
        let naive = options.naive.then_some(naive);
        let mut processes = Vec::new();
        for owner in &OWNERS {
            let listen = match owner.name {
                "orders" => Some(orders),
                "naive" if naive.is_none() => continue,
                "naive" => naive,
                _ => None,
            };
            let environment = vec![
                ("DATABASE_URL", postgres.url(owner.name)),
                ("POSTRIDER_BROKERS", kafka.brokers().to_owned()),
            ];
            if let Some(name) = owner.relay {
                let words = ["run", "--add-headers", "seq", "--admin-listen", "off"];
                let more = ["--lease-seconds", LEASE_SECONDS, "--shards", "1"];
                let arguments = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
                processes.push(Process { name, arguments, environment: environment.clone() });
            }
            let mut arguments = vec![owner.name.to_owned()];
            arguments.extend(listen.map(|address| format!("--listen={address}")));
            let slow_file = slow_file(&folder, owner.name);
            arguments.push(format!("--slow-file={}", slow_file.display()));
            processes.push(Process { name: owner.name, arguments, environment });
        }
        let supervisor = Supervisor::start(processes, &folder)?;
        let (turns, server_kills, journal, reads_log) = Default::default();
        Ok(Self {
            supervisor,
            postgres,
            kafka,
            orders,
            naive,
            folder,
            turns,
            server_kills,
            journal,
            reads_log,
        })
    }

    pub(crate) fn brokers(&self) -> &str {
        self.kafka.brokers()
    }

    /// The address of a service's database.
    pub(crate) fn url(&self, owner: &str) -> String {
        self.postgres.url(owner)
    }

    /// A connection to a service's database. No service has one to another's; the audit has to all.
    pub(crate) async fn database(&self, owner: &str) -> Result<Client> {
        database::connect(&self.url(owner)).await
    }

    /// Tells what is done.
    pub(crate) fn say(&self, line: String) {
        println!("{line}");
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.push(line);
        let surplus = journal.len().saturating_sub(JOURNAL_LINES);
        journal.drain(..surplus);
    }

    /// What was done last.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the read model is slow.
    pub(crate) fn is_slow(&self) -> bool {
        slow_file(&self.folder, read_model::NAME).exists()
    }

    /// Makes the read model slow, or fast again.
    pub(crate) fn set_slow(&self, is_slow: bool) -> Result<()> {
        let file = slow_file(&self.folder, read_model::NAME);
        match is_slow {
            true => std::fs::write(file, "")?,
            false => std::fs::remove_file(file)?,
        }
        self.say(format!("the read model is {}", if is_slow { "slow" } else { "fast again" }));
        Ok(())
    }

    /// How the relays read.
    pub(crate) fn capture(&self) -> &'static str {
        if self.reads_log.load(Ordering::Relaxed) { "wal" } else { "poll" }
    }

    /// Remembers how the relays read.
    pub(crate) fn set_capture(&self, mode: &str) {
        self.reads_log.store(mode == "wal", Ordering::Relaxed);
    }

    /// Everybody who can be killed.
    pub(crate) fn victims(&self) -> Vec<Victim> {
        let processes = self.supervisor.kills();
        let processes = processes.into_iter().map(|(name, _)| Victim::Process(name));
        let servers = [ServerKind::Postgres, ServerKind::Kafka].map(Victim::Server);
        processes.chain(servers).collect()
    }

    /// Whose turn it is to have this server away.
    pub(crate) fn turn(&self, kind: ServerKind) -> &Arc<Mutex<()>> {
        &self.turns[kind as usize]
    }

    /// Waits until both servers are there.
    pub(crate) async fn is_whole(&self) {
        for turn in &self.turns {
            drop(turn.lock().await);
        }
    }

    /// Kills a server, and starts it again on what it has left on its disk. It blocks.
    pub(crate) fn kill_and_start_again(&self, kind: ServerKind) -> Result<()> {
        match kind {
            ServerKind::Postgres => self.postgres.kill()?,
            ServerKind::Kafka => self.kafka.kill()?,
        }
        self.server_kills[kind as usize].fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(OUTAGE);
        match kind {
            ServerKind::Postgres => self.postgres.start_again()?,
            ServerKind::Kafka => self.kafka.start_again()?,
        }
        Ok(())
    }

    /// Who was killed how often.
    pub(crate) fn kills(&self) -> Vec<(&'static str, u32)> {
        let mut kills = self.supervisor.kills();
        for kind in [ServerKind::Postgres, ServerKind::Kafka] {
            let count = self.server_kills[kind as usize].load(Ordering::Relaxed);
            kills.push((Victim::Server(kind).name(), count));
        }
        kills
    }
}

/// While this file is there, a consumer is slow.
pub(crate) fn slow_file(folder: &std::path::Path, owner: &str) -> PathBuf {
    folder.join(format!("{owner}.slow"))
}

/// Both at once, as each takes seconds.
async fn servers() -> Result<(Postgres, Kafka)> {
    let progress = |line: &str| println!("{line}");
    // After a kill PostgreSQL asks for each of its files whether it is on the disk; Linux can say it for all at once.
    let is_linux = cfg!(target_os = "linux");
    let way = is_linux.then(|| ("recovery_init_sync_method".to_owned(), "syncfs".to_owned()));
    let settings = way.into_iter().collect();
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = topics::aside(move || Ok(Postgres::start(options, &progress)?));
    let kafka = topics::aside(move || Ok(Kafka::start(KafkaOptions::default(), &progress)?));
    let (postgres, kafka) = tokio::join!(postgres, kafka);
    Ok((postgres?, kafka?))
}

/// Makes a database: the service's own tables, and the parts of postrider that it uses.
async fn prepare(postgres: &Postgres, owner: &Owner) -> Result<()> {
    let client = database::connect(&postgres.url("postgres")).await?;
    client.batch_execute(&format!("create database \"{}\"", owner.name)).await?;
    let url = postgres.url(owner.name);
    let client = database::connect(&url).await?;
    client.batch_execute(owner.schema).await?;
    if owner.relay.is_some() {
        postrider(&url, &["migrate", "up", "--generation-seconds", GENERATION_SECONDS])?;
    }
    if owner.has_inbox {
        postrider(&url, &["migrate", "inbox", "up"])?;
        client.batch_execute(include_str!("sql/inbox_figures.sql")).await?;
    }
    Ok(())
}

/// A port that nobody has now; the service that gets it keeps it over its lives.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
