//! A copy of the tree in which mutants live and die.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::list::{Killer, Mutant};

const OK: &str = "cargo and git run";
/// For one build or the tests of one killer.
const PATIENCE_SECONDS: &str = "600";

/// A copy of the tree below `target`, with a build folder of its own that serves all mutants.
pub(crate) struct Tree {
    folder: PathBuf,
    build: PathBuf,
}

impl Tree {
    /// Copies what git knows of, as it lies in the folder; files that did not change keep their age.
    pub(crate) fn copy(root: &Path) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in target");
        let (folder, build) = (target.join("mutants/tree"), target.join("mutants/build"));
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
        fs::create_dir_all(&self.build).expect("target can be written");
        let debug = target.join("debug");
        let copied =
            Command::new("cp").arg("-a").arg(&debug).arg(&self.build).status().expect("cp runs");
        assert!(copied.success(), "copying {}", debug.display());
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            return;
        }
        let parent = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)).expect("it is ours");
    }

    /// Without a mutation all killers pass: or they would kill anything.
    pub(crate) fn check_killers(&self, mutants: &[Mutant]) {
        for killer in mutants.iter().flat_map(|mutant| &mutant.killers) {
            let output = self.test(killer, false);
            assert!(output.status.success(), "{killer:?} fails by itself:\n{}", end_of(&output));
        }
    }

    /// The first test that fails with the mutation.
    pub(crate) fn killer_of<'a>(&self, mutant: &'a Mutant) -> Option<&'a Killer> {
        let mut originals = Vec::new();
        for change in &mutant.changes {
            let path = self.folder.join(&change.file);
            let text = fs::read_to_string(&path).expect("it was copied");
            let changed = change.apply(&text).unwrap_or_else(|e| panic!("{}: {e}", mutant.name));
            self.write(&change.file, changed.as_bytes());
            originals.push((&change.file, text));
        }
        let killer = mutant.killers.iter().find(|killer| {
            let built = self.test(killer, true);
            assert!(built.status.success(), "{}: {}", mutant.name, end_of(&built));
            let output = self.test(killer, false);
            !output.status.success()
        });
        for (file, text) in originals {
            self.write(file, text.as_bytes());
        }
        killer
    }

    fn test(&self, killer: &Killer, only_builds: bool) -> Output {
        // A mutant may hang: then its whole group is ended, and the test has failed.
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", PATIENCE_SECONDS, env!("CARGO")])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.build)
            .args(["test", "--offline"]);
        match killer.target.as_str() {
            "lib" => command.arg("--lib"),
            target => command.args(["--test", target]),
        };
        if only_builds {
            command.arg("--no-run");
        } else {
            command.arg(&killer.filter);
        }
        let output = command.output().expect(OK);
        let said = String::from_utf8_lossy(&output.stdout);
        let ran = only_builds || !said.contains("running 0 tests");
        assert!(ran, "{killer:?} runs nothing");
        output
    }
}

fn end_of(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
