//! What people see: data on stdout, talk on stderr.
//!
//! Promises: stdout holds results only, so that `--json` can be piped. Must not: decide anything.
//! Fails: never; a closed terminal or pipe must not end a measurement, so write errors are dropped.

use std::io::{IsTerminal, Write};

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

/// A number with thousands separated, as people read it.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_separated() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
