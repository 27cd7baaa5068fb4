//! Java programs of the peers: found, fetched once through Maven, and started without a shell.
//!
//! Promises: a part of the cache is complete or absent; the Java that is taken is the newest that
//! this machine shows. Must not: fetch what is there. Fails: when Java or Maven is missing, or Maven
//! refuses, with its last lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Pinned: later ones read the parents of an archive's description, which need not be published.
const COPY_ARCHIVE: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.10:copy";

/// Pinned, so that a fetch does the same thing everywhere.
const COPY_JARS: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Where packages put Java.
const USUAL_PLACE: &str = "/usr/lib/jvm";

/// The newest Java on this machine that is at least `least`.
///
/// # Errors
/// When there is none.
pub(crate) fn find(least: u32) -> Result<PathBuf> {
    let listed = fs::read_dir(USUAL_PLACE).into_iter().flatten().flatten();
    let homes = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let homes = homes.into_iter().chain(listed.map(|entry| entry.path()));
    let versions = homes.filter_map(|home| {
        let release = fs::read_to_string(home.join("release")).ok()?;
        Some((version_in(&release)?, home.join("bin/java")))
    });
    let newest = versions.filter(|(_, java)| java.is_file()).max_by_key(|(version, _)| *version);
    match newest {
        Some((version, java)) if version >= least => Ok(java),
        Some((version, _)) => {
            bail!("Java {least} is needed and {version} is the newest; install one")
        }
        None => bail!("Java {least} is needed; install one or set JAVA_HOME"),
    }
}

/// The first number of a home's version, as in `JAVA_VERSION="25.0.3"`.
fn version_in(release: &str) -> Option<u32> {
    let line = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    line.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The folder of fetched parts: `POSTRIDER_CACHE`, else that of the user.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let users = || {
        Some(set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?.join("postrider"))
    };
    set("POSTRIDER_CACHE").or_else(users).context("set POSTRIDER_CACHE to a folder for the peers")
}

/// The folder of a part, made by `make` when it is not there yet.
fn part(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache()?;
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    // Made beside and renamed, so that a part that is there is complete.
    let fresh = cache.join(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    let made = make(&fresh).and_then(|()| {
        fs::rename(&fresh, &place).with_context(|| format!("cannot make {}", place.display()))
    });
    if made.is_err() {
        // The error that is told is the one that matters.
        fs::remove_dir_all(&fresh).ok();
    }
    made.map(|()| place)
}

/// The jars that `pom` names, with what they need.
///
/// # Errors
/// As the module says.
pub(crate) fn jars(name: &str, pom: &str) -> Result<PathBuf> {
    part(name, |folder| {
        maven(folder, pom, &[COPY_JARS, "-DincludeScope=runtime", &output_into(folder)])
    })
}

/// The unpacked archive `group:name:version:tar.gz`.
///
/// # Errors
/// As the module says.
pub(crate) fn archive(name: &str, coordinates: &str, pom: &str) -> Result<PathBuf> {
    part(name, |folder| {
        let artifact = format!("-Dartifact={coordinates}");
        maven(folder, pom, &[COPY_ARCHIVE, &artifact, &output_into(folder)])?;
        let entries = fs::read_dir(folder).context("the fetched folder cannot be read")?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        let archive = paths.find(|path| path.extension().is_some_and(|end| end == "gz"));
        let archive = archive.context("Maven brought no archive")?;
        let unpacked = Command::new("tar")
            .args(["--extract", "--gzip", "--strip-components=1", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(folder)
            .status()
            .context("tar cannot be started")?;
        ensure!(unpacked.success(), "{} cannot be unpacked", archive.display());
        fs::remove_file(&archive).context("the fetched archive cannot be removed")
    })
}

fn output_into(folder: &Path) -> String {
    format!("-DoutputDirectory={}", folder.display())
}

fn maven(folder: &Path, pom: &str, arguments: &[&str]) -> Result<()> {
    let file = folder.join("pom.xml");
    fs::write(&file, pom).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", "--file"])
        .arg(&file)
        .args(arguments)
        .output()
        .context("Maven cannot be started; install maven")?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stdout);
    let last: Vec<&str> = told.lines().take(5).collect();
    bail!("Maven could not fetch: {}", last.join(" / "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_java_home_is_read() {
        assert_eq!(version_in("IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"25.0.3\"\n"), Some(25));
        assert_eq!(version_in("JAVA_VERSION=\"17\""), Some(17));
        assert_eq!(version_in("JAVA=\"17\""), None);
    }
}
