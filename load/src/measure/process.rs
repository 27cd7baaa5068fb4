//! Processes as the kernel accounts for them, and the relay that is started as a child.
//!
//! Promises: the CPU of a tree counts every process in it, and those that it has already reaped; a
//! started relay does not outlive this process's use of it. Must not: use a shell. Fails: when
//! `/proc` cannot be read, when the command cannot be started, and when the relay ends badly.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use hashbrown::HashMap;

/// The unit of `/proc/<pid>/stat`: 100 ticks per second on every Linux that users see.
const TICK: Duration = Duration::from_millis(10);

/// How long a stopped relay may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// CPU time and memory of a process tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time, with that of children that were already reaped.
    pub(crate) cpu: Duration,
    /// Resident memory now, summed over the tree; pages shared by processes count for each.
    pub(crate) resident_bytes: u64,
    /// The highest resident memory of any process in the tree.
    pub(crate) peak_resident_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    parent: u32,
    /// CPU of the process itself.
    own_ticks: u64,
    /// CPU of its children that have ended and were waited for.
    reaped_ticks: u64,
}

/// All processes at one moment.
#[derive(Debug)]
pub(crate) struct ProcessTable {
    entries: HashMap<u32, Entry>,
}

impl ProcessTable {
    /// Reads `/proc` once.
    ///
    /// # Errors
    /// When `/proc` cannot be listed. A process that ends meanwhile is left out.
    pub(crate) fn read() -> Result<Self> {
        let mut entries = HashMap::new();
        for listed in fs::read_dir("/proc").context("/proc cannot be listed")? {
            let name = listed.context("/proc cannot be listed")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(entry) = read_entry(pid) {
                entries.insert(pid, entry);
            }
        }
        Ok(Self { entries })
    }

    /// What the tree under `root` has used so far.
    ///
    /// # Errors
    /// When `root` does not exist.
    pub(crate) fn usage(&self, root: u32) -> Result<Usage> {
        if !self.entries.contains_key(&root) {
            bail!("process {root} does not exist any more");
        }
        let mut usage = Usage::default();
        for (&pid, entry) in &self.entries {
            if self.descends(pid, root) {
                let (resident, peak) = read_memory(pid);
                usage.cpu += time(entry.own_ticks + entry.reaped_ticks);
                usage.resident_bytes += resident;
                usage.peak_resident_bytes = usage.peak_resident_bytes.max(peak);
            }
        }
        Ok(usage)
    }

    /// What the process `pid` has used so far, its children left out.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn usage_alone(&self, pid: u32) -> Result<Usage> {
        let entry = self.entries.get(&pid);
        let entry = entry.with_context(|| format!("process {pid} does not exist any more"))?;
        let (resident_bytes, peak_resident_bytes) = read_memory(pid);
        Ok(Usage { cpu: time(entry.own_ticks), resident_bytes, peak_resident_bytes })
    }

    /// The process `root` and all that descend from it.
    fn tree(&self, root: u32) -> Vec<u32> {
        self.entries.keys().copied().filter(|&pid| self.descends(pid, root)).collect()
    }

    fn descends(&self, pid: u32, root: u32) -> bool {
        let mut at = pid;
        loop {
            if at == root {
                return true;
            }
            match self.entries.get(&at) {
                Some(entry) if entry.parent != 0 => at = entry.parent,
                _ => return false,
            }
        }
    }
}

fn read_entry(pid: u32) -> Option<Entry> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parent and CPU ticks out of a `stat` line; the name in parentheses may hold anything.
fn parse_stat(stat: &str) -> Option<Entry> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let own_ticks = ticks(11)? + ticks(12)?;
    Some(Entry { parent, own_ticks, reaped_ticks: ticks(13)? + ticks(14)? })
}

fn time(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Resident memory now and at its highest, in bytes; 0 for a process that has ended.
fn read_memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kilobytes("VmRSS:") * 1024, kilobytes("VmHWM:") * 1024)
}

/// The process `pid`'s parent, if `pid` runs on this machine under the name `name`.
pub(crate) fn parent_if_named(pid: u32, name: &str) -> Option<u32> {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (command.trim_end() == name).then(|| read_entry(pid))?.map(|entry| entry.parent)
}

