//! A server's own folder under a temporary one.
//!
//! Promises: new, empty, owned by the servers' user, reachable for that user, and with a path short
//! enough for a unix socket inside. Must not: reuse a folder that exists. Fails: when no temporary
//! folder fits.

use super::account::RunAs;
use super::error::EmbeddedError;
use super::host::{Host, list};
use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// macOS allows 104 bytes for a socket's path, Linux 108; `/s/.s.PGSQL.65535` takes 17 of them.
const LONGEST_PATH_BYTES: usize = 80;

/// Makes a new folder named `postrider-<kind>-<random>`.
pub(super) fn create(host: &Host, run_as: &RunAs, kind: &str) -> Result<PathBuf, EmbeddedError> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("postrider-{kind}-{}", &random[..12]);
    let fits = |parent: &&PathBuf| {
        parent.is_absolute()
            && parent.is_dir()
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

/// Writes a file that only the servers' user can read.
pub(super) fn write(path: &Path, text: &str, run_as: &RunAs) -> Result<(), EmbeddedError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| EmbeddedError::system("write", path, source))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn unfit_temporary_folders_are_passed_over() {
        let long = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string().repeat(2));
        fs::create_dir(&long).unwrap();
        let folders = ["relative".into(), "/does/not/exist".into(), long.clone(), "/tmp".into()];
        let host = Host { temporary_folders: folders.to_vec(), ..Host::default() };
        let run_as = RunAs::current().unwrap();
        let folder = create(&host, &run_as, "test").unwrap();
        assert_eq!(folder.parent(), Some(Path::new("/tmp")));
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o711);
        remove(&folder).unwrap();
        remove(&folder).unwrap();

        let host = Host { temporary_folders: vec![long.clone()], ..Host::default() };
        let error = create(&host, &run_as, "test").unwrap_err().to_string();
        assert!(error.contains("set TMPDIR to another place"), "{error}");
        remove(&long).unwrap();
    }
}
