//! Secrets that a program writes: passwords and tokens.
//!
//! Promises: the program runs without a shell and ends within `PATIENCE`; what it wrote is handed on and
//! forgotten. Must not: keep, log or show what was written, nor the program's arguments, which may hold
//! secrets too. Fails: with [`ErrorKind::Config`], naming the setting's program and what it did.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// So long may a program take; services that give out tokens answer within a second.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// No password or token is longer; what is, is something else.
const OUTPUT_MAX: u64 = 64 * 1024;

/// Which setting names a program, and what is expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The flag.
    pub flag: &'static str,
    /// What its program is called in an error.
    pub name: &'static str,
    /// What it should write, as the end of a remedy.
    pub writes: &'static str,
}

/// A program with its arguments.
#[derive(Clone)]
pub struct SecretCommand {
    purpose: Purpose,
    words: Vec<String>,
}

impl std::fmt::Debug for SecretCommand {
    /// Without the arguments.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} …", self.purpose.name, self.words[0])
    }
}

impl SecretCommand {
    /// A command as it is typed, split as a shell splits words.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a quote is not closed, or there is no word.
    pub fn parse(purpose: Purpose, typed: &str) -> Result<Self> {
        match shlex::split(typed) {
            Some(words) if !words.is_empty() => Ok(Self { purpose, words }),
            _ => Err(Error::new(ErrorKind::Config, format!("{} is no command", purpose.flag))
                .with_remedy("write a program and its arguments; close every quote")),
        }
    }

    /// What went wrong, and what to do.
    pub fn failed(&self, cause: &str) -> Error {
        let Purpose { name, writes, .. } = self.purpose;
        let cause = format!("the {name} {} {cause}", self.words[0]);
        Error::new(ErrorKind::Config, cause)
            .with_remedy(format!("run it by hand as this user; {writes}"))
    }

    /// Runs the program to its end: all that it wrote. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot run, fails, takes too long, or writes no text.
    pub fn run(&self) -> Result<String> {
        let mut child = self.spawn()?;
        let pipe = child.stdout.take().expect("it was asked for");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.take(OUTPUT_MAX).read_to_string(&mut text).map(|_| text)
        });
        let begin = Instant::now();
        let ended = self.wait(&mut child, begin)?;
        if !ended.success() {
            return Err(self.failed(&format!("failed: {ended}")));
        }
        // What it started may still hold the pipe: what it wrote itself is there.
        while !reader.is_finished() && begin.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
        if !reader.is_finished() {
            return Err(self.failed("left its output open"));
        }
        let text = reader.join().map_err(|_| self.failed("could not be read"))?;
        text.map_err(|cause| self.failed(&format!("wrote no text: {cause}")))
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(|cause| self.failed(&format!("cannot run: {cause}")))
    }

    /// Waits for the end, or makes it.
    fn wait(&self, child: &mut Child, begin: Instant) -> Result<ExitStatus> {
        loop {
            match child.try_wait().map_err(|cause| self.failed(&format!("is lost: {cause}")))? {
                Some(status) => return Ok(status),
                None if begin.elapsed() < PATIENCE => std::thread::sleep(POLL),
                None => {
                    let killed = child.kill().and_then(|()| child.wait());
                    let cause = killed.map_or_else(
                        |cause| format!(", nor could it be ended: {cause}"),
                        |_| String::new(),
                    );
                    return Err(self.failed(&format!("did not end within {PATIENCE:?}{cause}")));
                }
            }
        }
    }
}
