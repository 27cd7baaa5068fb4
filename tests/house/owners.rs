//! The map of parts: who is asked about a change where.
//!
//! Promises: each path of `.github/CODEOWNERS` is there, and each folder of the tree, and of `src`, has a row of its own.
//! Fails: with the path.

use crate::report;
use crate::sources::{Source, exists, files};

/// Paths of the map, without the slashes around them, and without the row for all.
fn paths(map: &str) -> Vec<&str> {
    let rows = map.lines().filter(|line| line.starts_with('/'));
    rows.filter_map(|row| row.split_whitespace().next())
        .map(|path| path.trim_matches('/'))
        .collect()
}

/// The folders that need a row: those at the root that have Rust or SQL, and those of `src`.
fn folders(sources: &[Source]) -> Vec<String> {
    let folder = |source: &Source| {
        let (first, rest) = source.path.split_once('/')?;
        match (first, rest.split_once('/')) {
            ("src", Some((second, _))) => Some(format!("src/{second}")),
            ("src", None) => None,
            _ => Some(first.to_owned()),
        }
    };
    let mut all: Vec<String> = sources.iter().filter_map(folder).collect();
    all.sort();
    all.dedup();
    all
}

fn findings(map: &str, folders: &[String], is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let paths = paths(map);
    let gone = paths.iter().filter(|path| !is_there(path));
    let gone = gone.map(|path| format!(".github/CODEOWNERS: {path} is not there"));
    let unowned = folders.iter().filter(|folder| !paths.contains(&folder.as_str()));
    let unowned = unowned.map(|folder| format!(".github/CODEOWNERS has no row for /{folder}/"));
    gone.chain(unowned).collect()
}

#[test]
fn each_part_has_owners() {
    let maps = files(".github", &["CODEOWNERS"]);
    let map = maps.first().expect("it is there");
    let folders = folders(&files("", &[".rs", ".sql"]));
    assert!(folders.len() > 10, "{folders:?}");
    report(&findings(&map.text, &folders, exists));
}

#[test]
fn a_part_without_owners_is_found() {
    let source = |path: &str| Source { path: path.to_owned(), text: String::new() };
    let folders = folders(&[source("src/a/b.rs"), source("src/c.rs"), source("sql/d.sql")]);
    assert_eq!(folders, ["sql", "src/a"]);
    let map = "*  @all\n/src/a/ @one\n/gone/ @two\n";
    let found = findings(map, &folders, |path| path != "gone");
    assert_eq!(
        found,
        [".github/CODEOWNERS: gone is not there", ".github/CODEOWNERS has no row for /sql/"]
    );
}
