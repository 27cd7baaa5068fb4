//! Starts processes, starts them again when they end, and kills them when somebody asks.
//!
//! That a killed process is simply started again is the whole of its recovery: all that it knew is in PostgreSQL and
//! in Kafka.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Tells a process that somebody watches over it.
const SUPERVISED: &str = "ORDER_SERVICE_SUPERVISED";
const LOOK: Duration = Duration::from_millis(20);
/// As an orchestrator would take a moment.
const PAUSE: Duration = Duration::from_millis(200);

/// A supervised process ends with whoever started it: the pipe that is its standard input then breaks.
pub(crate) fn end_with_parent() {
    if std::env::var_os(SUPERVISED).is_some() {
        std::thread::spawn(|| {
            let ended = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(i32::from(ended.is_err()) + 1)
        });
    }
}

/// A process to keep alive.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// A process that is kept alive.
#[derive(Debug)]
struct Kept {
    process: Process,
    log: PathBuf,
    running: Mutex<Option<Child>>,
    kills: AtomicU32,
}

/// All of them; dropped, they end.
#[derive(Debug)]
pub(crate) struct Supervisor {
    kept: Vec<Arc<Kept>>,
    watchers: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Supervisor {
    /// Starts all; each writes its log into the folder.
    pub(crate) fn start(processes: Vec<Process>, folder: &Path) -> Result<Self> {
        let mut all = Self { kept: Vec::new(), watchers: Vec::new(), is_over: Arc::default() };
        for process in processes {
            let log = folder.join(format!("{}.log", process.name));
            let (running, kills) = (Mutex::default(), AtomicU32::default());
            let kept = Arc::new(Kept { process, log, running, kills });
            kept.start()?;
            all.kept.push(Arc::clone(&kept));
            let is_over = Arc::clone(&all.is_over);
            all.watchers.push(std::thread::spawn(move || kept.watch(&is_over)));
        }
        Ok(all)
    }

    /// Kills a process (kill -9); its watcher starts it again.
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        let kept = self.kept.iter().find(|kept| kept.process.name == name);
        let kept = kept.with_context(|| format!("no process {name}"))?;
        let mut running = kept.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = running.as_mut() {
            child.kill()?;
            kept.kills.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Names and kills, in the order in which they were given.
    pub(crate) fn kills(&self) -> Vec<(&'static str, u32)> {
        self.kept.iter().map(|it| (it.process.name, it.kills.load(Ordering::Relaxed))).collect()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        for watcher in self.watchers.drain(..) {
            watcher.join().expect("a watcher does not panic");
        }
    }
}

impl Kept {
    fn start(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(std::env::current_exe()?)
            .args(&self.process.arguments)
            .envs(self.process.environment.iter().map(|(name, value)| (name, value)))
            .env(SUPERVISED, "1")
            // Ctrl-C is for the stage alone.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.process.name))?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    fn watch(&self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            if self.has_ended() {
                std::thread::sleep(PAUSE);
                if let Err(error) = self.start() {
                    eprintln!("{error:#}; once more");
                }
            }
        }
        let child = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return };
        let ended = child.kill().and_then(|()| child.wait());
        if let Err(cause) = ended {
            eprintln!("cannot end {}: {cause}", self.process.name);
        }
    }

    fn has_ended(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let has_ended = running.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if has_ended {
            *running = None;
        }
        has_ended
    }
}

/// Runs this program once as a command of postrider.
pub(crate) fn postrider(url: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "postrider {}: {said}", arguments.join(" "));
    Ok(())
}
