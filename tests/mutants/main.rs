//! Mutants that must die: small changes of the code, each of which a test must notice.
//!
//! Promises: every mutation of the list fits the code as it is, and names tests that exist; the README tells of each; those that
//! `POSTRIDER_MUTANTS` asks for (`all`, or numbers with commas; `just mutants` does it) are built in a
//! copy of the tree, and must make one of their tests fail. Must not: change the tree itself.
//! Fails: with each mutation that fits no more, does not build, or survives.

#![allow(clippy::print_stdout, reason = "a test may talk")]

mod list;
mod tree;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use list::{Killer, Mutant};
use tree::{Fate, Tree};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_whole_catalogue_is_there() {
    let mutants = list::read(root());
    for number in 1..=16 {
        let name = format!("M{number}");
        let found = mutants.iter().filter(|mutant| mutant.name == name).count();
        assert_eq!(found, 1, "{name}");
    }
    for Mutant { name, waits, killers, changes, .. } in &mutants {
        let is_whole =
            killers.is_empty() == waits.is_some() && changes.is_empty() == waits.is_some();
        assert!(is_whole, "{name}: either a reason to wait, or tests and changes");
        let namesakes = mutants.iter().filter(|other| other.name == *name).count();
        assert_eq!(namesakes, 1, "{name}: give one of them another number");
    }
}

#[test]
fn every_mutation_fits_the_code() {
    for mutant in list::read(root()) {
        for change in &mutant.changes {
            let path = root().join(&change.file);
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", change.file));
            change.apply(&text).unwrap_or_else(|reason| panic!("{}: {reason}", mutant.name));
        }
    }
}

/// A killer that was renamed would let its mutant survive, or kill it by chance.
#[test]
fn every_killer_exists() {
    for mutant in list::read(root()) {
        for Killer { target, filter } in &mutant.killers {
            let folder = match target.as_str() {
                "lib" => "src".to_owned(),
                "testkit" => "testkit/src".to_owned(),
                target => format!("tests/{target}"),
            };
            let path = filter.trim_end_matches("::").replace("::", "/");
            let (module, function) = path.rsplit_once('/').unwrap_or(("main", path.as_str()));
            let is_module = |path: &str| {
                let folder = root().join(&folder);
                folder.join(format!("{path}.rs")).exists() || folder.join(path).is_dir()
            };
            let holds = |module: &str| {
                let path = root().join(&folder).join(format!("{module}.rs"));
                fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {function}(")))
            };
            let found = if filter.ends_with("::") { is_module(&path) } else { holds(module) };
            assert!(found, "{}: {target} has no {filter}", mutant.name);
        }
    }
}

/// What people read of the list.
#[test]
fn the_readme_tells_of_each_mutant() {
    let readme = fs::read_to_string(root().join("tests/mutants/README.md")).expect("it is there");
    for Mutant { name, what, killers, .. } in list::read(root()) {
        let killers =
            killers.iter().map(|Killer { target, filter }| format!("`{target} {filter}`"));
        let row = format!("| {name} | {what} | {} |", killers.collect::<Vec<_>>().join(", "));
        assert!(readme.lines().any(|line| line == row), "it lacks:\n{row}");
    }
}

#[test]
fn mutants_that_are_asked_for_die() {
    let Ok(asked) = std::env::var("POSTRIDER_MUTANTS") else {
        println!("none is asked for: `just mutants` does");
        return;
    };
    let wanted = |mutant: &Mutant| asked == "all" || asked.split(',').any(|one| one == mutant.name);
    let mutants: Vec<Mutant> = list::read(root()).into_iter().filter(wanted).collect();
    assert!(!mutants.is_empty(), "POSTRIDER_MUTANTS={asked} names none");
    let begin = Instant::now();
    let trial = Trial { mutants: &mutants, next: AtomicUsize::new(0), faults: Mutex::default() };
    std::thread::scope(|scope| {
        for lane in 1..=LANES {
            let trial = &trial;
            scope.spawn(move || trial.work(&Tree::copy(root(), lane)));
        }
    });
    println!("all in {} s", begin.elapsed().as_secs());
    let faults = trial.faults.into_inner().expect("no lane panicked");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// One builds while the tests of another wait for their servers.
const LANES: usize = 2;

/// What all lanes work at: first that the killers kill nothing by themselves, then each mutant.
struct Trial<'a> {
    mutants: &'a [Mutant],
    next: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Trial<'_> {
    fn work(&self, tree: &Tree) {
        loop {
            let begin = Instant::now();
            let (job, fault) = match self.next.fetch_add(1, Ordering::Relaxed) {
                0 => {
                    ("all killers without a mutation".to_owned(), tree.check_killers(self.mutants))
                }
                number => match self.mutants.get(number - 1) {
                    Some(mutant) => self.try_one(tree, mutant),
                    None => return,
                },
            };
            println!("{:>4} s  {job}", begin.elapsed().as_secs());
            if let Some(fault) = fault {
                println!("{fault}");
                self.faults.lock().expect("no lane panicked").push(fault);
            }
        }
    }

    /// What is to be said of a mutant, and what is wrong with that.
    fn try_one(&self, tree: &Tree, mutant: &Mutant) -> (String, Option<String>) {
        let Mutant { name, what, waits, .. } = mutant;
        let (said, fault) = match waits {
            Some(reason) => (format!("waits: {reason}"), None),
            None => match tree.fate_of(mutant) {
                Fate::Killed(test) => (format!("killed by {test}"), None),
                Fate::Survives => ("LIVES".to_owned(), Some(format!("{name} lives"))),
                Fate::NotTried(said) => {
                    ("WAS NOT TRIED".to_owned(), Some(format!("{name} was not tried: {said}")))
                }
            },
        };
        (format!("{name:<4} {what:<75} {said}"), fault)
    }
}
