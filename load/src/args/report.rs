//! The flags of `report`.
//!
//! Promises: one run or two.

use std::path::PathBuf;

use clap::Args;

use crate::report::ReportPlan;

/// Make the report of a run once more, or put two runs side by side.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder of a run, or its summary.json.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Folder of the run to set beside it.
    #[arg(value_name = "B")]
    second: Option<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

impl From<ReportArgs> for ReportPlan {
    fn from(args: ReportArgs) -> Self {
        Self { first: args.first, second: args.second, out: args.out }
    }
}
