//! `postrider man`: manual pages.
//!
//! Promises: says what the help says, of every command. Must not: write files. Fails: when stdout cannot be written,
//! or there is no such command.

use std::process::ExitCode;

use clap::{Args, CommandFactory};

use crate::cli::{CommandLine, output};
use crate::error::{Error, ErrorKind, Result};

/// Prints a manual page, of postrider or of one of its commands.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider man > postrider.1
  postrider man parked retry | man -l -")]
pub(super) struct ManArguments {
    /// Of which command, e.g. parked retry.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(arguments: &ManArguments) -> Result<ExitCode> {
    let mut command = CommandLine::command();
    // Built, each command knows its whole name.
    command.build();
    let mut found = &command;
    for word in &arguments.command {
        found = found.find_subcommand(word).ok_or_else(|| {
            let cause = format!("there is no command {:?}", arguments.command.join(" "));
            Error::new(ErrorKind::Config, cause).with_remedy("see `postrider --help`")
        })?;
    }
    let name = found.get_bin_name().unwrap_or("postrider").replace(' ', "-");
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(found.clone()).title(name).render(&mut page);
    written.map_err(|cause| Error::new(ErrorKind::Internal, cause.to_string()))?;
    output::answer(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
