//! Runs tools and one server inside a guarded folder.
//!
//! Promises: every process is made known to the guardian before its program begins; a server that
//! ends too early is reported with the end of its log; dropping ends the process and removes the
//! folder. Must not: signal a number that it has already waited for.
//! Fails: with `Failed`, `TooSlow`, or the operating system's answer.

use crate::servers::account::RunAs;
use crate::servers::error::{EmbeddedError, last_lines};
use crate::servers::folder;
use crate::servers::guardian::Guardian;
use crate::servers::host::Host;
use crate::servers::process_table;
pub(super) use crate::servers::signal::Signal;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);
/// How long the remains of a killed server may take to disappear.
const KILLED_DEADLINE: Duration = Duration::from_secs(20);
/// The program begins only when a line comes, which is after the guardian knows of the process. When
/// we die in between, the pipe ends and the program never begins.
const GATE: &str = r#"read -r go || exit 1; exec "$@" </dev/null"#;

/// A program to run.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The name for messages.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Standard output and standard error are appended here.
    pub(super) log: PathBuf,
    /// The signal that the guardian ends it with.
    pub(super) end: Signal,
    pub(super) run_as: RunAs,
}

/// A folder with its guardian.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: PathBuf,
    run_as: RunAs,
    guardian: Mutex<Guardian>,
}

impl Workspace {
    /// Makes a folder for a server.
    pub(super) fn create(host: &Host, kind: &str) -> Result<Self, EmbeddedError> {
        let run_as = RunAs::current()?;
        let folder = folder::create(host, &run_as, kind)?;
        Self::guard(folder, run_as)
    }

    /// Takes over a folder that was just made.
    pub(super) fn guard(folder: PathBuf, run_as: RunAs) -> Result<Self, EmbeddedError> {
        match Guardian::start(&folder) {
            Ok(guardian) => Ok(Self { folder, run_as, guardian: Mutex::new(guardian) }),
            Err(error) => {
                folder::remove(&folder)?;
                Err(error)
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn run_as(&self) -> &RunAs {
        &self.run_as
    }

    /// Runs a tool to its end.
    pub(super) fn run(&self, launch: &Launch, deadline: Duration) -> Result<(), EmbeddedError> {
        let mut child = self.spawn(launch)?;
        let ended = wait_for_end(&mut child, deadline);
        if matches!(ended, Ok(None)) {
            kill(&mut child)?;
        }
        self.forget(child.id())?;
        match ended.map_err(|source| waiting(&launch.name, source))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failed(launch, status)),
            None => Err(too_slow(launch, deadline)),
        }
    }

    fn spawn(&self, launch: &Launch) -> Result<Child, EmbeddedError> {
        let mut child = self.command(launch)?.spawn().map_err(|source| EmbeddedError::System {
            action: format!("start {}", launch.name),
            source,
        })?;
        self.guardian().watch(child.id(), launch.end)?;
        let mut gate = child.stdin.take().expect("standard input was asked for as a pipe");
        gate.write_all(b"go\n").map_err(|source| waiting(&launch.name, source))?;
        Ok(child)
    }

    fn command(&self, launch: &Launch) -> Result<Command, EmbeddedError> {
        let log = folder::append(&launch.log)
            .map_err(|source| EmbeddedError::system("open log", &launch.log, source))?;
        let copy =
            log.try_clone().map_err(|source| EmbeddedError::system("open", &launch.log, source))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GATE, "postrider-gate"]).arg(&launch.program).args(&launch.arguments);
        command.current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(log).stderr(copy);
        // libpq and the server read these; a caller's own database must not leak in.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if let RunAs::Account(account) = &launch.run_as {
            command.uid(account.user_id).gid(account.group_id).env("HOME", &self.folder);
        }
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn guardian(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, process: u32) -> Result<(), EmbeddedError> {
        self.guardian().forget(process)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // When this fails the guardian is not dismissed, and tries again as soon as its pipe closes.
        let cleaned = folder::remove(&self.folder).and_then(|()| self.guardian().dismiss());
        if let Err(error) = cleaned {
            tracing::warn!("cleaning up after an embedded server: {error}");
        }
    }
}

