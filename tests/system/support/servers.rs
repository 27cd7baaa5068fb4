//! One PostgreSQL and one Kafka for all tests of a run.

use std::sync::OnceLock;

use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres, PostgresOptions, PostgresSource};

use super::{Proxy, logins};

pub(crate) struct Servers {
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    /// In front of Kafka's second port, for the one test that breaks its network.
    pub(crate) kafka_proxy: Proxy,
}

impl Servers {
    /// Kafka as it is reached through the proxy.
    pub(crate) fn proxied_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_proxy.port())
    }
}

/// Both servers; the first caller waits until they are ready. They end with this process.
pub(crate) fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        std::thread::scope(|scope| {
            let kafka = scope.spawn(|| start_proxied_kafka(logins::kafka_options()));
            // Many a test leaves its slot to the end of the server.
            let slots = [("max_replication_slots", "300"), ("max_wal_senders", "100")];
            let postgres = start_postgres(&slots);
            let (kafka, kafka_proxy) = kafka.join().expect("Kafka starts");
            Servers { postgres, kafka, kafka_proxy }
        })
    })
}

/// A PostgreSQL of one's own.
pub(crate) fn start_postgres(settings: &[(&str, &str)]) -> Postgres {
    let settings =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // Another version than the system's can be tried: POSTRIDER_TEST_POSTGRES=fetched.
    let source = match std::env::var("POSTRIDER_TEST_POSTGRES").as_deref() {
        Ok("fetched") => PostgresSource::Fetched,
        Ok(other) => panic!("POSTRIDER_TEST_POSTGRES knows only fetched, not {other}"),
        Err(_) => PostgresSource::Any,
    };
    let options = PostgresOptions { source, settings, ..PostgresOptions::default() };
    Postgres::start(options, &progress).unwrap_or_else(|missing| panic!("{missing}"))
}

/// A Kafka of one's own.
pub(crate) fn start_kafka(options: KafkaOptions) -> Kafka {
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
