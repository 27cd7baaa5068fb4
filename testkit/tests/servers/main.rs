//! The embedded servers against the real PostgreSQL and Kafka: they start, survive what they should
//! survive, and leave nothing behind.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what failed")]
#![allow(clippy::print_stdout, reason = "the lines are shown when a test fails")]

mod abandoned;
mod broker;
mod database;

use std::path::Path;
use std::time::{Duration, Instant};

/// Prints progress, so that a failed test shows how far it came.
fn progress(line: &str) {
    println!("{line}");
}

/// True when the condition holds before the time is over.
fn holds_within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    condition()
}

/// True while a process has this number and is not a zombie.
fn lives(process: u32) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &process.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// The server's own folder: the parent of its data.
fn own_folder(data: &Path) -> &Path {
    data.parent().unwrap()
}
