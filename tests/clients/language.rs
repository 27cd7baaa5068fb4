//! How the programs of each language are built and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::scene::Scene;

/// One folder of `clients/`.
#[derive(Debug)]
pub(crate) struct Language {
    /// The folder's name.
    pub(crate) name: &'static str,
    /// Its programs, which are to be short.
    pub(crate) programs: &'static [&'static str],
    /// What is run in a copy of the folder before anything else.
    build: &'static [&'static [&'static str]],
    consumer: &'static [&'static str],
    writer: &'static [&'static str],
    /// What is to be installed where a command of `build` is missing.
    needs: &'static str,
}

pub(crate) const PYTHON: Language = Language {
    name: "python",
    programs: &["consumer.py", "writer.py"],
    build: &[
        &["python3", "-m", "venv", "venv"],
        &["venv/bin/pip", "install", "--quiet", "--requirement", "requirements.txt"],
    ],
    consumer: &["venv/bin/python", "consumer.py"],
    writer: &["venv/bin/python", "writer.py"],
    needs: "Python 3.10 with venv (Debian: python3-venv)",
};

pub(crate) const JAVA: Language = Language {
    name: "java",
    programs: &["src/main/java/Consumer.java", "src/main/java/Writer.java"],
    build: &[&["mvn", "--batch-mode", "--quiet", "package"]],
    consumer: &["java", "-cp", "target/classes:target/lib/*", "Consumer"],
    writer: &["java", "-cp", "target/classes:target/lib/*", "Writer"],
    needs: "a JDK 17 and Maven (Debian: openjdk-17-jdk-headless maven)",
};

pub(crate) const GO: Language = Language {
    name: "go",
    programs: &["consumer/main.go", "consumer/poll.go", "writer/main.go"],
    build: &[&["go", "build", "-o", "bin/", "./consumer", "./writer"]],
    consumer: &["bin/consumer"],
    writer: &["bin/writer"],
    needs: "Go 1.26 (go.dev; Debian's is older)",
};

pub(crate) const TYPESCRIPT: Language = Language {
    name: "typescript",
    programs: &["consumer.ts", "writer.ts"],
    build: &[
        &["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        &["node_modules/.bin/tsc", "--project", "."],
    ],
    consumer: &["node", "build/consumer.js"],
    writer: &["node", "build/writer.js"],
    needs: "Node.js 20.19 or later with npm",
};

/// A language whose programs can be run.
pub(crate) struct Built<'l> {
    language: &'l Language,
    folder: PathBuf,
}

impl Language {
    /// Copies the folder, so that nothing is left in it, and builds there. What was fetched before stays.
    pub(crate) fn build(&self) -> Built<'_> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(self.name);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(self.name);
        copy(&from, &folder);
        for command in self.build {
            let done = self.command(command, &folder).output();
            let done = done.unwrap_or_else(|cause| {
                panic!("{}: {command:?} does not run: {cause}; it needs {}", self.name, self.needs)
            });
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(done.status.success(), "{}: {command:?}: {said}", self.name);
        }
        Built { language: self, folder }
    }

    fn command(&self, words: &[&str], folder: &Path) -> Command {
        let [program, arguments @ ..] = words else { panic!("{} runs nothing", self.name) };
        // A path is one in the copy; a name is looked for as the shell would.
        let program = match program.contains('/') {
            true => folder.join(program),
            false => PathBuf::from(program),
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command
    }
}

impl Built<'_> {
    /// Lets the writer write events of so many orders.
    pub(crate) fn run_writer(&self, scene: &Scene, orders: u32) {
        let mut writer = self.language.command(self.language.writer, &self.folder);
        writer.arg(orders.to_string()).env("DATABASE_URL", &scene.shop_url);
        let done = writer.output().expect("it was built");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{}: the writer: {said}", self.language.name);
    }

    /// Starts the consumer; what it says goes into a file.
    pub(crate) fn start_consumer(&self, scene: &Scene) -> ConsumerProcess {
        let log = self.folder.join("consumer.log");
        let file = fs::File::create(&log).expect("the copy is ours");
        let mut consumer = self.language.command(self.language.consumer, &self.folder);
        consumer
            .arg(&scene.topic)
            .env("DATABASE_URL", &scene.billing_url)
            .env("BROKERS", &scene.brokers)
            // Each language forms groups in its own way.
            .env("CONSUMER", self.language.name)
            .stdout(file.try_clone().expect("a file can be had twice"))
            .stderr(file);
        ConsumerProcess { child: consumer.spawn().expect("it was built"), log }
    }
}

/// A consumer that runs; it ends with this.
pub(crate) struct ConsumerProcess {
    child: Child,
    log: PathBuf,
}

impl ConsumerProcess {
    /// Whether it still runs; fails with what it said if not.
    pub(crate) fn check(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is ours to wait for") {
            panic!("the consumer ended with {status}: {}", self.said());
        }
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours to kill");
        self.child.wait().expect("it is ours to wait for");
    }
}

impl Drop for ConsumerProcess {
    fn drop(&mut self) {
        // Where a test failed before it was killed; one that has ended is no trouble.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("target is ours");
    for entry in fs::read_dir(from).unwrap_or_else(|cause| panic!("{}: {cause}", from.display())) {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("it has a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("target is ours")),
        }
    }
}
