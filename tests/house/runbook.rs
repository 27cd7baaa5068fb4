//! The runbook has an entry for whatever calls for one.
//!
//! Promises: each warning that the code logs stands in `docs/runbook.md` by its first words, and each alert of `deploy`
//! has an entry there that says what it means, what to look at, what to do and when it is over. Kinds of error and exit
//! codes are linked from the page of exit codes, whose links another test follows. Fails: with file, line and words.

use crate::report;
use crate::sources::{Source, files, take_apart};

const RUNBOOK: &str = "docs/runbook.md";
/// Shorter pieces of a message say too little to be looked for.
const PIECE_CHARS_MIN: usize = 12;
/// What every alert's entry answers.
const ANSWERS: [&str; 4] = ["**Means**", "**Look**", "**Do**", "**Over**"];
/// Nobody is on duty for a demo.
const UNWATCHED: &[&str] = &["src/demo/", "src/fuzz"];

/// A warning of the code: where it is written, and the words by which it is found.
#[derive(Debug, PartialEq, Eq)]
struct Warning {
    line: usize,
    words: String,
}

/// How many characters from an opening parenthesis to behind the one that closes it.
fn call_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The first words of a message that are the same each time.
fn fixed_words(message: &str) -> Option<String> {
    let joined: Vec<&str> = message.split("\\\n").map(str::trim_start).collect();
    let joined = joined.concat();
    let mut pieces =
        joined.split(['{', '}', '`', ';']).map(|piece| piece.trim_matches([' ', ':', ',']));
    pieces.find(|piece| piece.chars().count() >= PIECE_CHARS_MIN).map(str::to_owned)
}

/// The message is the last text of the call: fields come before it.
fn warnings(source: &Source) -> Vec<Warning> {
    let parts = take_apart(source.without_tests());
    let mut found = Vec::new();
    for call in ["warn!(", "error!("] {
        for (start, _) in parts.code.match_indices(call) {
            let opening = start + call.len() - 1;
            let line = parts.code[..start].matches('\n').count() + 1;
            let end = opening + call_length(&parts.code[opening..]);
            let last_line = parts.code[..end].matches('\n').count() + 1;
            let last = parts.strings.iter().rfind(|(at, _)| (line..=last_line).contains(at));
            let words = last.and_then(|(_, message)| fixed_words(message));
            found.extend(words.map(|words| Warning { line, words }));
        }
    }
    found
}

fn warning_findings(source: &Source, runbook: &str) -> Vec<String> {
    let finding = |Warning { line, words }: Warning| {
        let path = &source.path;
        format!(
            "{path}:{line}: {RUNBOOK} has no entry for {words:?}; say there what to do about it"
        )
    };
    let missing = |warning: &Warning| !runbook.contains(&warning.words);
    warnings(source).into_iter().filter(missing).map(finding).collect()
}

/// The runbook's lines as one, without line ends.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn runbook() -> Source {
    let pages = files("docs", &["runbook.md"]);
    pages.into_iter().find(|page| page.path == RUNBOOK).expect("it is there")
}

/// The lines below the heading of this name.
fn entry<'a>(runbook: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = runbook.split_once(&format!("\n### {name}\n"))?;
    Some(rest.split("\n#").next().unwrap_or(rest))
}

fn alert_finding(runbook: &str, name: &str) -> Option<String> {
    let Some(entry) = entry(runbook, name) else {
        return Some(format!("{RUNBOOK} has no entry `### {name}`, to which the alert points"));
    };
    let missing: Vec<&&str> = ANSWERS.iter().filter(|answer| !entry.contains(**answer)).collect();
    (!missing.is_empty()).then(|| format!("{RUNBOOK}: the entry {name} lacks {missing:?}"))
}

/// The alerts of a file of rules for Prometheus.
fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::trim).collect()
}

/// The alerts that have an entry.
fn entries(runbook: &str) -> Vec<&str> {
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### "));
    headings.filter(|heading| heading.starts_with("Postrider")).collect()
}

#[test]
fn each_warning_has_an_entry() {
    let runbook = flat(&runbook().text);
    let sources = files("src", &[".rs"]);
    let is_watched =
        |source: &&Source| !UNWATCHED.iter().any(|folder| source.path.starts_with(folder));
    let found = sources.iter().filter(is_watched);
    assert!(
        found.clone().map(|source| warnings(source).len()).sum::<usize>() > 30,
        "they are read"
    );
    report(&found.flat_map(|source| warning_findings(source, &runbook)).collect::<Vec<_>>());
}

#[test]
fn each_alert_has_an_entry() {
    let runbook = runbook().text;
    let rules = files("deploy", &[".yml", ".yaml"]);
    let named: Vec<&str> = rules.iter().flat_map(|source| alerts(&source.text)).collect();
    let written = entries(&runbook);
    assert!(written.len() >= 14, "{written:?}");
    let all = named.into_iter().chain(written);
    report(&all.filter_map(|name| alert_finding(&runbook, name)).collect::<Vec<_>>());
}

#[test]
fn what_is_missing_is_found() {
    let text = "fn a() {\n    tracing::warn!(\n        cause = \"no\",\n        \"it has \\\n         ended; again\"\n    );\n    \
                tracing::warn!(\"{way}\");\n    tracing::error!(x = f(\"y\"), \"the thread is gone\")\n}\n";
    let source = Source { path: "src/a.rs".to_owned(), text: text.to_owned() };
    let words: Vec<String> = warnings(&source).into_iter().map(|warning| warning.words).collect();
    assert_eq!(words, ["it has ended", "the thread is gone"]);
    assert_eq!(warning_findings(&source, "| `it has ended` |").len(), 1);
    let whole = "x\n### One\n**Means** **Look** **Do** **Over**\n### Two\n**Means**\n";
    assert_eq!(alert_finding(whole, "One"), None);
    assert!(alert_finding(whole, "Two").is_some() && alert_finding(whole, "Three").is_some());
    assert_eq!(alerts("rules:\n  - alert: One\n    expr: x\n"), ["One"]);
}
