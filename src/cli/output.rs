//! Answers to stdout and errors to stderr.
//!
//! Promises: a reader that closes the pipe early (`| head`) is no error. Must not: log.
//! Fails: when stdout cannot be written.

use std::error::Error as _;
use std::io;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::error::{Error, ErrorKind, Result};
use crate::{legible, logging};

/// Writes an answer to stdout, with a line end. What would move a terminal is escaped.
///
/// # Errors
/// When stdout cannot be written; not when its reader has gone.
pub(super) fn answer(text: &str) -> Result<()> {
    answer_styled(&legible::lines(text))
}

/// Writes an answer in which colours are ours; whatever others wrote was escaped before.
///
/// # Errors
/// As [`answer`].
pub(super) fn answer_styled(text: &str) -> Result<()> {
    answer_while_read(text).map(drop)
}

/// Whether anybody reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Somebody does.
    There,
    /// Nobody any more.
    Gone,
}

/// Writes a piece of an answer that goes on as long as somebody reads it.
///
/// # Errors
/// As [`answer`].
pub(super) fn answer_while_read(text: &str) -> Result<Reader> {
    let mut stdout = io::stdout().lock();
    let line_end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stdout, "{text}{line_end}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(cause) => {
            Err(Error::new(ErrorKind::Internal, format!("stdout cannot be written: {cause}")))
        }
    }
}

/// Writes an answer to stdout as JSON.
///
/// # Errors
/// As [`answer`].
pub(super) fn answer_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("the answer cannot be written as JSON: {cause}"))
    })?;
    answer(&legible::json(text))
}

/// Says the error on stderr, in the form of the log where that is what people read; its cause in the
/// outside system in the log; gives its exit code.
pub(super) fn report(error: &Error) -> ExitCode {
    if let Some(source) = error.source() {
        tracing::debug!(source = ?source, "where the error came from");
    }
    let code = ExitCode::from(error.kind().exit_code());
    let text =
        if logging::is_json() { logging::last_line(error) } else { format!("error: {error}") };
    let text = legible::lines(&text);
    match writeln!(io::stderr().lock(), "{text}") {
        Ok(()) => code,
        // Nobody reads stderr; the exit code still tells.
        Err(_) => code,
    }
}

/// Whether stdout is a terminal and nobody asked for no colour.
pub(super) fn stdout_has_colour() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && io::stdout().is_terminal()
}

/// `1 event`, `2 events`.
pub(super) fn count(number: i64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// An age as people read it; a clock that was set back makes none below zero.
pub(super) fn show_age(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds.max(0.0)) {
        None => "-".to_owned(),
        Some(seconds) if seconds < 60.0 => format!("{seconds:.1}s"),
        Some(seconds) if seconds < 3_600.0 => format!("{:.1}min", seconds / 60.0),
        Some(seconds) if seconds < 172_800.0 => format!("{:.1}h", seconds / 3_600.0),
        Some(seconds) => format!("{:.1}d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_readable() {
        assert_eq!(show_age(None), "-");
        assert_eq!(show_age(Some(-0.5)), "0.0s");
        assert_eq!(show_age(Some(59.9)), "59.9s");
        assert_eq!(show_age(Some(90.0)), "1.5min");
        assert_eq!(show_age(Some(7_200.0)), "2.0h");
        assert_eq!(show_age(Some(864_000.0)), "10.0d");
    }
}
