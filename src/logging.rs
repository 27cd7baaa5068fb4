//! Logging: lines to stderr, text for people on a terminal, else one JSON object per line.
//!
//! Promises: stdout stays free for what a command answers; the error that ends a process has the log's form. Must not: be started twice. Fails: when
//! the filter has no meaning.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::settings::LogFormat;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;

/// Whether what goes to stderr is read by machines: who asked for JSON, or runs without a terminal, gets
/// the last error as JSON, too.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Notes the form that was typed, before any file is read: errors of the file have it already.
pub fn ask_for(format: Option<LogFormat>) {
    IS_JSON.store(format == Some(LogFormat::Json), Ordering::Relaxed);
}

/// Says that the log is what this process writes, so that its last error belongs there, in its form.
pub fn own_stderr(format: Option<LogFormat>) {
    let is_json = match format {
        Some(format) => format == LogFormat::Json,
        None => !std::io::stderr().is_terminal(),
    };
    IS_JSON.store(is_json, Ordering::Relaxed);
}

/// Whether the last error is to be a line of JSON.
pub fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// The error that ends the process, as a line of a log in JSON.
pub fn last_line(error: &Error) -> String {
    let mut timestamp = String::new();
    // Without a clock the line goes without its time.
    if SystemTime.format_time(&mut Writer::new(&mut timestamp)).is_err() {
        timestamp.clear();
    }
    let line = serde_json::json!({
        "timestamp": timestamp,
        "level": "ERROR",
        "message": error.message(),
        "remedy": error.remedy(),
        "exit_code": error.kind().exit_code(),
        "target": "postrider",
    });
    legible::json(line.to_string())
}

/// Starts logging for the life of the process.
///
/// # Errors
/// [`ErrorKind::Config`] when `filter` is not one; [`ErrorKind::Internal`] when logging was started.
pub fn start(format: Option<LogFormat>, filter: &str) -> Result<()> {
    let filter = parse_filter(filter)?;
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    let is_json = format.map_or(!terminal, |format| format == LogFormat::Json);
    let started = if is_json {
        let lines = lines.with_writer(|| LegibleJson(std::io::stderr()));
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_writer(std::io::stderr).with_ansi(colour).try_init()
    };
    started.map_err(|cause| {
        Error::new(ErrorKind::Internal, format!("logging is started once: {cause}"))
    })
}

/// Lines of JSON, in which nothing moves the terminal of whoever looks at them. Each comes whole, as one piece.
struct LegibleJson<W>(W);

impl<W: Write> Write for LegibleJson<W> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        match std::str::from_utf8(piece) {
            Ok(line) => self.0.write_all(legible::json(line.to_owned()).as_bytes())?,
            Err(_) => self.0.write_all(piece)?,
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A level, or levels per module. A bare word that is no level would silence everything else.
fn parse_filter(text: &str) -> Result<EnvFilter> {
    let invalid = || {
        Error::new(ErrorKind::Config, format!("--log-level {text:?} is not a log filter"))
            .with_remedy(
                "give error, warn, info, debug or trace; per module: info,librdkafka=debug",
            )
    };
    let bare = text.split(',').map(str::trim).filter(|part| !part.contains('='));
    for part in bare {
        // The parser takes an empty text for a level.
        if part.is_empty() {
            return Err(invalid());
        }
        part.parse::<LevelFilter>().map_err(|_| invalid())?;
    }
    EnvFilter::builder().parse(text).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels() {
        for good in ["info", "WARN", "off", "info,librdkafka=debug", "postrider=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "info,postrider", "postrider=loud", ""] {
            assert_eq!(parse_filter(bad).unwrap_err().kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_line_of_json_moves_no_terminal_and_reads_the_same() {
        let text = "b\u{9b}2J \u{202e}2\u{9d}title\u{9c} \u{7f} caf\u{e9}";
        let said = serde_json::json!({ "aggregate": text }).to_string() + "\n";
        let mut written = Vec::new();
        LegibleJson(&mut written).write_all(said.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(
            !written.contains(['\u{9b}', '\u{202e}', '\u{9d}', '\u{9c}', '\u{7f}']),
            "{written}"
        );
        assert!(written.contains("caf\u{e9}") && written.ends_with("}\n"), "{written}");
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read["aggregate"], text);
        let error = Error::new(ErrorKind::Config, text);
        assert!(!last_line(&error).contains('\u{9b}'));
    }
}
