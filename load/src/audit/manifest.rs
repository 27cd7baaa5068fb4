//! What a run committed, kept beside its results so that its topic can be audited again later.
//!
//! Promises: enough to judge the topic without the database. Must not: hold the events. Fails: when
//! the file cannot be written or read, or was written in another layout.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::workload::batch::Shape;

/// The name of the layout.
const SCHEMA: &str = "postrider-load/truth/1";

/// The name of the file in a run's folder.
const FILE: &str = "truth.json";

/// What a run committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Truth {
    schema: String,
    /// Tells the run's events from others.
    pub(crate) run: u32,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// The topic.
    pub(crate) topic: String,
    /// For each partition, the offset before the run's first record.
    pub(crate) from: Vec<i64>,
    /// For each aggregate, its last committed version.
    pub(crate) versions: Vec<u32>,
}

impl Truth {
    /// The truth about a run.
    pub(crate) fn new(shape: &Shape, topic: &str, from: &[i64], versions: &[u32]) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            run: shape.run,
            payload_bytes: shape.payload_bytes,
            topic: topic.to_owned(),
            from: from.to_vec(),
            versions: versions.to_vec(),
        }
    }

    /// Writes it into a run's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let json = serde_json::to_string(self).context("the truth cannot be written")?;
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it from a run's folder.
    ///
    /// # Errors
    /// When there is none, or it was written in another layout.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; give the folder of a run", path.display()))?;
        let truth: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} does not say what a run committed", path.display()))?;
        if truth.schema != SCHEMA {
            bail!("{} is {}; this version reads {SCHEMA}", path.display(), truth.schema);
        }
        Ok(truth)
    }
}
