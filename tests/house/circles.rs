//! Files of one crate do not import in a circle.
//!
//! Promises: whoever reads a file can read first all that it names, and never comes back to it. Must not: read test
//! modules, which may use anything. Fails: with each circle, and what ties it.
//!
//! The rule: an arrow goes from a file to the file *where an item is defined* whose path it writes (`crate::…`, the
//! crate's own name, `super::…`, `self::…`). So `mod child;` is no arrow, nor is a `pub use`: a name that a `mod.rs`
//! hands on counts as named where it is defined. A child that names what its parent itself defines is an arrow up; a
//! parent that names what its child defines is one down; both together are a circle like any other. What is reached by
//! a method alone is no arrow: no path is written. A file that names a type of another only to write `impl Type` is a piece
//! of that other one, cut off for its length: that name is no arrow, any other is.

use std::collections::{BTreeMap, BTreeSet};

use crate::layers::collect_paths;
use crate::report;
use crate::sources::{Source, files, take_apart};

/// The folder of each crate, and how it is called in paths.
const CRATES: &[(&str, &str)] = &[
    ("src", "postrider"),
    ("load/src", "postrider_load"),
    ("testkit/src", "postrider_testkit"),
    ("token/src", "postrider_token"),
];

/// A module's path in its crate; the root's is empty.
type Module = Vec<String>;

/// What one file says, test modules left out.
struct File {
    path: String,
    module: Module,
    /// Paths that it names, from the root of the crate.
    named: Vec<Module>,
    /// Names that it hands on, and where they come from.
    handed_on: BTreeMap<String, Module>,
    /// Types to which it adds functions.
    extended: BTreeSet<String>,
}

impl File {
    fn read(source: &Source, folder: &str, name: &str) -> Self {
        let inner = source.path.trim_start_matches(folder).trim_start_matches('/');
        let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Module = match inner {
            "lib" | "main" => Module::new(),
            inner => inner.split('/').map(str::to_owned).collect(),
        };
        let code = take_apart(source.without_tests()).code;
        let (handing, code) = split_handing_on(&code);
        let handed_on = paths(&handing, &module, name)
            .into_iter()
            .filter_map(|path| Some((path.last()?.clone(), path)))
            .collect();
        let (named, extended) = (paths(&code, &module, name), extended_types(&code));
        Self { path: source.path.clone(), named, module, handed_on, extended }
    }
}

/// The types for which the code has an `impl` of their own, not of a trait.
fn extended_types(code: &str) -> BTreeSet<String> {
    let own = |block: &str| {
        let head = block.split('{').next().unwrap_or_default();
        let (mut depth, mut words) = (0_i32, String::new());
        for c in head.chars() {
            depth += i32::from(c == '<') - i32::from(c == '>');
            words.push(if depth > 0 || c == '>' { ' ' } else { c });
        }
        let words: Vec<&str> = words.split_whitespace().take_while(|w| *w != "where").collect();
        match words.as_slice() {
            [name] => Some((*name).to_owned()),
            _ => None,
        }
    };
    code.split("\nimpl").skip(1).filter_map(own).collect()
}

/// The imports that hand names on, and the rest.
fn split_handing_on(code: &str) -> (String, String) {
    let (mut handing, mut rest, mut left) = (String::new(), String::new(), code);
    while let Some(at) = left.find("use ") {
        let end = left[at..].find(';').map_or(left.len(), |end| at + end + 1);
        let before = left[..at].trim_end();
        let scope = before.rfind("pub(").map(|start| &before[start..]);
        let is_handing = before.ends_with("pub")
            || scope.is_some_and(|scope| scope.find(')') == Some(scope.len() - 1));
        rest.push_str(&left[..at]);
        if is_handing { &mut handing } else { &mut rest }.push_str(&left[at..end]);
        left = &left[end..];
    }
    rest.push_str(left);
    (handing, rest)
}

