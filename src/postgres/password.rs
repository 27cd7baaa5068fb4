//! The password of a session: found again for each one, so that it may change while the relay runs.
//!
//! Promises: a file or a command is asked at each connection; a password that is refused after one was taken
//! counts as an outage for as long as [`Credentials::be_patient`] said, as it may be about to change.
//! Must not: keep, log or show a password; start a shell.
//! Fails: [`ErrorKind::Config`] when nothing can be read before the first session; an outage later.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection_string::ConnectionString;
use crate::postgres::environment;
use crate::postgres::environment::PasswordKey;
use crate::secret;
use crate::secret::{Purpose, SecretCommand};

/// A password is changed in two places; the second follows within this, as a rule.
const SECOND_LOOKS: &[Duration] =
    &[Duration::ZERO, Duration::from_millis(200), Duration::from_millis(800)];

const COMMAND: Purpose = Purpose {
    flag: "--database-password-command",
    name: "password command",
    writes: "the first line that it writes is the password",
};

/// Where the password comes from.
#[derive(Clone, Debug, Default)]
pub enum PasswordSource {
    /// From the connection string or `PGPASSWORD`; or there is none.
    #[default]
    Given,
    /// The first line of a file.
    File(PathBuf),
    /// The first line of what a command writes.
    Command(SecretCommand),
    /// The password in the connection string that a file holds; where it has none, as it is given.
    ConnectionString(PathBuf),
    /// libpq's password file.
    PasswordFile(PathBuf),
}

impl PasswordSource {
    /// A command as it is typed, split as a shell splits words.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a quote is not closed, or there is no word.
    pub fn command(typed: &str) -> Result<Self> {
        SecretCommand::parse(COMMAND, typed).map(Self::Command)
    }

    /// The password now; `None` when it stays what it is.
    pub(super) async fn read(&self, server: Option<ServerName>) -> Result<Option<String>> {
        match self {
            Self::Given => Ok(None),
            Self::PasswordFile(file) => Ok(server.and_then(|server| server.look_up(file))),
            Self::File(file) => first_line_of_file(file).map(Some),
            Self::ConnectionString(file) => password_of_connection_string(file),
            Self::Command(command) => {
                let command = command.clone();
                let run = tokio::task::spawn_blocking(move || first_line_of_command(&command));
                let line = run.await.map_err(|cause| {
                    Error::new(ErrorKind::Internal, format!("the password command: {cause}"))
                })?;
                line.map(Some)
            }
        }
    }
}

/// What a line of libpq's password file is looked up by.
#[derive(Clone, Debug)]
pub(super) struct ServerName {
    /// Hosts with their ports, in the order in which they are tried.
    pub(super) places: Vec<(String, u16)>,
    pub(super) database: String,
    pub(super) user: String,
}

impl ServerName {
    fn look_up(&self, file: &Path) -> Option<String> {
        self.places.iter().find_map(|(host, port)| {
            let (database, user) = (self.database.as_str(), self.user.as_str());
            environment::password(file, &PasswordKey { host, port: *port, database, user })
        })
    }
}

fn password_of_connection_string(file: &Path) -> Result<Option<String>> {
    let text = secret::read_file(file).map_err(|cause| {
        let cause = format!("the file {} cannot be read: {cause}", file.display());
        Error::new(ErrorKind::Config, cause)
            .with_remedy("check --database-url-file and the file's permissions")
    })?;
    Ok(ConnectionString::split(&text)?.get("password").map(str::to_owned))
}

fn first_line_of_file(file: &Path) -> Result<String> {
    let text = secret::read_file(file).map_err(|cause| {
        let cause = format!("the password file {} cannot be read: {cause}", file.display());
        Error::new(ErrorKind::Config, cause)
            .with_remedy("check --database-password-file and the file's permissions")
    })?;
    let empty = || {
        let cause = format!("the password file {} is empty", file.display());
        Error::new(ErrorKind::Config, cause).with_remedy("write the password into its first line")
    };
    first_line(&text).ok_or_else(empty)
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

fn first_line_of_command(command: &SecretCommand) -> Result<String> {
    first_line(&command.run()?).ok_or_else(|| command.failed("wrote nothing"))
}

/// Why a session was not had.
#[derive(Debug)]
pub(super) enum Unopened {
    /// The password was refused.
    Password(Error),
    /// Whatever the password is.
    Otherwise(Error),
}

impl From<Error> for Unopened {
    fn from(error: Error) -> Self {
        Self::Otherwise(error)
    }
}

/// The source, and what became of the passwords that it gave.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    source: PasswordSource,
    /// How long a password may be refused.
    patience: Duration,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    was_let_in: bool,
    refused_since: Option<Instant>,
}

