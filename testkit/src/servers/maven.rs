//! Fetches files through Maven.
//!
//! Promises: what a pinned `pom.xml` names lies in the folder afterwards, and nothing else: each file has
//! the SHA-256 of our own list, where there is one. Maven's plugins are as its repository's checksums say.
//! Must not: be called when the cache has the part.
//! Fails: `ProgramMissing` without Maven or Java, `Fetch` with Maven's last lines, `Archive` with the
//! file that is not the one that was listed.

use crate::servers::account::RunAs;
use crate::servers::error::{EmbeddedError, last_lines};
use crate::servers::folder;
use crate::servers::hashes::Hashes;
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::server::{Launch, Signal, Workspace};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Slow networks included.
const DEADLINE: Duration = Duration::from_secs(900);
/// Pinned, so that a fetch does the same thing everywhere.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Pinned: later ones read the parents of an archive's description, which need not be published.
const COPY_ARCHIVE: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.10:copy";
/// Maven wants a project to run in.
const NO_PROJECT: &str = "<project xmlns='http://maven.apache.org/POM/4.0.0'>\
    <modelVersion>4.0.0</modelVersion><groupId>postrider</groupId>\
    <artifactId>fetch</artifactId><version>1</version><packaging>pom</packaging></project>";

/// Maven with the Java that it runs on.
#[derive(Debug)]
pub(super) struct Maven {
    program: PathBuf,
    java: Java,
}

impl Maven {
    /// Finds Maven; `needed_for` completes the message when it is missing.
    pub(super) fn find(host: &Host, needed_for: &'static str) -> Result<Self, EmbeddedError> {
        let program = host.find_program("mvn").ok_or(EmbeddedError::ProgramMissing {
            program: "mvn",
            needed_for,
            remedy: "install maven (Debian, Homebrew)",
        })?;
        Ok(Self { program, java: Java::find(host)? })
    }

    /// Copies the run-time dependencies of `pom` into `target`, and compares them with the list. Without a list
    /// only Maven compares, with the checksums that lie beside the files.
    pub(super) fn copy_dependencies(
        &self,
        workspace: &Workspace,
        what: &str,
        pom: &str,
        hashes: Option<&Hashes<'_>>,
        target: &Path,
    ) -> Result<(), EmbeddedError> {
        self.run(workspace, what, pom, &[COPY, "-DincludeScope=runtime"], target)?;
        hashes.map_or(Ok(()), |hashes| hashes.verify(target))
    }

    /// Copies the archive `group:name:version:type`. Only Maven compares it.
    pub(super) fn copy_archive(
        &self,
        workspace: &Workspace,
        what: &str,
        coordinates: &str,
        target: &Path,
    ) -> Result<(), EmbeddedError> {
        let artifact = format!("-Dartifact={coordinates}");
        self.run(workspace, what, NO_PROJECT, &[COPY_ARCHIVE, &artifact], target)
    }

    /// Runs a goal with `pom` as its project, which writes into `target`.
    fn run(
        &self,
        workspace: &Workspace,
        what: &str,
        pom: &str,
        goal: &[&str],
        target: &Path,
    ) -> Result<(), EmbeddedError> {
        let file = workspace.folder().join("pom.xml");
        folder::write(&file, pom, workspace.run_as())?;
        let log = workspace.folder().join("maven.log");
        let mut output = OsString::from("-DoutputDirectory=");
        output.push(target);
        let mut arguments: Vec<OsString> =
            ["--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", "--file"]
                .map(Into::into)
                .into();
        arguments.push(file.into());
        arguments.extend(goal.iter().map(Into::into));
        arguments.push(output);
        let launch = Launch {
            name: "Maven".to_owned(),
            program: self.program.clone(),
            arguments,
            environment: self
                .java
                .home()
                .map(|home| ("JAVA_HOME", home.into_os_string()))
                .into_iter()
                .collect(),
            log: log.clone(),
            end: Signal::Terminate,
            run_as: RunAs::Ourselves,
        };
        workspace.run(&launch, DEADLINE).map_err(|error| match error {
            EmbeddedError::Failed { .. } => {
                EmbeddedError::Fetch { what: what.to_owned(), log: last_lines(&log) }
            }
            other => other,
        })
    }
}