/// One server in its workspace, running or not.
#[derive(Debug)]
pub(super) struct Server {
    // The process is ended in `drop`, before the workspace's own drop removes the folder.
    pub(super) workspace: Workspace,
    name: String,
    process: Mutex<Option<Child>>,
}

impl Server {
    pub(super) fn new(workspace: Workspace, name: String) -> Self {
        Self { workspace, name, process: Mutex::new(None) }
    }

    /// The number of the server's process while it runs.
    pub(super) fn process_id(&self) -> Result<Option<u32>, EmbeddedError> {
        let mut process = self.process();
        self.reap(&mut process)?;
        Ok(process.as_ref().map(Child::id))
    }

    /// Starts the server and waits until `ready` says so.
    pub(super) fn start(
        &self,
        launch: &Launch,
        deadline: Duration,
        ready: impl FnMut(u32) -> bool,
    ) -> Result<(), EmbeddedError> {
        let mut process = self.process();
        self.reap(&mut process)?;
        if process.is_some() {
            return Err(EmbeddedError::AlreadyRunning { name: self.name.clone() });
        }
        let mut child = self.workspace.spawn(launch)?;
        let started = wait_until_ready(launch, &mut child, deadline, ready);
        if started.is_err() {
            kill_family(&mut child)?;
            self.workspace.forget(child.id())?;
        } else {
            *process = Some(child);
        }
        started
    }

    /// Sends a signal and waits for the end; a server that is down already is no error. A frozen
    /// server is let go on, or it could not stop.
    pub(super) fn stop(&self, signal: Signal, deadline: Duration) -> Result<(), EmbeddedError> {
        let mut process = self.process();
        self.reap(&mut process)?;
        let Some(mut child) = process.take() else { return Ok(()) };
        let ended = ask_to_end(&mut child, signal, deadline);
        if !matches!(ended, Ok(Some(_))) {
            kill_family(&mut child)?;
        }
        self.workspace.forget(child.id())?;
        match ended? {
            Some(_) => Ok(()),
            None => Err(EmbeddedError::TooSlow {
                name: format!("stopping {} by {}", self.name, signal.name()),
                waited: deadline,
                log: "(it was killed)".to_owned(),
            }),
        }
    }

    /// Ends the server and its children at once, and waits until all are gone.
    pub(super) fn kill(&self) -> Result<(), EmbeddedError> {
        let mut process = self.process();
        self.reap(&mut process)?;
        let Some(mut child) = process.take() else { return Ok(()) };
        kill_family(&mut child)?;
        self.workspace.forget(child.id())
    }

    /// Sends a signal to the running server and to its children.
    pub(super) fn signal_family(&self, signal: Signal) -> Result<(), EmbeddedError> {
        let mut process = self.process();
        self.reap(&mut process)?;
        let Some(child) = process.as_ref() else {
            return Err(EmbeddedError::NotRunning { name: self.name.clone() });
        };
        // The parent first: one that stands still neither makes children nor lets go of ended ones.
        send(&[child.id()], signal)?;
        let children = |parent| -> Result<Vec<u32>, EmbeddedError> {
            Ok(process_table::children_of(parent)?.iter().map(|process| process.id).collect())
        };
        let found = children(child.id())?;
        match send(&found, signal) {
            // A child that the parent let go just before is not there to get it.
            Err(_) if children(child.id())? != found => send(&children(child.id())?, signal),
            sent => sent,
        }
    }

    /// Notices a server that ended by itself, so that its number is never used again.
    fn reap(&self, process: &mut Option<Child>) -> Result<(), EmbeddedError> {
        let Some(child) = process else { return Ok(()) };
        if child.try_wait().map_err(|source| waiting(&self.name, source))?.is_some() {
            self.workspace.forget(child.id())?;
            *process = None;
        }
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!("ending {}: {error}", self.name);
        }
    }
}

