//! A signal stops, a second one stops at once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{CLOSED, Place};

/// A relay that looks for its broker for several seconds, and the lines that it says.
fn looking_for_a_broker(place: &Place) -> (Child, impl Iterator<Item = String>) {
    let url = format!("postgres://u@{CLOSED}/d");
    let mut command = place.postrider(&["run", "--database-url", &url, "--brokers", CLOSED]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[track_caller]
fn await_line(lines: &mut impl Iterator<Item = String>, word: &str) {
    assert!(lines.any(|line| line.contains(word)), "{word:?} was never said");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM"), ("-TERM", "-INT")] {
        let place = Place::new();
        let (mut child, mut lines) = looking_for_a_broker(&place);
        await_line(&mut lines, "postrider starts");
        send(first, &child);
        await_line(&mut lines, "stopping");
        let begin = Instant::now();
        send(second, &child);
        await_line(&mut lines, "a second signal");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
}
