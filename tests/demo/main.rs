//! The demo as people run it: the program itself, with a real PostgreSQL and a real Kafka.
//!
//! Each test gives the demo a temporary folder of its own, so that what it leaves behind is seen.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by a panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(180);

/// A temporary folder that the servers' user can enter.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("pr-demo-{}", std::process::id()));
        let folder = folder.with_extension(&uuid::Uuid::new_v4().simple().to_string()[..8]);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    /// Waits until the folder is empty and no process names it in its command line.
    fn assert_nothing_left(&self) {
        let begin = Instant::now();
        loop {
            let (files, processes) = (entries(&self.0), processes_naming(&self.0));
            if files.is_empty() && processes.is_empty() {
                return;
            }
            let is_late = begin.elapsed() > Duration::from_secs(15);
            assert!(!is_late, "left behind: {files:?}, {processes:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    fs::read_dir(folder)
        .unwrap()
        .map(name)
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Command lines of the servers, their guardians and tools that work in the folder.
fn processes_naming(folder: &Path) -> Vec<String> {
    let output = Command::new("ps").args(["-eo", "args="]).output().unwrap();
    assert!(output.status.success());
    let folder = folder.to_str().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains(folder)).map(str::to_owned).collect()
}

/// The number of the process whose command line has this word and the folder.
fn process_with(folder: &Path, word: &str) -> String {
    let output = Command::new("ps").args(["-eo", "pid=,args="]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let folder = folder.to_str().unwrap();
    let found = text.lines().find(|line| line.contains(word) && line.contains(folder));
    found.unwrap().split_whitespace().next().unwrap().to_owned()
}

/// A running demo, whose output is collected.
struct Demo {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    progress: Option<JoinHandle<String>>,
}

/// What a demo left: its exit code and its words.
struct Ended {
    status: ExitStatus,
    output: String,
    progress: String,
}

impl Demo {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", &folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Some(BufReader::new(child.stdout.take().unwrap()));
        let errors = child.stderr.take().unwrap();
        let progress = Some(std::thread::spawn(move || all_lines(errors)));
        Self { child, output, progress }
    }

    /// Reads lines up to one that contains `word`.
    fn read_until(&mut self, word: &str) -> String {
        let mut text = String::new();
        let output = self.output.as_mut().unwrap();
        while !text.contains(word) {
            let count = output.read_line(&mut text).unwrap();
            assert!(count > 0, "ended without {word:?}:\n{text}");
        }
        text
    }

    fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &process]).status().unwrap();
        assert!(status.success());
    }

    fn wait(mut self) -> Ended {
        let output = self.output.take().unwrap();
        let output = std::thread::spawn(move || all_lines(output));
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < DEADLINE, "the demo does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let output = output.join().unwrap();
        let progress = self.progress.take().unwrap().join().unwrap();
        println!("{progress}{output}");
        Ended { status, output, progress }
    }
}

impl Drop for Demo {
    /// A failed test leaves no demo behind; one that has ended already is no error.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn all_lines(stream: impl std::io::Read) -> String {
    let mut text = String::new();
    for line in BufReader::new(stream).lines() {
        text.push_str(&line.unwrap());
        text.push('\n');
    }
    text
}

/// The number before a word of a line that begins with `label`.
fn figure(output: &str, label: &str) -> u64 {
    let line = output.lines().find(|line| line.starts_with(label));
    let line = line.unwrap_or_else(|| panic!("no line {label:?} in\n{output}"));
    let number = line[label.len()..].split_whitespace().next().unwrap().replace(',', "");
    number.parse().unwrap_or_else(|_| panic!("no figure in {line:?}"))
}

fn assert_good(ended: &Ended) {
    let Ended { status, output, .. } = ended;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("the check    holds"), "{output}");
    assert!(output.contains("never published"), "{output}");
    assert!(output.contains("next: three commands for your own database"), "{output}");
    assert_eq!(figure(output, "committed"), figure(output, "delivered"));
    for line in output.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
}

