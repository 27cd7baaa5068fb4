//! What people see: data on stdout, talk on stderr.
//!
//! Promises: stdout holds results only, so that `--json` can be piped. Must not: decide anything.
//! Fails: never; a closed terminal or pipe must not end a measurement, so write errors are dropped.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// As lines for people.
    Text,
    /// As JSON.
    Json,
}

/// One line of result.
pub(crate) fn data(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// One line of talk.
pub(crate) fn talk(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// A line that is overwritten by the next one on a terminal, and an ordinary line elsewhere.
pub(crate) fn progress(line: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        write!(stderr, "\r\x1b[2K{line}").ok();
        stderr.flush().ok();
    } else {
        writeln!(stderr, "{line}").ok();
    }
}

/// Ends the line that [`progress`] keeps overwriting.
pub(crate) fn end_progress() {
    if std::io::stderr().is_terminal() {
        talk("");
    }
}

/// Says when the next progress line is due: each second on a terminal, every five seconds elsewhere.
#[derive(Debug)]
pub(crate) struct Meter {
    period: Duration,
    last: Instant,
}

impl Meter {
    /// The first line is due after one period.
    pub(crate) fn new() -> Self {
        let seconds = if std::io::stderr().is_terminal() { 1 } else { 5 };
        Self { period: Duration::from_secs(seconds), last: Instant::now() }
    }

    /// Whether a line is due now; the next one is due a period later.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.period;
        if due {
            self.last = Instant::now();
        }
        due
    }
}
