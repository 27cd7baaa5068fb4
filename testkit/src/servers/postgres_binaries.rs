//! Finds PostgreSQL's server programs, or fetches them.
//!
//! Promises: version 14 or later; the system's own programs first. Must not: fetch when only the
//! system's are asked for. Fails: `ProgramMissing`, `PostgresTooOld`, `NoBinaries`, or as a fetch.

use crate::servers::archive;
use crate::servers::cache;
use crate::servers::error::EmbeddedError;
use crate::servers::hashes::Hashes;
use crate::servers::host::{Host, is_trusted};
use crate::servers::maven::Maven;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that postrider works with.
const OLDEST: u32 = 14;
const POM: &str = include_str!("postgres.pom.xml");
const HASHES: &str = include_str!("postgres.sha256");
const FETCHED_VERSION: &str = "17.9.0";
const NEEDED: &str = "PostgreSQL's server is neither on PATH nor in the usual places, and Maven is \
                      needed to fetch one";

/// Where PostgreSQL's programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PostgresSource {
    /// The system's, and fetched when there are none.
    #[default]
    Any,
    /// The system's only.
    System,
    /// The build that Maven serves (Zonky's), also where the system has one.
    Fetched,
}

/// PostgreSQL's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    /// As `15.18`.
    pub(super) version: String,
    /// `system` or `fetched`.
    pub(super) origin: &'static str,
}

impl Binaries {
    /// Finds or fetches them.
    pub(super) fn find(
        host: &Host,
        source: PostgresSource,
        progress: &dyn Fn(&str),
    ) -> Result<Self, EmbeddedError> {
        match source {
            PostgresSource::System => system(host),
            PostgresSource::Fetched => fetched(host, progress),
            PostgresSource::Any => match system(host) {
                Err(found) if found.is_missing_part() => fetched(host, progress).map_err(|fetch| {
                    if fetch.is_missing_part() { closest(found, fetch) } else { fetch }
                }),
                other => other,
            },
        }
    }

    /// A program that must be there.
    pub(super) fn program(&self, name: &'static str) -> Result<PathBuf, EmbeddedError> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(EmbeddedError::ProgramMissing {
            program: name,
            needed_for: "these PostgreSQL programs came without it",
            remedy: "install the system's own: postgresql (Debian), postgresql@17 (Homebrew)",
        })
    }
}

/// Of two failures, the one that says most: a server that is too old is better to know of than a
/// missing Maven.
fn closest(found: EmbeddedError, fetch: EmbeddedError) -> EmbeddedError {
    if matches!(found, EmbeddedError::PostgresTooOld { .. }) { found } else { fetch }
}

fn system(host: &Host) -> Result<Binaries, EmbeddedError> {
    let mut refusal = None;
    for folder in host.program_folders.iter().filter_map(|folder| server_folder(folder)) {
        match ask(&folder, "system") {
            Ok(binaries) => return Ok(binaries),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or(EmbeddedError::ProgramMissing {
        program: "initdb",
        needed_for: "PostgreSQL's server is neither on PATH nor in the usual places",
        remedy: "install postgresql (Debian) or postgresql@17 (Homebrew)",
    }))
}

/// The real folder behind a folder that holds `initdb`; a folder on PATH may hold links to some of
/// the programs only.
fn server_folder(folder: &Path) -> Option<PathBuf> {
    let initdb = folder.join("initdb").canonicalize().ok()?;
    let folder = initdb.parent()?;
    let server = folder.join("postgres");
    (server.is_file() && is_trusted(&server)).then(|| folder.to_path_buf())
}

fn ask(folder: &Path, origin: &'static str) -> Result<Binaries, EmbeddedError> {
    let program = folder.join("postgres");
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(|source| EmbeddedError::system("run", &program, source))?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (major, version) = parse_version(&answer).ok_or_else(|| EmbeddedError::Failed {
        name: program.display().to_string(),
        status: output.status.to_string(),
        log: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })?;
    if major < OLDEST {
        return Err(EmbeddedError::PostgresTooOld { program, found: version });
    }
    Ok(Binaries { folder: folder.to_path_buf(), version, origin })
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15 and `15.18`; `17beta1` is 17.
fn parse_version(answer: &str) -> Option<(u32, String)> {
    let (_, rest) = answer.split_once("(PostgreSQL) ")?;
    let version = rest.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

fn fetched(host: &Host, progress: &dyn Fn(&str)) -> Result<Binaries, EmbeddedError> {
    let platform = platform()?;
    let version = host.postgres_version.as_deref().unwrap_or(FETCHED_VERSION);
    let name = format!("postgres-{version}-{platform}");
    let part = cache::part(host, &name, |workspace, target| {
        let maven = Maven::find(host, NEEDED)?;
        progress(&format!("fetching PostgreSQL {version} through Maven (15 MB, once)"));
        let jars = workspace.folder().join("jars");
        let what = format!("PostgreSQL {version}");
        let jar = format!("embedded-postgres-binaries-{platform}-{version}.jar");
        let hashes = Hashes::new(HASHES).only(&jar);
        if hashes.is_none() {
            progress(
                "only Maven checks it: postrider has no SHA-256 of this version for this machine",
            );
        }
        let pom = POM.replace("PLATFORM", platform).replace(FETCHED_VERSION, version);
        maven.copy_dependencies(workspace, &what, &pom, hashes.as_ref(), &jars)?;
        archive::unpack_jar(&jars.join(jar), target)
    })?;
    ask(&part.join("bin"), "fetched")
}

fn platform() -> Result<&'static str, EmbeddedError> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-amd64"),
        ("linux", "aarch64") => Ok("linux-arm64v8"),
        ("macos", "x86_64") => Ok("darwin-amd64"),
        ("macos", "aarch64") => Ok("darwin-arm64v8"),
        (system, processor) => {
            Err(EmbeddedError::NoBinaries { platform: format!("{system} on {processor}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_distributions_write_them() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 17beta1", Some((17, "17beta1"))),
            ("postgres (PostgreSQL) 9.6.24", Some((9, "9.6.24"))),
            ("something else", None),
        ];
        for (answer, expected) in cases {
            let expected =
                expected.map(|(major, version): (u32, &str)| (major, version.to_owned()));
            assert_eq!(parse_version(answer), expected, "{answer}");
        }
    }
}
