//! The demo's PostgreSQL and its broker.
//!
//! Promises: both start at the same time; both are gone when [`Servers`] is dropped, and also when
//! the process ends before they are ready. Must not: hide that the mock stands in for Kafka.
//! Fails: when a part is missing that has no stand-in, or a server does not start.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::demo::arguments::{BrokerChoice, DemoArguments};
use crate::demo::interrupt::Interrupt;
use crate::error::{Error, ErrorKind, Result};
use postrider_testkit::servers::{
    Broker, EmbeddedError, Heap, JavaCompiler, KafkaOptions, MockKafka, MockOptions, Postgres,
    PostgresOptions,
};

/// Partitions of each topic.
pub(super) const PARTITIONS: u16 = 8;
/// The database that is there from the start.
const DATABASE: &str = "postgres";
const TOPIC_DEADLINE: Duration = Duration::from_secs(30);

/// Both servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) postgres: Postgres,
    pub(super) broker: Broker,
}

impl Servers {
    /// Starts both; `progress` gets a line for each step.
    pub(super) async fn start(
        arguments: &DemoArguments,
        topics: &'static [&'static str],
        progress: fn(&str),
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let postgres_options = postgres_options(arguments);
        let (choice, kafka_options) = (arguments.broker, kafka_options(arguments));
        let postgres = in_thread("start-postgres", move || {
            Postgres::start(postgres_options, &|line| progress(line))
        })?;
        let broker = in_thread("start-kafka", move || {
            start_broker(choice, kafka_options, topics, &|line| progress(line))
        })?;
        let both = async { tokio::join!(outcome(postgres), outcome(broker)) };
        let (postgres, broker) = tokio::select! {
            both = both => both,
            () = interrupt.wait() => return Err(interrupted()),
        };
        Ok(Self {
            postgres: postgres.map_err(|error| failed(ErrorKind::PostgresUnavailable, error))?,
            broker: broker.map_err(|error| failed(ErrorKind::KafkaUnavailable, error))?,
        })
    }

    /// Where the demo's tables are.
    pub(super) fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// What it is that runs, for people.
    pub(super) fn names(&self) -> String {
        let broker = match &self.broker {
            Broker::Kafka(kafka) => format!("Apache Kafka {}", kafka.version()),
            Broker::Mock(_) => "librdkafka's mock cluster instead of Kafka".to_owned(),
        };
        format!("PostgreSQL {}, {broker}", self.postgres.version())
    }

    /// Makes the topics; the mock has made them at its start.
    pub(super) async fn create_topics(&self, topics: &[&str]) -> Result<()> {
        if matches!(self.broker, Broker::Mock(_)) {
            return Ok(());
        }
        let refused = |cause: String| {
            Error::new(ErrorKind::TopicUnavailable, format!("cannot make the topics: {cause}"))
        };
        let client: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.broker.brokers())
            .create()
            .map_err(|cause| refused(cause.to_string()))?;
        let wanted: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| NewTopic::new(topic, i32::from(PARTITIONS), TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(TOPIC_DEADLINE));
        let made = client.create_topics(&wanted, &options).await;
        for topic in made.map_err(|cause| refused(cause.to_string()))? {
            match topic {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(refused(format!("{name}: {code}"))),
            }
        }
        Ok(())
    }
}

/// A thread and not a task, because a start that is no longer wanted must not hold the process.
fn in_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>> {
    let (tell, told) = oneshot::channel();
    let tell_or_drop = move || {
        // Nobody waits any more when the demo was interrupted: the server is dropped here.
        drop(tell.send(work()));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(tell_or_drop).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("cannot start a thread: {cause}"))
    })?;
    Ok(told)
}

async fn outcome<T>(
    told: oneshot::Receiver<std::result::Result<T, EmbeddedError>>,
) -> std::result::Result<T, EmbeddedError> {
    told.await.expect("a starting thread tells how it ended, or the process has panicked")
}

fn start_broker(
    choice: BrokerChoice,
    options: KafkaOptions,
    topics: &[&str],
    progress: &dyn Fn(&str),
) -> std::result::Result<Broker, EmbeddedError> {
    if choice == BrokerChoice::Mock {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let reason = "asked for by --broker mock".to_owned();
        let options = MockOptions { topics, partitions: PARTITIONS, reason };
        return MockKafka::start(options, progress).map(Broker::Mock);
    }
    let broker = Broker::start(options, topics, progress)?;
    if matches!(broker, Broker::Mock(_)) {
        progress("Kafka is missing, its mock stands in: the relay is real, the broker is not");
    }
    Ok(broker)
}

fn postgres_options(arguments: &DemoArguments) -> PostgresOptions {
    let mut settings = Vec::new();
    if arguments.servers_only {
        // These servers are used for load: room for it, and few checkpoints.
        settings.push(("shared_buffers".to_owned(), "1GB".to_owned()));
        settings.push(("max_wal_size".to_owned(), "8GB".to_owned()));
    }
    settings.extend(arguments.postgres_setting.iter().cloned());
    PostgresOptions { settings, ..PostgresOptions::default() }
}

fn kafka_options(arguments: &DemoArguments) -> KafkaOptions {
    let largest_megabytes = arguments.kafka_heap_mb;
    KafkaOptions {
        partitions: u32::from(PARTITIONS),
        heap: Heap { initial_megabytes: largest_megabytes.min(256), largest_megabytes },
        compiler: match arguments.servers_only {
            true => JavaCompiler::FullSpeed,
            false => JavaCompiler::QuickStart,
        },
        ..KafkaOptions::default()
    }
}

fn failed(kind: ErrorKind, error: EmbeddedError) -> Error {
    Error::new(kind, error.to_string()).with_source(error)
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Internal,
        "interrupted before the servers were ready; nothing was checked",
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use postrider_testkit::servers::Host;

    #[test]
    fn mock_stands_in_and_says_what_to_install() {
        let lines = RefCell::new(Vec::new());
        let host = Host { program_folders: Vec::new(), ..Host::default() };
        let options = KafkaOptions { host, ..KafkaOptions::default() };
        let progress = |line: &str| lines.borrow_mut().push(line.to_owned());
        let broker = start_broker(BrokerChoice::Kafka, options, &["orders"], &progress).unwrap();
        assert!(matches!(broker, Broker::Mock(_)));
        let lines = lines.into_inner().join("\n");
        assert!(lines.contains("java not found"), "{lines}");
        assert!(lines.contains("install openjdk-17-jre-headless"), "{lines}");
        assert!(lines.contains("the broker is not"), "{lines}");
    }
}
