//! Pages and the links between them.
//!
//! Promises: every relative link of a page leads to a file of the tree, and its anchor to a heading of it; a path that a
//! page quotes is there; every page of `docs/` is listed; the README stays a door. Must not: ask the network. Fails: with page, line and target.

use std::collections::BTreeMap;

use crate::report;
use crate::sources::{Source, exists, files};

/// The README is read before anything else: what does not fit belongs on a page of `docs/`.
const README_BYTES_MAX: usize = 12_000;

/// Folders by whose name a quoted path is known.
const FOLDERS: &[&str] =
    &["src/", "sql/", "tests/", "docs/", "load/", "benches/", "testkit/", "token/", "fuzz/"];

/// Pages that tell of other days, whose files may be gone, or of the trees of others.
const NOT_OF_THIS_TREE: &[&str] = &["load/runs/", "CHANGELOG.md", "THIRD-PARTY.md"];

/// A link of a page: where it stands, and what it names.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    line: usize,
    target: String,
}

/// A page's lines with their numbers, without those of code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// The line with blanks in place of what is quoted as code.
fn without_code(line: &str) -> String {
    let pieces = line.split('`').enumerate();
    pieces.map(|(index, piece)| if index % 2 == 0 { piece } else { " " }).collect()
}

/// Links to places of the tree: those with a scheme lead elsewhere.
fn links(text: &str) -> Vec<Link> {
    let in_line = |(number, line): (usize, &str)| {
        let line = without_code(line);
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let targets = targets.map(|(target, _)| target.to_owned());
        let inner = targets.filter(|target| !target.contains("://"));
        inner.map(|target| Link { line: number, target }).collect::<Vec<_>>()
    };
    prose(text).flat_map(in_line).collect()
}

/// Paths of the tree that stand in a page as code.
fn quoted_paths(text: &str) -> Vec<Link> {
    let is_path = |quoted: &&str| {
        FOLDERS.iter().any(|folder| quoted.starts_with(folder))
            && quoted.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
    };
    let in_line = |(line, text): (usize, &str)| {
        let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        quoted
            .into_iter()
            .filter(|quoted| is_path(&quoted.as_str()))
            .map(move |target| Link { line, target })
    };
    prose(text).flat_map(in_line).collect()
}

/// The anchors that a forge makes of a page's headings.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let heading = |(_, line): (usize, &str)| {
        let title = line.trim_start_matches('#');
        let anchor =
            (line.starts_with('#') && title.starts_with(' ')).then(|| slug(title.trim()))?;
        let count = seen.entry(anchor.clone()).or_default();
        *count += 1;
        Some(if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) })
    };
    prose(text).filter_map(heading).collect()
}

/// Small letters, figures, `-` and `_`; blanks become `-`, and all else goes.
fn slug(title: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    };
    title.to_lowercase().chars().filter_map(kept).collect()
}

/// A path as seen from the root, of a target as seen from `page`; none when it leaves the tree.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut steps: Vec<&str> = page.split('/').collect();
    steps.pop();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()?),
            name => steps.push(name),
        }
    }
    Some(steps.join("/"))
}

/// What is wrong with the links of one page.
fn link_findings(page: &Source, pages: &[Source], is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let finding = |Link { line, target }: Link| {
        let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = match path.is_empty() {
            true => Some(page.path.clone()),
            false => resolve(&page.path, path),
        };
        let place = format!("{}:{line}: {target}", page.path);
        let Some(path) = path.filter(|path| is_there(path)) else {
            return Some(format!("{place}: no such file; name the one that has it now"));
        };
        let other = pages.iter().find(|other| other.path == path);
        let has_anchor =
            other.is_some_and(|other| anchors(&other.text).iter().any(|one| one == anchor));
        (!anchor.is_empty() && !has_anchor)
            .then(|| format!("{place}: {path} has no such heading; name the one that it has now"))
    };
    links(&page.text).into_iter().filter_map(finding).collect()
}

#[test]
fn links_lead_somewhere() {
    let pages = files("", &[".md"]);
    assert!(pages.iter().any(|page| page.path == "README.md"), "the pages were not found");
    let findings = pages.iter().flat_map(|page| link_findings(page, &pages, exists));
    report(&findings.collect::<Vec<_>>());
}

fn path_findings(page: &Source, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let missing = quoted_paths(&page.text).into_iter().filter(|path| !is_there(&path.target));
    let finding = |Link { line, target }| {
        format!("{}:{line}: {target} is not there; name the one that does it now", page.path)
    };
    missing.map(finding).collect()
}

#[test]
fn quoted_paths_are_there() {
    let is_other =
        |page: &&Source| NOT_OF_THIS_TREE.iter().any(|other| page.path.starts_with(other));
    let pages = files("", &[".md"]);
    let findings =
        pages.iter().filter(|page| !is_other(page)).flat_map(|page| path_findings(page, exists));
    report(&findings.collect::<Vec<_>>());
}

#[test]
fn every_page_of_docs_is_listed() {
    let pages = files("docs", &[".md"]);
    let list = pages.iter().find(|page| page.path == "docs/README.md").expect("it is there");
    let listed: Vec<_> =
        links(&list.text).iter().filter_map(|link| resolve(&list.path, &link.target)).collect();
    let missing =
        pages.iter().filter(|page| page.path != list.path && !listed.contains(&page.path));
    let finding = |page: &Source| format!("{}: docs/README.md does not list it", page.path);
    report(&missing.map(finding).collect::<Vec<_>>());
}

#[test]
fn the_readme_is_a_door() {
    let readme = files("", &["README.md"]).into_iter().find(|page| page.path == "README.md");
    let bytes = readme.expect("it is there").text.len();
    assert!(bytes <= README_BYTES_MAX, "README.md has {bytes} bytes; move what is detail to docs/");
}

#[test]
fn broken_links_are_found() {
    let page = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let other = page(
        "docs/a.md",
        "# A\n\n## Kafka's `x_y` client\n\n## Twice\n\n## Twice\n\n```sh\n# no\n```\n",
    );
    assert_eq!(anchors(&other.text), ["a", "kafkas-x_y-client", "twice", "twice-1"]);
    let findings = |path: &str, text: &str| {
        let pages = [page(path, text), page(&other.path, &other.text)];
        link_findings(&pages[0], &pages, |path| pages.iter().any(|page| page.path == path)).len()
    };
    for whole in [
        "[a](docs/a.md)",
        "[a](docs/a.md#kafkas-x_y-client) and [a](./docs/a.md#twice-1)",
        "# Me\n[me](#me)",
        "[b](https://elsewhere.example/b.md)",
        "`[b](b.md)`",
        "```\n[b](b.md)\n```",
    ] {
        assert_eq!(findings("README.md", whole), 0, "{whole}");
    }
    for broken in [
        "[b](b.md)",
        "[a](docs/a.md#no)",
        "[me](#me)",
        "[up](../README.md)",
        "x\n\n| [b](docs/b.md) |",
    ] {
        assert_eq!(findings("README.md", broken), 1, "{broken}");
    }
    assert_eq!(findings("docs/b.md", "[a](a.md#twice) [c](../docs/c.md) [r](../README.md)"), 2);
    let quoting = "see `src/a.rs`, `src/b.rs` and `tests/a b`\n```\n`src/b.rs`\n```\n";
    assert_eq!(path_findings(&page("A.md", quoting), |path| path == "src/a.rs").len(), 1);
}
