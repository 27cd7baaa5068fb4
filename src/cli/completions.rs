//! `postrider completions`: scripts by which shells complete the command line.
//!
//! Promises: the script knows every command and flag of this binary. Must not: write files.
//! Fails: when stdout cannot be written.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{CommandLine, output};
use crate::error::Result;

/// Prints a shell's completion script.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  postrider completions bash > /etc/bash_completion.d/postrider")]
pub(super) struct CompletionsArguments {
    /// Prints the script of this shell.
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "postrider", &mut script);
    output::answer(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
