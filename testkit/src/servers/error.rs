//! What can go wrong with a server of our own.
//!
//! Promises: each error says the cause and the remedy; what a server wrote last is part of it.
//! Must not: hide which program or folder was meant. Fails: never; it is the failure.

use std::fs::File;
use std::io;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An embedded server could not be found, fetched, started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// A program that is needed is not installed.
    #[error("{program} not found: {needed_for}; {remedy}")]
    ProgramMissing {
        /// The program that was looked for.
        program: &'static str,
        /// Why it is needed.
        needed_for: &'static str,
        /// What to install.
        remedy: &'static str,
    },
    /// Java was found, but it is older than Kafka needs.
    #[error(
        "{} is Java {found}: Kafka needs Java 17 or later; install openjdk-17-jre-headless \
         (Debian) or openjdk (Homebrew), or point JAVA_HOME to a newer one",
        .program.display()
    )]
    JavaTooOld {
        /// The program that was asked.
        program: PathBuf,
        /// The version that it gave.
        found: String,
    },
    /// No Java is new enough for a program.
    #[error(
        "Java {least} is needed, and {}; install one or set JAVA_HOME",
        .newest.map_or_else(|| "there is none".to_owned(), |version| format!("{version} is the newest"))
    )]
    NoJava {
        /// The oldest that would do.
        least: u32,
        /// The newest that there is.
        newest: Option<u32>,
    },
    /// Java was found, but it does not run or does not tell its version.
    #[error(
        "{} does not tell its version ({answer}): Kafka needs Java 17 or later; install \
         openjdk-17-jre-headless (Debian) or openjdk (Homebrew)",
        .program.display()
    )]
    JavaUnusable {
        /// The program that was asked.
        program: PathBuf,
        /// What it said.
        answer: String,
    },
    /// The only PostgreSQL servers found are too old.
    #[error(
        "{} is PostgreSQL {found}: version 14 or later is needed; install postgresql (Debian), \
         postgresql@17 (Homebrew), or Maven so that one can be fetched",
        .program.display()
    )]
    PostgresTooOld {
        /// The server program that was asked.
        program: PathBuf,
        /// The version that it gave.
        found: String,
    },
    /// There is no PostgreSQL to fetch for this kind of machine.
    #[error(
        "no PostgreSQL to fetch for {platform}; install one: postgresql (Debian), postgresql@17 \
         (Homebrew)"
    )]
    NoBinaries {
        /// Operating system and processor.
        platform: String,
    },
    /// Maven did not bring what was asked of it.
    #[error(
        "fetching {what} through Maven failed; look at the network and at Maven's settings.xml: \
         {log}"
    )]
    Fetch {
        /// What was to be fetched.
        what: String,
        /// Maven's last lines.
        log: String,
    },
    /// What Maven brought is not the archive that was expected.
    #[error("{} is damaged ({reason}); remove it and Maven's copy, then start again", .path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// A server or a tool ended although it should not have.
    #[error("{name} failed ({status}); its last words: {log}")]
    Failed {
        /// Server or tool.
        name: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A server or a tool took too long.
    #[error(
        "{name} was not done after {} s; the machine may be overloaded: give it a longer deadline \
         or look at its last words: {log}",
        .waited.as_secs()
    )]
    TooSlow {
        /// Server or tool.
        name: String,
        /// The deadline that passed.
        waited: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The server is stopped, and what was asked needs it running.
    #[error("{name} is not running; call start_again first")]
    NotRunning {
        /// The server.
        name: String,
    },
    /// The server is running, and what was asked needs it stopped.
    #[error("{name} is running already; stop it first")]
    AlreadyRunning {
        /// The server.
        name: String,
    },
    /// A setting that is not the caller's to give.
    #[error("setting `{setting}` cannot be given for {name}: {reason}")]
    Setting {
        /// The server.
        name: &'static str,
        /// The setting's name.
        setting: String,
        /// Why not.
        reason: &'static str,
    },
    /// The current user is root and there is no user to run a server as.
    #[error(
        "servers do not run as root, and neither user `postgres` nor `nobody` exists; create one \
         or run as another user"
    )]
    NoAccount,
    /// No folder can be used: none is reachable for the user that the servers run as.
    #[error(
        "no usable {purpose} folder among {tried}: each must be an absolute path that exists or can be made, user \
         {user} must be able to enter it, and where root runs this nobody else may write it; set {variable} to another place"
    )]
    NoFolder {
        /// What the folder is for.
        purpose: &'static str,
        /// The folders that were tried.
        tried: String,
        /// The user who must be able to enter it.
        user: String,
        /// The environment variable that names another place.
        variable: &'static str,
    },
    /// No free port was found.
    #[error("no free port on 127.0.0.1 in {first}..{end}; end other servers there")]
    NoPort {
        /// The first port that was eligible.
        first: u16,
        /// The first port that was not.
        end: u16,
    },
    /// librdkafka says no.
    #[error("Kafka client: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// The operating system says no.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// Its answer.
        source: io::Error,
    },
}

impl EmbeddedError {
    /// True when a part of the machine is missing that the reader can install: the demo then goes
    /// on without it. A part that is there and fails is not missing.
    #[must_use]
    pub fn is_missing_part(&self) -> bool {
        matches!(
            self,
            Self::ProgramMissing { .. }
                | Self::JavaTooOld { .. }
                | Self::JavaUnusable { .. }
                | Self::NoJava { .. }
                | Self::PostgresTooOld { .. }
                | Self::NoBinaries { .. }
                | Self::Fetch { .. }
        )
    }

    /// Wraps the operating system's answer to `action` on `path`.
    pub(super) fn system(action: &str, path: &Path, source: io::Error) -> Self {
        Self::System { action: format!("{action} {}", path.display()), source }
    }
}

/// The last lines of a log, for an error message; at most 20 lines and 4 KiB.
pub(super) fn last_lines(log: &Path) -> String {
    const LINES: usize = 20;
    const BYTES: u64 = 4096;
    let tail = match read_tail(log, BYTES) {
        Ok(tail) => tail,
        Err(error) => return format!("(no log at {}: {error})", log.display()),
    };
    let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "(nothing)".to_owned();
    }
    format!("\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

fn read_tail(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log() {
        let log = std::env::temp_dir().join(format!("postrider-log-{}", uuid::Uuid::new_v4()));
        let lines: String = (0..10_000).map(|number| format!("line {number}\n\n")).collect();
        std::fs::write(&log, lines).unwrap();
        let tail = last_lines(&log);
        std::fs::remove_file(&log).unwrap();
        assert_eq!(tail.lines().count(), 21, "{tail}");
        assert!(tail.starts_with("\nline 9980\n") && tail.ends_with("line 9999"), "{tail}");
        assert!(last_lines(&log).starts_with("(no log at "));
    }
}
