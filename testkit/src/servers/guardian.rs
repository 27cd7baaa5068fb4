//! A tiny shell process that outlives us and cleans up.
//!
//! Promises: when this process ends in any way without [`Guardian::dismiss`], the watched processes
//! are ended and the folder is removed. It knows of our end because it reads a pipe whose other end
//! only we hold: the standard library makes pipes that are closed in programs we start.
//! Must not: end a process that it was not told of, or one that got the number of a dead one.
//! Fails: when `/bin/sh` cannot be started, or was killed by somebody: then no server is started.

use crate::servers::error::EmbeddedError;
use crate::servers::signal::Signal;
use std::io;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

const SCRIPT: &str = include_str!("guardian.sh");

/// The handle on the guardian of one folder.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
    orders: ChildStdin,
}

impl Guardian {
    /// Starts the guardian of `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "postrider-guardian"])
            .arg(folder)
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to our process group: the guardian must not be in it.
            .process_group(0)
            .spawn()
            .map_err(|source| EmbeddedError::System {
                action: "start /bin/sh".to_owned(),
                source,
            })?;
        let orders = process.stdin.take().expect("standard input was asked for as a pipe");
        Ok(Self { process, orders })
    }

    /// From now on the process is ended when we end. It must not have been waited for yet.
    pub(super) fn watch(&mut self, process: u32, signal: Signal) -> Result<(), EmbeddedError> {
        self.order(&format!("watch {process} {}\n", signal.name()))
    }

    /// The process has ended by itself or by us.
    pub(super) fn forget(&mut self, process: u32) -> Result<(), EmbeddedError> {
        self.order(&format!("forget {process}\n"))
    }

    /// All is cleaned up: the guardian has nothing left to do and ends.
    pub(super) fn dismiss(&mut self) -> Result<(), EmbeddedError> {
        self.order("done\n")?;
        self.process.wait().map(|_| ()).map_err(lost)
    }

    fn order(&mut self, line: &str) -> Result<(), EmbeddedError> {
        self.orders.write_all(line.as_bytes()).map_err(lost)
    }
}

fn lost(source: io::Error) -> EmbeddedError {
    EmbeddedError::System {
        action: "reach the guardian process (was it killed?)".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    fn new_folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("postrider-guard-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("file"), "content").unwrap();
        folder
    }

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).process_group(0).spawn().unwrap()
    }

    /// The pipe closes as it would when this process ended.
    fn abandon(guardian: Guardian) {
        let Guardian { mut process, orders } = guardian;
        drop(orders);
        process.wait().unwrap();
    }

    #[test]
    fn watched_process_and_folder_go() {
        let folder = new_folder();
        let mut guardian = Guardian::start(&folder).unwrap();
        let mut child = shell("exec sleep 60");
        guardian.watch(child.id(), Signal::Terminate).unwrap();
        abandon(guardian);
        assert!(!folder.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn stubborn_process_is_killed_with_its_group() {
        let folder = new_folder();
        let mut guardian = Guardian::start(&folder).unwrap();
        let ready = folder.join("ready");
        let script = format!("trap '' TERM; touch '{}'; sleep 61; sleep 62", ready.display());
        let mut child = shell(&script);
        let begin = Instant::now();
        while !ready.exists() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the script has begun");
            std::thread::sleep(Duration::from_millis(5));
        }
        guardian.watch(child.id(), Signal::Terminate).unwrap();
        abandon(guardian);
        assert!(begin.elapsed() > Duration::from_secs(4), "it was given time");
        assert!(!folder.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn forgotten_process_lives_on() {
        let folder = new_folder();
        let mut guardian = Guardian::start(&folder).unwrap();
        let mut child = shell("exec sleep 60");
        guardian.watch(child.id(), Signal::Kill).unwrap();
        guardian.forget(child.id()).unwrap();
        abandon(guardian);
        let state = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state, None);
    }

    #[test]
    fn dismissed_guardian_touches_nothing() {
        let folder = new_folder();
        let mut guardian = Guardian::start(&folder).unwrap();
        let mut child = shell("exec sleep 60");
        guardian.watch(child.id(), Signal::Kill).unwrap();
        guardian.dismiss().unwrap();
        let state = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state, None);
        assert!(folder.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn process_that_ended_by_itself_is_no_matter() {
        let folder = new_folder();
        let mut guardian = Guardian::start(&folder).unwrap();
        let mut child = shell("exit 0");
        guardian.watch(child.id(), Signal::Kill).unwrap();
        child.wait().unwrap();
        abandon(guardian);
        assert!(!folder.exists());
    }
}
