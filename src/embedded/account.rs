//! The user that servers run as.
//!
//! Promises: root never runs a server; whoever else runs it as himself. Must not: change the user of
//! this process. Fails: when root has no unprivileged user to switch to.

use super::error::EmbeddedError;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

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

    /// Gives a file or folder to the account.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Account(account) => chown(path, Some(account.user_id), Some(account.group_id))
                .map_err(|source| EmbeddedError::system("change the owner of", path, source)),
        }
    }

    /// True when the account can enter `path` and every folder above it; folders that do not exist
    /// yet are ours to create, so they count as open.
    pub(super) fn can_enter(&self, path: &Path) -> bool {
        let Self::Account(account) = self else { return true };
        path.ancestors().filter_map(|part| part.metadata().ok()).all(|part| enters(account, &part))
    }
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
fn identity(arguments: &[&str]) -> std::io::Result<Option<u32>> {
    let output = Command::new("id").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // macOS gives `nobody` the number -2: the same 32 bits, written with a sign.
    let number = text.trim().parse::<i64>().ok();
    Ok(number.filter(|_| output.status.success()).map(|number| number as u32))
}
