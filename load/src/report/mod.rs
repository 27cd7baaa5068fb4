//! `report.html` of one run, and the comparison of two.
//!
//! Promises: shows what summary.json says and nothing else. Must not: measure or judge again. Fails:
//! when a summary cannot be read or was written in another layout.

mod chart;
mod compare;
mod page;
mod rows;
pub(crate) mod single;
pub(crate) mod summary;
pub(crate) mod threshold;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::output;
use summary::{SCHEMA, Summary};

/// What to report.
#[derive(Clone, Debug)]
pub(crate) struct ReportPlan {
    /// Folder of a run, or its summary.json.
    pub(crate) first: PathBuf,
    /// The run to set beside it.
    pub(crate) second: Option<PathBuf>,
    /// The page to write.
    pub(crate) out: PathBuf,
}

/// Does the command `report`.
///
/// # Errors
/// When a summary cannot be read or the page cannot be written.
pub(crate) fn report(plan: &ReportPlan) -> Result<()> {
    let first = read(&plan.first)?;
    let page = match &plan.second {
        None => single::page(&first),
        Some(second) => {
            let (lines, page) = compare::compare(&first, &read(second)?);
            lines.iter().for_each(|line| output::data(line));
            page
        }
    };
    std::fs::write(&plan.out, page)
        .with_context(|| format!("cannot write {}", plan.out.display()))?;
    output::data(&format!("page: {}", plan.out.display()));
    Ok(())
}

/// Reads a run's summary; `path` is the file or the run's folder.
///
/// # Errors
/// When there is none, or it was written in another layout.
fn read(path: &Path) -> Result<Summary> {
    let file = if path.is_dir() { path.join("summary.json") } else { path.to_owned() };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}; give the folder of a run", file.display()))?;
    let summary: Summary = serde_json::from_str(&text)
        .with_context(|| format!("{} is no summary of a run", file.display()))?;
    if summary.schema != SCHEMA {
        bail!("{} is {}; this version reads {SCHEMA}", file.display(), summary.schema);
    }
    Ok(summary)
}
