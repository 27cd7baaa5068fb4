//! The relay as a process of its own: started, killed, stopped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Fixture;

pub(crate) struct RelayProcess {
    child: Child,
    log: PathBuf,
}

impl RelayProcess {
    /// Starts `postrider run` with further arguments.
    pub(crate) fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        Self::start_in(fixture, arguments, &[])
    }

    /// As [`Self::start`], with further variables.
    pub(crate) fn start_in(
        fixture: &Fixture,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{number}.log", fixture.name));
        let child = fixture
            .command()
            .arg("run")
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file can be made"))
            .spawn()
            .expect("the binary runs");
        Self { child, log }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the relay is ours to kill");
        self.child.wait().expect("the relay is ours to wait for");
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "the relay is there to get SIG{name}");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the relay is ours to wait for")
    }

    /// Asks it to stop, and waits. A process that has not come to its first step ends by the signal itself.
    pub(crate) async fn stop(self) -> ExitStatus {
        self.wait_until_it_says("postrider starts").await;
        self.signal("TERM");
        self.wait(Duration::from_secs(30)).await
    }

    /// Asks it to stop; it must end well.
    pub(crate) async fn stop_well(self) {
        self.wait_until_it_says("postrider starts").await;
        self.signal("TERM");
        self.stopped_well().await;
    }

    /// It was asked to stop; it must end well.
    pub(crate) async fn stopped_well(self) {
        let log = self.log.clone();
        let ended = self.wait(Duration::from_secs(30)).await;
        let said = std::fs::read_to_string(log).expect("the log is readable");
        assert!(ended.success(), "{ended}; it said:\n{said}");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn wait(mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the relay is ours to wait for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the relay did not end; it said:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log is readable")
    }

    /// Waits until its log contains a text.
    pub(crate) async fn wait_until_it_says(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.said().contains(text) {
            assert!(Instant::now() < deadline, "it never said {text:?}, but:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The processor time that it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the relay is running");
        let after_name = stat.rsplit(')').next().expect("the name is in parentheses");
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / TICKS_PER_SECOND)
    }

    /// How many files and connections it has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("the relay is running").count()
    }

    /// The most memory that it has held, in kilobytes.
    pub(crate) fn peak_memory_kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the relay is running");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
        let number = line.split_whitespace().nth(1).expect("the line has a number");
        number.parse().expect("the number is one")
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().expect("the relay is ours to kill");
            self.child.wait().expect("the relay is ours to wait for");
        }
    }
}