impl Credentials {
    pub(super) fn of(source: PasswordSource) -> Self {
        Self { source, ..Self::default() }
    }

    /// The same source; from now on a refusal lasts so long before it is final.
    pub(super) fn be_patient(&self, patience: Duration) -> Self {
        Self { source: self.source.clone(), patience, past: Mutex::default() }
    }

    /// After which pauses a source that can change is looked at again when its password was refused. Whoever
    /// was never let in hears at once what is wrong.
    pub(super) fn second_looks(&self) -> &'static [Duration] {
        match (&self.source, self.past().was_let_in) {
            (PasswordSource::Given, _) => &[],
            (_, false) => &SECOND_LOOKS[..1],
            (_, true) => SECOND_LOOKS,
        }
    }

    pub(super) fn source(&self) -> &PasswordSource {
        &self.source
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Two fields that are written together: whoever panicked left them whole.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was had.
    pub(super) fn let_in(&self) {
        *self.past() = Past { was_let_in: true, refused_since: None };
    }

    /// A password was refused: for a while that is an outage, if one was taken before.
    pub(super) fn refused(&self, error: Error) -> Error {
        let mut past = self.past();
        let since = *past.refused_since.get_or_insert_with(Instant::now);
        if past.was_let_in && since.elapsed() < self.patience { outage(error) } else { error }
    }

    /// A source that gives nothing is an outage once a session was had: it will come back.
    pub(super) fn missing(&self, error: Error) -> Error {
        if self.past().was_let_in { outage(error) } else { error }
    }
}

/// The same in a kind that is tried again.
fn outage(error: Error) -> Error {
    let outage = Error::new(ErrorKind::PostgresUnavailable, error.message());
    let outage = match error.remedy() {
        Some(remedy) => outage.with_remedy(remedy),
        None => outage,
    };
    outage.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of_command(typed: &str) -> Result<Option<String>> {
        PasswordSource::command(typed)?.read(None).await
    }

    #[tokio::test]
    async fn a_command_gives_its_first_line() {
        let said = of_command("printf 'a word\\nmore\\n'").await.unwrap();
        assert_eq!(said.as_deref(), Some("a word"));
        let quoted = of_command(r#"printf %s "two  words; $HOME""#).await.unwrap();
        assert_eq!(quoted.as_deref(), Some("two  words; $HOME"), "no shell reads it");
    }

    #[tokio::test]
    async fn a_command_that_gives_nothing_is_named_without_its_arguments() {
        for (typed, word) in [
            ("false hush", "failed: exit status: 1"),
            ("true hush", "wrote nothing"),
            ("/nowhere/hush-less hush", "cannot run"),
            ("printf '\\nhush'", "wrote nothing"),
        ] {
            let error = of_command(typed).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let program = typed.split(' ').next().unwrap();
            assert!(error.message().contains(program) && error.message().contains(word), "{error}");
            assert!(!format!("{error:?}").replace(program, "").contains("hush"), "{error:?}");
        }
        for typed in ["", "  ", "cat 'open"] {
            assert_eq!(PasswordSource::command(typed).unwrap_err().kind(), ErrorKind::Config);
        }
    }

    #[tokio::test]
    async fn a_file_gives_its_first_line_as_it_is_now() {
        let file = std::env::temp_dir().join(format!("postrider-word-{}", std::process::id()));
        let source = PasswordSource::File(file.clone());
        assert!(source.read(None).await.unwrap_err().message().contains("cannot be read"));
        for (text, found) in [("one\n", "one"), ("two three \r\nmore", "two three ")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(source.read(None).await.unwrap().as_deref(), Some(found));
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(source.read(None).await.unwrap_err().message().contains("is empty"));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_refusal_is_an_outage_for_a_while_after_the_first_session() {
        let refusal = || Error::new(ErrorKind::PostgresRefused, "wrong").with_remedy("set it");
        let kinds = |credentials: &Credentials| {
            (credentials.refused(refusal()).kind(), credentials.missing(refusal()).kind())
        };
        let (last, outage) = (ErrorKind::PostgresRefused, ErrorKind::PostgresUnavailable);
        let credentials = Credentials::default().be_patient(Duration::from_secs(3_600));
        assert_eq!(kinds(&credentials), (last, last), "nobody was let in yet");
        credentials.let_in();
        assert_eq!(kinds(&credentials), (outage, outage));
        assert_eq!(credentials.refused(refusal()).remedy(), Some("set it"));
        let hasty = Credentials::default().be_patient(Duration::ZERO);
        hasty.let_in();
        assert_eq!(kinds(&hasty), (last, outage), "its time is over");
    }
}