#[test]
fn plain_demo_ends_well_and_leaves_nothing() {
    let folder = Folder::new();
    let ended = Demo::start(&folder, &["--seconds", "5", "--rate", "500", "--plain"]).wait();
    assert_good(&ended);
    assert!(ended.progress.contains("PostgreSQL") && ended.progress.contains("Apache Kafka"));
    let (committed, rolled_back) =
        (figure(&ended.output, "committed"), figure(&ended.output, "rolled back"));
    assert!((500..=2_600).contains(&committed), "{committed}");
    assert!(rolled_back * 10 > committed / 3 && rolled_back * 10 < committed * 2, "{rolled_back}");
    folder.assert_nothing_left();
}

#[test]
fn interrupted_demo_gives_its_verdict_and_leaves_nothing() {
    let folder = Folder::new();
    let arguments = ["--seconds", "600", "--rate", "500", "--plain", "--shards", "3"];
    let mut demo = Demo::start(&folder, &arguments);
    demo.read_until("order ok");
    demo.signal("INT");
    let ended = demo.wait();
    assert_good(&ended);
    assert!(ended.progress.contains("stopped before its time"), "{}", ended.progress);
    folder.assert_nothing_left();
}

#[test]
fn interrupted_start_checks_nothing_and_leaves_nothing() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &["--plain"]);
    let begin = Instant::now();
    while entries(&folder.0).is_empty() {
        assert!(begin.elapsed() < DEADLINE, "no server was begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    demo.signal("INT");
    let ended = demo.wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.progress);
    assert!(ended.progress.contains("nothing was checked"), "{}", ended.progress);
    folder.assert_nothing_left();
}

#[test]
fn mock_broker_says_that_it_is_one() {
    let folder = Folder::new();
    let arguments = ["--seconds", "3", "--rate", "300", "--plain", "--broker", "mock"];
    let ended = Demo::start(&folder, &arguments).wait();
    assert_good(&ended);
    assert!(ended.output.contains("mock cluster instead of Kafka"), "{}", ended.output);
    folder.assert_nothing_left();
}

#[test]
fn servers_only_say_where_they_are_until_they_are_stopped() {
    let folder = Folder::new();
    let arguments = ["--servers-only", "--broker", "mock", "--postgres-setting", "work_mem=7MB"];
    let mut demo = Demo::start(&folder, &arguments);
    let text = demo.read_until("export POSTRIDER_BROKERS=");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
        line.unwrap().trim_end_matches('\'').to_owned()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let work_memory: String = runtime.block_on(async {
        let url = value("DATABASE_URL");
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let _task = tokio::spawn(connection);
        client.query_one("select current_setting('work_mem')", &[]).await.unwrap().get(0)
    });
    assert_eq!(work_memory, "7MB");
    std::net::TcpStream::connect(value("POSTRIDER_BROKERS")).unwrap();
    demo.signal("TERM");
    assert_eq!(demo.wait().status.code(), Some(0));
    folder.assert_nothing_left();
}

#[test]
fn lost_database_breaks_off_and_fails() {
    let folder = Folder::new();
    let arguments = ["--seconds", "600", "--rate", "100", "--plain", "--broker", "mock"];
    let mut demo = Demo::start(&folder, &arguments);
    demo.read_until("order ok");
    let server = process_with(&folder.0, "/postgres -D ");
    assert!(Command::new("kill").args(["-s", "KILL", &server]).status().unwrap().success());
    let ended = demo.wait();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.output.contains("the check    not finished"), "{}", ended.output);
    assert!(ended.progress.contains("error: cannot write orders"), "{}", ended.progress);
    folder.assert_nothing_left();
}

#[test]
fn closed_output_ends_the_demo() {
    let folder = Folder::new();
    let arguments = ["--seconds", "600", "--rate", "100", "--plain", "--broker", "mock"];
    let mut demo = Demo::start(&folder, &arguments);
    demo.read_until("order ok");
    drop(demo.output.take());
    let begin = Instant::now();
    while demo.child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the demo does not notice");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(demo.child.wait().unwrap().code(), Some(1));
    let progress = demo.progress.take().unwrap().join().unwrap();
    assert!(progress.contains("cannot write to standard output"), "{progress}");
    folder.assert_nothing_left();
}
