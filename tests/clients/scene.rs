//! Servers, a writer's and a consumer's database, the relay between them, and what a consumer must have done.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio_postgres::{Client, NoTls};

use super::language::ConsumerProcess;

/// The writer writes two events for each.
pub(crate) const ORDERS: u32 = 150;
const LAST: &str = "the-last";
const PATIENCE: Duration = Duration::from_secs(180);

fn postgres() -> &'static Postgres {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    POSTGRES.get_or_init(|| {
        let started = Postgres::start(PostgresOptions::default(), &|_| ());
        started.unwrap_or_else(|cause| panic!("{cause}"))
    })
}

fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| {
        let started = Kafka::start(KafkaOptions::default(), &|_| ());
        started.unwrap_or_else(|cause| panic!("{cause}"))
    })
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client
}

/// One language's part of the servers.
pub(crate) struct Scene {
    /// The writer's database.
    pub(crate) shop_url: String,
    /// The consumer's database.
    pub(crate) billing_url: String,
    /// Kafka.
    pub(crate) brokers: String,
    /// Where the relay sends.
    pub(crate) topic: String,
}

impl Scene {
    /// Both databases as their pages say they are made, and a topic of one partition: what was sent last is read last.
    pub(crate) async fn new(name: &str) -> Self {
        let (postgres, brokers) = (postgres(), kafka().brokers().to_owned());
        let admin = connect(&postgres.url("postgres")).await;
        for database in [format!("shop_{name}"), format!("billing_{name}")] {
            let create = format!("create database {database}");
            admin.batch_execute(&create).await.expect("the name is free");
        }
        let shop_url = postgres.url(&format!("shop_{name}"));
        let billing_url = postgres.url(&format!("billing_{name}"));
        let topic = format!("{name}.order");
        let scene = Self { shop_url, billing_url, brokers, topic };
        scene.postrider(&scene.shop_url, &["migrate", "up", "--buckets", "2"]);
        scene.postrider(&scene.billing_url, &["migrate", "inbox", "up"]);
        let purchase = "create table purchase (id text primary key, state text not null)";
        connect(&scene.shop_url).await.batch_execute(purchase).await.expect("it is ours");
        let effect = "create table effect (effect bigint generated always as identity,
            event_id uuid not null, aggregate_id text not null)";
        connect(&scene.billing_url).await.batch_execute(effect).await.expect("it is ours");
        let kafka: AdminClient<DefaultClientContext> =
            scene.client().create().expect("the configuration is good");
        let topic = NewTopic::new(&scene.topic, 1, TopicReplication::Fixed(1));
        let made = kafka.create_topics([&topic], &AdminOptions::new()).await;
        assert!(made.expect("Kafka answers").iter().all(Result::is_ok), "the topic is new");
        scene
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn command(&self, database_url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.env("POSTRIDER_DATABASE_URL", database_url).args(arguments);
        command
    }

    fn postrider(&self, database_url: &str, arguments: &[&str]) {
        let done = self.command(database_url, arguments).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
    }

    /// Runs the relay until all that was written is published.
    pub(crate) async fn relay_all(&self) {
        let name = self.topic.split('.').next().expect("it has a name");
        let template = format!("{name}.{{aggregatetype}}");
        let arguments = [
            "run",
            "--add-headers",
            "seq,position",
            "--admin-listen",
            "off",
            "--log-level",
            "warn",
            "--topic",
            &template,
        ];
        let mut relay = self.command(&self.shop_url, &arguments);
        let mut relay = relay.env("POSTRIDER_BROKERS", &self.brokers).spawn().expect("it runs");
        let (shop, begin) = (connect(&self.shop_url).await, Instant::now());
        let waits = "select exists (select from postrider.events where not published)";
        while shop.query_one(waits, &[]).await.expect("it answers").get(0) {
            assert!(begin.elapsed() < PATIENCE, "not all was published in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        relay.kill().expect("it is ours to kill");
        relay.wait().expect("it is ours to wait for");
    }

    /// Appends every record of the topic once more, as a relay does that lost its cursors.
    pub(crate) async fn repeat_all_records(&self) {
        let consumer: BaseConsumer =
            self.client().set("group.id", "repeats").create().expect("the configuration is good");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, 0, Offset::Beginning).expect("it is a place");
        consumer.assign(&from).expect("the topic is there");
        let count = self.events().await.len();
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.client().create().expect("the configuration is good");
        let (mut repeated, begin) = (0, Instant::now());
        while repeated < count {
            assert!(begin.elapsed() < PATIENCE, "{repeated} of {count} records came");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.expect("it can be read").detach();
            let mut record = BaseRecord::to(&self.topic)
                .key(message.key().expect("it has one"))
                .headers(message.headers().expect("it has some").clone());
            if let Some(payload) = message.payload() {
                record = record.payload(payload);
            }
            producer.send(record).expect("there is room");
            repeated += 1;
        }
        producer.flush(PATIENCE).expect("Kafka takes it");
    }

    /// An event behind all others, whose effect tells that everything was read.
    pub(crate) async fn write_the_last_event(&self) {
        let emit = format!("select postrider.emit('order', '{LAST}', 'OrderPlaced', '{{}}')");
        connect(&self.shop_url).await.execute(&emit, &[]).await.expect("it is written");
        self.relay_all().await;
    }

    async fn effects(&self, condition: &str) -> i64 {
        let count = format!("select count(*) from effect where {condition}");
        let billing = connect(&self.billing_url).await;
        billing.query_one(&count, &[]).await.expect("it answers").get(0)
    }

    async fn wait_for(&self, condition: &str, consumer: &mut ConsumerProcess) {
        let begin = Instant::now();
        while self.effects(condition).await == 0 {
            consumer.check();
            assert!(begin.elapsed() < PATIENCE, "no effect in time: {}", consumer.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the consumer has done something.
    pub(crate) async fn wait_for_an_effect(&self, consumer: &mut ConsumerProcess) {
        self.wait_for("true", consumer).await;
    }

    /// Waits until the consumer has read everything.
    pub(crate) async fn wait_for_the_last_effect(&self, consumer: &mut ConsumerProcess) {
        self.wait_for(&format!("aggregate_id = '{LAST}'"), consumer).await;
    }

    /// The written events, as id and aggregate, in the order of writing.
    async fn events(&self) -> Vec<(uuid::Uuid, String)> {
        let shop = connect(&self.shop_url).await;
        let rows = shop.query("select id, aggregateid from outbox order by seq", &[]).await;
        rows.expect("it answers").iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Whether each event had its effect once, and those of an aggregate in their order.
    pub(crate) async fn check_effects(&self) {
        let billing = connect(&self.billing_url).await;
        let rows = billing.query("select event_id, aggregate_id from effect order by effect", &[]);
        let rows = rows.await.expect("it answers");
        let effects: Vec<(uuid::Uuid, String)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let events = self.events().await;
        assert_eq!(events.len(), 2 * ORDERS as usize + 1, "two for each order, and the last");
        let per_aggregate = |list: &[(uuid::Uuid, String)]| {
            let mut found: BTreeMap<String, Vec<uuid::Uuid>> = BTreeMap::new();
            for (event, aggregate) in list {
                found.entry(aggregate.clone()).or_default().push(*event);
            }
            found
        };
        assert_eq!(per_aggregate(&effects), per_aggregate(&events));
    }
}
