//! What the answers over HTTP are made of.
//!
//! Promises: every answer is made of what is in memory. Must not: ask the database.

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::counters::Monitor;
use crate::metrics::shape::{CONFIG_SCHEMA, ConfigReport, SettingStatus};
use crate::metrics::vitals::Vitals;

/// An instance, as those see it who ask over HTTP.
#[derive(Debug)]
pub struct Admin {
    pub(super) monitor: Arc<Monitor>,
    pub(super) vitals: Vitals,
    /// By what it works.
    pub(super) config: ConfigReport,
}

impl Admin {
    /// An instance that works by these settings.
    pub fn new(monitor: Arc<Monitor>, settings: Vec<SettingStatus>) -> Self {
        let config = ConfigReport { schema: CONFIG_SCHEMA.to_owned(), settings };
        let vitals = Vitals::new(Arc::clone(&monitor), Instant::now());
        Self { monitor, vitals, config }
    }
}