fn wait_until_ready(
    launch: &Launch,
    child: &mut Child,
    deadline: Duration,
    mut ready: impl FnMut(u32) -> bool,
) -> Result<(), EmbeddedError> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|source| waiting(&launch.name, source))? {
            return Err(failed(launch, status));
        }
        if ready(child.id()) {
            return Ok(());
        }
        if begin.elapsed() > deadline {
            return Err(too_slow(launch, deadline));
        }
        std::thread::sleep(POLL);
    }
}

fn wait_for_end(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn ask_to_end(
    child: &mut Child,
    signal: Signal,
    deadline: Duration,
) -> Result<Option<ExitStatus>, EmbeddedError> {
    let mut family = vec![child.id()];
    family.extend(process_table::children_of(child.id())?.iter().map(|process| process.id));
    send(&[child.id()], signal)?;
    // A child that ends between the listing and the signal needs none.
    if let Err(error) = send(&family, Signal::Continue) {
        tracing::debug!("{error}");
    }
    wait_for_end(child, deadline).map_err(|source| waiting("a server that stops", source))
}

/// Kills a process and its children. The process is stopped first, so that it cannot have another
/// child between the listing and the killing.
fn kill_family(child: &mut Child) -> Result<(), EmbeddedError> {
    if !matches!(child.try_wait(), Ok(None)) {
        return Ok(());
    }
    send(&[child.id()], Signal::Stop)?;
    let children = process_table::children_of(child.id())?;
    kill(child)?;
    let ids: Vec<u32> = children.iter().map(|process| process.id).collect();
    // Children of a killed PostgreSQL notice its end and may be gone by now: that is no error.
    if let Err(error) = send(&ids, Signal::Kill) {
        tracing::debug!("{error}");
    }
    let begin = Instant::now();
    loop {
        let alive = process_table::all()?;
        let remains =
            |a: &process_table::Process| alive.iter().any(|b| b.id == a.id && b.start == a.start);
        if !children.iter().any(remains) {
            return Ok(());
        }
        if begin.elapsed() > KILLED_DEADLINE {
            return Err(EmbeddedError::TooSlow {
                name: "ending the children of a killed server".to_owned(),
                waited: KILLED_DEADLINE,
                log: format!("(processes {ids:?})"),
            });
        }
        std::thread::sleep(POLL);
    }
}

fn kill(child: &mut Child) -> Result<(), EmbeddedError> {
    child
        .kill()
        .and_then(|()| child.wait().map(|_| ()))
        .map_err(|source| EmbeddedError::System { action: "kill a server".to_owned(), source })
}

/// Sends a signal through the shell's `kill`: the standard library knows only KILL.
fn send(processes: &[u32], signal: Signal) -> Result<(), EmbeddedError> {
    if processes.is_empty() {
        return Ok(());
    }
    let system = |source| EmbeddedError::System {
        action: format!("send {} to {processes:?}", signal.name()),
        source,
    };
    let output = Command::new("/bin/sh")
        .args(["-c", r#"signal=$1; shift; kill -s "$signal" "$@""#, "sh", signal.name()])
        .args(processes.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .output()
        .map_err(system)?;
    if output.status.success() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(system(std::io::Error::other(answer)))
}

fn failed(launch: &Launch, status: ExitStatus) -> EmbeddedError {
    EmbeddedError::Failed {
        name: launch.name.clone(),
        status: status.to_string(),
        log: last_lines(&launch.log),
    }
}

fn too_slow(launch: &Launch, waited: Duration) -> EmbeddedError {
    EmbeddedError::TooSlow { name: launch.name.clone(), waited, log: last_lines(&launch.log) }
}

fn waiting(name: &str, source: std::io::Error) -> EmbeddedError {
    EmbeddedError::System { action: format!("wait for {name}"), source }
}
