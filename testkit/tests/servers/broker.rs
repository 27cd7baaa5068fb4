//! Kafka: start, stop, crash, freeze; and the mock.

use crate::{holds_within, lives, own_folder, progress};
use postrider_testkit::servers::{
    Broker, EmbeddedError, Host, Kafka, KafkaOptions, MockKafka, MockOptions,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(20);

fn produce(brokers: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("compression.type", "lz4")
        .create()
        .unwrap();
    producer.send(BaseRecord::to(topic).key("key").payload("value").partition(0)).unwrap();
    producer.flush(WAIT).unwrap();
}

fn client(brokers: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "test").create().unwrap()
}

/// Reads as many records as there are from the first partition.
fn records(brokers: &str, topic: &str) -> usize {
    let consumer = client(brokers);
    let (first, next) = consumer.fetch_watermarks(topic, 0, WAIT).unwrap();
    read(&consumer, topic, first, next)
}

fn read(consumer: &BaseConsumer, topic: &str, first: i64, next: i64) -> usize {
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&place).unwrap();
    for _ in first..next {
        let record = consumer.poll(WAIT).expect("a record in time");
        record.unwrap();
    }
    usize::try_from(next - first).unwrap()
}

/// A machine with a cache and programs of the test's own.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("postrider-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        Self { folder }
    }

    fn add(&self, program: &str, script: &str) {
        let path = self.folder.join("bin").join(program);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn options(&self) -> KafkaOptions {
        let host = Host {
            program_folders: vec![self.folder.join("bin")],
            cache_folders: vec![self.folder.join("cache")],
            ..Host::default()
        };
        KafkaOptions { host, ..KafkaOptions::default() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

#[test]
fn broker_keeps_records_and_leaves_nothing() {
    let kafka = Kafka::start(KafkaOptions::default(), &progress).unwrap();
    produce(kafka.brokers(), "kept");
    let metadata = client(kafka.brokers()).fetch_metadata(Some("kept"), WAIT).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 8);
    kafka.kill().unwrap();
    assert_eq!(kafka.process_id().unwrap(), None);
    let begin = std::time::Instant::now();
    kafka.start_again().unwrap();
    println!("started again after {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(records(kafka.brokers(), "kept"), 1);
    produce(kafka.brokers(), "kept");
    kafka.stop().unwrap();
    kafka.start_again().unwrap();
    assert_eq!(records(kafka.brokers(), "kept"), 2);

    kafka.freeze().unwrap();
    let short = Duration::from_millis(500);
    assert!(client(kafka.brokers()).fetch_metadata(None, short).is_err(), "frozen");
    kafka.thaw().unwrap();
    // On a busy machine the broker may have lost its session: its partitions come back soon.
    let consumer = client(kafka.brokers());
    let leads = || consumer.fetch_watermarks("kept", 0, short).is_ok();
    assert!(holds_within(WAIT, leads), "thawed");
    assert_eq!(read(&consumer, "kept", 0, 2), 2);
    // A consumer with a group that is dropped after its broker waits long for an answer.
    drop(consumer);

    kafka.freeze().unwrap();
    let process = kafka.process_id().unwrap().unwrap();
    let data = kafka.data_folder();
    drop(kafka);
    assert!(!lives(process), "the broker is gone, although it was frozen");
    assert!(!own_folder(&data).exists(), "the folder is gone");
}

/// A record may carry the time of its row, and the broker removes records by their time.
#[test]
fn records_with_an_old_time_stay() {
    let often = ("log.retention.check.interval.ms".to_owned(), "100".to_owned());
    let soon = ("log.initial.task.delay.ms".to_owned(), "0".to_owned());
    let options = KafkaOptions { properties: vec![often, soon], ..KafkaOptions::default() };
    let kafka = Kafka::start(options, &progress).unwrap();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let year_2001_millis = 1_000_000_000_000;
    let old = BaseRecord::to("old").key("key").payload("value").timestamp(year_2001_millis);
    producer.send(old.partition(0)).unwrap();
    producer.flush(WAIT).unwrap();
    let consumer = client(kafka.brokers());
    let was_removed =
        || consumer.fetch_watermarks("old", 0, WAIT).is_ok_and(|(first, _)| first > 0);
    assert!(!holds_within(Duration::from_secs(3), was_removed));
    assert_eq!(records(kafka.brokers(), "old"), 1);
}

#[test]
fn missing_java_is_named() {
    let host = Host { program_folders: Vec::new(), ..Host::default() };
    let options = KafkaOptions { host, ..KafkaOptions::default() };
    let error = Kafka::start(options.clone(), &progress).unwrap_err();
    assert!(matches!(error, EmbeddedError::ProgramMissing { program: "java", .. }), "{error}");
    assert!(error.to_string().contains("install openjdk-17-jre-headless"), "{error}");

    let broker = Broker::start(options, &["orders"], &progress).unwrap();
    let Broker::Mock(mock) = &broker else { panic!("the mock stands in") };
    assert!(mock.reason().contains("java not found"), "{}", mock.reason());
    produce(broker.brokers(), "orders");
    assert_eq!(records(broker.brokers(), "orders"), 1);
}

#[test]
fn old_java_is_told_apart() {
    let machine = Machine::new();
    machine.add("java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2");
    let error = Kafka::start(machine.options(), &progress).unwrap_err();
    assert!(matches!(error, EmbeddedError::JavaTooOld { .. }), "{error}");
    assert!(error.to_string().contains("is Java 11.0.2: Kafka needs Java 17"), "{error}");
}

#[test]
fn missing_or_failing_maven_is_named() {
    let machine = Machine::new();
    machine.add("java", "echo 'openjdk version \"21\" 2023-09-19' >&2");
    let error = Kafka::start(machine.options(), &progress).unwrap_err();
    assert!(matches!(error, EmbeddedError::ProgramMissing { program: "mvn", .. }), "{error}");
    machine.add("mvn", "echo 'network is unreachable'; exit 1");
    let error = Kafka::start(machine.options(), &progress).unwrap_err();
    assert!(matches!(error, EmbeddedError::Fetch { .. }) && error.is_missing_part(), "{error}");
    assert!(error.to_string().contains("network is unreachable"), "{error}");
    assert_eq!(std::fs::read_dir(machine.folder.join("cache")).unwrap().count(), 0);
}

#[test]
fn a_file_that_nobody_listed_is_neither_kept_nor_run() {
    let machine = Machine::new();
    machine.add("java", "echo 'openjdk version \"21\" 2023-09-19' >&2");
    let bring = "for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done
        mkdir -p $folder && echo evil >$folder/kafka_2.13-4.4.0.jar";
    machine.add("mvn", &format!("PATH=/usr/bin:/bin\n{bring}"));
    let error = Kafka::start(machine.options(), &progress).unwrap_err();
    assert!(matches!(error, EmbeddedError::Archive { .. }), "{error}");
    assert!(!error.is_missing_part(), "the demo does not go on as if it were not installed");
    let said = error.to_string();
    assert!(said.contains("kafka_2.13-4.4.0.jar is damaged (its SHA-256 is "), "{said}");
    assert_eq!(std::fs::read_dir(machine.folder.join("cache")).unwrap().count(), 0);
}

/// Takes the port of a server that has just ended: a connection of its may still be closing.
fn listener_at(port: u16) -> std::net::TcpListener {
    let deadline = Instant::now() + WAIT;
    loop {
        match std::net::TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn taken_port_is_told() {
    let kafka = Kafka::start(KafkaOptions::default(), &progress).unwrap();
    kafka.stop().unwrap();
    let other = listener_at(kafka.port());
    let error = kafka.start_again().unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
    drop(other);
    kafka.start_again().unwrap();
}

#[test]
fn refused_property_shows_the_brokers_words() {
    let properties = vec![("num.network.threads".to_owned(), "many".to_owned())];
    let options = KafkaOptions { properties, ..KafkaOptions::default() };
    let error = Kafka::start(options, &progress).unwrap_err().to_string();
    assert!(error.contains("num.network.threads"), "{error}");
}

#[test]
fn mock_makes_topics_with_partitions() {
    let options = MockOptions { topics: vec!["one".to_owned()], ..MockOptions::default() };
    let mock = MockKafka::start(options, &progress).unwrap();
    mock.create_topic("two", 3).unwrap();
    let consumer = client(mock.brokers());
    for (topic, partitions) in [("one", 8), ("two", 3)] {
        let metadata = consumer.fetch_metadata(Some(topic), WAIT).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), partitions, "{topic}");
    }
    assert!(mock.create_topic("two", 3).is_err(), "it exists");
}
