//! A type's name stands once in the workspace.
//!
//! Promises: whoever searches for a type finds one. Must not: read test modules, or types inside of functions and traits.
//! Fails: with each name, and all files that define it.

use std::collections::BTreeMap;

use crate::report;
use crate::sources::{Source, files, take_apart};

const FOLDERS: &[&str] = &["src", "load/src", "testkit/src", "token/src"];

/// What a type begins with, behind its visibility.
const KINDS: &[&str] = &["struct", "enum", "trait", "type", "union"];

/// The types that a file defines.
fn types(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let line = match line.strip_prefix("pub(") {
            Some(rest) => rest.split_once(')')?.1.trim_start(),
            None => line.strip_prefix("pub ").unwrap_or(line),
        };
        let (kind, rest) = line.split_once(' ')?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        (KINDS.contains(&kind) && end > 0).then_some(&rest[..end])
    })
}

/// Each name that stands more than once, with the files.
fn repeated(sources: &[Source]) -> Vec<String> {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test_module()) {
        for name in types(&take_apart(source.without_tests()).code) {
            names.entry(name.to_owned()).or_default().push(&source.path);
        }
    }
    let repeated = names.into_iter().filter(|(_, paths)| paths.len() > 1);
    repeated
        .map(|(name, paths)| {
            let paths = paths.join(", ");
            format!("{name} is defined in {paths}: name each for what it is, or hand one on")
        })
        .collect()
}

#[test]
fn a_types_name_stands_once() {
    let sources: Vec<Source> = FOLDERS.iter().flat_map(|folder| files(folder, &[".rs"])).collect();
    report(&repeated(&sources));
}

#[test]
fn repeated_names_are_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let sources = [
        source("src/a.rs", "pub(super) struct Reader<R> {\n}\n// enum Other {}\nstruct One;\n"),
        source("src/b.rs", "pub enum Reader { A }\nimpl Look for B {\n    type One = ();\n}\n"),
        source("load/src/c.rs", "#[cfg(test)]\nmod tests {\n    struct One;\n}\n"),
    ];
    let found = repeated(&sources);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Reader is defined in src/a.rs, src/b.rs"), "{found:?}");
}
