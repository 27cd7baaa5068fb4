//! A copy of the tree in which mutants live and die.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::list::{Killer, Mutant};

const OK: &str = "cargo and git run";
/// For a build and the tests of one killer.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// For a build and the tests of all killers of a target.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(60 * 60);

/// A copy of the tree below `target`, with a build folder of its own that serves all mutants.
pub(crate) struct Tree {
    folder: PathBuf,
    build: PathBuf,
}

impl Tree {
    /// Copies what git knows of, as it lies in the folder; files that did not change keep their age.
    pub(crate) fn copy(root: &Path, lane: usize) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in target");
        let lane = target.join(format!("mutants/{lane}"));
        let (folder, build) = (lane.join("tree"), lane.join("build"));
        let listed = Command::new("git")
            .current_dir(root)
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .output()
            .expect(OK);
        assert!(listed.status.success(), "git ls-files: {listed:?}");
        let tree = Self { folder, build };
        for name in String::from_utf8_lossy(&listed.stdout).lines() {
            let from = root.join(name);
            if from.is_file() {
                tree.write(name, &fs::read(&from).unwrap_or_else(|e| panic!("{name}: {e}")));
            }
        }
        tree.warm(target);
        tree
    }

    /// Dependencies need not be built again.
    fn warm(&self, target: &Path) {
        if self.build.exists() {
            return;
        }
        let (from, to) = (target.join("debug"), self.build.join("debug"));
        fs::create_dir_all(&to).expect("target can be written");
        for part in ["build", "deps", ".fingerprint"] {
            let part = from.join(part);
            let copied =
                Command::new("cp").arg("-a").arg(&part).arg(&to).status().expect("cp runs");
            assert!(copied.success(), "copying {}", part.display());
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            return;
        }
        let parent = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)).expect("it is ours");
    }

    /// Without a mutation all killers pass: or they would kill anything. Those of a target share one run,
    /// and its servers.
    pub(crate) fn check_killers(&self, mutants: &[Mutant]) -> Option<String> {
        let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Killer { target, filter } in mutants.iter().flat_map(|mutant| &mutant.killers) {
            targets.entry(target).or_default().push(filter);
        }
        targets.into_iter().find_map(|(target, filters)| {
            let output = self.test(target, &filters, PATIENCE_WITH_ALL);
            let fate = Fate::of(&output);
            let is_fault = fate != Fate::Survives;
            is_fault.then(|| format!("{target} by itself: {fate:?}\n{}", end_of(&output)))
        })
    }

    /// What the tests say of a mutation: the first that fails ends it.
    pub(crate) fn fate_of(&self, mutant: &Mutant) -> Fate {
        let mut originals = Vec::new();
        for change in &mutant.changes {
            let path = self.folder.join(&change.file);
            let text = fs::read_to_string(&path).expect("it was copied");
            let changed = change.apply(&text).unwrap_or_else(|e| panic!("{}: {e}", mutant.name));
            self.write(&change.file, changed.as_bytes());
            originals.push((&change.file, text));
        }
        let fates = mutant.killers.iter().map(|Killer { target, filter }| {
            let output = self.test(target, &[filter], PATIENCE);
            Fate::of(&output)
        });
        let fate = fates.into_iter().find(|fate| *fate != Fate::Survives);
        for (file, text) in originals {
            self.write(file, text.as_bytes());
        }
        fate.unwrap_or(Fate::Survives)
    }

    /// Builds a target's tests and runs those that match.
    fn test(&self, target: &str, filters: &[&str], patience: Duration) -> Output {
        // A mutant may hang: then its whole group is ended, and the test has failed.
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", &patience.as_secs().to_string(), env!("CARGO")])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("RUST_BACKTRACE", "0")
            .args(["test", "--offline"]);
        match target {
            "lib" => command.arg("--lib"),
            "testkit" => command.args(["--package", "postrider-testkit", "--lib"]),
            target => command.args(["--test", target]),
        };
        command.arg("--").args(filters).output().expect(OK)
    }
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By this test, the first that failed.
    Killed(String),
    Survives,
    /// The mutation is no Rust, or nothing matches.
    NotTried(String),
}

impl Fate {
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stdout);
        let ran =
            said.lines().any(|line| line.starts_with("running ") && line != "running 0 tests");
        if !ran {
            return Self::NotTried(end_of(output));
        }
        if output.status.success() {
            return Self::Survives;
        }
        let failed = said.lines().filter_map(|line| line.strip_prefix("test "));
        let mut failed = failed.filter_map(|line| line.strip_suffix(" ... FAILED"));
        Self::Killed(failed.next().unwrap_or("a test that did not end").to_owned())
    }
}

fn end_of(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
