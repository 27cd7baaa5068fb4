use crate::config::settings::{Capture, Property};
use crate::config::*;

fn relay() -> RelaySettings {
    RelaySettings::default()
}

fn refused(relay: &RelaySettings) -> Error {
    let common = CommonSettings {
        database_url: Some("postgres://u@h/d".parse().unwrap()),
        ..CommonSettings::default()
    };
    Config::resolve(&common, relay).unwrap_err()
}

fn resolved(relay: &RelaySettings) -> Config {
    let common = CommonSettings {
        database_url: Some("postgres://u@h/d".parse().unwrap()),
        ..CommonSettings::default()
    };
    Config::resolve(&common, relay).unwrap()
}

#[test]
fn has_defaults() {
    let config = resolved(&relay());
    assert_eq!(config.page_rows, 5_000);
    assert_eq!(config.max_in_flight_bytes, 6 << 20);
    assert_eq!(config.max_event_bytes, 8 << 20);
    assert_eq!(config.cadence.min, Duration::from_millis(5));
    assert_eq!(config.cadence.max, Duration::from_millis(50));
    assert_eq!(config.save_interval, Duration::from_millis(100));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(25));
    assert_eq!(config.kafka.brokers, "localhost:9092");
    assert_eq!(config.kafka.topic.to_string(), DEFAULT_TOPIC_TEMPLATE);
    assert_eq!(config.kafka.added_headers, AddedHeaders::default());
    assert_eq!(config.shards, None);
    assert_eq!(config.replay_window, None, "one generation, which the outbox knows");
    let settings = RelaySettings { replay_window: Some("0s".parse().unwrap()), ..relay() };
    assert_eq!(resolved(&settings).replay_window, Some(Duration::ZERO));
}

#[test]
fn every_way_of_delivery_and_of_reading_can_be_asked_for() {
    for asked in [None, Some(Delivery::AtLeastOnce), Some(Delivery::ExactlyOnce)] {
        assert_eq!(resolved(&RelaySettings { delivery: asked, ..relay() }).delivery, asked);
    }
    for (asked, mode) in [
        (None, None),
        (Some(Capture::Poll), Some(Mode::Poll)),
        (Some(Capture::Wal), Some(Mode::Wal)),
        (Some(Capture::Message), Some(Mode::Message)),
    ] {
        assert_eq!(resolved(&RelaySettings { capture: asked, ..relay() }).capture, mode);
    }
}

#[test]
fn ticks_must_not_cross() {
    let settings = RelaySettings { tick_max: Some("1ms".parse().unwrap()), ..relay() };
    assert!(refused(&settings).message().contains("--tick-min"));
    let settings = RelaySettings { tick_min: Some("80ms".parse().unwrap()), ..relay() };
    assert_eq!(
        resolved(&settings).cadence.max,
        Duration::from_millis(80),
        "an unsaid limit gives way"
    );
}

#[test]
fn refuses_bad_names() {
    let error = refused(&RelaySettings { topic: Some("a.{b}".to_owned()), ..relay() });
    assert!(error.message().starts_with("--topic"), "{error}");
    let error = refused(&RelaySettings { brokers: Some(" ".to_owned()), ..relay() });
    assert!(error.message().starts_with("--brokers"), "{error}");
    for brokers in ["user:hunter2@kafka:9092", "SASL_SSL://u:hunter2@a:1,b:2", "a:1,hunter2@b:2"] {
        let error = refused(&RelaySettings { brokers: Some(brokers.to_owned()), ..relay() });
        assert!(error.message().contains('@'), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn the_nearer_layer_wins() {
    let file = RelaySettings {
        shards: NonZeroU16::new(2),
        brokers: Some("file:1".to_owned()),
        properties: vec![Property::new("linger.ms", "1")],
        ..relay()
    };
    let flags = RelaySettings {
        brokers: Some("flag:1".to_owned()),
        property: vec!["linger.ms=2".parse().unwrap()],
        ..relay()
    };
    let config = resolved(&flags.over(file));
    assert_eq!(config.shards, NonZeroU16::new(2));
    assert_eq!(config.kafka.brokers, "flag:1");
    let last = config.kafka.properties.last().unwrap();
    assert_eq!(last, &("linger.ms".to_owned(), "2".to_owned()), "the flag is set last");
    let secret =
        RelaySettings { properties: vec![Property::new("sasl.password", "hush")], ..relay() };
    let said = format!("{:?}", resolved(&secret));
    assert!(said.contains("sasl.password") && !said.contains("hush"), "{said}");
}

#[test]
fn what_logs_in_is_read_again_where_a_file_says_it_last() {
    let file = std::env::temp_dir().join(format!("postrider-word-{}", std::process::id()));
    std::fs::write(&file, "hush\r\n").unwrap();
    let place = file.to_str().unwrap();
    let followed = |property: &str, flag: &[&str]| {
        let settings = RelaySettings {
            property_files: vec![Property::new(property, place)],
            property: flag.iter().map(|flag| flag.parse().unwrap()).collect(),
            ..relay()
        };
        let kafka = resolved(&settings).kafka;
        assert_eq!(kafka.properties[0], (property.to_owned(), "hush".to_owned()));
        kafka.login_files != LoginFiles::default()
    };
    assert!(followed("sasl.password", &[]) && followed("sasl.username", &["sasl.password=x"]));
    assert!(!followed("sasl.password", &["sasl.password=x"]), "the flag is fixed");
    assert!(!followed("ssl.key.password", &[]), "librdkafka takes it at the start alone");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn properties_need_a_name() {
    assert!("linger.ms".parse::<Property>().is_err());
    assert!("=3".parse::<Property>().is_err());
    let property: Property = "sasl.password=a=b".parse().unwrap();
    assert!(!format!("{property:?}").contains("a=b"), "a value may be a password");
    assert_eq!(property.into_pair().1, "a=b");
}

#[test]
fn an_open_way_to_kafka_is_told_beyond_this_machine() {
    let ways = |brokers: &str, properties: &[(&str, &str)]| {
        let property = |(name, value): &(&str, &str)| Property::new(*name, *value);
        let properties = properties.iter().map(property).collect();
        let settings = RelaySettings { brokers: Some(brokers.to_owned()), properties, ..relay() };
        let ways = resolved(&settings).open_ways();
        ways.into_iter().filter(|way| way.contains("Kafka")).collect::<Vec<_>>().join("")
    };
    for near in ["localhost:1,127.0.0.1:2", "[::1]:9092", "PLAINTEXT://localhost:1"] {
        assert_eq!(ways(near, &[]), "", "{near}");
    }
    assert!(ways("localhost:1,kafka:1", &[]).contains("without encryption"));
    assert!(ways("k:1", &[("security.protocol", "SASL_PLAINTEXT")]).contains("without encryption"));
    let tls = ("security.protocol", "SASL_SSL");
    assert_eq!(ways("k:1", &[tls]), "");
    let unproved = ("enable.ssl.certificate.verification", "false");
    assert!(ways("k:1", &[tls, unproved]).contains("proves"));
    let nameless = ("ssl.endpoint.identification.algorithm", "none");
    assert!(ways("k:1", &[tls, nameless]).contains("name"));
}
