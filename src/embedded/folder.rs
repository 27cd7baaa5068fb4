//! A server's own folder under a temporary one.
//!
//! Promises: new, empty, owned by the servers' user, reachable for that user, and with a path short
//! enough for a unix socket inside. Must not: reuse a folder that exists. Fails: when no temporary
//! folder fits.

use super::account::RunAs;
use super::error::EmbeddedError;
use super::host::{Host, list};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// macOS allows 104 bytes for a socket's path, Linux 108; `/s/.s.PGSQL.65535` takes 17 of them.
const LONGEST_PATH_BYTES: usize = 80;

/// Makes a new folder named `postrider-<kind>-<random>`.
pub(super) fn create(host: &Host, run_as: &RunAs, kind: &str) -> Result<PathBuf, EmbeddedError> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("postrider-{kind}-{}", &random[..12]);
    let fits = |parent: &&PathBuf| {
        parent.is_dir()
            && run_as.can_enter(parent)
            && parent.join(&name).as_os_str().len() <= LONGEST_PATH_BYTES
    };
    let parent =
        host.temporary_folders.iter().find(fits).ok_or_else(|| EmbeddedError::NoFolder {
            purpose: "temporary",
            tried: list(&host.temporary_folders),
            user: run_as.name().to_owned(),
            variable: "TMPDIR",
        })?;
    let folder = parent.join(name);
    make(&folder, 0o711, run_as)?;
    Ok(folder)
}

/// Makes one folder with this mode and gives it to the servers' user.
pub(super) fn make(folder: &Path, mode: u32, run_as: &RunAs) -> Result<(), EmbeddedError> {
    DirBuilder::new()
        .mode(mode)
        .create(folder)
        .map_err(|source| EmbeddedError::system("create folder", folder, source))?;
    run_as.give(folder)
}

/// Writes a file that the servers' user can read.
pub(super) fn write(path: &Path, text: &str, run_as: &RunAs) -> Result<(), EmbeddedError> {
    fs::write(path, text).map_err(|source| EmbeddedError::system("write", path, source))?;
    run_as.give(path)
}

/// Removes a folder with all that it holds; one that is gone already is no error. A process that was
/// just killed may still finish a write, so it is tried again a few times.
pub(super) fn remove(folder: &Path) -> Result<(), EmbeddedError> {
    const TRIES: usize = 20;
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.exists() => {
                return Ok(());
            }
            Err(source) if tries == TRIES => {
                return Err(EmbeddedError::system("remove folder", folder, source));
            }
            Err(_) => tries += 1,
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
