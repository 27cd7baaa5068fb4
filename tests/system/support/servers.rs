//! One PostgreSQL and one Kafka for all tests of a run.

use std::path::PathBuf;
use std::sync::OnceLock;

use postrider_testkit::servers::{
    Host, Kafka, KafkaOptions, Postgres, PostgresOptions, PostgresSource, kafka_classes,
};

use super::{Proxy, logins};

/// Kafka, with a proxy in front of its second port, for the one test that breaks its network.
pub(crate) struct SharedKafka {
    kafka: Kafka,
    pub(crate) proxy: Proxy,
}

impl SharedKafka {
    pub(crate) fn brokers(&self) -> &str {
        self.kafka.brokers()
    }

    /// Another of its addresses.
    pub(crate) fn brokers_at(&self, listener: &str) -> Option<String> {
        self.kafka.brokers_at(listener)
    }

    /// Kafka as it is reached through the proxy.
    pub(crate) fn proxied_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.proxy.port())
    }
}

/// The PostgreSQL of all tests; the first caller waits until it is ready. It ends with this process.
pub(crate) fn postgres() -> &'static Postgres {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    // Many a test leaves its slot to the end of the server.
    let slots = [("max_replication_slots", "300"), ("max_wal_senders", "100")];
    POSTGRES.get_or_init(|| start_postgres(&slots))
}

/// The Kafka of all tests; the first caller waits until it is ready. It ends with this process.
pub(crate) fn kafka() -> &'static SharedKafka {
    static KAFKA: OnceLock<SharedKafka> = OnceLock::new();
    KAFKA.get_or_init(|| {
        let (kafka, proxy) = start_proxied_kafka(logins::kafka_options());
        SharedKafka { kafka, proxy }
    })
}

/// Both, made ready beside each other.
pub(crate) fn both() -> (&'static Postgres, &'static SharedKafka) {
    std::thread::scope(|scope| {
        let kafka = scope.spawn(kafka);
        (postgres(), kafka.join().expect("Kafka starts"))
    })
}

/// A PostgreSQL of one's own.
pub(crate) fn start_postgres(settings: &[(&str, &str)]) -> Postgres {
    let settings =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // Another version than the system's can be tried: POSTRIDER_TEST_POSTGRES=fetched, or =16.11.0.
    let source = match std::env::var("POSTRIDER_TEST_POSTGRES").as_deref() {
        Ok("fetched") => PostgresSource::Fetched,
        Ok(version) if version.starts_with(|first: char| first.is_ascii_digit()) => {
            PostgresSource::Fetched
        }
        Ok(other) => panic!("POSTRIDER_TEST_POSTGRES is fetched or a version, not {other}"),
        Err(_) => PostgresSource::Any,
    };
    let options = PostgresOptions { source, settings, ..PostgresOptions::default() };
    Postgres::start(options, &progress).unwrap_or_else(|missing| panic!("{missing}"))
}

/// What makes the starts of Kafka quick.
pub(crate) fn class_archive() -> PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    let made = || kafka_classes(&Host::default(), &progress);
    ARCHIVE.get_or_init(|| made().unwrap_or_else(|missing| panic!("{missing}"))).clone()
}

/// A Kafka of one's own.
pub(crate) fn start_kafka(options: KafkaOptions) -> Kafka {
    let options = KafkaOptions { class_archive: Some(class_archive()), ..options };
    Kafka::start(options, &progress).unwrap_or_else(|missing| panic!("{missing}"))
}

/// A Kafka of one's own with a proxy in front of its second port.
pub(crate) fn start_proxied_kafka(options: KafkaOptions) -> (Kafka, Proxy) {
    let proxy = Proxy::new();
    let kafka = start_kafka(KafkaOptions { proxy_port: Some(proxy.port()), ..options });
    proxy.lead_to(kafka.proxied_port().expect("it was asked for"));
    (kafka, proxy)
}

fn progress(line: &str) {
    println!("{line}");
}
