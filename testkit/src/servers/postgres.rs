//! A PostgreSQL server of our own.
//!
//! Promises: it accepts connections when `start` returns, by password only, on a TCP port of
//! 127.0.0.1 and on a unix socket; its data survives `stop`, `kill` and `start_again`, and is removed
//! with the handle. Must not: listen elsewhere. Fails: with the last lines of the server's log.

use crate::servers::error::EmbeddedError;
use crate::servers::folder;
use crate::servers::host::Host;
use crate::servers::port::free_port;
use crate::servers::postgres_binaries::{Binaries, PostgresSource};
use crate::servers::server::{Launch, Server, Signal, Workspace};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HOST: &str = "127.0.0.1";
const SUPERUSER: &str = "postgres";
/// A port can be taken between the choice and the start.
const PORT_TRIES: usize = 3;
const TOOL_DEADLINE: Duration = Duration::from_secs(120);
/// Settings that tell where the server is; the handle must know them.
const OWN_SETTINGS: [&str; 4] =
    ["port", "listen_addresses", "unix_socket_directories", "data_directory"];

/// How to start a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where programs and folders are.
    pub host: Host,
    /// Where the server's programs come from.
    pub source: PostgresSource,
    /// The superuser's password; another one each time, as whoever is on the machine reaches the port.
    pub password: String,
    /// Settings for `postgresql.conf`, after ours: the last one wins.
    pub settings: Vec<(String, String)>,
    /// How long a start (with crash recovery) may take.
    pub start_deadline: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            host: Host::default(),
            source: PostgresSource::default(),
            password: uuid::Uuid::new_v4().simple().to_string(),
            settings: Vec::new(),
            start_deadline: Duration::from_secs(60),
        }
    }
}

/// How a server is asked to stop: the modes of `pg_ctl stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for the clients to leave.
    Smart,
    /// Ends the clients' sessions, then stops cleanly.
    Fast,
    /// Stops at once; the next start recovers from the log.
    Immediate,
}

impl StopMode {
    const fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::Terminate,
            Self::Fast => Signal::Interrupt,
            Self::Immediate => Signal::Quit,
        }
    }
}

/// A PostgreSQL server; dropped, it is gone with its folder.
#[derive(Debug)]
pub struct Postgres {
    pub(super) server: Server,
    pub(super) binaries: Binaries,
    pub(super) options: PostgresOptions,
    port: u16,
}

impl Postgres {
    /// Makes a new cluster and starts it.
    ///
    /// # Errors
    /// When no server is found or fetched, a setting is refused, or it does not start.
    pub fn start(options: PostgresOptions, progress: &dyn Fn(&str)) -> Result<Self, EmbeddedError> {
        let begin = Instant::now();
        check_settings(&options.settings)?;
        check_password(&options.password)?;
        let binaries = Binaries::find(&options.host, options.source, progress)?;
        let workspace = Workspace::create(&options.host, "pg")?;
        make_cluster(&workspace, &binaries, &options)?;
        Self::launch(workspace, binaries, options, begin, progress)
    }

    /// Starts a cluster that lies in the workspace.
    pub(super) fn launch(
        workspace: Workspace,
        binaries: Binaries,
        options: PostgresOptions,
        begin: Instant,
        progress: &dyn Fn(&str),
    ) -> Result<Self, EmbeddedError> {
        append_settings(workspace.folder(), &options.settings)?;
        folder::make(&workspace.folder().join("s"), 0o711, workspace.run_as())?;
        let server = Server::new(workspace, format!("PostgreSQL {}", binaries.version));
        let mut postgres = Self { server, binaries, options, port: free_port()? };
        let mut tries = 1;
        while let Err(error) = postgres.start_again() {
            if tries == PORT_TRIES || !is_port_taken(&error) {
                return Err(error);
            }
            tries += 1;
            postgres.port = free_port()?;
        }
        progress(&format!(
            "PostgreSQL {} ({}) ready on port {} in {:.1} s",
            postgres.binaries.version,
            postgres.binaries.origin,
            postgres.port,
            begin.elapsed().as_secs_f64()
        ));
        Ok(postgres)
    }