/// The paths of this crate that the code writes.
fn paths(code: &str, module: &[String], name: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let own = format!("{name}::");
    for root in ["crate::", own.as_str(), "self::", "super::"] {
        for (start, _) in code.match_indices(root) {
            let before = code[..start].chars().next_back();
            let is_scope = code[..start].ends_with("pub(in ");
            if is_scope || before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = &code[start..];
            let mut above: Module = match root {
                "self::" | "super::" => module.to_vec(),
                _ => Module::new(),
            };
            while let Some(behind) = rest.strip_prefix("super::") {
                above.pop();
                rest = behind;
            }
            let rest = rest.strip_prefix(root).unwrap_or(rest);
            let mut segments = Vec::new();
            collect_paths(rest, &[], &mut segments);
            let whole = |path: Vec<&str>| {
                above.iter().cloned().chain(path.into_iter().map(str::to_owned)).collect()
            };
            found.extend(segments.into_iter().map(whole));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The arrows between the files of one crate: from, to, and one name that makes it.
fn arrows(files: &[File]) -> BTreeMap<(usize, usize), String> {
    let by_module: BTreeMap<&[String], usize> =
        files.iter().enumerate().map(|(index, file)| (file.module.as_slice(), index)).collect();
    let mut arrows = BTreeMap::new();
    for (from, file) in files.iter().enumerate() {
        for path in &file.named {
            let Some((to, item)) = definition(files, &by_module, path) else { continue };
            if to != from && !file.extended.contains(&item) {
                arrows.entry((from, to)).or_insert(item);
            }
        }
    }
    arrows
}

/// The file that defines what a path names, and the name.
fn definition(
    files: &[File],
    by_module: &BTreeMap<&[String], usize>,
    path: &[String],
) -> Option<(usize, String)> {
    let mut path = path.to_vec();
    // A name is handed on a few times at most.
    for _ in 0..8 {
        let length =
            (0..=path.len()).rev().find(|length| by_module.contains_key(&path[..*length]))?;
        let file = by_module[&path[..length]];
        let Some(item) = path.get(length).cloned() else {
            return Some((file, path.last()?.clone()));
        };
        let Some(origin) = files[file].handed_on.get(&item) else { return Some((file, item)) };
        path = origin.iter().cloned().chain(path[length + 1..].iter().cloned()).collect();
    }
    None
}

/// What ties each circle: its files, and the arrows among them.
fn circles(files: &[File]) -> Vec<(Vec<&str>, String)> {
    let arrows = arrows(files);
    let reached: Vec<BTreeSet<usize>> = (0..files.len()).map(|from| reach(from, &arrows)).collect();
    let mut told = BTreeSet::new();
    let mut findings = Vec::new();
    for from in 0..files.len() {
        if !reached[from].contains(&from) || told.contains(&from) {
            continue;
        }
        let ring: BTreeSet<usize> =
            reached[from].iter().copied().filter(|to| reached[*to].contains(&from)).collect();
        let lines = arrows
            .iter()
            .filter(|((from, to), _)| ring.contains(from) && ring.contains(to))
            .map(|((from, to), item)| {
                format!("  {} names {item} of {}", files[*from].path, files[*to].path)
            });
        let lines: Vec<String> = lines.collect();
        let paths = ring.iter().map(|file| files[*file].path.as_str()).collect();
        findings.push((paths, lines.join("\n")));
        told.extend(ring);
    }
    findings
}

/// All files that can be reached from one; itself only by a circle.
fn reach(from: usize, arrows: &BTreeMap<(usize, usize), String>) -> BTreeSet<usize> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        for ((_, to), _) in arrows.range((file, 0)..=(file, usize::MAX)) {
            if reached.insert(*to) {
                next.push(*to);
            }
        }
    }
    reached
}

fn of_crate(sources: &[Source], folder: &str, name: &str) -> Vec<File> {
    let counts = |source: &&Source| !source.path.ends_with("tests.rs");
    sources.iter().filter(counts).map(|source| File::read(source, folder, name)).collect()
}

#[test]
fn files_do_not_import_in_circles() {
    let mut findings = Vec::new();
    for (folder, name) in CRATES {
        let files = of_crate(&files(folder, &[".rs"]), folder, name);
        findings.extend(circles(&files).into_iter().map(|(paths, ties)| {
            format!(
                "{} files import in a circle; move what ties them to where both can name it:\n{ties}",
                paths.len()
            )
        }));
    }
    report(&findings);
}

#[test]
fn circles_are_found() {
    let found = |texts: &[(&str, &str)]| {
        let sources: Vec<Source> = texts
            .iter()
            .map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        circles(&of_crate(&sources, "src", "postrider")).len()
    };
    let b = ("src/b.rs", "use crate::a::A; pub struct B;");
    let deep = ("src/d/mod.rs", "mod e; pub use crate::d::e::E; pub fn d() {}");
    for texts in [
        &[("src/a.rs", "use crate::b::B; pub struct A;"), b] as &[_],
        &[("src/a.rs", "use crate::{x::X, b::{B, C}};"), b, ("src/x.rs", "")],
        &[("src/a.rs", "use crate::c::c;"), b, ("src/c.rs", "fn c() { crate::b::B }")],
        &[("src/a.rs", "fn f() { super::b::B }"), b],
        &[("src/a.rs", "use postrider::b::B;"), b],
        // More than a piece of the type's file.
        &[
            ("src/d/mod.rs", "use crate::d::e::E; struct D; fn f() {}"),
            ("src/d/e.rs", "use crate::d::{D, f};\nimpl D {}"),
        ],
        &[
            ("src/d/mod.rs", "use crate::d::e::E; trait D {}"),
            ("src/d/e.rs", "use crate::d::D;\nimpl D for E {}"),
        ],
        // A parent's own item, and a child's.
        &[("src/d/mod.rs", "use crate::d::e::E; fn d() {}"), ("src/d/e.rs", "use crate::d::d;")],
        // Through a name that is handed on.
        &[deep, ("src/d/e.rs", "use crate::a::A;"), ("src/a.rs", "use crate::d::E;")],
        &[
            ("src/lib.rs", "pub use a::A; fn f() {} fn g() { crate::a::A }"),
            ("src/a.rs", "use crate::f;"),
        ],
    ] {
        assert_eq!(found(texts), 1, "{texts:?}");
    }
    for texts in [
        &[("src/a.rs", "pub struct A; // crate::b::B"), b] as &[_],
        &[("src/a.rs", "pub struct A;\n#[cfg(test)]\nmod tests { use crate::b::B; }"), b],
        &[("src/a_tests.rs", "use crate::b::B;"), b],
        &[
            ("src/d/mod.rs", "use crate::d::e::E; struct D;"),
            ("src/d/e.rs", "use crate::d::D;\nimpl<T: Copy> D<T> {}"),
        ],
        &[("src/d/mod.rs", "use crate::d::e::E;"), ("src/d/e.rs", "pub(in crate::d) struct E;")],
        // Its own name, through the parent that hands it on.
        &[deep, ("src/d/e.rs", "pub struct E; fn f() -> crate::d::E {}")],
        &[deep, ("src/d/e.rs", "use crate::d::d; pub struct E;")],
        &[("src/d/mod.rs", "pub mod e; use crate::d::e::E;"), ("src/d/e.rs", "use crate::x;")],
    ] {
        assert_eq!(found(texts), 0, "{texts:?}");
    }
}
