//! The processes of the machine, as far as is needed to find a server's children.
//!
//! Promises: living processes with their parent and start time; zombies are left out. Must not: send
//! signals. Fails: when neither `/proc` nor `ps` answers.

use crate::servers::error::EmbeddedError;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One living process. Number and start time together name it for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: u32,
    pub(super) parent: u32,
    pub(super) start: String,
}

/// All living processes.
pub(super) fn all() -> Result<Vec<Process>, EmbeddedError> {
    if Path::new("/proc/self/stat").exists() { from_proc() } else { from_ps() }
}

/// The living children of a process.
pub(super) fn children_of(parent: u32) -> Result<Vec<Process>, EmbeddedError> {
    Ok(all()?.into_iter().filter(|process| process.parent == parent).collect())
}

fn from_proc() -> Result<Vec<Process>, EmbeddedError> {
    let entries = fs::read_dir("/proc")
        .map_err(|source| EmbeddedError::system("read", Path::new("/proc"), source))?;
    // A process may end between the listing and the reading: it is then not alive.
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|line| parse_stat(&line))
        .collect())
}

/// `proc_pid_stat(5)`: number, (name), state, parent, … and start time as the 22nd field. The name
/// may hold spaces and brackets, so the fields are counted from the last bracket.
fn parse_stat(line: &str) -> Option<Process> {
    let (id, _) = line.split_once(' ')?;
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Process {
        id: id.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        start: (*fields.get(19)?).to_owned(),
    })
}

fn from_ps() -> Result<Vec<Process>, EmbeddedError> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,stat=,lstart="])
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| EmbeddedError::System { action: "run `ps`".to_owned(), source })?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_ps).collect())
}

fn parse_ps(line: &str) -> Option<Process> {
    let mut fields = line.split_whitespace();
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    if fields.next()?.starts_with('Z') {
        return None;
    }
    Some(Process { id, parent, start: fields.collect::<Vec<_>>().join(" ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_with_brackets_in_the_name() {
        let line = "42 (odd) name) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let expected = Process { id: 42, parent: 7, start: "98765".to_owned() };
        assert_eq!(parse_stat(line), Some(expected));
    }

    #[test]
    fn zombies_are_not_alive() {
        let line = "42 (gone) Z 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(parse_stat(line), None);
        assert_eq!(parse_ps("  42     7 Z+   Mon Nov 23 20:00:00 2026"), None);
    }

    #[test]
    fn ps_line() {
        let expected = Process { id: 42, parent: 7, start: "Mon Nov 23 20:00:00 2026".to_owned() };
        assert_eq!(parse_ps("  42     7 Ss   Mon Nov 23 20:00:00 2026"), Some(expected));
    }

    #[test]
    fn finds_our_own_child() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let children = children_of(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children.iter().any(|process| process.id == child.id()));
    }
}
