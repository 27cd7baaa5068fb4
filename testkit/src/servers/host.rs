//! What the machine offers: where programs, the cache and temporary folders are.
//!
//! Promises: read once from the environment, then passed along, so that a test can describe another
//! machine. Must not: start anything. Fails: never; what is missing shows when it is looked for.

use crate::servers::account::{RunAs, are_root, is_beyond_others};
use crate::servers::error::EmbeddedError;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where programs, the cache and temporary folders are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Folders in which programs are looked for, first match first.
    pub program_folders: Vec<PathBuf>,
    /// Places for the cache of fetched parts; the first usable one is taken.
    pub cache_folders: Vec<PathBuf>,
    /// Places for servers' folders; the first usable one is taken.
    pub temporary_folders: Vec<PathBuf>,
    /// The version of PostgreSQL that is fetched where one is; none is the pinned one.
    pub postgres_version: Option<String>,
    /// The version of Kafka; none is the pinned one.
    pub kafka_version: Option<String>,
}

impl Default for Host {
    fn default() -> Self {
        Self::from_environment()
    }
}

impl Host {
    /// Programs: `$JAVA_HOME/bin`, `$PATH`, then the usual places of PostgreSQL and Java. Cache:
    /// `$POSTRIDER_CACHE`, else `$XDG_CACHE_HOME/postrider` or `~/.cache/postrider`, and
    /// `/var/cache/postrider` for root, whose home the servers' user cannot enter. Servers' folders:
    /// `$TMPDIR`, else `/tmp`. Versions: `$POSTRIDER_TEST_POSTGRES` and `$POSTRIDER_TEST_KAFKA`.
    #[must_use]
    pub fn from_environment() -> Self {
        let mut program_folders: Vec<PathBuf> =
            env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin")).into_iter().collect();
        program_folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        program_folders.extend(usual_places());
        let mut temporary_folders = vec![env::temp_dir()];
        temporary_folders.extend([PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]);
        Self {
            program_folders,
            cache_folders: cache_folders(),
            temporary_folders,
            postgres_version: version("POSTRIDER_TEST_POSTGRES"),
            kafka_version: version("POSTRIDER_TEST_KAFKA"),
        }
    }

    /// The program's path as found, links not followed. Root passes over what others may change.
    pub(super) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let mut paths = self.program_folders.iter().map(|folder| folder.join(name));
        paths.find(|path| is_program(path) && is_trusted(path))
    }

    /// The first cache folder that can be made and entered.
    pub(super) fn cache_folder(&self, run_as: &RunAs) -> Result<PathBuf, EmbeddedError> {
        let usable = |folder: &&PathBuf| {
            folder.is_absolute()
                && run_as.can_enter(folder)
                && fs::create_dir_all(folder).is_ok()
                && is_trusted(folder)
        };
        self.cache_folders.iter().find(usable).cloned().ok_or_else(|| EmbeddedError::NoFolder {
            purpose: "cache",
            tried: list(&self.cache_folders),
            user: run_as.name().to_owned(),
            variable: "POSTRIDER_CACHE",
        })
    }
}

/// The variable's value where it is a version; `fetched` asks for the pinned one.
fn version(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| value.starts_with(|first: char| first.is_ascii_digit()))
}

/// Folder names for a message.
pub(super) fn list(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if names.is_empty() { "(none)".to_owned() } else { names.join(", ") }
}

/// Whether we may run what lies there.
pub(super) fn is_trusted(path: &Path) -> bool {
    !are_root() || is_beyond_others(path, 0)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn cache_folders() -> Vec<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("POSTRIDER_CACHE") {
        return vec![folder];
    }
    let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let mut folders: Vec<PathBuf> = user.into_iter().map(|base| base.join("postrider")).collect();
    folders.push(PathBuf::from("/var/cache/postrider"));
    folders
}

/// Where packages put PostgreSQL's server and Java's programs, the newest version first.
fn usual_places() -> Vec<PathBuf> {
    let parents = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
        ("/usr/lib/jvm", ""),
        ("/opt/homebrew/opt", "openjdk"),
        ("/usr/local/opt", "openjdk"),
    ];
    let mut places: Vec<PathBuf> =
        parents.iter().flat_map(|(parent, prefix)| versions(Path::new(parent), prefix)).collect();
    for folder in ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"] {
        places.push(PathBuf::from(folder));
    }
    places
}

fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| (number_in(&entry.file_name()), entry.path().join("bin")))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The first number in a name: 17 in `pgsql-17`, 0 when there is none.
fn number_in(name: &OsStr) -> u32 {
    let name = name.to_string_lossy();
    let digits: String =
        name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_comes_first() {
        let folder = env::temp_dir().join(format!("postrider-host-{}", uuid::Uuid::new_v4()));
        for version in ["pgsql-9.6", "pgsql-14", "pgsql-17", "other-18"] {
            fs::create_dir_all(folder.join(version).join("bin")).unwrap();
        }
        let found = versions(&folder, "pgsql-");
        fs::remove_dir_all(&folder).unwrap();
        let expected: Vec<PathBuf> = ["pgsql-17", "pgsql-14", "pgsql-9.6"]
            .iter()
            .map(|version| folder.join(version).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn program_must_be_executable() {
        let folder = env::temp_dir().join(format!("postrider-host-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tool"), "#!/bin/sh\n").unwrap();
        let host = Host { program_folders: vec![folder.clone()], ..Host::default() };
        assert_eq!(host.find_program("tool"), None);
        fs::set_permissions(folder.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(host.find_program("tool"), Some(folder.join("tool")));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn root_passes_over_what_others_may_change() {
        let folder = env::temp_dir().join(format!("postrider-host-{}", uuid::Uuid::new_v4()));
        let places = ["open", "shut"].map(|name| folder.join(name));
        for place in &places {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("tool"), "#!/bin/sh\n").unwrap();
            let mode = if place.ends_with("open") { 0o777 } else { 0o755 };
            for (path, mode) in [(place.clone(), mode), (place.join("tool"), 0o755)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let host = Host {
            program_folders: places.to_vec(),
            cache_folders: places.to_vec(),
            ..Host::default()
        };
        let first = if are_root() { &places[1] } else { &places[0] };
        assert_eq!(host.find_program("tool").as_deref(), Some(first.join("tool").as_path()));
        assert_eq!(&host.cache_folder(&RunAs::Ourselves).unwrap(), first);
        fs::remove_dir_all(&folder).unwrap();
    }
}
