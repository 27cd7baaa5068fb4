//! How a client of librdkafka is made: with the relay's settings, logged in, its callbacks heard.
//!
//! Promises: no client of the relay is made anywhere else, so none is without a token. Must not: connect by
//! itself. Fails: when librdkafka refuses the configuration, or no token is had.

use std::sync::Arc;

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};

use crate::error::Result;
use crate::publish::kafka::errors::invalid;
use crate::publish::kafka::passwords::{LoginFiles, Passwords};
use crate::publish::kafka::roll::LogsIn;
use crate::publish::kafka::tokens::Tokens;
use crate::record::topic_rules::TopicRules;
use crate::secret::SecretCommand;

/// What a client is made from; only this folder looks inside.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    properties: ClientConfig,
    login: Option<LoginSource>,
    topic_rules: Option<Arc<TopicRules>>,
}

/// Who gives all clients what they log in with, where that changes.
#[derive(Clone, Debug)]
pub(super) enum LoginSource {
    Tokens(Arc<Tokens>),
    Passwords(Arc<Passwords>),
}

impl LoginSource {
    /// A broker refused what was shown.
    pub(super) fn doubt(&self) {
        match self {
            Self::Tokens(tokens) => tokens.doubt(),
            Self::Passwords(passwords) => passwords.doubt(),
        }
    }
}

impl From<ClientConfig> for ProducerConfig {
    fn from(properties: ClientConfig) -> Self {
        Self { properties, login: None, topic_rules: None }
    }
}

impl ProducerConfig {
    /// The same for clients that log in with tokens from this program; all that are made from clones of it share
    /// one token.
    pub(super) fn with_tokens(self, command: SecretCommand) -> Self {
        Self { login: Some(LoginSource::Tokens(Arc::new(Tokens::new(command)))), ..self }
    }

    /// The same for clients that log in with what these files say at the moment.
    pub(super) fn with_login_of(self, files: LoginFiles) -> Self {
        let passwords = Arc::new(Passwords::new(files, &self.properties));
        Self { login: Some(LoginSource::Passwords(passwords)), ..self }
    }

    /// The same for producers that make topics which are missing.
    #[must_use]
    pub fn making_topics(self, rules: TopicRules) -> Self {
        Self { topic_rules: Some(Arc::new(rules)), ..self }
    }

    /// How missing topics are made; none where they are not.
    pub(super) fn topic_rules(&self) -> Option<&Arc<TopicRules>> {
        self.topic_rules.as_ref()
    }

    /// A property that was set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.properties.set(name, value);
    }

    pub(super) fn set_log_level(&mut self, level: RDKafkaLogLevel) {
        self.properties.set_log_level(level);
    }

    /// How much librdkafka tells.
    #[cfg(test)]
    pub(super) fn log_level(&self) -> RDKafkaLogLevel {
        self.properties.log_level
    }

    /// Who renews what clients log in with, where that changes.
    pub(super) fn login(&self) -> Option<LoginSource> {
        self.login.clone()
    }

    /// A producer.
    pub(super) fn producer<C>(&self, context: C) -> Result<Arc<BaseProducer<C>>>
    where
        C: ProducerContext + 'static,
    {
        self.attend(|properties| properties.create_with_context(context).map_err(invalid))
    }

    /// A producer that is only asked whether brokers answer.
    pub(super) fn asker(&self) -> Result<Arc<BaseProducer<AsideContext>>> {
        self.producer(AsideContext)
    }

    /// A client that reads, with these properties as well.
    pub(super) fn consumer(
        &self,
        properties: &[(&str, &str)],
    ) -> Result<Arc<BaseConsumer<AsideContext>>> {
        let mut own = self.clone();
        properties.iter().for_each(|(name, value)| own.set(name, *value));
        own.attend(|properties| properties.create_with_context(AsideContext).map_err(invalid))
    }

    /// A client for administration.
    pub(super) fn admin(&self) -> Result<Arc<AdminClient<AsideContext>>> {
        self.attend(|properties| properties.create_with_context(AsideContext).map_err(invalid))
    }

    fn attend<T: LogsIn + 'static>(
        &self,
        make: impl FnOnce(&ClientConfig) -> Result<T>,
    ) -> Result<Arc<T>> {
        match &self.login {
            None => make(&self.properties).map(Arc::new),
            Some(LoginSource::Passwords(passwords)) => passwords.attend(&self.properties, make),
            Some(LoginSource::Tokens(tokens)) => {
                let client = Arc::new(make(&self.properties)?);
                tokens.attend(&client)?;
                Ok(client)
            }
        }
    }
}

/// The callbacks of a client beside the producers: what it meets, they meet too, and say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsideContext;

impl ClientContext for AsideContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for AsideContext {}

impl ProducerContext for AsideContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
