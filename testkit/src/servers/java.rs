//! Finds a Java that Kafka runs on.
//!
//! Promises: the program answered `-version` with 17 or later. Must not: choose an older one
//! silently. Fails: `ProgramMissing`, `JavaTooOld` or `JavaUnusable`.

use crate::servers::error::EmbeddedError;
use crate::servers::host::Host;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kafka 4's brokers need Java 17: <https://kafka.apache.org/documentation/#java>.
const OLDEST: u32 = 17;

/// A Java runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Java {
    pub(super) program: PathBuf,
    pub(super) version: u32,
    /// As it says it itself: `17.0.15`.
    pub(super) full_version: String,
}

impl Java {
    /// The first Java in the host's folders that is new enough.
    pub(super) fn find(host: &Host) -> Result<Self, EmbeddedError> {
        let mut refusal = None;
        for folder in &host.program_folders {
            let only = Host { program_folders: vec![folder.clone()], ..host.clone() };
            let Some(program) = only.find_program("java") else { continue };
            match Self::ask(&program) {
                Ok(java) => return Ok(java),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or(EmbeddedError::ProgramMissing {
            program: "java",
            needed_for: "Kafka needs Java 17 or later",
            remedy: "install openjdk-17-jre-headless (Debian) or openjdk (Homebrew), or set \
                     JAVA_HOME",
        }))
    }

    /// The newest of those that are new enough for Kafka.
    pub(super) fn newest(host: &Host) -> Option<Self> {
        let only =
            |folder: &PathBuf| Host { program_folders: vec![folder.clone()], ..host.clone() };
        let programs =
            host.program_folders.iter().filter_map(|folder| only(folder).find_program("java"));
        programs.filter_map(|program| Self::ask(&program).ok()).max_by_key(|java| java.version)
    }

    /// The folder that Maven wants as `JAVA_HOME`.
    pub(super) fn home(&self) -> Option<PathBuf> {
        let program = self.program.canonicalize().ok()?;
        program.parent()?.parent().map(Path::to_path_buf)
    }

    fn ask(program: &Path) -> Result<Self, EmbeddedError> {
        let output = Command::new(program)
            .arg("-version")
            .output()
            .map_err(|source| EmbeddedError::system("run", program, source))?;
        let answer = String::from_utf8_lossy(&output.stderr).into_owned();
        let (major, found) = parse_version(&answer).ok_or_else(|| EmbeddedError::JavaUnusable {
            program: program.to_path_buf(),
            answer: answer.lines().next().unwrap_or("no answer").to_owned(),
        })?;
        if major < OLDEST {
            return Err(EmbeddedError::JavaTooOld { program: program.to_path_buf(), found });
        }
        Ok(Self { program: program.to_path_buf(), version: major, full_version: found })
    }
}

/// `openjdk version "17.0.15" 2025-04-15` is 17; before Java 9 it was `java version "1.8.0_292"`.
fn parse_version(answer: &str) -> Option<(u32, String)> {
    let line = answer.lines().find(|line| line.contains(" version \""))?;
    let quoted = line.split('"').nth(1)?;
    let numbers: Vec<u32> =
        quoted.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).collect();
    let major = match numbers.as_slice() {
        [1, second, ..] => *second,
        [first, ..] => *first,
        [] => return None,
    };
    Some((major, quoted.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_times() {
        let cases = [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime", Some(17)),
            ("java version \"1.8.0_292\"", Some(8)),
            ("openjdk version \"25-ea\" 2025-09-16", Some(25)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21\" 2023", Some(21)),
            ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
        ];
        for (answer, expected) in cases {
            assert_eq!(parse_version(answer).map(|(major, _)| major), expected, "{answer}");
        }
    }
}
