//! The order service as people run it: the example itself, with a real PostgreSQL and a real Kafka, and with everything
//! killed that can be killed.
//!
//! `ORDER_SERVICE_SECONDS` makes the run longer: `just orders` gives it a minute.

#![expect(clippy::print_stdout, reason = "who waits for a long run sees what it does")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Between two kills.
const KILL_EVERY_MS: u32 = 1_500;
const SECONDS: u32 = 15;
const RUNS_MAX: u32 = 3;
const PAGE_DEADLINE: Duration = Duration::from_secs(30);

/// A run that ends with the test.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().expect("it is ours to kill");
            self.0.wait().expect("it was killed");
        }
    }
}

/// Where it lies. `cargo test` builds examples, `cargo test --test order_service` does not: then it is built here.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("it lies in target/…/deps");
    let example = folder.join("examples/order_service");
    let built_at = example.metadata().and_then(|file| file.modified()).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources =
        ["examples/order_service", "src", "sql", "testkit/src", "token/src", "Cargo.lock"];
    let is_fresh = |built_at| sources.iter().all(|path| newest(&root.join(path)) <= built_at);
    if !built_at.is_some_and(is_fresh) {
        let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--example", "order_service"])
            .args(profile)
            .current_dir(root)
            .status()
            .expect("cargo is there");
        assert!(built.success(), "the example does not build");
    }
    example
}

/// When anything in there was changed last.
fn newest(path: &Path) -> SystemTime {
    let file = path.metadata().expect("it is in the tree");
    let own = file.modified().expect("files have times");
    if file.is_file() {
        return own;
    }
    let entries = fs::read_dir(path).expect("the folder is readable");
    entries.map(|entry| newest(&entry.expect("it is readable").path())).max().unwrap_or(own)
}

/// Runs it to its end, with its page; its exit code is 0 and this is what it said.
fn run(arguments: &[&str]) -> Vec<String> {
    let mut child = Command::new(example())
        .args(["--page", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let output = child.stdout.take().expect("it was asked for");
    let mut run = Run(child);
    let (mut lines, mut page) = (Vec::new(), None);
    for line in BufReader::new(output).lines() {
        let line = line.expect("it says text");
        println!("{line}");
        if let Some(address) = line.strip_prefix("the page: ") {
            page = Some(address.to_owned());
            look_at_beginning(address);
        }
        if line == "the page stays until Ctrl-C" {
            look_at_end(page.as_ref().expect("the page has an address"));
            let process = run.0.id().to_string();
            let told = Command::new("kill").args(["-s", "INT", &process]).status();
            assert!(told.expect("there is a shell").success());
        }
        lines.push(line);
    }
    let status = run.0.wait().expect("it has ended its output");
    assert!(status.success(), "{status}: {lines:#?}");
    lines
}

/// What the server of the page says.
fn ask(page: &str, request: &str, header: &str) -> String {
    let address = page.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).expect("the page is there");
    let text =
        format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(text.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn look_at_beginning(page: &str) {
    assert!(ask(page, "GET /", "").contains("<title>The order service</title>"));
    // Another page in the same browser must not be able to press the buttons.
    assert!(ask(page, "POST /fault/stock", "").starts_with("HTTP/1.1 403"));
    let pressed = ask(page, "POST /fault/stock", "x-order-service: test\r\n");
    assert!(pressed.starts_with("HTTP/1.1 200"), "{pressed}");
    let nobody = ask(page, "POST /fault/nobody", "x-order-service: test\r\n");
    assert!(nobody.starts_with("HTTP/1.1 404"), "{nobody}");
}

/// The page knows the verdict and the flow, and a browser draws them: `ORDER_SERVICE_BROWSER` names one of Chromium's kind.
fn look_at_end(page: &str) {
    let words = ["agreement: ", "\"OrderShipped\"", "\"outbox.event.payment\"", "kill -9 "];
    let begin = Instant::now();
    loop {
        // The page looks twice a second, and may be behind when a server was away.
        let view = ask(page, "GET /view", "");
        let missing = words.iter().find(|word| !view.contains(**word));
        let Some(word) = missing else { break };
        assert!(begin.elapsed() < PAGE_DEADLINE, "no {word} in {view}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let Some(browser) = std::env::var_os("ORDER_SERVICE_BROWSER") else { return };
    let drawn = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"])
        .args(["--dump-dom", page])
        .output()
        .expect("the browser starts");
    let drawn = String::from_utf8_lossy(&drawn.stdout);
    for word in [" relayed</text>", "class=\"shipped\"", "send, then commit", "OrderShipped"] {
        assert!(drawn.contains(word), "no {word} in {drawn}");
    }
}

/// The first number behind `before`, in the line that has it.
fn number(lines: &[String], before: &str) -> u32 {
    let found = lines.iter().find_map(|line| line.split_once(before));
    let (_, rest) = found.unwrap_or_else(|| panic!("no {before:?} in {lines:#?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before:?} in {lines:#?}"))
}

#[test]
fn services_agree_whatever_is_killed_and_two_writes_do_not() {
    let longer = std::env::var("ORDER_SERVICE_SECONDS").ok();
    let seconds = longer.map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let (seconds_text, every) = (seconds.to_string(), KILL_EVERY_MS.to_string());
    let traffic = ["--seconds", &seconds_text, "--rate", "15"];
    let faults = ["--chaos", "--kill-every", &every, "--naive"];
    let arguments = [&traffic[..], &faults[..]].concat();
    let wanted_kills = seconds * 1_000 / KILL_EVERY_MS * 3 / 4;
    // Each way of writing twice loses the half that it is known for, while Kafka or PostgreSQL is away. Whether an order
    // comes just then is up to chance: what one run does not show another one does.
    let (mut without_event, mut without_order) = (0, 0);
    for _ in 0..RUNS_MAX {
        let lines = run(&arguments);
        assert!(number(&lines, "kills: ") >= wanted_kills, "{lines:#?}");
        assert!(number(&lines, "orders: ") > seconds * 5, "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("agreement: ")), "{lines:#?}");
        without_event += losses(&lines, "commit-then-send", " orders without event");
        without_order += losses(&lines, "send-then-commit", " events without order");
        if without_event > 0 && without_order > 0 {
            return;
        }
    }
    panic!("{without_event} orders without event, {without_order} events without order");
}

/// What a way of writing twice has lost.
fn losses(lines: &[String], variant: &str, what: &str) -> u32 {
    let line = lines.iter().find(|line| line.starts_with(variant)).expect("it was asked for");
    let (before, _) = line.split_once(what).expect("the ledger says so");
    let count = before.rsplit([' ', ';']).find(|word| !word.is_empty()).expect("a number");
    count.parse().expect("a number")
}
