//! Lines of text for people.
//!
//! Promises: lines of several threads do not mix. Must not: wrap or colour them.
//! Fails: when the stream is closed.

use std::io;
use std::io::Write as _;

/// A plain line is at most this long.
pub(super) const COLUMNS: usize = 100;

/// One line on standard output.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}

/// One line of progress on standard error, so that standard output can be used by a script.
pub(super) fn progress(text: &str) {
    if let Err(cause) = writeln!(io::stderr().lock(), "{text}") {
        tracing::debug!("a line of progress was not written: {cause}");
    }
}
