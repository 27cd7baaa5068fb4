//! Reads the list of mutants.

use std::fs;
use std::path::Path;

/// A small change that breaks a promise.
#[derive(Debug, Default)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) what: String,
    /// Why there is nothing to change yet.
    pub(crate) waits: Option<String>,
    pub(crate) killers: Vec<Killer>,
    pub(crate) changes: Vec<Change>,
}

/// Tests of one target: `lib`, or the name of a test binary.
#[derive(Debug)]
pub(crate) struct Killer {
    pub(crate) target: String,
    pub(crate) filter: String,
}

/// What is replaced in a file.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) file: String,
    /// Lines and what comes in their place.
    pieces: Vec<(String, String)>,
}

impl Change {
    /// The changed text.
    ///
    /// # Errors
    /// When a piece is not found exactly once.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        let mut changed = text.to_owned();
        for (old, new) in &self.pieces {
            let found = changed.matches(old.as_str()).count();
            if found != 1 {
                return Err(format!("{}: found {found} times and not once:\n{old}", self.file));
            }
            changed = changed.replacen(old.as_str(), new, 1);
        }
        if changed == text {
            return Err(format!("{}: nothing is changed", self.file));
        }
        Ok(changed)
    }
}

/// All mutants, in the order of the list.
pub(crate) fn read(root: &Path) -> Vec<Mutant> {
    let path = root.join("tests/mutants/list");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n'));
    blocks.filter(|block| !block.is_empty() && !block.starts_with('#')).map(parse).collect()
}

fn parse(block: &str) -> Mutant {
    let (head, rest) = block.split_once('\n').unwrap_or_else(|| panic!("{block}: has no body"));
    let (name, what) = head.split_once(' ').unwrap_or_else(|| panic!("{head}: says nothing"));
    let mut mutant = Mutant { name: name.to_owned(), what: what.to_owned(), ..Mutant::default() };
    for line in rest.lines() {
        take(&mut mutant, line);
    }
    mutant
}

fn take(mutant: &mut Mutant, line: &str) {
    if let Some(old) = line.strip_prefix('-') {
        let pieces = &mut pieces(mutant, line).pieces;
        match pieces.last_mut() {
            // Another line of the piece that is being read.
            Some((before, new)) if new.is_empty() => *before += &format!("{old}\n"),
            Some(_) | None => pieces.push((format!("{old}\n"), String::new())),
        }
    } else if let Some(new) = line.strip_prefix('+') {
        let pieces = &mut pieces(mutant, line).pieces;
        let (_, known) = pieces.last_mut().unwrap_or_else(|| panic!("{line}: replaces nothing"));
        *known += &format!("{new}\n");
    } else {
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}: what is it?"));
        match word {
            "waits" => mutant.waits = Some(rest.to_owned()),
            "file" => mutant.changes.push(Change { file: rest.to_owned(), pieces: Vec::new() }),
            "test" => {
                let (target, filter) =
                    rest.split_once(' ').unwrap_or_else(|| panic!("{line}: which test?"));
                let (target, filter) = (target.to_owned(), filter.to_owned());
                mutant.killers.push(Killer { target, filter });
            }
            _ => panic!("{line}: what is it?"),
        }
    }
}

fn pieces<'a>(mutant: &'a mut Mutant, line: &str) -> &'a mut Change {
    mutant.changes.last_mut().unwrap_or_else(|| panic!("{line}: of which file?"))
}
