//! Reads the tree as far as the rules need it.
//!
//! Promises: comments and literals are told apart from code; test modules at a file's end are cut
//! off. Must not: know the rules. Fails: a file that cannot be read ends the test with its path.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", ".git", "node_modules"];

/// A file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All files below `folder` whose name ends in one of `endings`, by path.
pub(crate) fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let wanted =
        |path: &&PathBuf| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending));
    paths
        .iter()
        .filter(wanted)
        .map(|path| Source {
            path: path
                .strip_prefix(root)
                .expect("it lies below the root")
                .to_string_lossy()
                .replace('\\', "/"),
            text: fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        })
        .collect()
}

/// Whether the tree has this file or folder.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    if !folder.exists() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let entry = entry.expect("the folder is readable");
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        match entry.file_type().expect("the folder is readable") {
            kind if kind.is_dir() => collect(&entry.path(), paths),
            kind if kind.is_file() => paths.push(entry.path()),
            _ => {}
        }
    }
}

impl Source {
    /// The module's path: `src/capture/table/claim.rs` is `["capture", "table", "claim"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.trim_end_matches("/mod").split('/').collect()
    }

    /// Whether the whole file is a test module of `src`: `tests.rs`, `config_tests.rs`.
    pub(crate) fn is_test_module(&self) -> bool {
        self.path.starts_with("src/") && self.path.ends_with("tests.rs")
    }

    /// The text before the test module at its end; nothing when the whole file is one.
    pub(crate) fn without_tests(&self) -> &str {
        if self.is_test_module() {
            return "";
        }
        let is_whole = |rest: &str| {
            let line = rest.lines().nth(1).unwrap_or_default();
            let (scope, name) = line.split_once("mod ").unwrap_or((line, ""));
            (scope.is_empty() || scope.starts_with("pub")) && name.contains('{')
        };
        let mut starts = self.text.match_indices("#[cfg(test)]\n").map(|(start, _)| start);
        let start = starts.find(|start| is_whole(&self.text[*start..]));
        start.map_or(&self.text, |start| &self.text[..start])
    }
}

/// Rust source, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// The source with blanks where comments and the insides of literals were.
    pub(crate) code: String,
    /// Each string literal's inside, with the line where it begins.
    pub(crate) strings: Vec<(usize, String)>,
}

/// Takes Rust source apart.
pub(crate) fn take_apart(text: &str) -> Parts {
    let mut parts = Parts::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if let Some((start, inside, end)) = string_at(rest, &parts.code) {
            let line = parts.code.matches('\n').count() + 1;
            parts.strings.push((line, rest[start..start + inside].to_owned()));
            start + inside + end
        } else {
            comment_at(rest).or_else(|| character_at(rest)).unwrap_or(0)
        };
        if taken == 0 {
            parts.code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            parts.code.extend(rest[..taken].chars().map(blank));
            rest = &rest[taken..];
        }
    }
    parts
}

/// Lengths of a string literal's opening, inside and closing, when one begins here.
fn string_at(text: &str, before: &str) -> Option<(usize, usize, usize)> {
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let unprefixed = text.trim_start_matches(['b', 'c', 'r']);
    let prefix = &text[..text.len() - unprefixed.len()];
    if prefix.len() > 2 || (in_word && !prefix.is_empty()) {
        return None;
    }
    if prefix.contains('r') {
        let body = unprefixed.trim_start_matches('#');
        let hashes = unprefixed.len() - body.len();
        let body = body.strip_prefix('"')?;
        let closing = format!("\"{}", "#".repeat(hashes));
        return Some((prefix.len() + hashes + 1, body.find(&closing)?, closing.len()));
    }
    let body = unprefixed.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    Some((prefix.len() + 1, end, 1))
}

/// Length of a comment, when one begins here.
fn comment_at(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = if rest.starts_with(b"/*") || rest.starts_with(b"*/") { 2 } else { 1 };
        if step == 2 {
            depth = if rest[0] == b'/' { depth + 1 } else { depth - 1 };
        }
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// Length of a character literal, when one begins here; a lifetime is none.
fn character_at(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escape) = body.strip_prefix('\\') {
        let skipped = escape.chars().next()?.len_utf8();
        return Some(2 + skipped + escape[skipped..].find('\'')? + 1);
    }
    let inside = body.chars().next()?.len_utf8();
    body[inside..].starts_with('\'').then_some(inside + 2)
}

#[test]
fn code_and_strings_are_told_apart() {
    let text = concat!(
        "use a::b; // use c::d; \"no\"\n",
        "/* x /* \"no\" */ y */ let s = \"one \\\" 'two'\";\n",
        "let c = ['\"', '\\'', 'x', b'\\\\']; fn f<'a>(s: &'a str) {}\n",
        "let r = r#\"three \"quoted\" // four\"#; let b = br\"five\"; let bar = 6;",
    );
    let parts = take_apart(text);
    let strings: Vec<(usize, &str)> =
        parts.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
    let three = "three \"quoted\" // four";
    assert_eq!(strings, [(2, "one \\\" 'two'"), (4, three), (4, "five")]);
    assert!(parts.code.contains("use a::b;") && parts.code.contains("let bar = 6;"));
    assert!(parts.code.contains("fn f<'a>(s: &'a str) {}"));
    for absent in ["c::d", "no", "one", "three", "four", "five", " x ", " y "] {
        assert!(!parts.code.contains(absent), "{absent}: {}", parts.code);
    }
    assert_eq!(parts.code.matches('\n').count(), text.matches('\n').count());
}
