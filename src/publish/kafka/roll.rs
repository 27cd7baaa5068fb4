//! Which clients of librdkafka are there, and how each is given what it logs in with.
//!
//! Promises: a client is held by its owners alone: one that is dropped is forgotten. Must not: keep a
//! credential, or say when there is a new one. Fails: with librdkafka's reason, which quotes no credential.

use std::sync::{Arc, Weak};

use postrider_token::{set_password, set_token};
use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// What a client shows to the brokers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Credential<'a> {
    Token(postrider_token::Token<'a>),
    Password(postrider_token::Password<'a>),
}

/// A client that can be given a credential.
pub(super) trait LogsIn: Send + Sync {
    /// Connections that are opened from now on show it.
    ///
    /// # Errors
    /// Why librdkafka does not take it.
    fn log_in(&self, credential: Credential<'_>) -> Result<(), String>;
}

impl<C: ProducerContext + 'static> LogsIn for BaseProducer<C> {
    fn log_in(&self, credential: Credential<'_>) -> Result<(), String> {
        match credential {
            Credential::Token(token) => set_token(self.client(), &token),
            Credential::Password(password) => set_password(self.client(), &password),
        }
    }
}

impl<C: ConsumerContext + 'static> LogsIn for BaseConsumer<C> {
    fn log_in(&self, credential: Credential<'_>) -> Result<(), String> {
        match credential {
            Credential::Token(token) => set_token(self.client(), &token),
            Credential::Password(password) => set_password(self.client(), &password),
        }
    }
}

impl<C: ClientContext + 'static> LogsIn for AdminClient<C> {
    fn log_in(&self, credential: Credential<'_>) -> Result<(), String> {
        match credential {
            Credential::Token(token) => set_token(self.inner(), &token),
            Credential::Password(password) => set_password(self.inner(), &password),
        }
    }
}

/// The clients that are there.
#[derive(Default)]
pub(super) struct Roll(Vec<Weak<dyn LogsIn>>);

impl Roll {
    /// One more.
    pub(super) fn note<T: LogsIn + 'static>(&mut self, client: &Arc<T>) {
        self.0.retain(|client| client.strong_count() > 0);
        let client: Weak<T> = Arc::downgrade(client);
        self.0.push(client);
    }

    /// All of them. Whoever drops the last hold on a client waits for its end: not under a lock.
    pub(super) fn present(&self) -> Vec<Arc<dyn LogsIn>> {
        self.0.iter().filter_map(Weak::upgrade).collect()
    }
}
