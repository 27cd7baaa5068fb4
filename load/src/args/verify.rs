//! The flags of `verify`.
//!
//! Promises: the run's own topic is read unless another is named.

use std::path::PathBuf;

use clap::Args;

use super::shared::FormArgs;
use crate::output::OutputFormat;
use crate::verify::VerifyPlan;

/// Audit the topic of an earlier run again: is everything there, in order?
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of a run or drain, with its manifest.json.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Kafka bootstrap servers.
    #[arg(long, default_value = "localhost:9092")]
    brokers: String,
    /// The topic, when it is not the one of the run.
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    form: FormArgs,
}

impl VerifyArgs {
    /// How the result is printed.
    pub(crate) fn form(&self) -> OutputFormat {
        self.form.form()
    }
}

impl From<VerifyArgs> for VerifyPlan {
    fn from(args: VerifyArgs) -> Self {
        Self { run: args.run, brokers: args.brokers, topic: args.topic }
    }
}
