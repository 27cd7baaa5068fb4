//! The guardian: a program that ends without dropping its servers leaves nothing behind. The test
//! program runs itself again as that program.

use crate::{holds_within, lives, progress};
use postrider_testkit::servers::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const ROLE: &str = "POSTRIDER_TEST_ABANDONED";

/// What the other program tells of itself.
#[derive(Debug, Default)]
struct Left {
    processes: Vec<u32>,
    folders: Vec<String>,
}

impl Left {
    fn is_gone(&self) -> bool {
        !self.processes.iter().any(|&process| lives(process))
            && !self.folders.iter().any(|folder| Path::new(folder).exists())
    }
}

/// Not a test of its own: without the variable it is the empty half of the tests below.
#[test]
fn abandoned_program() {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    let Ok(role) = std::env::var(ROLE) else { return };
    let settings = vec![("shared_buffers".to_owned(), "16MB".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = POSTGRES.get_or_init(|| Postgres::start(options, &progress).unwrap());
    println!("process {}", postgres.process_id().unwrap().unwrap());
    println!("folder {}", postgres.data_folder().parent().unwrap().display());
    if role == "killed" {
        let kafka = KAFKA.get_or_init(|| Kafka::start(KafkaOptions::default(), &progress).unwrap());
        println!("process {}", kafka.process_id().unwrap().unwrap());
        println!("folder {}", kafka.data_folder().parent().unwrap().display());
    }
    println!("ready");
    match role.as_str() {
        "exits" => std::process::exit(7),
        _ => std::thread::sleep(Duration::from_secs(120)),
    }
}

fn start_program(role: &str) -> (Child, Left) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["abandoned::abandoned_program", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut left = Left::default();
    let mut is_ready = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("process", number)) => left.processes.push(number.parse().unwrap()),
            Some(("folder", folder)) => left.folders.push(folder.to_owned()),
            _ => is_ready = line == "ready",
        }
        if is_ready {
            break;
        }
    }
    assert!(is_ready, "the program started its servers: {left:?}");
    (child, left)
}

#[test]
fn killed_program_leaves_nothing() {
    let (mut child, left) = start_program("killed");
    assert_eq!((left.processes.len(), left.folders.len()), (2, 2));
    assert!(left.processes.iter().all(|&process| lives(process)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(holds_within(Duration::from_secs(10), || left.is_gone()), "{left:?}");
}

#[test]
fn exiting_program_leaves_nothing() {
    let (mut child, left) = start_program("exits");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(left.processes.len(), 1);
    assert!(holds_within(Duration::from_secs(10), || left.is_gone()), "{left:?}");
}
