//! Which librdkafka properties a producer gets, and which it must not get.
//!
//! Promises: order and delivery rest on the properties set here; what would break a promise is
//! refused with the reason. Must not: connect. Fails: with [`ErrorKind::Config`].
//!
//! Source: librdkafka's CONFIGURATION.md and INTRODUCTION.md ("Idempotent Producer").

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::error::{Error, ErrorKind, Result};
pub use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::invalid;
use crate::publish::kafka::login;
use crate::publish::kafka::passwords::LoginFiles;
use crate::secret::SecretCommand;

/// Below the broker's default limit of 1,048,588 bytes per batch: one large event must not take its
/// neighbours with it. `learned_limits` lowers it where a topic takes less.
pub(super) const BATCH_BYTES: (&str, usize) = ("batch.size", 900_000);

/// As much as a broker takes by default. `learned_limits` raises it where a topic takes more, so that the
/// topic's limit alone decides; what the operator sets here is a limit of its own.
pub(super) const MESSAGE_BYTES_MAX: (&str, usize) = ("message.max.bytes", 1_048_588);

/// Whom a client asks first.
pub(super) const BROKERS: &str = "bootstrap.servers";

/// Properties that every producer has, before the operator's own.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "postrider"),
    ("compression.type", "lz4"),
    // Bytes are bounded by the ledger, which counts what a record costs besides its bytes too.
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "1048576"),
    ("batch.num.messages", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
    ("retry.backoff.ms", "50"),
    // How long a change of leaders or partitions may stay unseen while nothing fails.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("log.connection.close", "false"),
];

/// How long a batch waits for more records, by both of its names.
const LINGER: [&str; 2] = ["linger.ms", "queue.buffering.max.ms"];

/// Properties on which the promises rest, each with what would break without it.
const FIXED: &[(&str, &str, &str)] = &[
    ("enable.idempotence", "true", "without it a retry can reorder or repeat records"),
    ("acks", "all", "a record would be lost with one broker"),
    ("enable.gapless.guarantee", "true", "a refused batch would let the next one pass"),
    ("message.timeout.ms", "0", "a record that expires leaves a gap in its aggregate"),
    ("partitioner", "murmur2_random", "keys would not go where Java clients put them"),
];

/// Other names and neighbours of the fixed properties, which may not be set either.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "name the brokers by --brokers"),
    ("metadata.broker.list", "name the brokers by --brokers"),
    ("request.required.acks", "a record would be lost with one broker"),
    ("delivery.timeout.ms", "a record that expires leaves a gap in its aggregate"),
    ("retries", "a record that is given up leaves a gap in its aggregate"),
    ("message.send.max.retries", "a record that is given up leaves a gap in its aggregate"),
    ("max.in.flight", "idempotence needs at most 5, and sets it"),
    ("max.in.flight.requests.per.connection", "idempotence needs at most 5, and sets it"),
    ("queuing.strategy", "idempotence needs fifo, and sets it"),
    ("transactional.id", "postrider names its producers itself: see `postrider delivery`"),
    ("delivery.report.only.error", "a cursor moves only by acknowledgements"),
    ("plugin.library.paths", "a library would run with the relay's rights"),
    ("ssl.engine.location", "a library would run with the relay's rights"),
    ("ssl_engine_location", "a library would run with the relay's rights"),
    ("dr_cb", "postrider takes the delivery reports itself"),
    ("dr_msg_cb", "postrider takes the delivery reports itself"),
];

/// Properties whose names begin so are for librdkafka's own tests: a cluster in memory acknowledges and forgets.
const TESTS_PREFIX: &str = "test.";

