//! The user that servers run as.
//!
//! Promises: root never runs a server; whoever else runs it as himself. Must not: change the user of
//! this process. Fails: when root has no unprivileged user to switch to.

use crate::servers::error::EmbeddedError;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// An unprivileged user that exists on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: &'static str,
    pub(super) user_id: u32,
    pub(super) group_id: u32,
}

/// Who runs the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunAs {
    /// The user of this process, who is not root.
    Ourselves,
    /// This process is root: the servers run as this account.
    Account(Account),
}

impl RunAs {
    /// Asks the operating system who we are.
    ///
    /// # Errors
    /// `System` when `id` cannot be run, `NoAccount` when root has nobody to switch to.
    pub(super) fn current() -> Result<Self, EmbeddedError> {
        let run = |source| EmbeddedError::System { action: "run `id -u`".to_owned(), source };
        if identity(&["-u"]).map_err(run)? != Some(0) {
            return Ok(Self::Ourselves);
        }
        for name in ["postgres", "nobody"] {
            let user_id = identity(&["-u", name]).map_err(run)?;
            let group_id = identity(&["-g", name]).map_err(run)?;
            if let (Some(user_id), Some(group_id)) = (user_id, group_id) {
                return Ok(Self::Account(Account { name, user_id, group_id }));
            }
        }
        Err(EmbeddedError::NoAccount)
    }

    /// The name for messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Ourselves => "running this program",
            Self::Account(account) => account.name,
        }
    }

    /// Gives an opened file or folder to the account.
    pub(super) fn give(&self, opened: &File) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Account(account) => fchown(opened, Some(account.user_id), Some(account.group_id)),
        }
    }

    /// True when the account can enter `path` and every folder above it; folders that do not exist
    /// yet are ours to create, so they count as open.
    pub(super) fn can_enter(&self, path: &Path) -> bool {
        let Self::Account(account) = self else { return true };
        path.ancestors().filter_map(|part| part.metadata().ok()).all(|part| enters(account, &part))
    }
}

/// Whether nobody but root, or the user that we are, can put another file in this one's place: root runs no
/// program that others may change.
pub(super) fn is_beyond_others(path: &Path, ourselves: u32) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().filter_map(|part| part.metadata().ok()).all(|part| {
        let (mode, is_system_group) = (part.permissions().mode(), part.gid() < SYSTEM_GROUPS);
        let others = if is_system_group { 0o002 } else { 0o022 };
        // In a sticky folder, as /tmp is, nobody moves what is another's.
        let is_shut = mode & others == 0 || (part.is_dir() && mode & 0o1000 != 0);
        is_shut && (part.uid() == 0 || part.uid() == ourselves)
    })
}

/// Groups below are the administrator's: `/usr/local` may be written by `staff`.
const SYSTEM_GROUPS: u32 = 100;

/// Whether this process is root's.
pub(super) fn are_root() -> bool {
    static ARE_ROOT: OnceLock<bool> = OnceLock::new();
    *ARE_ROOT.get_or_init(|| matches!(identity(&["-u"]), Ok(Some(0))))
}

fn enters(account: &Account, folder: &Metadata) -> bool {
    let search = if folder.uid() == account.user_id {
        0o100
    } else if folder.gid() == account.group_id {
        0o010
    } else {
        0o001
    };
    folder.permissions().mode() & search != 0
}

/// `id` with these arguments; `None` when there is no such user.
fn identity(arguments: &[&str]) -> io::Result<Option<u32>> {
    let output = Command::new("id").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // macOS gives `nobody` the number -2: the same 32 bits, written with a sign.
    let number = text.trim().parse::<i64>().ok();
    Ok(number.filter(|_| output.status.success()).map(|number| number as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn root_trusts_no_place_that_others_may_write() {
        let folder = std::env::temp_dir().join(format!("postrider-own-{}", uuid::Uuid::new_v4()));
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let program = bin.join("java");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let ourselves = program.metadata().unwrap().uid();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [&folder, &bin, &program] {
            set(path, 0o755);
        }
        assert!(is_beyond_others(&program, ourselves), "/tmp is sticky");
        for (path, mode) in [(&folder, 0o757), (&bin, 0o777), (&program, 0o757)] {
            set(path, mode);
            assert!(!is_beyond_others(&program, ourselves), "{} {mode:o}", path.display());
            set(path, 0o755);
        }
        // A link leads to what it names.
        let link = std::env::temp_dir().join(format!("postrider-own-{}", uuid::Uuid::new_v4()));
        std::os::unix::fs::symlink(&program, &link).unwrap();
        assert!(is_beyond_others(&link, ourselves));
        set(&bin, 0o777);
        assert!(!is_beyond_others(&link, ourselves));
        assert!(!is_beyond_others(&folder.join("absent"), ourselves));
        if ourselves == 0 {
            std::os::unix::fs::chown(&program, Some(65_534), None).unwrap();
            set(&bin, 0o755);
            assert!(!is_beyond_others(&program, 0), "its owner may write it");
        }
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