/// Splits a command line into arguments as a shell does with quotes and backslashes, and no more.
///
/// # Errors
/// When a quote is not closed, or the line is empty.
pub(crate) fn split_command_line(line: &str) -> Result<Vec<String>> {
    let arguments = shlex::split(line).with_context(|| {
        let line = without_passwords(line);
        format!("the command line has a quote that is not closed, or ends in a backslash: {line}")
    })?;
    ensure!(!arguments.is_empty(), "the relay's command line is empty");
    Ok(arguments)
}

/// The command line of these arguments, whatever they hold.
///
/// # Errors
/// When one holds a NUL.
pub(crate) fn command_line(arguments: &[&str]) -> Result<String> {
    shlex::try_join(arguments.iter().copied()).context("an argument holds a NUL")
}

/// A command line as it may be kept: passwords in it are replaced.
pub(crate) fn without_passwords(command_line: &str) -> String {
    let mut kept = String::with_capacity(command_line.len());
    for part in command_line.split_inclusive([' ', '\'', '"', '&', '?']) {
        kept.push_str(&without_password(part));
    }
    kept
}

/// Replaces the password of a URL, or the value of a setting that ends in `password`.
fn without_password(part: &str) -> String {
    if let Some((scheme, rest)) = part.split_once("://")
        && let Some((login, host)) = rest.split_once('@')
        && let Some((user, _)) = login.split_once(':')
    {
        return format!("{scheme}://{user}:***@{host}");
    }
    match part.split_once("password=") {
        Some((before, value)) => {
            let end = value.find([' ', '\'', '"', '&']).unwrap_or(value.len());
            format!("{before}password=***{}", &value[end..])
        }
        None => part.to_owned(),
    }
}

/// Looks the program of a command line up, so that a slip is known before the work begins.
///
/// # Errors
/// When the command line is malformed, or there is no such file.
pub(crate) fn check_program(command_line: &str) -> Result<()> {
    let arguments = split_command_line(command_line)?;
    let program = &arguments[0];
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        Path::new(program).is_file()
    } else {
        std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
    };
    if !found {
        bail!("there is no program {program}; give --relay the path of the relay's binary");
    }
    Ok(())
}

/// A relay that this process has started. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    log: PathBuf,
    /// When it was started, by the wall clock.
    pub(crate) started_at: SystemTime,
}

