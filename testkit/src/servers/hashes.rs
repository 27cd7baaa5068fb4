//! What fetched files must be, byte for byte.
//!
//! Promises: a file counts only if its SHA-256 stands in a list of ours, and all of the list is there. Must not:
//! run or unpack anything. Fails: `Archive`, with the file and what was wrong with it.

use crate::servers::error::EmbeddedError;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;

/// A list as `sha256sum` prints it: hash, two spaces, name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashes<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Hashes<'a> {
    /// # Panics
    /// When a line is none: the lists are our own.
    pub(super) fn new(list: &'a str) -> Self {
        let entry = |line: &'a str| {
            let (hash, name) = line.split_once("  ").expect("a line is a hash and a name");
            assert!(hash.len() == 64 && !name.contains('/'), "{line}");
            (name, hash)
        };
        Self(list.lines().map(entry).collect())
    }

    /// The list of one file alone; none where we do not know it.
    pub(super) fn only(&self, name: &str) -> Option<Self> {
        let (name, hash) = self.0.get_key_value(name)?;
        Some(Self(BTreeMap::from([(*name, *hash)])))
    }

    /// Compares all files of a folder.
    pub(super) fn verify(&self, folder: &Path) -> Result<(), EmbeddedError> {
        let wrong = |name: &str, reason: String| {
            Err(EmbeddedError::Archive { path: folder.join(name), reason })
        };
        let mut found = BTreeMap::new();
        let failed = |source| EmbeddedError::system("read folder", folder, source);
        for entry in folder.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let hash =
                hash(&path).map_err(|source| EmbeddedError::system("read", &path, source))?;
            found.insert(entry.file_name().to_string_lossy().into_owned(), hash);
        }
        for (name, hash) in &found {
            match self.0.get(name.as_str()) {
                None => return wrong(name, "nobody expects a file of this name".to_owned()),
                Some(expected) if *expected == hash => {}
                Some(expected) => {
                    return wrong(name, format!("its SHA-256 is {hash}, not {expected}"));
                }
            }
        }
        match self.0.keys().find(|name| !found.contains_key(**name)) {
            Some(name) => wrong(name, "it was not brought".to_owned()),
            None => Ok(()),
        }
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            bytes => hasher.update(&buffer[..bytes]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// SHA-256 of "one" and "two", as `sha256sum` prints them.
    const LIST: &str = "\
7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  one.jar
3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  two.jar
";

    fn verdict(files: &[(&str, &str)]) -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("postrider-hash-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let verdict = Hashes::new(LIST).verify(&folder).map_err(|error| error.to_string());
        fs::remove_dir_all(&folder).unwrap();
        verdict
    }

    #[test]
    fn only_what_is_listed_and_whole_counts() {
        assert_eq!(verdict(&[("one.jar", "one"), ("two.jar", "two")]), Ok(()));
        for (files, reason) in [
            (vec![("one.jar", "one"), ("two.jar", "tw0")], "its SHA-256 is"),
            (vec![("one.jar", "one"), ("two.jar", "")], "its SHA-256 is"),
            (vec![("one.jar", "two"), ("two.jar", "one")], "its SHA-256 is"),
            (vec![("one.jar", "one")], "two.jar is damaged (it was not brought)"),
            (vec![], "it was not brought"),
            (
                vec![("one.jar", "one"), ("two.jar", "two"), ("three.jar", "one")],
                "three.jar is damaged (nobody expects",
            ),
        ] {
            let error = verdict(&files).expect_err("it is refused");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_lists_of_the_house_are_lists() {
        for (list, count) in [
            (include_str!("kafka.sha256"), 45),
            (include_str!("connect.sha256"), 67),
            (include_str!("postgres.sha256"), 2),
        ] {
            assert_eq!(Hashes::new(list).0.len(), count);
        }
    }
}
