//! Secrets that a program writes or a file holds: passwords and tokens; and small files at all.
//!
//! Promises: the program runs without a shell and ends within `PATIENCE`, with all that it has started; a file is
//! read up to `FILE_MAX`, and what is no plain file is waited for no longer either. What was read is handed on and
//! forgotten. Must not: keep, log or show what was written, nor the program's arguments, which may hold
//! secrets too. Fails: with [`ErrorKind::Config`], naming the setting's program and what it did.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// So long may a program take; services that give out tokens answer within a second.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// No password or token is longer; what is, is something else.
const OUTPUT_MAX: u64 = 64 * 1024;
/// No configuration and no file with a secret is larger; what is, is something else.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// The text of a small file. A pipe or a device, which may never end or never begin, is read for as long as a
/// program may run.
///
/// # Errors
/// As [`std::fs::read_to_string`]; when it is too large, or gives nothing in time.
pub fn read_file(path: &Path) -> io::Result<String> {
    read_within(path, PATIENCE)
}

fn read_within(path: &Path, patience: Duration) -> io::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        return read_bounded(path);
    }
    let (sender, receiver) = mpsc::channel();
    let owned = path.to_owned();
    std::thread::spawn(move || {
        if sender.send(read_bounded(&owned)).is_err() {
            tracing::debug!("a file was read too late");
        }
    });
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let cause = format!("it is no plain file, and did not end within {patience:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, cause))
    })
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_MAX {
        let cause = format!("it is larger than {} MiB", FILE_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, cause));
    }
    Ok(text)
}

/// The value that a file holds: its text without the line's end.
///
/// # Errors
/// As [`read_file`].
pub fn read_value(path: &Path) -> io::Result<String> {
    let text = read_file(path)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

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
            end_group(&child);
            return Err(self.failed("left its output open"));
        }
        let text = reader.join().map_err(|_| self.failed("could not be read"))?;
        text.map_err(|cause| self.failed(&format!("wrote no text: {cause}")))
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // With all that it starts it is a group of its own, which can be ended as a whole.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|cause| self.failed(&format!("cannot run: {cause}")))
    }

    /// Waits for the end, or makes it.
    fn wait(&self, child: &mut Child, begin: Instant) -> Result<ExitStatus> {
        loop {
            match child.try_wait().map_err(|cause| self.failed(&format!("is lost: {cause}")))? {
                Some(status) => return Ok(status),
                None if begin.elapsed() < PATIENCE => std::thread::sleep(POLL),
                None => {
                    end_group(child);
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

/// Ends what a program has started and left behind. A signal to a group takes a call of C, or a shell: where there
/// is none, no program of several processes was started either.
#[cfg(unix)]
fn end_group(child: &Child) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s KILL -- \"-$1\"", "sh", &child.id().to_string()]);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !shell.status().is_ok_and(|ended| ended.success()) {
        tracing::debug!(group = child.id(), "nobody of a command's group could be ended");
    }
}

#[cfg(not(unix))]
fn end_group(_: &Child) {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PURPOSE: Purpose = Purpose { flag: "--test", name: "test command", writes: "a word" };

    /// What a command has left behind, by a word in its arguments that no other has.
    fn is_left(word: &str) -> bool {
        let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .any(|line| String::from_utf8_lossy(&line).starts_with(&format!("sleep\0{word}")))
    }

    #[test]
    fn a_command_that_hangs_or_leaves_its_output_open_leaves_nobody_behind() {
        // Nobody else sleeps for so long.
        let own = std::process::id();
        let (hangs, leaves) = (format!("86431.{own}1"), format!("86432.{own}1"));
        let trials = [
            (format!("sh -c 'sleep {hangs} & sleep {hangs}'"), hangs, "did not end"),
            (format!("sh -c 'sleep {leaves} & echo word'"), leaves, "left its output open"),
        ];
        let trials = trials.map(|(typed, word, cause)| {
            std::thread::spawn(move || {
                let error = SecretCommand::parse(PURPOSE, &typed).unwrap().run().unwrap_err();
                assert!(error.message().contains(cause), "{error}");
                let deadline = Instant::now() + PATIENCE;
                while is_left(&word) {
                    assert!(Instant::now() < deadline, "{typed} left a process behind");
                    std::thread::sleep(POLL);
                }
            })
        });
        for trial in trials {
            trial.join().unwrap();
        }
    }

    #[test]
    fn what_never_ends_or_never_begins_is_no_file_to_read() {
        let cause = read_file(Path::new("/dev/zero")).unwrap_err();
        assert!(cause.to_string().contains("larger"), "{cause}");
        let pipe = std::env::temp_dir().join(format!("postrider-pipe-{}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let cause = read_within(&pipe, Duration::from_millis(50)).unwrap_err();
        assert!(cause.to_string().contains("no plain file"), "{cause}");
        // A shell's `<(…)` is read. The first pipe is left to the reader that still waits for it.
        let pipe = pipe.with_extension("read");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, "word\n")
        });
        assert_eq!(read_file(&pipe).unwrap(), "word\n");
        writer.join().unwrap().unwrap();
        for pipe in [pipe.with_extension(""), pipe] {
            std::fs::remove_file(&pipe).unwrap();
        }
        assert!(read_file(&std::env::temp_dir()).is_err());
    }
}
