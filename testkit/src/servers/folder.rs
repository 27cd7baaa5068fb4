//! A server's own folder under a temporary one.
//!
//! Promises: new, empty, owned by the servers' user, reachable for that user, and with a path short
//! enough for a unix socket inside. What root writes or gives away in a folder that is the servers' user's
//! already is the file that the path names, and no link that this user has put there.
//! Must not: reuse a folder that exists. Fails: when no temporary folder fits.

use crate::servers::account::RunAs;
use crate::servers::error::EmbeddedError;
use crate::servers::host::{Host, list};
use std::fs;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
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
            && is_plain(parent)
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

/// Whether the servers' files of settings and their shells take the path for what it is, whatever the locale.
fn is_plain(path: &Path) -> bool {
    let is_odd = |byte: u8| !matches!(byte, b' '..=b'~') || b"'\"`$\\".contains(&byte);
    !path.as_os_str().as_encoded_bytes().iter().any(|byte| is_odd(*byte))
}

/// Makes one folder with this mode and gives it to the servers' user.
pub(super) fn make(folder: &Path, mode: u32, run_as: &RunAs) -> Result<(), EmbeddedError> {
    DirBuilder::new()
        .mode(mode)
        .create(folder)
        .and_then(|()| no_link(folder, File::open(folder)?))
        .and_then(|opened| run_as.give(&opened))
        .map_err(|source| EmbeddedError::system("create folder", folder, source))
}

/// Writes a new file, in place of one that is there, that only the servers' user can read.
pub(super) fn write(path: &Path, text: &str, run_as: &RunAs) -> Result<(), EmbeddedError> {
    remove_file(path)
        .and_then(|()| create_file(path))
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            run_as.give(&file)
        })
        .map_err(|source| EmbeddedError::system("write", path, source))
}

/// Opens a file for writing at its end; one that is not there is made.
pub(super) fn append(path: &Path) -> io::Result<File> {
    match create_file(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            no_link(path, OpenOptions::new().append(true).open(path)?)
        }
        created => created,
    }
}

/// A file that was not there; a link is never followed.
fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What was opened, if the path itself names it, and nothing else does. Looked at after the opening, so that whoever
/// changes the path meanwhile wins nothing.
fn no_link(path: &Path, opened: File) -> io::Result<File> {
    let (named, data) = (fs::symlink_metadata(path)?, opened.metadata()?);
    let is_same = (named.dev(), named.ino()) == (data.dev(), data.ino());
    let is_alone = data.is_dir() || (data.is_file() && data.nlink() == 1);
    if is_same && is_alone {
        return Ok(opened);
    }
    Err(io::Error::other("it is a link, or has another name; who made it?"))
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

    #[test]
    fn folders_whose_names_mean_something_to_a_server_are_passed_over() {
        for odd in ["it's", "\"two\"", "$HOME", "caf\u{e9}", "a\\b", "`id`", "new\nline"] {
            let parent = std::env::temp_dir().join(format!("{odd}-{}", std::process::id()));
            fs::create_dir(&parent).unwrap();
            let folders = vec![parent.clone(), "/tmp".into()];
            let host = Host { temporary_folders: folders, ..Host::default() };
            let folder = create(&host, &RunAs::current().unwrap(), "test").unwrap();
            assert_eq!(folder.parent(), Some(Path::new("/tmp")), "{odd}");
            remove(&folder).unwrap();
            remove(&parent).unwrap();
        }
    }

    #[test]
    fn links_are_neither_followed_nor_given_away() {
        let folder = std::env::temp_dir().join(format!("postrider-link-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let (file, run_as) = (|name: &str| folder.join(name), RunAs::current().unwrap());
        fs::write(file("precious"), "precious").unwrap();
        fs::create_dir(file("treasury")).unwrap();
        let owner = file("treasury").metadata().unwrap().uid();
        std::os::unix::fs::symlink(file("precious"), file("soft")).unwrap();
        std::os::unix::fs::symlink(file("absent"), file("dangling")).unwrap();
        std::os::unix::fs::symlink(file("treasury"), file("way")).unwrap();
        fs::hard_link(file("precious"), file("hard")).unwrap();
        for name in ["soft", "hard", "dangling"] {
            let error = append(&file(name)).unwrap_err().to_string();
            assert!(error.contains("it is a link") || name == "dangling", "{name}: {error}");
        }
        make(&file("way"), 0o700, &run_as).unwrap_err();
        no_link(&file("way"), File::open(file("way")).unwrap()).unwrap_err();
        // What is written again takes the link's place.
        for name in ["soft", "hard", "dangling"] {
            write(&file(name), "new", &run_as).unwrap();
            assert_eq!(fs::read_to_string(file(name)).unwrap(), "new");
        }
        assert_eq!(fs::read_to_string(file("precious")).unwrap(), "precious");
        assert_eq!(file("precious").metadata().unwrap().uid(), owner);
        assert_eq!(file("treasury").metadata().unwrap().uid(), owner);
        assert!(!file("absent").exists());
        // A file of ours is written on.
        append(&file("soft")).unwrap().write_all(b"er").unwrap();
        assert_eq!(fs::read_to_string(file("soft")).unwrap(), "newer");
        remove(&folder).unwrap();
    }
}