impl Relay {
    /// Starts `command_line`; its output goes to the file `log`.
    ///
    /// # Errors
    /// When the command line is malformed, the file cannot be made or the program cannot be started.
    pub(crate) fn start(command_line: &str, log: &Path) -> Result<Self> {
        let arguments = split_command_line(command_line)?;
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("the relay's log cannot be shared")?;
        let started_at = SystemTime::now();
        let child = Command::new(&arguments[0])
            .args(&arguments[1..])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("the relay {} cannot be started", arguments[0]))?;
        Ok(Self { child, log: log.to_owned(), started_at })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its process tree has used so far.
    ///
    /// # Errors
    /// When it has ended, with its exit status and where its log is.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        self.check_alive()?;
        ProcessTable::read()?.usage(self.pid())
    }

    /// Nothing, as long as it runs.
    ///
    /// # Errors
    /// When it has ended, with its exit status and where its log is.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("the relay's state cannot be read")? {
            None => Ok(()),
            Some(status) => {
                bail!("the relay ended by itself ({status}); see {}", self.log.display())
            }
        }
    }

    /// Halts its process tree where it is (SIGSTOP).
    ///
    /// # Errors
    /// When a process of it cannot be reached.
    pub(crate) fn halt(&mut self) -> Result<()> {
        self.signal_tree("-STOP")
    }

    /// Lets a halted tree go on (SIGCONT), and counts its start from now.
    ///
    /// # Errors
    /// When a process of it cannot be reached.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.started_at = SystemTime::now();
        self.signal_tree("-CONT")
    }

    fn signal_tree(&mut self, signal: &str) -> Result<()> {
        self.check_alive()?;
        let pids = ProcessTable::read()?.tree(self.pid());
        let sent = Command::new("kill").arg(signal).args(pids.iter().map(u32::to_string)).status();
        if !sent.context("the command kill cannot be started")?.success() {
            bail!("{signal} could not be sent to the relay, processes {pids:?}");
        }
        Ok(())
    }

    /// Asks it to stop by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in a minute (it is killed then), or ends with another code than 0 and
    /// not by that signal.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.check_alive()?;
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        if !sent.context("the command kill cannot be started")?.success() {
            bail!("SIGTERM could not be sent to the relay, process {pid}");
        }
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) =
                self.child.try_wait().context("the relay's state cannot be read")?
            {
                return self.judge(status);
            }
            if Instant::now() > deadline {
                bail!("the relay did not stop in {STOP_LIMIT:?}; see {}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<ExitStatus> {
        // A relay without a handler ends by the signal itself: that is a stop, not a failure. A JVM
        // says the same with 128 + 15.
        let by_signal = status.signal() == Some(15) || status.code() == Some(143);
        if status.success() || by_signal {
            return Ok(status);
        }
        bail!("the relay stopped with {status}; see {}", self.log.display())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill and nothing to say.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_with_quotes() {
        let words = |line: &str| split_command_line(line).unwrap();
        assert_eq!(words("relay run  --a b"), ["relay", "run", "--a", "b"]);
        assert_eq!(
            words(r#"relay 'a b' "c \" d" e\ f '' "#),
            ["relay", "a b", "c \" d", "e f", ""]
        );
        assert!(split_command_line("relay 'a").is_err());
        assert!(split_command_line("  ").is_err());
    }

    #[test]
    fn arguments_survive_being_a_command_line() {
        let arguments = ["tool", "host=a user=b", "it's", "\"x\" \\y", "", "#"];
        let line = command_line(&arguments).unwrap();
        assert_eq!(split_command_line(&line).unwrap(), arguments);
        let url = command_line(&["--database-url", "host=h password=secret user=a"]).unwrap();
        assert!(!without_passwords(&url).contains("secret"), "{url}");
    }

    #[test]
    fn passwords_are_not_kept() {
        let cases = [
            ("r --url postgres://a:secret@h/d -x", "r --url postgres://a:***@h/d -x"),
            ("r postgres://a@h/d", "r postgres://a@h/d"),
            ("r 'host=h password=secret user=a'", "r 'host=h password=*** user=a'"),
            ("r -X sasl.password=secret", "r -X sasl.password=***"),
            ("r postgres://h/d?user=a&password=secret", "r postgres://h/d?user=a&password=***"),
        ];
        for (given, kept) in cases {
            assert_eq!(without_passwords(given), kept);
        }
    }

    #[test]
    fn stat_with_a_strange_name_is_read() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4 1 0 0 0 10 20 30 40 20 0 1 0 5";
        let entry = parse_stat(stat).unwrap();
        assert_eq!((entry.parent, entry.own_ticks, entry.reaped_ticks), (3, 30, 70));
    }

    #[test]
    fn a_tree_counts_its_children_and_not_its_neighbours() {
        let entries = [(1, 0), (10, 1), (11, 10), (20, 1)];
        let entry = |parent| Entry { parent, own_ticks: 0, reaped_ticks: 0 };
        let table = ProcessTable {
            entries: entries.map(|(pid, parent)| (pid, entry(parent))).into_iter().collect(),
        };
        assert!(table.descends(11, 10) && table.descends(10, 10));
        assert!(!table.descends(20, 10) && !table.descends(1, 10));
        let mut tree = table.tree(10);
        tree.sort_unstable();
        assert_eq!(tree, [10, 11]);
    }

    #[test]
    fn this_process_is_found() {
        let table = ProcessTable::read().unwrap();
        let alone = table.usage_alone(std::process::id()).unwrap();
        let tree = table.usage(std::process::id()).unwrap();
        assert!(alone.resident_bytes > 0 && alone.peak_resident_bytes >= alone.resident_bytes);
        assert!(tree.cpu >= alone.cpu);
        assert!(table.usage(u32::MAX).is_err() && table.usage_alone(u32::MAX).is_err());
    }
}
