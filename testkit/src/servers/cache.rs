//! The folder of fetched parts.
//!
//! Promises: a part is either complete or absent, also when two processes fetch it at once: it is
//! made beside and then renamed, and its list of files with sizes is written last and checked at
//! each use. Must not: trust a part with a file missing or cut short.
//! Fails: when the folder cannot be written, or with the error of the one who fetches.

use crate::servers::account::RunAs;
use crate::servers::error::EmbeddedError;
use crate::servers::folder;
use crate::servers::host::Host;
use crate::servers::server::Workspace;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The list of files, written when the part is complete.
const LIST: &str = "postrider.files";

/// The folder of a part, made by `make` when it is not there yet. `make` gets a workspace and a
/// new folder inside it to fill.
pub(super) fn part(
    host: &Host,
    name: &str,
    make: impl FnOnce(&Workspace, &Path) -> Result<(), EmbeddedError>,
) -> Result<PathBuf, EmbeddedError> {
    let run_as = RunAs::current()?;
    let cache = host.cache_folder(&run_as)?;
    let place = cache.join(name);
    if is_complete(&place) {
        return Ok(place);
    }
    // Inside the cache, because a rename does not cross file systems.
    let random = uuid::Uuid::new_v4().simple().to_string();
    let staging = cache.join(format!("fetch-{name}-{random}"));
    folder::make(&staging, 0o755, &RunAs::Ourselves)?;
    let workspace = Workspace::guard(staging.clone(), RunAs::Ourselves)?;
    let fresh = staging.join("part");
    folder::make(&fresh, 0o755, &RunAs::Ourselves)?;
    make(&workspace, &fresh)?;
    seal(&fresh)?;
    install(&fresh, &place, &staging.join("old"))?;
    Ok(place)
}

fn install(fresh: &Path, place: &Path, old: &Path) -> Result<(), EmbeddedError> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        match fs::rename(fresh, place) {
            Ok(()) => return Ok(()),
            Err(error) if is_taken(&error) && is_complete(place) => return Ok(()),
            Err(error) if is_taken(&error) => set_aside(place, old)?,
            Err(source) => return Err(EmbeddedError::system("rename a part to", place, source)),
        }
    }
    Err(EmbeddedError::Archive {
        path: place.to_path_buf(),
        reason: "another process keeps replacing it".to_owned(),
    })
}

/// Moves a damaged part out of the way; another process may have done it before us.
fn set_aside(place: &Path, old: &Path) -> Result<(), EmbeddedError> {
    folder::remove(old)?;
    match fs::rename(place, old) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(EmbeddedError::system("move the damaged part", place, error))
        }
        _ => Ok(()),
    }
}

fn is_taken(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists)
}

/// Makes all files readable for the servers' user, and writes the list.
fn seal(part: &Path) -> Result<(), EmbeddedError> {
    let mut lines = Vec::new();
    for path in files_below(part)? {
        let data = path
            .symlink_metadata()
            .map_err(|source| EmbeddedError::system("look at", &path, source))?;
        if data.is_symlink() {
            continue;
        }
        let mode = data.permissions().mode();
        let shared = if data.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(shared))
            .map_err(|source| EmbeddedError::system("change the mode of", &path, source))?;
        if data.is_file() {
            let name = path.strip_prefix(part).expect("the walk stays below the part");
            lines.push(format!("{} {}\n", data.len(), name.display()));
        }
    }
    let list = part.join(LIST);
    fs::write(&list, lines.concat())
        .map_err(|source| EmbeddedError::system("write", &list, source))?;
    fs::set_permissions(&list, fs::Permissions::from_mode(0o644))
        .map_err(|source| EmbeddedError::system("change the mode of", &list, source))
}

/// Everything below a folder, folders included, links not followed.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, EmbeddedError> {
    let failed = |source| EmbeddedError::system("read folder", folder, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push(entry.path());
        if entry.file_type().map_err(failed)?.is_dir() {
            found.extend(files_below(&entry.path())?);
        }
    }
    Ok(found)
}

fn is_complete(part: &Path) -> bool {
    let Ok(list) = fs::read_to_string(part.join(LIST)) else { return false };
    let intact = |line: &str| {
        line.split_once(' ').is_some_and(|(bytes, name)| {
            part.join(name).metadata().is_ok_and(|data| bytes.parse() == Ok(data.len()))
        })
    };
    !list.is_empty() && list.lines().all(intact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn host() -> Host {
        let folder = std::env::temp_dir().join(format!("postrider-cache-{}", uuid::Uuid::new_v4()));
        Host { cache_folders: vec![folder], ..Host::default() }
    }

    fn fill(folder: &Path) -> Result<(), EmbeddedError> {
        fs::write(folder.join("file"), "content")
            .map_err(|source| EmbeddedError::system("write", folder, source))
    }

    #[test]
    fn made_once_and_again_when_damaged() {
        let host = host();
        let made = AtomicUsize::new(0);
        let get = || {
            part(&host, "thing", |_, folder| {
                made.fetch_add(1, Ordering::Relaxed);
                fill(folder)
            })
        };
        let place = get().unwrap();
        assert_eq!(get().unwrap(), place);
        assert_eq!(made.load(Ordering::Relaxed), 1);
        fs::write(place.join("file"), "cut").unwrap();
        assert_eq!(get().unwrap(), place);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "content");
        let left: Vec<_> = fs::read_dir(&host.cache_folders[0]).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the part remains: {left:?}");
        fs::remove_dir_all(&host.cache_folders[0]).unwrap();
    }

    #[test]
    fn failed_fetch_leaves_nothing() {
        let host = host();
        let result = part(&host, "thing", |_, folder| {
            fill(folder)?;
            Err(EmbeddedError::NoAccount)
        });
        assert!(matches!(result, Err(EmbeddedError::NoAccount)));
        assert_eq!(fs::read_dir(&host.cache_folders[0]).unwrap().count(), 0);
        fs::remove_dir_all(&host.cache_folders[0]).unwrap();
    }

    #[test]
    fn many_at_once_agree() {
        let host = host();
        let places: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| part(&host, "thing", |_, folder| fill(folder)).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(places.iter().all(|place| is_complete(place)));
        assert_eq!(fs::read_dir(&host.cache_folders[0]).unwrap().count(), 1);
        fs::remove_dir_all(&host.cache_folders[0]).unwrap();
    }
}
