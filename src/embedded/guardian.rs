//! A tiny shell process that outlives us and cleans up.
//!
//! Promises: when this process ends in any way without [`Guardian::dismiss`], the watched processes
//! are ended and the folder is removed. It knows of our end because it reads a pipe whose other end
//! only we hold: the standard library makes pipes that are closed in programs we start.
//! Must not: end a process that it was not told of, or one that got the number of a dead one.
//! Fails: when `/bin/sh` cannot be started, or was killed by somebody: then no server is started.

use super::error::EmbeddedError;
use super::server::Signal;
use std::io::{self, Write as _};
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
