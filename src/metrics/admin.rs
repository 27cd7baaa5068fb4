//! What the answers over HTTP are made of.
//!
//! Promises: every answer is made of what is in memory; the database is there for those who have the token and change
//! something. Must not: ask it.

use std::sync::Arc;
use std::time::Instant;

use crate::config::admin_hosts::AdminHosts;
use crate::config::admin_token::AdminToken;
use crate::metrics::counters::Monitor;
use crate::metrics::shape::{CONFIG_SCHEMA, ConfigReport, SettingStatus};
use crate::metrics::vitals::Vitals;
use crate::postgres::DatabaseConfig;

/// An instance, as those see it who ask over HTTP.
#[derive(Debug)]
pub struct Admin {
    pub(super) monitor: Arc<Monitor>,
    pub(super) vitals: Vitals,
    /// By what it works.
    pub(super) config: ConfigReport,
    /// By which names it answers.
    pub(super) hosts: AdminHosts,
    /// None where nobody may change anything here.
    pub(super) steering: Option<Steering>,
}

impl Admin {
    /// An instance that works by these settings.
    pub fn new(monitor: Arc<Monitor>, settings: Vec<SettingStatus>) -> Self {
        let config = ConfigReport { schema: CONFIG_SCHEMA.to_owned(), settings };
        let vitals = Vitals::new(Arc::clone(&monitor), Instant::now());
        Self { monitor, vitals, config, hosts: AdminHosts::default(), steering: None }
    }

    /// Answers by these names, too.
    #[must_use]
    pub fn answering_by(self, hosts: AdminHosts) -> Self {
        Self { hosts, ..self }
    }

    /// Those who have the token may pause and resume, and have parked events tried again or discarded.
    #[must_use]
    pub fn steered(self, token: Option<AdminToken>, database: &DatabaseConfig) -> Self {
        let steering = token.map(|token| Steering {
            token,
            database: database.clone(),
            turn: tokio::sync::Mutex::new(()),
        });
        Self { steering, ..self }
    }
}

/// By what something is changed.
#[derive(Debug)]
pub(super) struct Steering {
    pub(super) token: AdminToken,
    pub(super) database: DatabaseConfig,
    /// One at a time: each takes a session with PostgreSQL.
    pub(super) turn: tokio::sync::Mutex<()>,
}
