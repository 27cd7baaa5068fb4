//! What a run committed, kept beside its results so that its topic can be audited again later.
//!
//! Promises: enough to judge the topic without the database. Must not: hold the events. Fails: when
//! the file cannot be written or read, or was written in another layout.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::workload::batch::EventShape;

/// The name of the layout, and the one that earlier runs gave the same layout.
const SCHEMA: &str = "postrider-load/manifest/1";
const EARLIER_SCHEMA: &str = "postrider-load/truth/1";

/// The name of the file in a run's folder, and that of earlier runs.
const FILE: &str = "manifest.json";
const EARLIER_FILE: &str = "truth.json";

/// What a run committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
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

impl Manifest {
    /// The manifest of a run.
    pub(crate) fn new(shape: &EventShape, topic: &str, from: &[i64], versions: &[u32]) -> Self {
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
        let json = serde_json::to_string(self).context("the manifest cannot be written")?;
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it from a run's folder.
    ///
    /// # Errors
    /// When there is none, or it was written in another layout.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = [FILE, EARLIER_FILE].map(|name| folder.join(name));
        let path = path.iter().find(|path| path.is_file()).unwrap_or(&path[0]);
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; give the folder of a run", path.display()))?;
        let manifest: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} does not say what a run committed", path.display()))?;
        if manifest.schema != SCHEMA && manifest.schema != EARLIER_SCHEMA {
            bail!("{} is {}; this version reads {SCHEMA}", path.display(), manifest.schema);
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = folder("postrider-load-manifest");
        let shape = crate::workload::plan::EventPlan::published(1, 200).shape(7);
        Manifest::new(&shape, "t", &[3, 4], &[1, 2]).write(&folder).expect("written");
        let read = Manifest::read(&folder).expect("read");
        assert_eq!((read.run, read.from, read.versions), (7, vec![3, 4], vec![1, 2]));
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_run_from_before_the_file_had_its_name_is_read_and_another_layout_is_not() {
        let folder = folder("postrider-load-earlier-manifest");
        let written = |schema: &str| {
            let json = format!(
                r#"{{"schema":"{schema}","run":7,"payload_bytes":200,"topic":"t","from":[3],"versions":[1]}}"#
            );
            std::fs::write(folder.join(EARLIER_FILE), json).expect("written");
            Manifest::read(&folder)
        };
        assert_eq!(written(EARLIER_SCHEMA).expect("read").run, 7);
        let refused = written("postrider-load/truth/2").expect_err("refused").to_string();
        assert!(refused.contains("this version reads postrider-load/manifest/1"), "{refused}");
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
