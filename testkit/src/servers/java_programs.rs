//! Java programs that others start: fetched once through Maven, beside what the servers need.
//!
//! Promises: a part of the cache is complete or absent; the Java that is taken is the newest that this machine
//! shows. Must not: fetch what is there, or start a program. Fails: as Maven and the cache do.

use crate::servers::account::RunAs;
use crate::servers::cache;
use crate::servers::error::{EmbeddedError, last_lines};
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::maven::Maven;
use crate::servers::server::{Launch, Signal, Workspace};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NEEDED: &str = "it is needed once to fetch the program";
/// Large archives on slow disks included.
const UNPACK_DEADLINE: Duration = Duration::from_secs(300);
/// How Maven's files end that are archives.
const ARCHIVE_END: &str = "gz";

/// The newest Java of this machine that is at least `least`.
///
/// # Errors
/// When there is none.
pub fn newest_java(host: &Host, least: u32) -> Result<PathBuf, EmbeddedError> {
    match Java::newest(host) {
        Some(java) if java.version >= least => Ok(java.program),
        newest => Err(EmbeddedError::NoJava { least, newest: newest.map(|java| java.version) }),
    }
}

/// The folder of the jars that `pom` names, with what they need.
///
/// # Errors
/// When Maven is missing, or could not fetch.
pub fn fetched_jars(host: &Host, name: &str, pom: &str) -> Result<PathBuf, EmbeddedError> {
    cache::part(host, name, |workspace, target| {
        Maven::find(host, NEEDED)?.copy_dependencies(workspace, name, pom, None, target)
    })
}

/// The folder of the unpacked archive `group:name:version:tar.gz`, without its own folder above all.
///
/// # Errors
/// When Maven or tar is missing, or one of them fails.
pub fn fetched_archive(
    host: &Host,
    name: &str,
    coordinates: &str,
) -> Result<PathBuf, EmbeddedError> {
    cache::part(host, name, |workspace, target| {
        Maven::find(host, NEEDED)?.copy_archive(
            workspace,
            name,
            coordinates,
            workspace.folder(),
        )?;
        let archive = archive_in(workspace.folder())?;
        unpack(host, workspace, &archive, target)
    })
}

fn archive_in(folder: &Path) -> Result<PathBuf, EmbeddedError> {
    let entries =
        folder.read_dir().map_err(|source| EmbeddedError::system("read folder", folder, source))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let archive = paths.find(|path| path.extension().is_some_and(|end| end == ARCHIVE_END));
    archive.ok_or_else(|| EmbeddedError::Archive {
        path: folder.to_path_buf(),
        reason: "Maven brought no archive".to_owned(),
    })
}

fn unpack(
    host: &Host,
    workspace: &Workspace,
    archive: &Path,
    target: &Path,
) -> Result<(), EmbeddedError> {
    let program = host.find_program("tar").ok_or(EmbeddedError::ProgramMissing {
        program: "tar",
        needed_for: "it unpacks the program",
        remedy: "install tar",
    })?;
    let log = workspace.folder().join("tar.log");
    let launch = Launch {
        name: "tar".to_owned(),
        program,
        arguments: vec![
            "--extract".into(),
            "--gzip".into(),
            "--strip-components=1".into(),
            "--file".into(),
            archive.into(),
            "--directory".into(),
            target.into(),
        ],
        environment: Vec::new(),
        log: log.clone(),
        end: Signal::Terminate,
        run_as: RunAs::Ourselves,
    };
    workspace.run(&launch, UNPACK_DEADLINE).map_err(|error| match error {
        EmbeddedError::Failed { .. } => {
            EmbeddedError::Archive { path: archive.to_path_buf(), reason: last_lines(&log) }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// A machine with these versions of Java, in this order.
    fn host(versions: &[&str]) -> Host {
        let root = std::env::temp_dir().join(format!("postrider-java-{}", uuid::Uuid::new_v4()));
        let folder = |version: &&str| {
            let (folder, said) = (root.join(version), format!("openjdk version \"{version}\""));
            fs::create_dir_all(&folder).expect("a folder can be made");
            let program = folder.join("java");
            fs::write(&program, format!("#!/bin/sh\necho '{said}' >&2\n")).expect("it is written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
            folder
        };
        Host { program_folders: versions.iter().map(folder).collect(), ..Host::default() }
    }

    #[test]
    fn the_newest_java_is_taken_if_it_is_new_enough() {
        let host = host(&["17.0.9", "25.0.3", "21"]);
        let found = newest_java(&host, 21).expect("there is one");
        assert!(found.ends_with("25.0.3/java"), "{found:?}");
        let refused = newest_java(&host, 26).expect_err("it is too old");
        assert!(refused.to_string().contains("25 is the newest"), "{refused}");
        let none = Host { program_folders: Vec::new(), ..Host::default() };
        let refused = newest_java(&none, 17).expect_err("there is none");
        assert!(refused.is_missing_part() && refused.to_string().contains("Java 17"), "{refused}");
    }
}