    /// Starts the stopped or killed server on the same data and port. Other calls wait until it is
    /// done.
    ///
    /// # Errors
    /// `AlreadyRunning`, or when it does not start.
    pub fn start_again(&self) -> Result<(), EmbeddedError> {
        let data = self.data_folder();
        let port = self.port;
        self.server.start(&self.command()?, self.options.start_deadline, |process| {
            says_ready(&data, process) && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })
    }

    /// Stops the server, within a minute; one that is down already stays so.
    ///
    /// # Errors
    /// `TooSlow` when it did not stop in time (it was then killed).
    pub fn stop(&self, mode: StopMode) -> Result<(), EmbeddedError> {
        const DEADLINE: Duration = Duration::from_secs(60);
        self.server.stop(mode.signal(), DEADLINE)
    }

    /// Kills the server and all its children (`kill -9`), and waits until they are gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&self) -> Result<(), EmbeddedError> {
        self.server.kill()
    }

    /// Halts the server and its children where they are (SIGSTOP).
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn freeze(&self) -> Result<(), EmbeddedError> {
        self.server.signal_family(Signal::Stop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn thaw(&self) -> Result<(), EmbeddedError> {
        self.server.signal_family(Signal::Continue)
    }

    /// `postgresql://postgres:…@127.0.0.1:port/database`
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_at(HOST, database)
    }

    /// The same through the unix socket.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        self.url_at(&self.socket_folder().to_string_lossy(), database)
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn host(&self) -> &str {
        HOST
    }

    /// The TCP port, which is also the number of the socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.options.password
    }

    /// The folder of the unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> PathBuf {
        self.server.workspace.folder().join("s")
    }

    /// The cluster's data.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        data_folder(self.server.workspace.folder())
    }

    /// PostgreSQL's programs.
    #[must_use]
    pub fn binary_folder(&self) -> &Path {
        &self.binaries.folder
    }

    /// The server's version, as `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.binaries.version
    }

    /// The server's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        log_file(self.server.workspace.folder())
    }

    /// The number of the server's first process, while it runs.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn process_id(&self) -> Result<Option<u32>, EmbeddedError> {
        self.server.process_id()
    }

    fn url_at(&self, place: &str, database: &str) -> String {
        format!(
            "postgresql://{SUPERUSER}:{}@{}:{}/{}",
            percent_encode(&self.options.password),
            percent_encode(place),
            self.port,
            percent_encode(database)
        )
    }

    fn command(&self) -> Result<Launch, EmbeddedError> {
        let own = [
            ("port", self.port.to_string()),
            ("listen_addresses", HOST.to_owned()),
            ("unix_socket_directories", self.socket_folder().display().to_string()),
        ];
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data_folder().into()];
        for (name, value) in own {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let workspace = &self.server.workspace;
        Ok(tool(workspace, self.binaries.program("postgres")?, "PostgreSQL", arguments))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("ending PostgreSQL: {error}");
        }
    }
}

impl Postgres {
    /// Ends the server so that it gives back its shared memory, which lies outside its folder. Of a
    /// killed server only PostgreSQL itself knows what that was: it is started once more, takes over
    /// what was left, and is stopped before it recovers anything.
    fn end(&self) -> Result<(), EmbeddedError> {
        const DEADLINE: Duration = Duration::from_secs(10);
        let data = self.data_folder();
        let is_running = self.process_id()?.is_some();
        if !is_running && process_file(&data).exists() {
            self.server.start(&self.command()?, DEADLINE, |process| {
                state_lines(&data)
                    .is_some_and(|lines| lines.len() >= 7 && lines[0] == process.to_string())
            })?;
        }
        self.server.stop(StopMode::Immediate.signal(), DEADLINE)
    }
}

/// A launch of one of PostgreSQL's programs in a workspace.
pub(super) fn tool(
    workspace: &Workspace,
    program: PathBuf,
    name: &str,
    arguments: Vec<OsString>,
) -> Launch {
    Launch {
        name: name.to_owned(),
        program,
        arguments,
        environment: Vec::new(),
        log: log_file(workspace.folder()),
        // An immediate stop: the data is removed next, and shared memory is still given back.
        end: Signal::Quit,
        run_as: workspace.run_as().clone(),
    }
}

