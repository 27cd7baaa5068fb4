//! What of others is in the binary, and is told of.
//!
//! Promises: a crate that brings C code stands in THIRD-PARTY.md with the version of the lock file. Must
//! not: judge licences and sources; cargo-deny does. Fails: with the crate and what to write.

use std::fs;
use std::path::Path;

use crate::report;

/// Bindings that bring no code of others: they name what a system has, or what another crate brings.
const BINDINGS: &[(&str, &str)] = &[
    ("core-foundation-sys", "macOS's own"),
    ("js-sys", "for browsers"),
    ("linux-raw-sys", "constants"),
    ("openssl-sys", "openssl-src brings it"),
    ("security-framework-sys", "macOS's own"),
    ("web-sys", "for browsers"),
    ("windows-sys", "another system"),
];

/// Crates with C code or assembler whose names do not tell.
const HIDDEN: &[&str] = &["ring"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Name and version of each package of a lock file.
fn packages(lock: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = lock.lines().collect();
    lines
        .windows(2)
        .filter_map(|pair| Some((value(pair[0], "name")?, value(pair[1], "version")?)))
        .collect()
}

/// What stands in quotes behind a key.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

fn findings(lock: &str, told: &str) -> Vec<String> {
    let brings = |name: &str| {
        let named = name.ends_with("-sys") || name.ends_with("-src") || HIDDEN.contains(&name);
        named && !BINDINGS.iter().any(|(binding, _)| *binding == name)
    };
    packages(lock)
        .into_iter()
        .filter(|(name, _)| brings(name))
        .map(|(name, version)| format!("`{name} {version}`"))
        .filter(|entry| !told.contains(entry.as_str()))
        .map(|entry| format!("THIRD-PARTY.md has no row with {entry}: say what C code it brings"))
        .collect()
}

#[test]
fn the_c_code_of_others_is_told_of() {
    let lock = read("Cargo.lock");
    assert!(packages(&lock).len() > 100, "the lock file is read");
    report(&findings(&lock, &read("THIRD-PARTY.md")));
}

#[test]
fn untold_code_is_found() {
    let lock = "[[package]]\nname = \"a-sys\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"b\"\nversion = \"1.0.0\"\n";
    assert_eq!(packages(lock), [("a-sys", "1.2.3"), ("b", "1.0.0")]);
    assert_eq!(findings(lock, "| `a-sys 1.2.3` |"), Vec::<String>::new());
    assert_eq!(findings(lock, "| `a-sys 1.2.2` |").len(), 1);
    assert_eq!(findings(&lock.replace("a-sys", "ring"), "").len(), 1);
    assert_eq!(findings(&lock.replace("a-sys", "openssl-sys"), "").len(), 0);
}