/// The configuration of one producer.
///
/// # Errors
/// [`ErrorKind::Config`] when a property would break a promise.
pub fn producer_config(
    brokers: &str,
    properties: &[(String, String)],
    token_command: Option<&SecretCommand>,
    login_files: &LoginFiles,
) -> Result<ProducerConfig> {
    let mut config = ClientConfig::new();
    // What librdkafka is asked to tell by `debug` would be kept back by a lower level.
    let tells = properties.iter().any(|(name, _)| name == "debug");
    config.set_log_level(if tells { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
    for (name, value) in DEFAULTS {
        config.set(*name, *value);
    }
    for (name, bytes) in [BATCH_BYTES, MESSAGE_BYTES_MAX] {
        config.set(name, bytes.to_string());
    }
    for (name, value) in properties {
        check_property(name, value)?;
        config.set(name, value);
    }
    for (name, value, _) in FIXED {
        config.set(*name, *value);
    }
    config.set(BROKERS, brokers);
    login::settle(&mut config, token_command)?;
    // What librdkafka does not take is said before anything is asked of a broker.
    config.create_native_config().map_err(invalid)?;
    let config = ProducerConfig::from(config);
    Ok(match token_command {
        Some(command) => config.with_tokens(command.clone()),
        None if login_files.is_empty() => config,
        None => config.with_login_of(login_files.clone()),
    })
}

/// How records come to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalPattern {
    /// Many at once. To wait for more than the next few of them only costs time.
    Pages,
    /// One by one. Batches that wait are larger, and cost less.
    Stream,
}

/// The version of librdkafka that this program is linked with.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Whether there is a property of this name, and it may be set.
#[cfg(test)]
pub(crate) fn is_known_property(name: &str) -> bool {
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    // No value is this one: what is known refuses it, or takes it for a text.
    let tried = ClientConfig::new().set(name, "\u{1}").create_native_config();
    let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    let is_unknown = matches!(tried, Err(KafkaError::ClientConfig(told, ..)) if told == unknown);
    check_property(name, "").is_ok() && !is_unknown
}

/// The configuration for records that come in this way; what the operator says of lingering holds.
#[must_use]
pub fn lingering(config: &ProducerConfig, arrivals: ArrivalPattern) -> ProducerConfig {
    let mut config = config.clone();
    if LINGER.iter().all(|name| config.get(name).is_none()) {
        let millis = match arrivals {
            ArrivalPattern::Pages => "1",
            ArrivalPattern::Stream => "5",
        };
        config.set(LINGER[0], millis);
    }
    config
}

fn check_property(name: &str, value: &str) -> Result<()> {
    let fixed = FIXED.iter().find(|(fixed, ..)| *fixed == name);
    let reason = match fixed {
        Some((_, same, _)) if *same == value => None,
        Some((.., reason)) => Some(*reason),
        None if name.starts_with(TESTS_PREFIX) => {
            Some("a broker of tests forgets what it acknowledges")
        }
        None => REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Error::new(
            ErrorKind::Config,
            format!("the librdkafka property {name} cannot be set: {reason}"),
        )
        .with_remedy(format!("leave {name} out"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(brokers: &str, properties: &[(String, String)]) -> Result<ProducerConfig> {
        producer_config(brokers, properties, None, &LoginFiles::default())
    }

    fn property(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn passes_properties_through() {
        let config = made("b:1", &property("linger.ms", "20")).unwrap();
        assert_eq!(config.get("linger.ms"), Some("20"));
        assert_eq!(config.get("bootstrap.servers"), Some("b:1"));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
    }

    #[test]
    fn lingers_as_the_operator_says_or_as_records_come() {
        let millis = |properties: &[_], arrivals| {
            let config = lingering(&made("b:1", properties).unwrap(), arrivals);
            LINGER.map(|name| config.get(name).map(str::to_owned))
        };
        assert_eq!(millis(&[], ArrivalPattern::Pages), [Some("1".to_owned()), None]);
        assert_eq!(millis(&[], ArrivalPattern::Stream), [Some("5".to_owned()), None]);
        let own = |name| millis(&property(name, "20"), ArrivalPattern::Pages);
        assert_eq!(own("linger.ms"), [Some("20".to_owned()), None]);
        assert_eq!(own("queue.buffering.max.ms"), [None, Some("20".to_owned())]);
    }

    #[test]
    fn tells_what_it_is_asked_to_tell() {
        let level = |properties: &[_]| made("b:1", properties).unwrap().log_level();
        assert!(matches!(level(&property("debug", "broker")), RDKafkaLogLevel::Debug));
        assert!(matches!(level(&[]), RDKafkaLogLevel::Warning));
    }

    #[test]
    fn names_a_refused_property_and_never_its_value() {
        for (name, value) in [
            ("sasl.jaas.config", "PlainLoginModule required username=\"u\" password=\"hunter2\";"),
            ("sasl.passwrod", "hunter2"),
            ("ssl.key.pasword", "hunter2"),
            ("security.protocol", "hunter2"),
            ("linger.ms", "hunter2"),
            ("message.max.bytes", "12"),
            ("debug", "broker,hunter2"),
            ("acks", "hunter2"),
            ("retries", "hunter2"),
            ("plugin.library.paths", "/hunter2"),
        ] {
            let error = made("b:1", &property(name, value)).unwrap_err();
            let said = format!("{error} {error:?}");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
        }
        let error = made("b:1", &property("sasl.jaas.config", "u hunter2")).unwrap_err();
        assert!(error.message().contains("Java JAAS"), "{error}");
    }

    #[test]
    fn refuses_what_breaks_a_promise() {
        for (name, value) in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("enable.gapless.guarantee", "false"),
            ("partitioner", "consistent"),
            ("retries", "0"),
            ("bootstrap.servers", "x:1"),
            ("test.mock.num.brokers", "3"),
            ("test.mock.broker.rtt", "1"),
        ] {
            let error = made("b:1", &property(name, value)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(name), "{error}");
        }
        assert!(made("b:1", &property("acks", "all")).is_ok());
    }
}