/// Refuses settings that the handle must know.
pub(super) fn check_settings(settings: &[(String, String)]) -> Result<(), EmbeddedError> {
    match settings.iter().find(|(name, _)| OWN_SETTINGS.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(EmbeddedError::Setting {
            name: "PostgreSQL",
            setting: name.clone(),
            reason: "the embedded server chooses it itself",
        }),
    }
}

/// `initdb` reads one line.
fn check_password(password: &str) -> Result<(), EmbeddedError> {
    if !password.is_empty() && !password.contains(['\n', '\r', '\0']) {
        return Ok(());
    }
    Err(EmbeddedError::Setting {
        name: "PostgreSQL",
        setting: "password".to_owned(),
        reason: "it must be one line, and not empty",
    })
}

pub(super) fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn make_cluster(
    workspace: &Workspace,
    binaries: &Binaries,
    options: &PostgresOptions,
) -> Result<(), EmbeddedError> {
    let folder = workspace.folder();
    let password = folder.join("password");
    folder::write(&password, &options.password, workspace.run_as())?;
    let mut arguments: Vec<OsString> = ["--encoding=UTF8", "--locale=C", "--no-sync"]
        .into_iter()
        .chain(["--auth=scram-sha-256", "--username=postgres"])
        .map(Into::into)
        .collect();
    arguments.extend(["--pwfile".into(), password.clone().into()]);
    arguments.extend(["--pgdata".into(), data_folder(folder).into()]);
    workspace
        .run(&tool(workspace, binaries.program("initdb")?, "initdb", arguments), TOOL_DEADLINE)?;
    fs::remove_file(&password)
        .map_err(|source| EmbeddedError::system("remove", &password, source))?;
    let defaults = [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("max_prepared_transactions", "20"),
        ("wal_level", "logical"),
        ("max_wal_senders", "40"),
        ("max_replication_slots", "40"),
        ("shared_buffers", "256MB"),
    ];
    let defaults: Vec<(String, String)> =
        defaults.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    append_settings(folder, &defaults)
}

fn append_settings(folder: &Path, settings: &[(String, String)]) -> Result<(), EmbeddedError> {
    let path = data_folder(folder).join("postgresql.conf");
    let lines: String = settings
        .iter()
        .map(|(name, value)| {
            // The file's own rules: a quote is doubled, a backslash too.
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            format!("{name} = '{value}'\n")
        })
        .collect();
    folder::append(&path)
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(|source| EmbeddedError::system("write", &path, source))
}

/// The server writes its state as the eighth line of `postmaster.pid`: `ready` when it accepts
/// connections, a hot standby included. This is what `pg_ctl -w` looks at.
fn says_ready(data: &Path, process: u32) -> bool {
    state_lines(data).is_some_and(|lines| {
        lines[0] == process.to_string() && lines.get(7).is_some_and(|state| state == "ready")
    })
}

/// The lines of `postmaster.pid`: process, folder, start, port, socket, address, shared memory,
/// state. It is there from the start until a clean end.
fn state_lines(data: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(process_file(data)).ok()?;
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    (!lines.is_empty()).then_some(lines)
}

fn process_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

fn is_port_taken(error: &EmbeddedError) -> bool {
    matches!(error, EmbeddedError::Failed { log, .. } if log.contains("Address already in use"))
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_survive_odd_characters() {
        assert_eq!(percent_encode("/tmp/a b"), "%2Ftmp%2Fa%20b");
        assert_eq!(percent_encode("p@ss:word"), "p%40ss%3Aword");
    }

    #[test]
    fn no_two_servers_have_the_same_password() {
        let passwords = [PostgresOptions::default().password, PostgresOptions::default().password];
        assert_ne!(passwords[0], passwords[1]);
        assert!(passwords.iter().all(|password| password.len() == 32), "{passwords:?}");
    }

    #[test]
    fn password_is_one_line() {
        assert!(check_password("p@ss word").is_ok());
        assert!(check_password("").is_err());
        assert!(check_password("two\nlines").is_err());
    }

    #[test]
    fn own_settings_are_refused() {
        let error = check_settings(&[("port".to_owned(), "5432".to_owned())]).unwrap_err();
        assert!(error.to_string().contains("`port` cannot be given"), "{error}");
    }
}
