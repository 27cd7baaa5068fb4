//! What the Kafka side of the configuration says of the way to the brokers.
//!
//! Promises: no value of a property is shown, as it may be a password. Must not: connect.

use std::fmt;

use crate::config::KafkaConfig;
use crate::config::records::RecordKind;
use crate::outbox::PayloadType;
use crate::postgres::is_near;
use crate::record::cloud_events::{CloudEvents, RecordFormat};
use crate::record::encode::Encoder;

impl KafkaConfig {
    /// What makes records of events whose payloads are of this type.
    pub fn encoder(&self, payload: PayloadType) -> Encoder {
        let format = match &self.record_kind {
            RecordKind::Plain => RecordFormat::Plain,
            RecordKind::CloudEvents { source } => {
                RecordFormat::CloudEvents(CloudEvents::new(source, payload))
            }
        };
        Encoder::new(self.topic.clone()).with_headers(self.added_headers).with_format(format)
    }

    /// How a client logs in, and what it has the broker prove.
    pub fn login_words(&self) -> String {
        let value = |name: &str| {
            let found = self.properties.iter().rev().find(|(given, _)| given == name);
            found.map(|(_, value)| value.trim().to_ascii_uppercase())
        };
        let protocol = value("security.protocol").unwrap_or_else(|| "PLAINTEXT".to_owned());
        let mechanism = value("sasl.mechanisms").or_else(|| value("sasl.mechanism"));
        let login = match (protocol.starts_with("SASL"), mechanism) {
            (true, Some(mechanism)) => format!("login by {mechanism}"),
            (true, None) => "login by GSSAPI".to_owned(),
            (false, _) if value("ssl.certificate.location").is_some() => {
                "login by certificate".to_owned()
            }
            (false, _) => "no login".to_owned(),
        };
        let proof = match self.weakness_of_way() {
            None => "; the broker proves its name by certificate",
            Some(_) => "; the broker proves nothing",
        };
        format!("{protocol}, {login}{proof}")
    }

    /// Why the conversation with a broker beyond this machine may be overheard or bent, if it may.
    pub(super) fn weakness(&self) -> Option<&'static str> {
        let is_near = |broker: &str| {
            let broker = broker.rsplit_once("://").map_or(broker, |(_, place)| place).trim();
            let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
            is_near(host)
        };
        self.weakness_of_way().filter(|_| !self.brokers.split(',').all(is_near))
    }

    /// The same, wherever the broker is.
    fn weakness_of_way(&self) -> Option<&'static str> {
        let value = |name: &str| {
            let found = self.properties.iter().rev().find(|(given, _)| given == name);
            found.map(|(_, value)| value.trim().to_ascii_lowercase())
        };
        let is_encrypted = value("security.protocol").is_some_and(|way| way.contains("ssl"));
        let is_unproved = value("enable.ssl.certificate.verification")
            .is_some_and(|text| ["false", "0", "f"].contains(&text.as_str()));
        let is_nameless = value("ssl.endpoint.identification.algorithm");
        match (is_encrypted, is_unproved, is_nameless.as_deref()) {
            (false, ..) => Some("it goes without encryption"),
            (true, true, _) => Some("it is encrypted, but nobody proves who the broker is"),
            (true, false, Some("none")) => {
                Some("it is encrypted, but the broker's name is not looked at")
            }
            (true, false, _) => None,
        }
    }
}

impl fmt::Debug for KafkaConfig {
    /// A property's value may be a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("record_timestamp", &self.record_timestamp)
            .field("added_headers", &self.added_headers)
            .field("on_poison", &self.on_poison)
            .field("record_kind", &self.record_kind)
            .field("topic_rules", &self.topic_rules)
            .field("on_missing_topic", &self.on_missing_topic)
            .field("properties", &names)
            .field("login_files", &self.login_files)
            .field("token_command", &self.token_command)
            .finish()
    }
}
